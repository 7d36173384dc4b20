"""Reading keys from a real Barbican, with the configuration of a nova-compute.

What only a real one shows: what it answers in each case, and whose tokens it takes. Two of them:
Barbican 17 of nova 28's release in the cloud of all end-to-end tests, and Barbican 23 beside the
Keystone of its release. What reads is the same for both: this project, with keystoneauth1 of nova
28's time.
"""

import base64
import contextlib
import datetime
import logging
import re
import signal
import time

import pytest
from keystoneauth1 import loading
from nova import context as nova_context
from oslo_config import cfg

from tests import key_failures
from tests.cloud import settings
from tests.e2e import secrets_in_logs
from tests.unit.test_fetch_keys_benchmark import requests_counted
from vtpm_compute import conf, errors, keys
from vtpm_scheduling import policy

PAYLOAD = bytes(range(256)) * 8
NOBODYS = "%08x-1111-2222-3333-444444444444" % 7
NONE = "gAAAAAnonsense"


def configuration(barbican, service_user=None, **overrides):
    """The options of a nova-compute, some of them changed."""
    config = cfg.ConfigOpts()
    conf.register_opts(config)
    config.register_opts([cfg.BoolOpt("send_service_user_token")], "service_user")
    loading.register_auth_conf_options(config, "service_user")
    config(["--config-file", str(barbican.compute_file)])
    for group, values in (("service_user", dict({"auth_type": "password"}, **service_user or {})),
                          ("vtpm_compute", overrides)):
        if "auth_type" in values:
            config.register_opts(loading.get_auth_plugin_conf_options(values["auth_type"]), group)
        for name, value in values.items():
            config.set_override(name, value, group)
    return config


ALONE = {"send_service_user_token": False}


def as_service():
    """Nova's own credentials: those that are there for its service token."""
    return {"auth": "service", "auth_section": "service_user"}


def access(barbican, user):
    """A user's token and what Keystone says of it."""
    session = barbican.cloud.session(user)
    return session.auth.get_access(session)


def user_id(barbican, user):
    return access(barbican, user).user_id


def catalog(endpoint):
    return [{"type": "key-manager", "name": "barbican", "endpoints": [
        {"region": settings.REGION, "publicURL": endpoint}]}]


def context(barbican, user="alice", endpoint=None, **changes):
    """The context of a user's request, as Nova hands it to a driver."""
    granted = access(barbican, user)
    return nova_context.RequestContext(**dict({
        "user_id": granted.user_id, "project_id": granted.project_id, "is_admin": False,
        "auth_token": granted.auth_token,
        "service_catalog": catalog(endpoint or barbican.url)}, **changes))


def fetch(barbican, references, request=None, **overrides):
    """Read secrets, for a request; by default a new one of alice's."""
    source = keys.KeySource(configuration(barbican, **overrides))
    return source.fetch(request or context(barbican), policy.parse_keys(references))


def failure(*arguments, **keywords):
    with pytest.raises(errors.KeyFetchError) as caught:
        fetch(*arguments, **keywords)
    assert len(str(caught.value)) <= 255 - len("Build of instance %s aborted: " % NOBODYS)
    return caught.value


def identifier_of(reference):
    return reference.rpartition("/")[2]


def store_in_two_steps(barbican, payload, **values):
    """A secret's description, then its payload: so up to 20,000 bytes; returns its id."""
    barbican.payloads.append(payload)
    session = barbican.alice.session
    created = session.post(barbican.url + "/v1/secrets", json=dict({"name": "two steps"}, **values))
    reference = created.json()["secret_ref"]
    session.put(reference, data=payload, headers={
        "Content-Type": "application/octet-stream"})
    return identifier_of(reference)


def grant(barbican, identifier, project_access=True, to="nova"):
    """Let the ACL of a secret of alice's name nova's user, or another one."""
    barbican.alice.barbican.acls.create(
        entity_ref="%s/v1/secrets/%s" % (barbican.url, identifier),
        users=[user_id(barbican, to)], project_access=project_access).submit()


@contextlib.contextmanager
def other_configuration(barbican, service, path, pattern, value):
    """Let a service run with an option changed; ``pattern`` is of its line in the file."""
    file = barbican.cloud.state_dir / path
    text = file.read_text()
    changed, count = re.subn("(?m)^%s$" % pattern, value, text)
    assert count == 1
    file.write_text(changed)
    try:
        restart(barbican.cloud, service)
        yield
    finally:
        file.write_text(text)
        restart(barbican.cloud, service)


def restart(cloud, service):
    cloud.stop_api(service)
    cloud.start_api(service)


@contextlib.contextmanager
def stopped(barbican, service):
    """Let a service not run."""
    barbican.cloud.stop_api(service)
    try:
        yield
    finally:
        barbican.cloud.start_api(service)


def expired_token(barbican):
    """A token of alice's that was good for two seconds."""
    if "expired token" not in barbican.kept:
        with other_configuration(barbican, "keystone", "etc/keystone/keystone.conf",
                                 "expiration = 3600", "expiration = 2"):
            granted = access(barbican, "alice")
        while datetime.datetime.now(datetime.timezone.utc) <= granted.expires:
            time.sleep(0.1)
        barbican.kept["expired token"] = granted.auth_token
    return barbican.kept["expired token"]


class TestWhichItIs:

    def test_it_speaks_its_own_releases_versions(self, barbican):
        """What runs is of the environment that says so."""
        release = barbican.cloud.version("barbican").partition(".")[0]
        answer = barbican.alice.session.get(barbican.url, raise_exc=False, headers={
            "OpenStack-API-Version": "key-manager 1.1"})
        (version,) = answer.json()["versions"]
        assert version["max_version"] == {"17": "1.1", "23": "1.2"}[release]


class TestWhatCanBeRead:

    def test_six_in_their_order(self, barbican):
        payloads = [bytes([number]) + PAYLOAD for number in range(6)]
        assert fetch(barbican, barbican.store(*payloads)) == payloads

    def test_six_requests_for_six(self, barbican):
        """Counted before Barbican, beside compute-hyperv's own flow."""
        requests = requests_counted("--cloud", str(barbican.cloud.state_dir))
        assert requests["vtpm_compute.keys"] == ["6", "6"]
        assert all(int(count) >= 13 for count in requests["compute_hyperv.nova.pdk"])

    @pytest.mark.parametrize("form", ["%s/", "%s/v1", "%s/v1/"])
    def test_forms_of_the_endpoint(self, barbican, form):
        request = context(barbican, endpoint=form % barbican.url)
        assert fetch(barbican, barbican.store(PAYLOAD), request) == [PAYLOAD]

    def test_a_reference_in_upper_case_and_one_with_a_host(self, barbican):
        upper, full = barbican.store(PAYLOAD).upper(), barbican.store(PAYLOAD[::-1])
        assert fetch(barbican, "%s,https://example.org:9311/v1/secrets/%s" % (upper, full)) == [
            PAYLOAD, PAYLOAD[::-1]]

    def test_as_large_as_one_post_brings(self, barbican):
        payload = PAYLOAD[:8] * 1875
        assert len(payload) == 15000
        assert fetch(barbican, barbican.store(payload)) == [payload]

    def test_as_large_as_barbican_takes(self, barbican):
        payload = PAYLOAD[:8] * 2500
        assert len(payload) == 20000
        assert fetch(barbican, store_in_two_steps(barbican, payload)) == [payload]

    def test_what_was_stored_as_text(self, barbican):
        text = "Schlüssel" * 20
        barbican.payloads.append(text.encode())
        reference = barbican.alice.barbican.secrets.create(name="text", payload=text).store()
        assert fetch(barbican, identifier_of(reference)) == [text.encode()]

    def test_what_was_stored_as_pkcs8(self, barbican):
        barbican.payloads.append(PAYLOAD)
        created = barbican.alice.session.post(
            barbican.url + "/v1/secrets", json={
                "name": "pkcs8", "payload": base64.b64encode(PAYLOAD).decode(),
                "payload_content_type": "application/pkcs8",
                "payload_content_encoding": "base64"})
        assert fetch(barbican, identifier_of(created.json()["secret_ref"])) == [PAYLOAD]

    def test_nothing_is_logged(self, barbican, caplog):
        references = barbican.store(PAYLOAD)
        # The client that stored it logs its own request.
        caplog.clear()
        caplog.set_level(logging.DEBUG)
        fetch(barbican, references)
        assert "/payload" in caplog.text
        for needle in secrets_in_logs.needles(PAYLOAD):
            assert needle not in caplog.text.encode()


# The situations of the table by their names, as context managers of the Secrets of a Barbican: they
# say what to read, for which request, and the options.
SITUATIONS = {}


def situation(name):
    """Register one; its name is the table's."""
    def register(function):
        assert name not in SITUATIONS
        SITUATIONS[name] = contextlib.contextmanager(function)
        return function
    return register


def reads(name, references=None, of="alice", by="alice", **options):
    """Register one in which nothing has to be done; by default what alice stored is read."""
    def read(barbican):
        yield references or barbican.store(PAYLOAD, user=of), context(barbican, by), options
    situation(name)(read)


reads("of another project", of="bob")
reads("an administrator of another project", by="admin")
reads("a user of the project without the role member", by="dave")
reads("unknown", references=NOBODYS)
reads("too large", max_key_bytes=key_failures.MOST_BYTES)
reads("no credentials", auth="service")
reads("[service_user], which Keystone refuses", service_user={"password": "wrong"})
reads("not granted to nova", **as_service())
reads("unknown, asked for by nova", references=NOBODYS, **as_service())


def requests(name, **changes):
    """Register one whose request is another; alice's secret is read."""
    def read(barbican):
        yield barbican.store(PAYLOAD), context(barbican, **changes), {}
    situation(name)(read)


requests("a token that is none", auth_token=NONE)
requests("no user's token", auth_token=None)
requests("no key manager in the catalog", service_catalog=[])


@situation("a revoked token")
def revoked(barbican):
    token = access(barbican, "alice").auth_token
    barbican.admin.session.delete(barbican.cloud.auth_url + "/auth/tokens", headers={
        "X-Subject-Token": token})
    yield barbican.store(PAYLOAD), context(barbican, auth_token=token), {}


@situation("an expired token, without a service token")
def expired_alone(barbican):
    yield barbican.store(PAYLOAD), context(
        barbican, auth_token=expired_token(barbican)), {"service_user": ALONE}


@situation("of another project, an expired token with a service token")
def expired_of_another(barbican):
    yield barbican.store(PAYLOAD, user="bob"), context(
        barbican, auth_token=expired_token(barbican)), {}


@situation("private to another user of the project")
def private(barbican):
    reference = barbican.store(PAYLOAD, private=True)
    assert fetch(barbican, reference) == [PAYLOAD]
    yield reference, context(barbican, "carol"), {}


@situation("granted to nova alone, read by another user")
def granted_to_nova(barbican):
    reference = barbican.store(PAYLOAD)
    grant(barbican, reference, project_access=False)
    yield reference, context(barbican, "bob"), {}


@situation("deleted")
def deleted(barbican):
    reference = barbican.store(PAYLOAD)
    barbican.alice.barbican.secrets.delete(reference)
    yield reference, context(barbican), {}


@situation("expired")
def expired_secret(barbican):
    expiration = datetime.datetime.utcnow() + datetime.timedelta(seconds=3)
    reference = store_in_two_steps(barbican, PAYLOAD, expiration=expiration.isoformat())
    assert fetch(barbican, reference) == [PAYLOAD]
    while datetime.datetime.utcnow() <= expiration:
        time.sleep(0.1)
    yield reference, context(barbican), {}


@situation("without a payload")
def without_payload(barbican):
    reference = barbican.alice.barbican.secrets.create(name="described only").store()
    yield identifier_of(reference), context(barbican), {}


@situation("Barbican has another master key")
def another_master_key(barbican):
    reference = barbican.store(PAYLOAD)
    key = base64.b64encode(bytes(32)).decode()
    with other_configuration(barbican, "barbican", "home/.barbican/barbican.conf",
                             "kek = .*", "kek = '%s'" % key):
        yield reference, context(barbican), {}


@situation("Keystone is down, which Barbican asks")
def keystone_is_down(barbican):
    reference, request = barbican.store(PAYLOAD), context(barbican)
    with stopped(barbican, "keystone"):
        yield reference, request, {"service_user": ALONE, "status_code_retries": 0}


@situation("nobody is there")
def barbican_is_down(barbican):
    reference = barbican.store(PAYLOAD)
    with stopped(barbican, "barbican"):
        yield reference, context(barbican), {"connect_retries": 0}


@situation("stopped in its tracks")
def does_not_go_on(barbican):
    reference, request = barbican.store(PAYLOAD), context(barbican)
    barbican.cloud.signal_api("barbican", signal.SIGSTOP)
    try:
        yield reference, request, {"service_user": ALONE, "timeout": 1, "connect_retries": 0}
    finally:
        barbican.cloud.signal_api("barbican", signal.SIGCONT)


@situation("TLS where there is none")
def tls_where_there_is_none(barbican):
    endpoint = barbican.url.replace("http:", "https:")
    yield barbican.store(PAYLOAD), context(barbican, endpoint=endpoint), {}


@situation("[vtpm_compute], which Keystone refuses")
def wrong_password(barbican):
    yield barbican.store(PAYLOAD), context(barbican), dict(
        barbican.cloud.credentials("nova"), password="wrong", auth="service")


@situation("the key manager refuses nova's token")
def refuses_nova(barbican):
    yield barbican.store(PAYLOAD), context(barbican), {
        "auth": "service", "auth_type": "admin_token", "endpoint": barbican.url, "token": NONE}


def stored_by_another(name, user):
    def store(barbican):
        reference = barbican.store(PAYLOAD)
        grant(barbican, reference)
        yield reference, context(barbican, user), as_service()
    situation(name)(store)


stored_by_another("stored by another user of another project", "bob")
stored_by_another("stored by another user of the project", "carol")
stored_by_another("stored by another user than the administrator", "admin")


class TestFailures:

    @pytest.mark.parametrize(("barbican", "row"), [
        pytest.param(place, row, id="%s-%s" % (place, row.situation),
                     marks=[pytest.mark.barbican_23] if place == key_failures.BARBICAN_23 else [])
        for place, row in key_failures.at(*key_failures.REAL)], indirect=["barbican"])
    def test_as_the_table_says(self, barbican, row):
        nova = user_id(barbican, "nova")
        with SITUATIONS[row.situation](barbican) as (references, request, options):
            error = failure(barbican, references, request, **options)
        assert str(error) == row.message(references, nova)
        assert error.status == row.status

    def test_the_first_of_several(self, barbican):
        references = "%s,%s,%s" % (
            barbican.store(PAYLOAD), barbican.store(PAYLOAD, user="bob"), NOBODYS)
        error = failure(barbican, references)
        assert error.reference == references.split(",")[1]
        assert error.status == 403


class TestTokensThatExpired:

    def test_with_the_service_token_beside_it(self, barbican):
        references = barbican.store(PAYLOAD, PAYLOAD[::-1])
        request = context(barbican, auth_token=expired_token(barbican))
        assert fetch(barbican, references, request) == [PAYLOAD, PAYLOAD[::-1]]


class TestServiceCredentials:

    @pytest.mark.parametrize("project_access", [True, False])
    def test_what_the_user_stored_and_granted(self, barbican, project_access):
        reference = barbican.store(PAYLOAD)
        grant(barbican, reference, project_access)
        assert fetch(barbican, reference, **as_service()) == [PAYLOAD]

    def test_with_no_role_that_reads(self, barbican):
        """The ACL is enough, for the description too: nova's user need not be an administrator."""
        reference = barbican.store(PAYLOAD)
        grant(barbican, reference, to="dave")
        assert fetch(barbican, reference, auth="service", **barbican.cloud.credentials("dave")) == [
            PAYLOAD]

    def test_without_the_users_token(self, barbican):
        reference = barbican.store(PAYLOAD)
        grant(barbican, reference)
        assert fetch(barbican, reference, context(barbican, auth_token=NONE), **as_service()) == [
            PAYLOAD]
