"""Faults that would make the simulated host laxer than Windows; a test must catch each.

``tools/check-mutations --simulator`` puts each into a copy of the tree and runs the tests that are
named here.
"""

from __future__ import annotations

from tests.mutations import Mutation

_ATTESTATION = "tests/unit/hyperv/test_attestation.py::"
_CLUSTER = "tests/unit/hyperv/test_failover_cluster.py::"
_JOBS = "tests/unit/hyperv/test_jobs.py::"
_MIGRATION = "tests/unit/hyperv/test_live_migration.py::"
_PROTECTORS = "tests/unit/hyperv/test_key_protectors.py::"
_QUERIES = "tests/unit/hyperv/test_queries.py::"
_SECURITY = "tests/unit/hyperv/test_security_settings.py::"
_EXPORTS = "tests/unit/hyperv/test_export_and_import.py::"
_SNAPSHOTS = "tests/unit/hyperv/test_snapshots.py::"
_STARTS = "tests/unit/hyperv/test_starts.py::"
_VTPM = "tests/unit/hyperv/test_vtpm.py::"
_EACH_START = _VTPM + "test_each_start_rolls_the_transport_key_and_keeps_the_tpm"

MUTATIONS = (
    Mutation(
        "old transport key",
        "A start seals under the old key: storing an old key protector again seems to work.",
        "power.py",
        "guest_state.write(machine.guest_state_file, egress, secrets)",
        "guest_state.write(machine.guest_state_file, ingress, secrets)",
        (_EACH_START,)),
    Mutation(
        "protector not rolled",
        "A start keeps the key protector: code that stores the first one for good seems right.",
        "power.py",
        "ingress, rolled, egress = self._unwrap_for(machine.name, machine.key_protector)",
        """\
ingress = egress = self._unwrap_for(machine.name, machine.key_protector)[0]
        rolled = machine.key_protector""",
        (_EACH_START,)),
    Mutation(
        "no last known good",
        "The key protector of the last start is lost, and with it the way back.",
        "power.py",
        "machine.key_protector = machine.last_known_good = rolled",
        "machine.key_protector = rolled",
        (_EACH_START,)),
    Mutation(
        "empty guest state",
        "An empty guest state file becomes a new TPM: the tenant's keys seem never to have been.",
        "guest_state.py",
        "    if contents == _NEW:",
        '    if contents in (_NEW, b""):',
        (_STARTS + "test_a_damaged_guest_state_does_not_start",)),
    Mutation(
        "lost guest state",
        "A VM whose TPM was started gets a new one when its guest state is lost.",
        "power.py",
        "            if machine.last_known_good != EMPTY_PROTECTOR:",
        "            if False:",
        (_STARTS + "test_a_lost_guest_state_is_not_replaced_by_a_new_one",)),
    Mutation(
        "start without disks",
        "A VM starts without its disks: drivers that lose them seem right.",
        "power.py",
        "            self._check_disks(machine)\n",
        "",
        (_STARTS + "test_a_start_needs_the_disks",)),
    Mutation(
        "half a start",
        "A start that fails keeps the new key protector with the old guest state.",
        "power.py",
        "            machine.key_protector, machine.last_known_good = before\n",
        "",
        (_STARTS + "test_a_failed_start_changes_nothing",)),
    Mutation(
        "source's folders",
        "An imported VM keeps the folders of the host it comes from.",
        "export_and_import.py",
        "        definitions.place(each, roots)",
        "        pass",
        (_EXPORTS + "test_an_import_has_folders_of_its_own",)),
    Mutation(
        "guest state written over",
        "The realization of an import writes over what another TPM holds.",
        "export_and_import.py",
        "if state is not None and _bytes(path) not in (None, state):",
        "if False:",
        (_EXPORTS + "test_a_realization_does_not_replace_a_guest_state",)),
    Mutation(
        "half a snapshot",
        "A snapshot that cannot be applied leaves its definition and key protector.",
        "snapshots.py",
        "            machine.replace(now)\n",
        "",
        (_SNAPSHOTS + "test_a_snapshot_is_applied_whole_or_not_at_all",)),
    Mutation(
        "restored while running",
        "RestoreLastKnownGoodKeyProtector of a running VM is taken.",
        "security_service.py",
        "if not machine.is_off or machine.last_known_good == EMPTY_PROTECTOR:",
        "if machine.last_known_good == EMPTY_PROTECTOR:",
        (_SECURITY + "test_a_protector_is_restored_while_the_machine_is_off",)),
    Mutation(
        "changed while running",
        "ModifySecuritySettings of a running VM is taken: drivers forget to stop it.",
        "security_service.py",
        """\
        if not machine.is_off:
            return _MODIFY_INVALID_STATE
""",
        "",
        (_SECURITY + "test_security_changes_need_the_machine_off",)),
    Mutation(
        "TPM without protector",
        "A virtual TPM is enabled without a key protector.",
        "security_service.py",
        '_NEEDS_PROTECTOR = ("TpmEnabled", ',
        "_NEEDS_PROTECTOR = (",
        (_SECURITY + "test_no_setting_without_a_protector",)),
    Mutation(
        "reset from off",
        "A VM that is off is reset.",
        "power.py",
        "_RESET: ((RUNNING, PAUSED), RUNNING)",
        "_RESET: ((OFF, RUNNING, PAUSED), RUNNING)",
        (_SECURITY + "test_each_request_in_each_state",)),
    Mutation(
        "members unchecked",
        "Expired and untrusted guardians become members of a key protector without a switch.",
        "hgs_client.py",
        "self._check([owner, *members], ",
        "self._check([owner], ",
        (_PROTECTORS + "test_new_by_guardians_looks_at_the_members_certificates",)),
    Mutation(
        "fabrics with one key",
        "Every fabric unwraps every protector: those of the wrong guardian seem right.",
        "guarded_fabric.py",
        "self._guardians = [Guardian.generate(name, self._clock.now)]",
        """\
known = GuardedFabric.__dict__.get("_known")
        self._guardians = [known or Guardian.generate(name, self._clock.now)]
        GuardedFabric._known = self._guardians[0]""",
        (_SECURITY + "test_a_protector_for_others_is_refused_at_the_start",)),
    Mutation(
        "attestation for ever",
        "A host stays guarded however long ago it attested.",
        "attestation.py",
        " <= now < _seconds(loaded.not_valid_after))",
        " <= now)",
        (_ATTESTATION + "test_a_health_certificate_ends_after_eight_hours",)),
    Mutation(
        "unattested destination",
        "A running TPM arrives at any host: whether one is guarded does not matter.",
        "live_migration.py",
        """\
            protector, tpm = there.power.receive_tpm(
                machine.name, machine.key_protector, machine.tpm, path)
""",
        """\
            protector, tpm = machine.key_protector, machine.tpm
""",
        (_MIGRATION + "test_a_host_that_is_not_attested_does_not_take_it",)),
    Mutation(
        "failures that look well",
        "A job whose work failed ends as completed: drivers need not look.",
        "jobs.py",
        "self._end(job, EXCEPTION, ErrorCode=failure.code, ",
        "self._end(job, DONE, ErrorCode=failure.code, ",
        (_JOBS + "test_a_job_fails_before_or_after_its_work",)),
    Mutation(
        "not selected and there",
        "A query gives what it did not select: code that forgets to select seems right.",
        "wql.py",
        "instance.projected(self.fields) if self.fields else instance.clone()",
        "instance.clone()",
        (_QUERIES + "test_what_is_not_selected_is_null",)),
    Mutation(
        "events of any kind",
        "A listener hears of what it did not ask for: one for the wrong event seems right.",
        "event_query.py",
        "kind in self._kinds and ",
        "",
        (_QUERIES + "test_only_events_that_fit_arrive",)),
    Mutation(
        "misspelled configuration",
        "An unknown key is ignored: a test of a host that is not guarded runs on one that is.",
        "configuration.py",
        "    if unknown:",
        "    if not known:",
        ("tests/unit/hyperv/test_configuration.py::test_what_is_refused",)),
    Mutation(
        "snapshots without a VM",
        "The job of a snapshot is none of its VM: drivers need not wait for it.",
        "jobs.py",
        'return found[0]["VirtualSystemIdentifier"] if found else None',
        "return None",
        (_JOBS + "test_the_job_of_a_snapshot_is_one_of_its_machine",)),
    Mutation(
        "orders to a locked group",
        "A cluster moves, saves or destroys what a job of the VM works on.",
        "failover_cluster.py",
        "if not ignore_lock and self._is_locked(group):",
        "if False:",
        (_CLUSTER + "test_a_group_is_locked_while_a_job_of_its_vm_runs",)),
)
