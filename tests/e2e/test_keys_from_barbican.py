"""Reading keys from a real Barbican, with the configuration of a nova-compute.

What only a real one shows: what it answers in each case, and whose tokens it takes.
"""

import base64
import datetime
import logging
import time

import pytest
from keystoneauth1 import loading
from nova import context as nova_context
from oslo_config import cfg

from tests.cloud import settings
from tests.cloud.guarded_cloud import GUARDED
from tests.e2e import secrets_in_logs
from vtpm_compute import conf, errors, keys
from vtpm_scheduling import policy

PAYLOAD = bytes(range(256)) * 8
NOBODYS = "%08x-1111-2222-3333-444444444444" % 7


def configuration(cloud, sends_service_token=True, **overrides):
    """The options of the guarded host's nova-compute, some of them changed."""
    config = cfg.ConfigOpts()
    conf.register_opts(config)
    config.register_opts([cfg.BoolOpt("send_service_user_token")], "service_user")
    loading.register_auth_conf_options(config, "service_user")
    config(["--config-file", str(cloud.state_dir / "etc/nova-compute" / (GUARDED + ".conf"))])
    config.set_override("send_service_user_token", sends_service_token, "service_user")
    for name, value in overrides.items():
        config.set_override(name, value, "vtpm_compute")
    return config


def as_service():
    """Nova's own credentials: those that are there for its service token."""
    return {"auth": "service", "auth_section": "service_user"}


def access(cloud, user):
    """A user's token and what Keystone says of it."""
    session = cloud.session(user)
    return session.auth.get_access(session)


def user_id(cloud, user):
    return access(cloud, user).user_id


def context(cloud, user="alice", token=None, endpoint=None):
    """The context of a user's request, as Nova hands it to a driver."""
    granted = access(cloud, user)
    endpoint = endpoint or cloud.endpoints["key-manager"]
    return nova_context.RequestContext(
        user_id=granted.user_id, project_id=granted.project_id, is_admin=False,
        auth_token=token or granted.auth_token,
        service_catalog=[{"type": "key-manager", "name": "barbican", "endpoints": [
            {"region": settings.REGION, "publicURL": endpoint}]}])


def fetch(cloud, references, user="alice", token=None, endpoint=None, sends_service_token=True,
          **overrides):
    source = keys.KeySource(configuration(cloud, sends_service_token, **overrides))
    return source.fetch(context(cloud, user, token, endpoint), policy.parse_keys(references))


def failure(*arguments, **keywords):
    with pytest.raises(errors.KeyFetchError) as caught:
        fetch(*arguments, **keywords)
    assert len(str(caught.value)) <= 255 - len("Build of instance %s aborted: " % NOBODYS)
    return caught.value


@pytest.fixture
def cloud(everything):
    return everything.cloud


@pytest.fixture
def store(everything):
    return everything.store


@pytest.fixture
def barbican(everything):
    return everything.alice.barbican


def store_in_two_steps(everything, payload, **values):
    """A secret's description, then its payload: so up to 20,000 bytes; returns its id."""
    everything.payloads.append(payload)
    session, url = everything.alice.session, everything.cloud.endpoints["key-manager"]
    created = session.post(url + "/v1/secrets", json=dict({"name": "two steps"}, **values))
    reference = created.json()["secret_ref"]
    session.put(reference, data=payload, headers={
        "Content-Type": "application/octet-stream"})
    return reference.rpartition("/")[2]


class TestWhatCanBeRead:

    def test_six_in_their_order(self, cloud, store):
        payloads = [bytes([number]) + PAYLOAD for number in range(6)]
        assert fetch(cloud, store(*payloads)) == payloads

    @pytest.mark.parametrize("form", ["%s/", "%s/v1", "%s/v1/"])
    def test_forms_of_the_endpoint(self, cloud, store, form):
        assert fetch(cloud, store(PAYLOAD), endpoint=form % cloud.endpoints["key-manager"]) == [
            PAYLOAD]

    def test_a_reference_in_upper_case_and_one_with_a_host(self, cloud, store):
        upper, full = store(PAYLOAD).upper(), store(PAYLOAD[::-1])
        assert fetch(cloud, "%s,https://example.org:9311/v1/secrets/%s" % (upper, full)) == [
            PAYLOAD, PAYLOAD[::-1]]

    def test_as_large_as_one_post_brings(self, cloud, store):
        payload = PAYLOAD[:8] * 1875
        assert len(payload) == 15000
        assert fetch(cloud, store(payload)) == [payload]

    def test_as_large_as_barbican_takes(self, cloud, everything):
        payload = PAYLOAD[:8] * 2500
        assert len(payload) == 20000
        assert fetch(cloud, store_in_two_steps(everything, payload)) == [payload]

    def test_what_was_stored_as_text(self, cloud, barbican, everything):
        text = "Schlüssel" * 20
        everything.payloads.append(text.encode())
        reference = barbican.secrets.create(name="text", payload=text).store()
        assert fetch(cloud, reference.rpartition("/")[2]) == [text.encode()]

    def test_what_was_stored_as_pkcs8(self, cloud, everything):
        everything.payloads.append(PAYLOAD)
        created = everything.alice.session.post(
            cloud.endpoints["key-manager"] + "/v1/secrets", json={
                "name": "pkcs8", "payload": base64.b64encode(PAYLOAD).decode(),
                "payload_content_type": "application/pkcs8",
                "payload_content_encoding": "base64"})
        assert fetch(cloud, created.json()["secret_ref"].rpartition("/")[2]) == [PAYLOAD]

    def test_nothing_is_logged(self, cloud, store, caplog):
        references = store(PAYLOAD)
        # The client that stored it logs its own request.
        caplog.clear()
        caplog.set_level(logging.DEBUG)
        fetch(cloud, references)
        assert "/payload" in caplog.text
        for needle in secrets_in_logs.needles(PAYLOAD):
            assert needle not in caplog.text.encode()


class TestWhatCannot:

    def test_unknown(self, cloud):
        error = failure(cloud, NOBODYS)
        assert "was not found" in str(error)
        assert error.status == 404

    def test_of_another_project(self, cloud, store):
        assert "may not be read by you" in str(failure(cloud, store(PAYLOAD, user="bob")))

    def test_private_to_another_user(self, cloud, store):
        references = store(PAYLOAD, private=True)
        assert fetch(cloud, references) == [PAYLOAD]
        assert "may not be read by you" in str(failure(cloud, references, user="carol"))

    def test_an_administrators_rights_do_not_matter(self, cloud, store):
        assert "may not be read by you" in str(failure(cloud, store(PAYLOAD), user="admin"))

    def test_deleted(self, cloud, store, barbican):
        references = store(PAYLOAD)
        barbican.secrets.delete(references)
        assert "was deleted" in str(failure(cloud, references))

    def test_expired(self, cloud, everything):
        expiration = datetime.datetime.utcnow() + datetime.timedelta(seconds=3)
        reference = store_in_two_steps(everything, PAYLOAD, expiration=expiration.isoformat())
        assert fetch(cloud, reference) == [PAYLOAD]
        while datetime.datetime.utcnow() <= expiration:
            time.sleep(0.1)
        assert "has expired" in str(failure(cloud, reference))

    def test_without_a_payload(self, cloud, barbican):
        reference = barbican.secrets.create(name="described only").store().rpartition("/")[2]
        assert "has no payload" in str(failure(cloud, reference))

    def test_larger_than_the_operator_allows(self, cloud, store):
        assert "more than the 2047 bytes allowed" in str(failure(
            cloud, store(PAYLOAD), max_key_bytes=2047))

    def test_the_first_of_several(self, cloud, store):
        references = "%s,%s,%s" % (store(PAYLOAD), store(PAYLOAD, user="bob"), NOBODYS)
        error = failure(cloud, references)
        assert error.reference == references.split(",")[1]
        assert error.status == 403

    def test_a_token_that_is_none(self, cloud, store):
        assert "token is not valid any more" in str(failure(
            cloud, store(PAYLOAD), token="gAAAAAnonsense"))

    def test_wrong_credentials_for_the_service_token(self, cloud, store):
        config = configuration(cloud)
        config.register_opts(loading.get_auth_plugin_conf_options("password"), "service_user")
        config.set_override("password", "wrong", "service_user")
        with pytest.raises(errors.KeyFetchError, match="cannot log in to Keystone"):
            keys.KeySource(config).fetch(context(cloud), policy.parse_keys(store(PAYLOAD)))


class TestTokensThatExpired:

    @pytest.fixture(scope="class")
    def expired(self, running_cloud):
        """A token of alice's that was good for two seconds."""
        file = running_cloud.state_dir / "etc/keystone/keystone.conf"
        text = file.read_text()
        assert "expiration = 3600" in text
        try:
            self.restart(running_cloud, file, text.replace("expiration = 3600", "expiration = 2"))
            granted = access(running_cloud, "alice")
        finally:
            self.restart(running_cloud, file, text)
        while datetime.datetime.now(datetime.timezone.utc) <= granted.expires:
            time.sleep(0.1)
        return granted.auth_token

    def restart(self, cloud, file, text):
        cloud.stop_api("keystone")
        file.write_text(text)
        cloud.start_api("keystone")

    def test_alone(self, cloud, store, expired):
        assert "token is not valid any more" in str(failure(
            cloud, store(PAYLOAD), token=expired, sends_service_token=False))

    def test_with_the_service_token_beside_it(self, cloud, store, expired):
        references = store(PAYLOAD, PAYLOAD[::-1])
        assert fetch(cloud, references, token=expired) == [PAYLOAD, PAYLOAD[::-1]]

    def test_its_rights_are_the_users(self, cloud, store, expired):
        assert "may not be read by you" in str(failure(
            cloud, store(PAYLOAD, user="bob"), token=expired))


class TestServiceCredentials:

    def grant(self, everything, reference, project_access=True):
        """Let the secret's ACL name nova's user."""
        everything.alice.barbican.acls.create(
            entity_ref="%s/v1/secrets/%s" % (everything.cloud.endpoints["key-manager"], reference),
            users=[user_id(everything.cloud, "nova")], project_access=project_access).submit()

    @pytest.mark.parametrize("project_access", [True, False])
    def test_what_the_user_stored_and_granted(self, cloud, store, everything, project_access):
        reference = store(PAYLOAD)
        self.grant(everything, reference, project_access)
        assert fetch(cloud, reference, **as_service()) == [PAYLOAD]

    def test_without_the_users_token(self, cloud, store, everything):
        reference = store(PAYLOAD)
        self.grant(everything, reference)
        assert fetch(cloud, reference, token="gAAAAAnonsense", **as_service()) == [PAYLOAD]

    def test_what_was_not_granted(self, cloud, store):
        error = failure(cloud, store(PAYLOAD), **as_service())
        assert "may not be read by nova. Let its read ACL name nova's user %s" % user_id(
            cloud, "nova") in str(error)

    @pytest.mark.parametrize("user", ["bob", "carol", "admin"])
    def test_what_another_user_stored_and_granted(self, cloud, store, everything, user):
        reference = store(PAYLOAD)
        self.grant(everything, reference)
        assert "was stored by another user" in str(failure(
            cloud, reference, user=user, **as_service()))

    def test_it_is_never_used_for_a_user_who_may_not(self, cloud, store, everything):
        reference = store(PAYLOAD)
        self.grant(everything, reference, project_access=False)
        assert "may not be read by you" in str(failure(cloud, reference, user="bob"))
