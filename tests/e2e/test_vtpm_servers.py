"""Servers with a vTPM, booted by an ordinary user through the API of a real cloud."""

import base64
import datetime
import time

import pytest

from tests.cloud.guarded_cloud import FABRIC, GUARDED, UNGUARDED
from tests.e2e import secrets_in_logs
from tests.hyperv import certificates, guardian, key_protector

UUIDS = ["%08x-1111-2222-3333-444444444444" % number for number in range(7)]
GEN2 = {"hw_machine_type": "hyperv-gen2"}


class TestBoot:

    def test_with_a_protector_made_at_home(self, tenant):
        server, machine = tenant.boot_active(
            tenant.vtpm_image(os_vtpm_keys=tenant.store(tenant.protector)))
        assert tenant.host_of(server) == GUARDED
        security = machine["security"]
        assert security["TpmEnabled"]
        assert security["EncryptStateAndVmMigrationTraffic"]
        assert not security["ShieldingRequested"]
        assert machine["tpm_initialized"]
        assert [(one["is_owner"], one["name"]) for one in machine["guardians"]] == [
            (True, None), (False, FABRIC)]
        given = {one.thumbprint for one in key_protector.read(tenant.protector)}
        assert {one["thumbprint"] for one in machine["guardians"]} == given

    def test_in_six_pieces(self, tenant):
        size = -(-len(tenant.protector) // 6)
        keys = tenant.store(*(tenant.protector[start:start + size]
                              for start in range(0, len(tenant.protector), size)))
        assert keys.count(",") == 5
        _, machine = tenant.boot_active(tenant.vtpm_image(os_vtpm_keys=keys))
        assert machine["security"]["TpmEnabled"]

    def test_with_a_full_reference(self, tenant):
        keys = tenant.store(tenant.protector)
        reference = "%s/v1/secrets/%s" % (tenant.cloud.endpoints["key-manager"], keys)
        _, machine = tenant.boot_active(tenant.vtpm_image(os_vtpm_keys=reference))
        assert machine["security"]["TpmEnabled"]

    def test_stored_as_text_base64_is_no_protector(self, tenant):
        message = tenant.fault(tenant.vtpm_image(
            os_vtpm_keys=tenant.store(base64.b64encode(tenant.protector))))
        assert "is not a key protector" in message

    def test_without_keys_a_protector_is_made_here(self, tenant):
        calls = tenant.cloud.fabric.calls(GUARDED, "MSFT_HgsGuardian.*")
        _, machine = tenant.boot_active(tenant.vtpm_image())
        assert machine["security"]["TpmEnabled"]
        assert [(one["is_owner"], one["name"]) for one in machine["guardians"]] == [
            (True, None), (False, FABRIC)]
        tenant.assert_no_strange_guardian()
        made = tenant.cloud.fabric.calls(GUARDED, "MSFT_HgsGuardian.*")[len(calls):]
        assert [call[1] for call in made] == ["NewByGenerateCertificates", "Remove"]

    def test_with_an_owners_pfx_files_and_a_further_guardian(self, tenant):
        owner, further = (guardian.Guardian.generate(name) for name in ("Contoso", "Elsewhere"))
        keys = tenant.store(
            certificates.make_pfx(owner.signing_certificate, owner.signing_key, ""),
            certificates.make_pfx(owner.encryption_certificate, owner.encryption_key, ""),
            further.metadata())
        _, machine = tenant.boot_active(tenant.vtpm_image(os_vtpm_keys=keys))
        assert machine["security"]["TpmEnabled"]
        assert [(one["is_owner"], one["thumbprint"]) for one in machine["guardians"]] == [
            (True, owner.thumbprint), (False, tenant.cloud.fabric.fabric_thumbprint(FABRIC)),
            (False, further.thumbprint)]
        tenant.assert_no_strange_guardian()
        assert list((tenant.cloud.state_dir).rglob("*.pfx")) == []

    def test_a_shielded_server_takes_its_owners_protector_only(self, tenant):
        message = tenant.fault(tenant.image(
            os_shielded_vm="required", os_secure_boot="required",
            os_vtpm_keys=tenant.store(guardian.Guardian.generate("Elsewhere").metadata()),
            **GEN2))
        assert "A shielded server needs a key protector that its owner made" in message

    def test_by_the_flavor(self, tenant):
        server, machine = tenant.boot_active(
            tenant.image(os_vtpm="optional", **GEN2), tenant.flavor(os_vtpm="required"))
        assert tenant.host_of(server) == GUARDED
        assert machine["security"]["TpmEnabled"]

    def test_blueprints_example(self, tenant):
        _, machine = tenant.boot_active(tenant.vtpm_image(
            hypervisor_type="hyperv", hypervisor_version_requires=">=10.0",
            os_vtpm_keys=tenant.store(tenant.protector)))
        assert not machine["secure_boot"]

    def test_shielded(self, tenant):
        _, machine = tenant.boot_active(tenant.image(
            os_shielded_vm="required", os_secure_boot="required",
            os_vtpm_keys=tenant.store(tenant.protector), **GEN2))
        assert machine["security"]["ShieldingRequested"]
        assert machine["security"]["TpmEnabled"]
        assert machine["secure_boot"]

    def test_without_a_vtpm(self, tenant):
        server = tenant.boot(tenant.image(**GEN2))
        assert server.status == "ACTIVE", tenant.admin.fault(server.id)
        (machine,) = tenant.cloud.machines()
        assert not machine["security"].get("TpmEnabled")
        assert len(machine["key_protector"]) <= 4

    def test_the_tpm_survives_stop_start_and_reboot(self, tenant):
        server, machine = tenant.boot_active(
            tenant.vtpm_image(os_vtpm_keys=tenant.store(tenant.protector)))
        fabric, compute = tenant.cloud.fabric, tenant.alice.compute
        fabric.write_tpm(GUARDED, machine["name"], "bitlocker", b"volume master key")
        compute.stop_server(server.id)
        tenant.alice.wait_for_status(server.id, "SHUTOFF")
        compute.start_server(server.id)
        tenant.alice.wait_for_status(server.id, "ACTIVE")
        assert fabric.read_tpm(GUARDED, machine["name"], "bitlocker") == b"volume master key"
        compute.reboot_server(server.id, "HARD")
        tenant.alice.wait_for_status(server.id, "ACTIVE")
        assert fabric.read_tpm(GUARDED, machine["name"], "bitlocker") == b"volume master key"


REFUSALS = [
    ("contradiction", {"os_vtpm": "required", **GEN2}, {"os_vtpm": "disabled"},
     ["os:vtpm=disabled", "os_vtpm=required"]),
    ("the other contradiction", {"os_vtpm": "disabled", **GEN2}, {"os_vtpm": "required"},
     ["os:vtpm=required", "os_vtpm=disabled"]),
    ("shielded contradiction", {"os_shielded_vm": "disabled", **GEN2},
     {"os_shielded_vm": "required"}, ["os:shielded_vm=required", "os_shielded_vm=disabled"]),
    ("invalid value", {"os_vtpm": "yes", **GEN2}, {}, ["os_vtpm=yes"]),
    ("invalid shielded", {"os_shielded_vm": "yes", **GEN2}, {}, ["os_shielded_vm=yes"]),
    ("keys without a vTPM", {"os_vtpm_keys": UUIDS[0], **GEN2}, {},
     ["os_vtpm_keys=" + UUIDS[0]]),
    ("empty keys", {"os_vtpm": "required", "os_vtpm_keys": "", **GEN2}, {},
     ["os_vtpm_keys", "empty"]),
    ("malformed key", {"os_vtpm": "required", "os_vtpm_keys": "my-key", **GEN2}, {},
     ["os_vtpm_keys", "my-key"]),
    ("repeated key", {"os_vtpm": "required", "os_vtpm_keys": UUIDS[0] + "," + UUIDS[0], **GEN2},
     {}, ["os_vtpm_keys", UUIDS[0], "twice"]),
    ("seven keys", {"os_vtpm": "required", "os_vtpm_keys": ",".join("abcdefg"), **GEN2}, {},
     ["os_vtpm_keys=a,b,c,d,e,f,g", "at most 6"]),
    ("cut keys", {"os_vtpm": "required", "os_vtpm_keys": ",".join(UUIDS), **GEN2}, {},
     ["os_vtpm_keys", "too long"]),
    ("keys and PDK", {"os_vtpm": "required", "os_vtpm_keys": UUIDS[0], "img_pdk_reference": "x",
                      **GEN2}, {}, ["os_vtpm_keys=" + UUIDS[0], "img_pdk_reference"]),
    ("PDK by the flavor", {"img_pdk_reference": "x", **GEN2}, {"os_vtpm": "required"},
     ["img_pdk_reference", "os:vtpm=required"]),
    ("Generation 1", {"os_vtpm": "required", "hw_machine_type": "hyperv-gen1"}, {},
     ["hw_machine_type is hyperv-gen1"]),
    ("no generation", {"os_vtpm": "required"}, {}, ["hw_machine_type is not set"]),
    ("shielded without a vTPM", {"os_shielded_vm": "required", "os_vtpm": "disabled", **GEN2},
     {}, ["os_shielded_vm=required", "os_vtpm=disabled"]),
    ("shielded without Secure Boot", {"os_shielded_vm": "required", "os_vtpm_keys": UUIDS[0],
                                      **GEN2}, {}, ["os_shielded_vm=required", "os_secure_boot"]),
    ("shielded without keys", {"os_shielded_vm": "required", "os_secure_boot": "required",
                               **GEN2}, {}, ["os_shielded_vm=required", "os_vtpm_keys"]),
    ("Secure Boot without os_type", {"os_vtpm": "required", "os_secure_boot": "required",
                                     "os_type": None, **GEN2}, {},
     ["os_secure_boot=required", "os_type is not set"]),
    ("PDK without Secure Boot", {"os_vtpm": "required", "img_pdk_reference": "x", **GEN2}, {},
     ["img_pdk_reference", "os_secure_boot is not set"]),
    ("other hypervisor", {"os_vtpm": "required", "hypervisor_type": "qemu", **GEN2}, {},
     ["hypervisor_type=qemu"]),
    ("other architecture", {"os_vtpm": "required", "architecture": "aarch64", **GEN2}, {},
     ["architecture=aarch64"]),
]


class TestRefusals:

    @pytest.mark.parametrize(("image", "flavor", "words"), [case[1:] for case in REFUSALS],
                             ids=[case[0] for case in REFUSALS])
    def test_the_fault_names_property_and_value(self, tenant, image, flavor, words):
        message = tenant.fault(tenant.image(**image),
                               tenant.flavor(**flavor) if flavor else None)
        assert message.startswith("No valid host was found. ")
        for word in words:
            assert word in message

    def test_a_bad_flavor_is_http_400(self, tenant):
        flavor = tenant.flavor()
        for name, value in (("os:vtpm", "maybe"), ("os:shielded_vm", "1")):
            answer = tenant.admin.compute.post(
                "/flavors/%s/os-extra_specs" % flavor, json={"extra_specs": {name: value}},
                microversion="2.90")
            assert answer.status_code == 400
            assert "%s=%s" % (name, value) in answer.text

    def test_a_bad_flavor_that_an_old_client_made(self, tenant):
        flavor = tenant.flavor()
        answer = tenant.admin.compute.post(
            "/flavors/%s/os-extra_specs" % flavor, json={"extra_specs": {"os:vtpm": "maybe"}},
            microversion="2.85")
        assert answer.status_code == 200
        message = tenant.fault(tenant.vtpm_image(), flavor)
        assert "os:vtpm=maybe" in message


class TestKeysThatCannotBeRead:

    def test_unknown(self, tenant):
        message = tenant.fault(tenant.vtpm_image(os_vtpm_keys=UUIDS[0]))
        assert "vTPM key %s was not found" % UUIDS[0] in message

    def test_of_another_project(self, tenant):
        keys = tenant.store(tenant.protector, user="bob")
        assert "vTPM key %s may not be read by you" % keys in tenant.fault(
            tenant.vtpm_image(os_vtpm_keys=keys))

    def test_private_to_another_user_of_the_project(self, tenant):
        keys = tenant.store(tenant.protector, private=True)
        tenant.boot_active(tenant.vtpm_image(os_vtpm_keys=keys))
        tenant.tidy()
        assert "vTPM key %s may not be read by you" % keys in tenant.fault(
            tenant.vtpm_image(os_vtpm_keys=keys), user="carol")

    def test_the_second_of_two(self, tenant):
        keys = tenant.store(tenant.protector[:4000])
        assert "vTPM key %s was not found" % UUIDS[1] in tenant.fault(
            tenant.vtpm_image(os_vtpm_keys="%s,%s" % (keys, UUIDS[1])))

    def test_deleted(self, tenant):
        keys = tenant.store(tenant.protector)
        tenant.alice.barbican.secrets.delete(keys)
        assert "was deleted, has expired" in tenant.fault(tenant.vtpm_image(os_vtpm_keys=keys))

    def test_expired(self, tenant):
        expiration = datetime.datetime.utcnow() + datetime.timedelta(seconds=2)
        tenant.payloads.append(tenant.protector)
        reference = tenant.alice.barbican.secrets.create(
            name="expires", payload=tenant.protector, expiration=expiration.isoformat()).store()
        image = tenant.vtpm_image(os_vtpm_keys=reference.rpartition("/")[2])
        while datetime.datetime.utcnow() <= expiration:
            time.sleep(0.1)
        assert "has expired (Barbican does not tell which)" in tenant.fault(image)

    def test_without_a_payload(self, tenant):
        reference = tenant.alice.barbican.secrets.create(name="empty").store()
        identifier = reference.rpartition("/")[2]
        message = tenant.fault(tenant.vtpm_image(os_vtpm_keys=identifier))
        assert "vTPM key %s " % identifier in message
        assert "has no payload" in message or "is empty" in message

    def test_barbican_is_down(self, tenant):
        keys = tenant.store(tenant.protector)
        image = tenant.vtpm_image(os_vtpm_keys=keys)
        tenant.cloud.stop_api("barbican")
        try:
            message = tenant.fault(image)
        finally:
            tenant.cloud.start_api("barbican")
        assert "vTPM key %s could not be read: the key manager does not answer" % keys in message


class TestProtectorsThatAreNone:

    def test_a_piece_is_missing(self, tenant):
        message = tenant.fault(tenant.vtpm_image(
            os_vtpm_keys=tenant.store(tenant.protector[:3000])))
        assert "a piece is missing" in message

    def test_something_else(self, tenant):
        message = tenant.fault(tenant.vtpm_image(
            os_vtpm_keys=tenant.store(b"correct horse battery staple, and more")))
        assert "is not a key protector" in message
        assert "battery" not in message

    def test_of_another_fabric(self, tenant):
        elsewhere = key_protector.make_protector(
            guardian.Guardian.generate("Contoso"), [guardian.Guardian.generate("Elsewhere")])
        message = tenant.fault(tenant.vtpm_image(os_vtpm_keys=tenant.store(elsewhere)))
        assert "does not name this fabric's guardian" in message


class TestHostsThatRefuse:

    def test_no_host_is_guarded(self, tenant):
        tenant.set_attestation(301)
        try:
            message = tenant.fault(tenant.vtpm_image())
        finally:
            tenant.set_attestation(100)
        assert "hosts are not guarded at present" in message

    @pytest.mark.parametrize("method", [
        "MSFT_HgsKeyProtector.NewByGuardians", "Msvm_SecurityService.SetKeyProtector",
        "Msvm_SecurityService.ModifySecuritySettings"])
    def test_a_step_fails(self, tenant, method):
        tenant.cloud.fabric.add_fault(GUARDED, method, return_value=32768)
        message = tenant.fault(tenant.vtpm_image())
        assert "aborted" in message
        assert "number of retries" not in message

    def test_an_unguarded_host_that_an_administrator_chose(self, tenant):
        if UNGUARDED not in tenant.cloud.compute_host_names:
            pytest.skip("this cloud has one host: RabbitMQ is missing")
        message = tenant.fault(tenant.vtpm_image(user="admin"), user="admin",
                               availability_zone="nova:%s" % UNGUARDED)
        # The scheduler's pre-filter: no host filter is asked.
        assert "No host fits the vTPM" in message
        assert "hosts are not guarded at present" in message


SHOWN = ("contradiction", "Generation 1", "keys without a vTPM", "seven keys", "cut keys")


class TestWhatTheOwnerReads:
    """``openstack server show`` of alice, an ordinary user, prints the reason."""

    @pytest.mark.parametrize(("image", "flavor", "words"), [
        pytest.param(*case[1:], id=case[0]) for case in REFUSALS if case[0] in SHOWN])
    def test_a_request_that_no_host_satisfies(self, tenant, image, flavor, words):
        tenant.fault(tenant.image(**image), tenant.flavor(**flavor) if flavor else None)
        self.assert_shown(tenant, words)

    def test_no_host_is_guarded(self, tenant):
        tenant.set_attestation(301)
        try:
            tenant.fault(tenant.vtpm_image())
        finally:
            tenant.set_attestation(100)
        self.assert_shown(tenant, ["hosts are not guarded at present"])

    def test_guarded_hosts_of_another_fabric_on_a_move(self, tenant):
        """A host fails, and the one that is left belongs to another fabric.

        How far the reason travels is Nova's affair. Of an evacuation and a rebuild it is the
        server's fault, which the owner reads. Of a live migration and of unshelving it is in the
        action's event, whose details Nova's policy shows to administrators; the server stays as it
        is and has no fault. Of a cold migration and a resize Nova puts a sentence of its own in
        its place, and only the scheduler's log has it.
        """
        if UNGUARDED not in tenant.cloud.compute_host_names:
            pytest.skip("this cloud has one host: RabbitMQ is missing")
        reason = "hosts belong to another fabric than the server"
        server, _ = tenant.boot_active(
            tenant.vtpm_image(os_vtpm_keys=tenant.store(tenant.protector)))
        with tenant.other_fabric():
            request = tenant.act(server, {
                "os-migrateLive": {"host": None, "block_migration": "auto"}})
            assert reason in tenant.details(server, request)
            assert tenant.details(server, request, "alice") == ""
            assert [event["result"] for event in tenant.events(server, request, "alice")] == [
                event["result"] for event in tenant.events(server, request)]
            assert tenant.alice.server(server.id).status == "ACTIVE"

            request = tenant.act(server, {"migrate": None})
            assert reason not in tenant.details(server, request)
            assert tenant.alice.server(server.id).status == "ACTIVE"

            with tenant.forced_down(GUARDED):
                tenant.act(server, {"evacuate": {}})
        self.assert_shown(tenant, [reason])

    def assert_shown(self, tenant, words):
        shown = tenant.shown_fault(tenant.servers[-1])
        assert shown.startswith("No valid host was found. ")
        for word in words:
            assert word in shown


class TestNothingSecretIsLogged:

    def test_the_search_finds_what_is_there(self, tenant, tmp_path):
        payload = tenant.protector
        for number, text in enumerate((
                payload[100:], base64.b64encode(b"ab" + payload), repr(payload).encode(),
                str(list(payload)).encode(), payload.hex().encode())):
            (tmp_path / ("%d.log" % number)).write_bytes(b"2026 DEBUG nova " + text)
        assert {name for name, _ in secrets_in_logs.find(tmp_path, [payload])} == {
            "%d.log" % number for number in range(5)}

    def test_no_byte_of_a_key_at_debug_level(self, tenant):
        tenant.boot_active(tenant.vtpm_image(os_vtpm_keys=tenant.store(tenant.protector)))
        log = tenant.cloud.log_of("nova-compute-" + GUARDED).read_text(errors="replace")
        assert " DEBUG vtpm_compute.keys " in log
        assert " DEBUG keystoneauth" in log
        secrets_in_logs.assert_none(tenant.cloud, tenant.payloads)
