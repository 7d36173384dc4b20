"""The configuration files of all services."""
import base64
import json
import os
import shutil

from tests.cloud import settings as cloud_settings

COMPUTE_DRIVER = "vtpm_hyperv.HyperVDriver"
AVAILABLE_FILTERS = ["nova.scheduler.filters.all_filters",
                     "vtpm_scheduling.guarded_host_filter.GuardedHostFilter"]
# First, as the documentation recommends: a filter after one that left no host is never asked, and
# the user would not read why.
ENABLED_FILTERS = ["GuardedHostFilter", "ComputeFilter", "ComputeCapabilitiesFilter",
                   "ImagePropertiesFilter", "ServerGroupAntiAffinityFilter",
                   "ServerGroupAffinityFilter"]


def render(sections):
    """The text of an oslo.config file; a list becomes an option given several times."""
    lines = []
    for section, options in sections.items():
        lines.append("[%s]" % section)
        for name, value in options.items():
            values = value if isinstance(value, list) else [value]
            lines += ["%s = %s" % (name, "" if one is None else one) for one in values]
        lines.append("")
    return "\n".join(lines)


def merge(*layers):
    """One set of sections out of several; later ones win, option by option."""
    merged = {}
    for layer in layers:
        for section, options in layer.items():
            merged.setdefault(section, {}).update(options)
    return merged


def write_apis(settings):
    """Write the files of the plain APIs below ``settings.etc``, and those of their users."""
    files = {
        "keystone": (settings.etc / "keystone/keystone.conf", _keystone),
        # Barbican looks for its file in a few fixed places; the home directory is one of them.
        "barbican": (settings.state / "home/.barbican/barbican.conf", _barbican),
        "placement": (settings.etc / "placement/placement.conf", _placement),
        "glance": (settings.etc / "glance/glance-api.conf", _glance),
    }
    for api in settings.apis:
        path, sections = files[api]
        _write(path, sections(settings))
        if api in ("barbican", "glance"):
            _copy_paste_file(settings, api, api + "-api-paste.ini")
    _write_keystone_keys(settings)
    _write_clouds(settings)


def write_nova(settings, compute_driver, available_filters, enabled_filters, nova_conf):
    """Write the files of Nova's services below ``settings.etc``.

    :param available_filters: None: Nova's own, and those that it enables
    """
    _copy_paste_file(settings, "nova", "api-paste.ini")
    scheduling = {} if available_filters is None else {
        "filter_scheduler": {"available_filters": list(available_filters),
                             "enabled_filters": ",".join(enabled_filters)}}
    common = _nova_common(settings, compute_driver)
    control = merge(common, _nova_control(settings), scheduling, nova_conf)
    computes = [merge(common, _nova_compute(settings, index), host.conf)
                for index, host in enumerate(settings.hosts)]
    if settings.one_process:
        control = merge(control, computes[0])
    _write(settings.etc / "nova/nova.conf", control)
    for host, sections in zip(settings.hosts, computes):
        _write(compute_file(settings, host), sections)


def compute_file(settings, host):
    """The configuration file of one nova-compute."""
    return settings.etc / "nova-compute" / (host.name + ".conf")


def clouds_file(settings):
    """The file in which the openstack client finds the users."""
    return settings.etc / "clouds.yaml"


def environment(settings):
    """The environment of the services: none of the caller's OpenStack, proxy or Python settings."""
    unwanted = ("OS_", "PYTHON", "RABBITMQ_", "ERL_")
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(unwanted) and not name.lower().endswith("_proxy")}
    return dict(
        kept,
        HOME=str(settings.state / "home"),
        LANG="C.UTF-8",
        PATH="%s:%s" % (settings.programs, os.environ.get("PATH", os.defpath)),
        PYTHONUNBUFFERED="1",
        PYTHONWARNINGS="ignore",
        OS_KEYSTONE_CONFIG_FILES=str(settings.etc / "keystone/keystone.conf"),
        OS_KEYSTONE_CONFIG_DIR=str(settings.etc / "keystone"),
        OS_PLACEMENT_CONFIG_DIR=str(settings.etc / "placement"),
        OS_GLANCE_CONFIG_DIR=str(settings.etc / "glance"),
        BARBICAN_PASTE_FILE=str(settings.etc / "barbican/barbican-api-paste.ini"))


def _write(path, sections):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(sections))


def _copy_paste_file(settings, service, name):
    folder = settings.etc / service
    folder.mkdir(exist_ok=True)
    shutil.copy(settings.prefix / "etc" / service / name, folder)


def credentials(settings, name):
    """How a user logs in, as keystoneauth's options."""
    return {
        "auth_type": "password",
        "auth_url": settings.auth_url,
        "username": name,
        "password": settings.passwords[name],
        "user_domain_name": "Default",
        "project_name": cloud_settings.USERS[name].project,
        "project_domain_name": "Default",
    }


def _token_check(settings, name):
    # A service token from a user with the role "service" lets an expired user token pass, as in
    # a deployment whose long operations outlive their tokens.
    return dict(credentials(settings, name), www_authenticate_uri=settings.auth_url,
                service_token_roles="service", service_token_roles_required="true")


def _default(settings, name):
    return {"debug": settings.debug, "log_file": settings.log / (name + ".log")}


def _database(settings, name):
    return {"connection": settings.database_url(name), "sqlite_synchronous": "false"}


def _keystone(settings):
    return {
        "DEFAULT": _default(settings, "keystone"),
        "database": _database(settings, "keystone"),
        "token": {"provider": "fernet", "expiration": settings.token_seconds},
        "fernet_tokens": {"key_repository": settings.state / "fernet"},
        "fernet_receipts": {"key_repository": settings.state / "fernet"},
        "credential": {"key_repository": settings.state / "credential"},
        "identity": {"password_hash_rounds": 4},
        # Without a cache a request costs some 200 queries, half a second.
        "cache": {"enabled": "true", "backend": "dogpile.cache.memory"},
    }


def _barbican(settings):
    key = base64.b64encode(os.urandom(32)).decode()
    return {
        "DEFAULT": dict(_default(settings, "barbican"), host_href=settings.url("barbican"),
                        db_auto_create="false",
                        # Of Barbican 17; 23 knows the one below alone.
                        sql_connection=settings.database_url("barbican")),
        "database": dict(_database(settings, "barbican"), db_auto_create="false"),
        "secretstore": {"enabled_secretstore_plugins": "store_crypto"},
        "crypto": {"enabled_crypto_plugins": "simple_crypto"},
        "simple_crypto_plugin": {"kek": "'%s'" % key},
        "oslo_policy": {"enforce_scope": "true", "enforce_new_defaults": "true"},
        "keystone_authtoken": _token_check(settings, "barbican"),
    }


def _placement(settings):
    return {
        "DEFAULT": _default(settings, "placement"),
        "api": {"auth_strategy": "keystone"},
        "placement_database": _database(settings, "placement"),
        "keystone_authtoken": _token_check(settings, "placement"),
    }


def _glance(settings):
    return {
        "DEFAULT": dict(_default(settings, "glance"), enabled_backends="fs:file"),
        "glance_store": {"default_backend": "fs"},
        "fs": {"filesystem_store_datadir": settings.state / "images"},
        "os_glance_staging_store": {"filesystem_store_datadir": settings.state / "image-staging"},
        "os_glance_tasks_store": {"filesystem_store_datadir": settings.state / "image-tasks"},
        "database": _database(settings, "glance"),
        "paste_deploy": {"flavor": "keystone",
                         "config_file": settings.etc / "glance/glance-api-paste.ini"},
        "oslo_concurrency": {"lock_path": settings.state / "locks"},
        "oslo_messaging_notifications": {"driver": "noop"},
        "key_manager": {"backend": "barbican"},
        "keystone_authtoken": _token_check(settings, "glance"),
    }


def _nova_common(settings, compute_driver):
    nova = credentials(settings, "nova")
    return {
        "DEFAULT": {
            "debug": settings.debug,
            # nova.service says at debug level when a service listens: Cloud waits for that.
            "default_log_levels": ",".join([
                "amqp=WARN", "sqlalchemy=WARN", "oslo_messaging=INFO", "iso8601=WARN",
                "urllib3=WARN", "stevedore=WARN", "routes.middleware=WARN", "dogpile=INFO",
                "keystonemiddleware=WARN", "taskflow=WARN", "nova.service=DEBUG"]),
            "my_ip": "127.0.0.1",
            "host": "controller",
            "state_path": settings.state / "nova",
            "transport_url": settings.transport_url,
            "compute_driver": compute_driver,
            "rpc_response_timeout": 60,
            "graceful_shutdown_timeout": 3,
            # An administrator says which nova-compute is down; a slow machine makes none so.
            "service_down_time": 600,
            # How often a nova-compute reports what its host has. Nova's own default is the
            # slowest: once a minute, the first after a random delay of up to one more. A test that
            # changes a host waits for the next report.
            "update_resources_interval": 5,
            "periodic_fuzzy_delay": 0,
            "heal_instance_info_cache_interval": -1,
            "running_deleted_instance_action": "noop",
        },
        "image_cache": {"manager_interval": -1},
        "glance": dict(nova, api_servers=settings.url("glance"),
                       region_name=cloud_settings.REGION),
        "placement": dict(nova, region_name=cloud_settings.REGION),
        "neutron": dict(nova, region_name=cloud_settings.REGION,
                        endpoint_override=settings.url("neutron")),
        "service_user": dict(nova, send_service_user_token="true"),
        "key_manager": {"backend": "barbican"},
        "barbican": {"auth_endpoint": settings.auth_url,
                     "barbican_endpoint": settings.url("barbican"),
                     "barbican_endpoint_type": "public"},
        "oslo_concurrency": {"lock_path": settings.state / "locks"},
        "oslo_messaging_notifications": {"driver": "noop"},
        "oslo_messaging_rabbit": {"heartbeat_in_pthread": "false"},
        "vnc": {"enabled": "false"},
        "spice": {"enabled": "false"},
    }


def _nova_control(settings):
    """What nova-api, nova-conductor and nova-scheduler have beside the common options."""
    return {
        "DEFAULT": {
            "osapi_compute_listen": "127.0.0.1",
            "osapi_compute_listen_port": settings.ports["nova-api"],
            "osapi_compute_workers": 1,
            "enabled_apis": "osapi_compute",
        },
        "database": _database(settings, "nova_cell1"),
        "api_database": _database(settings, "nova_api"),
        "keystone_authtoken": _token_check(settings, "nova"),
        "wsgi": {"api_paste_config": settings.etc / "nova/api-paste.ini"},
        "api": {"auth_strategy": "keystone"},
        "conductor": {"workers": 1},
        # The scheduler itself finds new hosts; nova-manage would take longer to start.
        "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 2},
        "quota": {"instances": -1, "cores": -1, "ram": -1},
    }


def _nova_compute(settings, index):
    """One host's own. No database sections: a nova-compute that has them breaks Nova's rules."""
    folder = settings.state / "hosts" / settings.hosts[index].name
    return {
        "DEFAULT": {
            "host": settings.hosts[index].name,
            # Different addresses, or a resize between two hosts looks like one on the same host.
            "my_ip": "127.0.0.%d" % (index + 1),
            "state_path": folder,
            "instances_path": folder / "instances",
        },
        "compute": {"provider_config_location": folder / "providers"},
        "oslo_concurrency": {"lock_path": folder / "locks"},
    }


def _write_keystone_keys(settings):
    """What ``keystone-manage fernet_setup`` and ``credential_setup`` write, without two programs.

    Key 0 is the next one, the highest number the one in use.
    """
    for folder in ("fernet", "credential"):
        path = settings.state / folder
        path.chmod(0o700)
        for number in ("0", "1"):
            (path / number).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
            (path / number).chmod(0o600)


def _write_clouds(settings):
    clouds = {
        name: {
            "auth": {"auth_url": settings.auth_url, "username": name,
                     "password": settings.passwords[name], "project_name": user.project,
                     "user_domain_name": "Default", "project_domain_name": "Default"},
            "region_name": cloud_settings.REGION,
        } for name, user in cloud_settings.USERS.items()
        if user.project != cloud_settings.SERVICE_PROJECT}
    path = clouds_file(settings)
    # JSON is YAML.
    path.write_text(json.dumps({"clouds": clouds}, indent=1))
    path.chmod(0o600)
