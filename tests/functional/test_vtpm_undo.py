"""Whatever fails while a server gets its vTPM: nothing of it stays on the host."""

# Patches nova first.
from tests.functional import nova_base  # isort: skip # noqa: F401

import collections
import contextlib
import os

import fixtures
import pytest

from tests import failing_files, failing_queries
from tests.e2e import secrets_in_logs
from tests.functional import vtpm_base
from tests.functional.vtpm_base import HOST
from tests.hyperv import certificates, guardian

pytestmark = pytest.mark.os_win

# With which an owner's certificates and private keys are deleted.
_LIBRARIES = ("crypt32.", "ncrypt.")
# What removes what was made: where it fails something stays, until the next start.
_REMOVING = ("MSFT_HgsGuardian.Remove", *_LIBRARIES)
_TRIES = 6  # of os-win, for some calls
_START = "Msvm_ComputerSystem.RequestStateChange"
_IDS = ["%08x-1111-4444-8888-555555555555" % number for number in range(6)]


@pytest.mark.compute_hyperv
class VtpmUndoTest(vtpm_base.VtpmTestCase):
    """Each step of a build is made to fail in turn."""

    reads_debug_log = frozenset({
        "test_whatever_fails_with_a_new_owner", "test_whatever_fails_with_a_given_protector",
        "test_whatever_fails_with_a_given_owner_and_further_guardians"})

    def setUp(self):
        super().setUp()
        self.files = failing_files.FailingFiles()
        self.useFixture(fixtures.MonkeyPatch(
            "vtpm_compute.private_folders.os", self.files.in_place_of_os))
        self.queries = failing_queries.FailingQueries()
        self.useFixture(fixtures.MonkeyPatch(
            "tests.hyperv.connection.LocalComputer.query", self.queries.in_place_of_query))

    def store(self, *payloads):
        """Secrets; the value of os_vtpm_keys."""
        ids = _IDS[:len(payloads)]
        self.key_manager.payloads = dict(zip(ids, payloads))
        return ",".join(ids)

    def test_whatever_fails_with_a_new_owner(self):
        self.let_everything_fail(self.vtpm_image())

    def test_whatever_fails_with_a_given_protector(self):
        half = len(self.protector) // 2
        self.let_everything_fail(self.vtpm_image(os_vtpm_keys=self.store(
            self.protector[:half], self.protector[half:])))

    def test_whatever_fails_with_a_given_owner_and_further_guardians(self):
        owner = guardian.Guardian.generate("Contoso")
        self.let_everything_fail(self.vtpm_image(os_vtpm_keys=self.store(
            certificates.make_pfx(owner.signing_certificate, owner.signing_key, ""),
            certificates.make_pfx(owner.encryption_certificate, owner.encryption_key, ""),
            guardian.Guardian.generate("A second site").metadata())))

    def test_whatever_query_fails(self):
        """Those of the steps that are ours: the guardian store, a VM's security."""
        image = self.vtpm_image(os_vtpm_keys=self.store(
            guardian.Guardian.generate("A second site").metadata()))
        with self.queries.failing(None):
            self.calls_of_a_boot(image)
            ours = [number for number, text in enumerate(self.queries.texts)
                    if "MSFT_Hgs" in text or "Msvm_Security" in text]
        outcomes = collections.Counter()
        for number in ours:
            outcomes[self.boot_and_look(
                image, "query %d" % number, True, self.queries.failing(number))] += 1
        print("%d queries were made to fail: %s" % (len(ours), dict(outcomes)))
        self.assertGreater(outcomes["ERROR"], 5)

    def let_everything_fail(self, image):
        """Boot with each call of Windows, and each file operation, failing once in turn."""
        with self.files.failing(None):
            calls = self.calls_of_a_boot(image)
            operations = list(self.files.calls)
        # The start is the last step. What Nova itself asks afterwards leaves the VM as it is when
        # it fails, with every driver, until the server is deleted.
        del calls[calls.index(_START) + 1:]
        outcomes = collections.Counter()
        for number, call in enumerate(calls):
            self.simulated.add_fault(
                HOST, call, nth=calls[:number + 1].count(call), return_value=32768,
                times=1 if call.startswith(_REMOVING) else _TRIES)
            outcomes[self.boot_and_look(image, call, call.startswith(_REMOVING))] += 1
        for number, operation in enumerate(operations):
            outcomes[self.boot_and_look(
                image, operation, True, self.files.failing(number))] += 1
        print("%d calls of Windows and %d file operations were made to fail: %s" % (
            len(calls), len(operations), dict(outcomes)))
        self.assertGreater(outcomes["ERROR"], 10)
        self.assert_nothing_secret_anywhere()

    def boot_and_look(self, image, failing, may_need_the_next_start,
                      fault=contextlib.nullcontext()):  # noqa: B008 - it has no state
        """Boot a server while something fails: its status."""
        with fault:
            server = self._build_server(image_uuid=image, networks="none")
            server = self.wait_until_built(self.api.post_server({"server": server}))
        self.simulated.clear_faults(HOST)
        if server["status"] == "ACTIVE":
            # compute-hyperv can do without this one.
            (machine,) = self.machines
            self.assertTrue(machine["security"]["TpmEnabled"], failing)
            self.assertTrue(machine["tpm_initialized"], failing)
        else:
            self.assertEqual("ERROR", server["status"], failing)
            self.assertEqual([], self.machines, failing)
            self.assert_no_pfx_file()
            if may_need_the_next_start:
                self.compute.driver._vmops.vtpm.clean_up()
            self.assert_nothing_left()
            self.assertNotIn("hyperv_vtpm", self.system_metadata(server), failing)
        self._delete_server(server)
        self.assert_nothing_left()
        return server["status"]

    def assert_no_pfx_file(self):
        self.assertEqual([], [name for _, _, names in os.walk(self.disk) for name in names
                              if name.endswith(".pfx")])

    def assert_nothing_secret_anywhere(self):
        """No part of a key, and no password, is in the log or on the disk."""
        passwords = {parameters["SigningCertificatePassword"].encode()
                     for _, _, parameters, _ in self.simulated.calls(
                         HOST, "MSFT_HgsGuardian.NewByAcceptCertificates")}
        pieces = [payload for payload in self.key_manager.payloads.values()
                  if not payload.startswith(b"<")]
        # Of a key protector what is secret: its certificates are in many places.
        pieces = [part[:200] for piece in pieces
                  for part in (piece.split(b"<CipherValue>")[1:] or [piece])]
        needles = passwords.union(*map(secrets_in_logs.needles, pieces))
        log = self.stdlog.logger.output.encode("utf-8", "replace")
        for expected in (b"DEBUG", b"The vTPM is attached"):
            self.assertTrue(expected in log, expected)
        self.assertEqual([], [needle for needle in needles if needle in log])
        for folder, _, names in os.walk(self.disk):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    content = file.read()
                self.assertEqual([], [needle for needle in needles if needle in content], name)

    def test_jobs_that_fail_after_their_work_leave_nothing(self):
        image = self.vtpm_image()
        for number, method in enumerate((
                "DefineSystem", "SetKeyProtector", "ModifySecuritySettings")):
            self.simulated.add_fault(
                HOST, "*." + method, times=6, point="after", delay=0.02 * number,
                job_error=("It broke.", 32768))
            server = self.boot(image, expected="ERROR")
            self.simulated.clear_faults(HOST)
            self.assert_nothing_left()
            self._delete_server(server)
            self.assert_nothing_left()

    def test_an_owner_that_windows_does_not_remove_goes_at_the_next_start(self):
        image = self.vtpm_image()
        self.simulated.add_fault(HOST, "MSFT_HgsGuardian.Remove", return_value=32768)
        message = self.boot(image, expected="ERROR")["fault"]["message"]
        self.assertIn("MSFT_HgsGuardian.Remove returned 32768", message)
        self.assertEqual([], self.machines)
        self.assertEqual(2, len(self.simulated.guardians(HOST)))
        self.restart_compute_service(self.compute)
        self.assert_nothing_left()

    def test_private_keys_that_windows_does_not_delete_go_at_the_next_start(self):
        image = self.vtpm_image()
        calls = [call for call in self.calls_of_a_boot(image) if call.startswith(_LIBRARIES)]
        self.assertIn("ncrypt.NCryptDeleteKey", calls)
        for call in sorted(set(calls)):
            self.simulated.add_fault(HOST, call, return_value=0x80090010, times=None)
            server = self.boot(image, expected="ERROR")
            self.assertIn("%s failed with 0x80090010" % call.split(".")[1],
                          server["fault"]["message"])
            self.assertEqual([], self.machines)
            self.assertNotEqual([], self.simulated.certificates(HOST))
            # A start at which it fails again says so, and serves the servers.
            self.compute = self.restart_compute_service(self.compute)
            self.assertIn("What was left on the host cannot be removed",
                          self.stdlog.logger.output)
            self.simulated.clear_faults(HOST)
            self.compute = self.restart_compute_service(self.compute)
            self.assert_nothing_left()
            self._delete_server(server)
