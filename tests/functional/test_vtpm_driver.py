"""The driver in real Nova services, on the real compute-hyperv and os-win over a simulated host."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip # noqa: F401

import importlib
import os
import tempfile
from unittest import mock

import fixtures
import oslo_messaging
import pytest
from nova import context as nova_context
from nova import exception, objects
from nova.compute import task_states

from tests.functional import vtpm_base
from tests.functional.vtpm_base import FABRIC, GEN2, HOST, KEY, OTHER_KEY
from tests.hyperv import guardian, key_protector
from vtpm_compute import errors

pytestmark = pytest.mark.os_win


class _EveryDriver:
    """What each driver does for servers with and without a vTPM.

    :cvar MODULE: the driver's
    """

    reads_debug_log = frozenset({"test_nothing_secret_in_the_logs_or_on_the_disk"})

    def test_report(self):
        node = self.api.api_get("/os-hypervisors/detail").body["hypervisors"][0]
        self.assertEqual(("hyperv", 10000), (node["hypervisor_type"], node["hypervisor_version"]))
        provider = self._get_provider_uuid_by_host(HOST)
        traits = self._get_provider_traits(provider)
        self.assertIn("CUSTOM_HYPERV_VTPM", traits)
        self.assertIn("CUSTOM_HYPERV_GUARDED_HOST", traits)
        # Nova asks placement for it; compute-hyperv itself does not say it.
        self.assertIn("COMPUTE_SECURITY_UEFI_SECURE_BOOT", traits)
        self.simulated.set_attestation(HOST, 200)
        self._run_periodics()
        traits = self._get_provider_traits(provider)
        self.assertNotIn("CUSTOM_HYPERV_VTPM", traits)
        self.assertNotIn("CUSTOM_HYPERV_GUARDED_HOST", traits)

    def test_a_host_loses_its_traits_when_its_attestation_ends(self):
        provider = self._get_provider_uuid_by_host(HOST)
        self.simulated.deauthorise_host(HOST)
        self._run_periodics()
        self.assertIn("CUSTOM_HYPERV_GUARDED_HOST", self._get_provider_traits(provider))
        self.simulated.advance_clock(8 * 3600)
        self._run_periodics()
        self.assertNotIn("CUSTOM_HYPERV_GUARDED_HOST", self._get_provider_traits(provider))
        self.simulated.authorise_host(HOST)
        self._run_periodics()
        self.assertIn("CUSTOM_HYPERV_GUARDED_HOST", self._get_provider_traits(provider))

    def test_given_protector(self):
        server = self.boot(self.vtpm_image(os_vtpm_keys=KEY))
        (machine,) = self.machines
        self.assertTrue(machine["security"]["TpmEnabled"])
        self.assertTrue(machine["tpm_initialized"])
        # Hyper-V has replaced it at the start; it is still that of the same owner.
        self.assertEqual([one.thumbprint for one in key_protector.read(self.protector)],
                         [one["thumbprint"] for one in machine["guardians"]])
        mark = self.system_metadata(server)
        self.assertEqual("vtpm", mark["hyperv_vtpm"])
        self.assertEqual(self.simulated.fabric_thumbprint(FABRIC), mark["hyperv_vtpm_fabric"])
        self.assertEqual(1, len(self.key_manager.requests))
        self._delete_server(server)
        self.assert_nothing_left()

    def test_windows_gets_the_protector_as_it_was_given(self):
        self.boot(self.vtpm_image(os_vtpm_keys=KEY))
        ((_, _, parameters, _),) = self.simulated.calls(HOST, "*.SetKeyProtector")
        self.assertEqual(self.protector, bytes(parameters["KeyProtector"]))

    def test_order_of_the_steps(self):
        calls = self.calls_of_a_boot(self.vtpm_image())
        steps = [call.split(".")[1] for call in calls]
        for earlier, later in (
                ("NewByGenerateCertificates", "NewByGuardians"), ("NewByGuardians", "Remove"),
                ("Remove", "DefineSystem"), ("DefineSystem", "SetKeyProtector"),
                ("SetKeyProtector", "ModifySecuritySettings"),
                ("ModifySecuritySettings", "RequestStateChange")):
            self.assertLess(steps.index(earlier), steps.index(later), (earlier, later))
        self.assertEqual(1, steps.count("SetKeyProtector"))

    def test_jobs_that_take_time(self):
        # os-win needs what AddResourceSettings makes at once.
        for method in ("*.DefineSystem", "*.ModifySystemSettings", "*.ModifyResourceSettings",
                       "Msvm_SecurityService.*", "Msvm_ComputerSystem.RequestStateChange",
                       "*.DestroySystem"):
            self.simulated.add_delay(HOST, method, 0.05, times=None)
        server = self.boot(self.vtpm_image(os_vtpm_keys=KEY))
        (machine,) = self.machines
        self.assertTrue(machine["security"]["TpmEnabled"])
        self.simulated.write_tpm(HOST, machine["name"], "bitlocker", b"key")
        self._reboot_server(server, hard=True)
        self.assertEqual(b"key", self.simulated.read_tpm(HOST, machine["name"], "bitlocker"))
        self._delete_server(server)
        self.assert_nothing_left()

    def test_a_start_that_fails_says_why(self):
        self.simulated.add_fault(
            HOST, "*.RequestStateChange", times=9,
            job_error=("The key protector could not be unwrapped.", 32768))
        message = self.refused(self.vtpm_image())
        self.assertIn("which has a vTPM, does not start", message)

    def test_a_start_that_fails_leaves_no_mark(self):
        self.simulated.add_fault(
            HOST, "*.RequestStateChange", times=9, job_error=("It broke.", 32768))
        server = self.boot(self.vtpm_image(), expected="ERROR")
        self.assertEqual(1, len(self.simulated.calls(HOST, "*.SetKeyProtector")))
        self.assertNotIn("hyperv_vtpm", self.system_metadata(server))

    def test_unreadable_key(self):
        self.key_manager.status = 403
        message = self.refused(self.vtpm_image(os_vtpm_keys=KEY))
        self.assertIn("vTPM key %s may not be read by you" % KEY, message)
        self.assertEqual([], self.simulated.calls(HOST, "*.DefineSystem"))

    def test_protector_of_another_fabric(self):
        self.key_manager.payloads[KEY] = key_protector.make_protector(
            guardian.Guardian.generate("Contoso"), [guardian.Guardian.from_metadata(
                self.simulated.metadata("Elsewhere"), "Elsewhere")])
        self.assertIn("does not name this fabric's guardian",
                      self.refused(self.vtpm_image(os_vtpm_keys=KEY)))
        self.assertEqual([], self.simulated.calls(HOST, "*.DefineSystem"))

    def test_attestation_lost_since_the_last_report(self):
        image = self.vtpm_image()
        self.simulated.set_attestation(HOST, 301)
        self.assertIn("hosts are not guarded at present", self.refused(image))

    def test_guardian_lost_since_the_last_report(self):
        image = self.vtpm_image()
        self.simulated.remove_guardian(HOST, FABRIC)
        message = self.boot(image, expected="ERROR")["fault"]["message"]
        self.assertIn("hosts lack their fabric's guardian", message)
        self.assertEqual([], self.machines)

    def test_a_host_imports_the_guardian_that_is_pinned(self):
        self.simulated.remove_guardian(HOST, FABRIC)
        self.simulated.serve_key_protection(FABRIC)
        self.addCleanup(self.simulated.serve_key_protection, FABRIC, False)
        provider = self._get_provider_uuid_by_host(HOST)
        self._run_periodics()
        self.assertNotIn("CUSTOM_HYPERV_VTPM", self._get_provider_traits(provider))
        self.flags(fabric_thumbprint=self.simulated.fabric_thumbprint(FABRIC).upper(),
                   group="vtpm_compute")
        self.compute = self.restart_compute_service(
            self.compute, keep_hypervisor_state=False)
        self.assertEqual([(FABRIC, False)], [
            (one["name"], one["has_private_keys"]) for one in self.simulated.guardians(HOST)])
        self.assertIn("CUSTOM_HYPERV_VTPM", self._get_provider_traits(provider))
        self.boot(self.vtpm_image())

    def test_a_pinned_guardian_that_is_another_one(self):
        self.flags(fabric_thumbprint="ab" * 32, group="vtpm_compute")
        self.compute = self.restart_compute_service(
            self.compute, keep_hypervisor_state=False)
        provider = self._get_provider_uuid_by_host(HOST)
        self.assertNotIn("CUSTOM_HYPERV_VTPM", self._get_provider_traits(provider))
        self.assertIn("and fabric_thumbprint is abab", self.stdlog.logger.output)
        self.assertIn("hosts lack their fabric's guardian", self.refused(self.vtpm_image()))

    def test_a_vhd_is_not_for_generation_2(self):
        image = self.vtpm_image()
        self.glance._imagedata[image] = bytes(512) + b"conectix" + bytes(504)
        self.assertIn("Requested VM Generation 2, but provided VHD instead of VHDX",
                      self.refused(image))

    def test_rebuild_with_another_image(self):
        server = self.boot(self.vtpm_image(os_vtpm_keys=KEY))
        other = key_protector.make_protector(
            guardian.Guardian.generate("Fabrikam"),
            [guardian.Guardian.from_metadata(self.simulated.metadata(FABRIC), FABRIC)])
        self.key_manager.payloads[OTHER_KEY] = other
        self._rebuild_server(server, self.vtpm_image(2, os_vtpm_keys=OTHER_KEY))
        (machine,) = self.machines
        self.assertEqual([one.thumbprint for one in key_protector.read(other)],
                         [one["thumbprint"] for one in machine["guardians"]])
        plain = self.create_image(3, **GEN2)
        self._rebuild_server(server, plain)
        (machine,) = self.machines
        self.assertFalse(machine["security"]["TpmEnabled"])
        self.assertNotIn("hyperv_vtpm", self.system_metadata(server))

    def test_a_rebuild_that_is_refused_leaves_the_server_as_it_was(self):
        server = self.boot(self.vtpm_image(os_vtpm_keys=KEY))
        (before,) = self.machines
        self.simulated.write_tpm(HOST, before["name"], "bitlocker", b"key")

        def assert_refused(image, words):
            self.api.post_server_action(server["id"], {"rebuild": {"imageRef": image}})
            after = self._wait_for_server_parameter(
                server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
            self.assertIn(words, after["fault"]["message"] if "fault" in after else
                          self.notification_of(server))
            self.assertEqual([before], self.machines)
            self.assertEqual(b"key", self.simulated.read_tpm(HOST, before["name"], "bitlocker"))
            self.assertIn("hyperv_vtpm", self.system_metadata(server))

        other = self.vtpm_image(2, os_vtpm_keys=OTHER_KEY)
        self.key_manager.status = 403
        assert_refused(other, "may not be read by you")
        self.key_manager.status = 200
        self.key_manager.payloads[OTHER_KEY] = b"nonsense"
        assert_refused(self.vtpm_image(3, os_vtpm_keys=OTHER_KEY), "is not a key protector")

    def save_fails_once(self, *noted, without=()):
        """The first time that a server is saved with all these notes; returns a list for its id.

        :param without: notes that it does not have then
        """
        save, failed = objects.Instance.save, []

        def fail_once(instance, *args, **kwargs):
            has = set(instance.system_metadata)
            if not failed and set(noted) <= has and not has & set(without):
                failed.append(instance.uuid)
                raise oslo_messaging.MessagingTimeout()
            return save(instance, *args, **kwargs)

        self.useFixture(fixtures.MonkeyPatch("nova.objects.Instance.save", fail_once))
        return failed

    def test_what_it_is_built_from_cannot_be_noted(self):
        """Then nothing says that it was built, and so without a vTPM."""
        failed = self.save_fails_once("hyperv_built_from")
        server = self.boot(self.vtpm_image(), expected="ERROR")
        self.assertEqual([server["id"]], failed)
        self.assertEqual(set(), self.notes_of(server))
        self.assert_nothing_left()

    def test_a_rebuild_whose_end_cannot_be_noted(self):
        """Nova does not destroy the VM, and so it is to have its mark."""
        server = self.boot(self.create_image(**GEN2))
        failed = self.save_fails_once(*self.NOTES)
        self.api.post_server_action(server["id"], {"rebuild": {"imageRef": self.vtpm_image(2)}})
        self._wait_for_state_change(server, "ERROR")
        self.assertEqual([server["id"]], failed)
        (machine,) = self.machines
        self.assertTrue(machine["security"]["TpmEnabled"])
        self.assertEqual(set(self.NOTES) - {"hyperv_built_from"}, self.notes_of(server))

    NOTES = ("hyperv_built_from", "hyperv_vtpm", "hyperv_vtpm_fabric")

    def test_a_rebuild_that_ends_before_its_vm_is_made_is_forgotten(self):
        server = self.boot(self.create_image(**GEN2))
        driver = self.compute.manager.driver
        self.api.post_server_action(server["id"], {"rebuild": {
            "imageRef": self.create_image(2, **GEN2), "preserve_ephemeral": True}})
        self._wait_for_state_change(server, "ERROR")
        self.assertEqual({server["id"]: None}, driver._rebuilds)
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "active"}})
        self.key_manager.payloads[OTHER_KEY] = b"nonsense"
        self.api.post_server_action(server["id"], {"rebuild": {
            "imageRef": self.vtpm_image(3, os_vtpm_keys=OTHER_KEY)}})
        self._wait_for_server_parameter(
            server, {"OS-EXT-STS:task_state": None, "status": "ACTIVE"})
        self.assertIn("is not a key protector", self.notification_of(server))
        self.assertEqual({}, driver._rebuilds)

    def test_a_rebuild_that_fails_leaves_no_note(self):
        server = self.boot(self.create_image(**GEN2))
        self.assertEqual({"hyperv_built_from"}, self.notes_of(server))
        self.simulated.add_fault(HOST, "Msvm_SecurityService.SetKeyProtector", return_value=32768)
        self.api.post_server_action(server["id"], {"rebuild": {"imageRef": self.vtpm_image(2)}})
        self._wait_for_state_change(server, "ERROR")
        self.assertEqual(set(), self.notes_of(server))

    def test_a_rebuild_that_cannot_forget_leaves_the_note(self):
        """The VM is not destroyed then."""
        server = self.boot(self.create_image(**GEN2))
        machines = [machine["id"] for machine in self.machines]
        failed = self.save_fails_once(without=["hyperv_built_from"])
        self.api.post_server_action(server["id"], {"rebuild": {"imageRef": self.vtpm_image(2)}})
        self._wait_for_state_change(server, "ERROR")
        self.assertEqual([server["id"]], failed)
        self.assertEqual(machines, [machine["id"] for machine in self.machines])
        self.assertEqual({"hyperv_built_from"}, self.notes_of(server))

    def test_what_is_known_of_a_server_that_is_built_again(self):
        was_built_without = importlib.import_module(
            "vtpm_compute.vtpm_driver")._was_built_without_vtpm
        instance = objects.Instance(image_ref="snapshot", system_metadata={
            "hyperv_built_from": "image", "image_os_vtpm": "required"})
        for state, task, known in (("shelved_offloaded", "spawning", True),
                                   ("active", "resize_finish", True),
                                   ("active", "rebuild_spawning", False),
                                   ("building", "spawning", False)):
            instance.vm_state, instance.task_state = state, task
            self.assertIs(known, was_built_without(instance), state)
        instance.image_ref = "image"
        self.assertFalse(was_built_without(instance))
        instance.vm_state = "active"
        self.assertTrue(was_built_without(instance))
        instance.system_metadata["hyperv_vtpm"] = "vtpm"
        self.assertFalse(was_built_without(instance))
        instance.system_metadata = {}
        for instance.vm_state in ("shelved_offloaded", "active"):
            self.assertFalse(was_built_without(instance))

    def notes_of(self, server):
        return {name for name in self.system_metadata(server) if name.startswith("hyperv_")}

    def notification_of(self, server):
        """Why the last action failed, as the API tells it."""
        action = self.api.get_instance_actions(server["id"])[0]

        def look():
            events = self.api.api_get("/servers/%s/os-instance-actions/%s" % (
                server["id"], action["request_id"])).body["instanceAction"]["events"]
            # nova-compute ends its event after it has put the server's state back.
            self.assertTrue(events and all(event["finish_time"] for event in events), events)
            return " ".join(event.get("details") or "" for event in events)
        return self._soon(look)

    def test_a_config_drive_that_generation_2_does_not_take(self):
        """As the stock drivers make it by default; no key is fetched for it, and no VM made."""
        image = self.vtpm_image(os_vtpm_keys=KEY, img_config_drive="mandatory")
        self.assertIn("[hyperv] config_drive_cdrom = true", self.refused(image))
        self.assertEqual([], self.key_manager.requests)
        self.assertEqual([], self.simulated.calls(HOST, "*.DefineSystem"))

    def test_secure_boot_that_the_stock_driver_refuses(self):
        """Whatever the stock driver finds wrong is the server's fault, not a vain retry."""
        with mock.patch.object(importlib.import_module(self.MODULE).VMOps,
                               "_requires_secure_boot", side_effect=(
                                   exception.InstanceUnacceptable(instance_id="x", reason="no"))):
            self.assertIn("aborted: Instance x is unacceptable: no",
                          self.refused(self.vtpm_image()))

    def test_a_second_spawn_is_refused(self):
        """As an unshelving or a cross-cell resize would do it."""
        server = self.boot(self.vtpm_image(os_vtpm_keys=KEY))
        before = self.machines
        admin = nova_context.get_admin_context()
        instance = objects.Instance.get_by_uuid(
            admin, server["id"], expected_attrs=["system_metadata", "flavor"])
        for task_state in (task_states.SPAWNING, task_states.REBUILD_SPAWNING):
            instance.task_state = task_state
            error = self.assertRaises(
                exception.BuildAbortException, self.compute.driver.spawn, admin, instance,
                None, [], "", {}, network_info=[], block_device_info={})
            self.assertIn("would give the server a new and empty one", str(error))
        self.assertEqual(before, self.machines)
        self.assertIn("hyperv_vtpm", self.system_metadata(server))

    def test_a_protector_is_never_set_a_second_time(self):
        server = self.boot(self.vtpm_image(os_vtpm_keys=KEY))
        self._stop_server(server)
        (before,) = self.machines
        attached = self.compute.driver._vmops.vtpm
        self.simulated.clear_calls(HOST)
        self.assertRaises(errors.AttachError, attached.attach, before["name"], self.prepared(
            self.protector, False, self.simulated.fabric_thumbprint(FABRIC)))
        self.assertEqual([], self.simulated.calls(HOST, "*.SetKeyProtector"))
        self.assertEqual([before], self.machines)

    def test_stop_start_and_reboot_keep_the_tpm(self):
        server = self.boot(self.vtpm_image(os_vtpm_keys=KEY))
        (machine,) = self.machines
        self.simulated.write_tpm(HOST, machine["name"], "bitlocker", b"key")
        requests = len(self.key_manager.requests)
        self._stop_server(server)
        self._start_server(server)
        self._reboot_server(server, hard=True)
        self.assertEqual(b"key", self.simulated.read_tpm(HOST, machine["name"], "bitlocker"))
        self.assertEqual(requests, len(self.key_manager.requests))

    def test_no_vtpm_leaves_the_stock_driver_alone(self):
        plain = self.create_image(3, **GEN2)
        self.boot(plain)
        self.assertEqual([], self.simulated.calls(HOST, "Msvm_SecurityService.*"))
        self.assertEqual([], self.simulated.calls(HOST, "MSFT_HgsGuardian.*"))

    def test_nothing_secret_in_the_logs_or_on_the_disk(self):
        self.boot(self.vtpm_image(os_vtpm_keys=KEY))
        # A part of what is secret in it: certificates are in many places.
        piece = self.protector.split(b"<CipherValue>")[1][:24]
        logged = self.stdlog.logger.output
        self.assertIn("Reading vTPM key", logged)
        for needle in (repr(piece)[2:-1], ", ".join(map(str, piece)), piece.decode("latin-1")):
            self.assertNotIn(needle, logged)
        for folder, _, names in os.walk(tempfile.gettempdir()):
            self.assertEqual([], [os.path.join(folder, name) for name in names
                                  if name.endswith((".pdk", ".fsk", ".pfx"))])


@pytest.mark.compute_hyperv
class VtpmDriverTest(_EveryDriver, vtpm_base.VtpmTestCase):
    MODULE = "vtpm_compute.compute_hyperv_driver"


class NovaHyperVDriverTest(_EveryDriver, vtpm_base.VtpmTestCase):
    compute_driver = "vtpm_hyperv.NovaHyperVDriver"
    MODULE = "vtpm_compute.nova_hyperv_driver"
