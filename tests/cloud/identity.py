"""Users, projects, roles and the service catalog, through Keystone's API."""
import keystoneauth1.session
from keystoneauth1 import adapter
from keystoneauth1.identity import v3

from tests.cloud import settings as cloud_settings

NAMES = {"key-manager": "barbican", "image": "glance", "compute": "nova"}

# No request of a test or of the demonstration takes longer on a machine that is well.
REQUEST_SECONDS = 60


def session(settings, user):
    """A session of one of the cloud's users, in the user's project."""
    auth = v3.Password(
        auth_url=settings.auth_url, username=user, password=settings.passwords[user],
        user_domain_name="Default", project_name=cloud_settings.USERS[user].project,
        project_domain_name="Default")
    return keystoneauth1.session.Session(auth, timeout=REQUEST_SECONDS)


def seed(settings):
    """Make everything that ``keystone-manage bootstrap`` has not made."""
    keystone = adapter.Adapter(session(settings, "admin"), service_type="identity",
                               interface="public", endpoint_override=settings.auth_url)

    def make(kind, **values):
        return keystone.post("/%ss" % kind, json={kind: values}).json()[kind]["id"]

    roles = {role["name"]: role["id"] for role in keystone.get("/roles").json()["roles"]}
    projects = {}
    for name, user in cloud_settings.USERS.items():
        if name == "admin":
            continue
        if user.project not in projects:
            projects[user.project] = make("project", name=user.project, domain_id="default")
        user_id = make("user", name=name, password=settings.passwords[name], domain_id="default")
        for role in user.roles:
            if role not in roles:
                roles[role] = make("role", name=role)
            keystone.put("/projects/%s/users/%s/roles/%s"
                         % (projects[user.project], user_id, roles[role]))
    for service_type, url in settings.endpoints().items():
        service = make("service", type=service_type, name=NAMES.get(service_type, service_type))
        for interface in ("public", "internal", "admin"):
            make("endpoint", service_id=service, interface=interface, url=url,
                 region_id=cloud_settings.REGION)
