"""What the simulation does, on whose word, and which test shows it.

Printed into ``doc/source/contributor/simulated-host.rst`` by::

    python -m tests.hyperv.behaviours doc/source/contributor/simulated-host.rst

A test compares the page with this table, the tests named here with those there are, and the
assumptions named here with :mod:`tests.hyperv.assumptions`.
"""
import pathlib
import sys
from typing import NamedTuple

from tests.hyperv.assumptions import ASSUMPTIONS


class Behaviour(NamedTuple):
    """One row.

    :ivar what: what the simulated host does, in one sentence
    :ivar basis: a document and its section, a public source file, or ``assumed: <id>`` with the id
        of an entry of :data:`tests.hyperv.assumptions.ASSUMPTIONS`
    :ivar test: the test that shows it: path::class::function, as pytest takes it
    """

    what: str
    basis: str
    test: str


def _rows(*rows):
    return tuple(Behaviour(*row) for row in rows)


_VTPM_ISSUES = (
    'Microsoft Learn, "Troubleshoot vTPM, shielded VM, and HGS issues in Hyper-V clusters"')
_MIGRATED_VTPM = 'user report: GitHub, "Live Migration of vTPM enabled VM"'

# An area a constant; in the order of the page.
AREAS = {}

AREAS["WMI"] = _rows(
    ("A class, property, method, parameter or namespace that no table declares is refused "
     "with WMI's HRESULT, or as PyMI does.",
     "PyMI 1.0.9, MI/MI++.cpp, wmi/__init__.py; Microsoft Learn, WMI Error Constants",
     "tests/unit/hyperv/test_refusals.py::test_names_that_there_are_not"),
    ("The tables hold every class and member that os-win's Hyper-V code names; the "
     "exceptions are listed with reasons.",
     "os-win 5.9.0, its source",
     "tests/unit/hyperv/test_schema.py::test_every_class_that_the_drivers_name_is_declared"),
    ("The tables have the classes, types and parameters of a real Windows Server 2019.",
     "classes read off a host's CIM repository; Microsoft Learn for datetimes and keys",
     "tests/unit/hyperv/test_schema.py::test_the_tables_agree_with_a_real_host"),
    ("Names of classes, properties, methods and parameters are found in any case.",
     "DMTF DSP0004, case of names",
     "tests/unit/hyperv/test_refusals.py::test_names_in_any_case"),
    ("Arguments by position fill the in-parameters sorted by name.",
     "PyMI 1.0.9, MI/MI++.cpp (std::map)",
     "tests/unit/hyperv/test_refusals.py::test_positions_are_those_of_the_sorted_names"),
    ("A Python type that PyMI does not convert is a TypeError: a list for a string, a "
     "float for a number, anything for a datetime.",
     "PyMI 1.0.9, PyMI/Utils.cpp (Py2MI)",
     "tests/unit/hyperv/test_refusals.py::test_types_that_pymi_does_not_convert"),
    ("A bool for a number or string is a type mismatch without an HRESULT; an integer that"
     " does not fit is refused, where PyMI cuts it.",
     "PyMI 1.0.9, PyMI/Utils.cpp, MI/MIValue.cpp",
     "tests/unit/hyperv/test_refusals.py::test_values_that_mi_refuses"),
    ("A bool in an array of another type ends the process; here it is a SystemError.",
     "PyMI 1.0.9, MI/MIValue.cpp (SetArrayItem)",
     "tests/unit/hyperv/test_refusals.py::test_values_that_end_the_process"),
    ("Bytes for a string become b'...', a text for an array its characters, texts of "
     "digits numbers.",
     "PyMI 1.0.9, PyMI/Utils.cpp, wmi/__init__.py",
     "tests/unit/hyperv/test_refusals.py::test_values_that_pymi_converts"),
    ("A datetime is read as datetime.datetime without a zone, an interval as timedelta.",
     "PyMI 1.0.9, PyMI/Utils.cpp (MI2Py)",
     "tests/unit/hyperv/test_refusals.py::test_datetimes_are_pythons"),
    ("A query with an unknown property, or a literal that is not of the property's type, "
     "is invalid.",
     "Microsoft Learn, WQL; WMI Error Constants (WBEM_E_INVALID_QUERY)",
     "tests/unit/hyperv/test_refusals.py::test_queries"),
    ("Conditions compare as WQL does, texts in any case.",
     "Microsoft Learn, WQL (SQL for WMI), LIKE Operator",
     "tests/unit/hyperv/test_wmi.py::test_conditions"),
    ("WITHIN is for events.",
     "Microsoft Learn, WITHIN Clause",
     "tests/unit/hyperv/test_refusals.py::test_queries"),
    ("A comparison that the type of the property does not have makes a query invalid.",
     "assumed: wql-comparisons",
     "tests/unit/hyperv/test_queries.py::test_literals"),
    ("ASSOCIATORS OF, REFERENCES OF, schema queries and what else the simulated WQL lacks are "
     "refused as invalid, never ignored.",
     "Microsoft Learn, WMI Error Constants (WBEM_E_INVALID_QUERY)",
     "tests/unit/hyperv/test_queries.py::test_what_is_not_simulated_is_refused"),
    ("A query gives the properties that it selects, and the keys; all else is null.",
     "assumed: not-selected",
     "tests/unit/hyperv/test_queries.py::test_what_is_not_selected_is_null"),
    ("os-win's own selections have what it reads of them.",
     "os-win, vmutils.py (list_instance_notes), hostutils.py (get_numa_nodes, get_cpus_info)",
     "tests/unit/hyperv/test_queries.py::test_os_wins_selections"),
    ("An event query with an unknown class, a class that is none of events, an unknown property "
     "or a wrong literal is refused.",
     "assumed: event-queries-checked",
     "tests/unit/hyperv/test_queries.py::test_event_queries_that_are_refused"),
    ("An event query about instances needs WITHIN, and not too short an interval.",
     "assumed: events-by-polling",
     "tests/unit/hyperv/test_queries.py::test_event_queries_that_are_refused"),
    ("Instances that are made, changed and removed are events for those whose query they fit.",
     "Microsoft Learn, __InstanceCreationEvent class and its kin, ISA Operator for Event Queries",
     "tests/unit/hyperv/test_queries.py::test_only_events_that_fit_arrive"),
    ("An event has the instances that its query selects; one without TargetInstance is lost.",
     "Microsoft Learn, SELECT Statement for Event Queries; PyMI 1.0.9, wmi/__init__.py "
     "(_indication_result), PyMI/Utils.cpp (CallPythonCallback)",
     "tests/unit/hyperv/test_queries.py::test_what_an_event_holds"),
    ("os-win's listeners for power states and for failovers hear what they wait for.",
     "os-win, vmutils.py (get_vm_power_state_change_listener), clusterutils.py "
     "(_get_failover_watcher)",
     "tests/unit/hyperv/test_queries.py::test_os_wins_power_state_listener"),
    ("Events come at once.",
     "assumed: events-at-once",
     "tests/functional/test_stock_hyperv_driver.py::test_life_in_one_process"),
    ("A call without a parameter that may not be left out is refused.",
     "assumed: references-checked",
     "tests/unit/hyperv/test_refusals.py::test_parameters_that_are_missing"),
    ("A parameter that the method does not have is refused by the host, too.",
     "Microsoft Learn, WMI Error Constants (WBEM_E_INVALID_METHOD_PARAMETERS)",
     "tests/unit/hyperv/test_wmi.py::test_the_host_refuses_unknown_parameters"),
    ("A reference has to be of the declared class and to exist.",
     "assumed: references-checked",
     "tests/unit/hyperv/test_refusals.py::test_references"),
    ("A reference to another computer's object is refused.",
     "assumed: references-checked",
     "tests/unit/hyperv/test_refusals.py::test_a_reference_to_another_host"),
    ("A method of instances is not called on the class.",
     "Microsoft Learn, WMI Error Constants (WBEM_E_INVALID_METHOD_PARAMETERS)",
     "tests/unit/hyperv/test_refusals.py::test_methods_of_instances_are_none_of_the_class"),
    ("An embedded instance that is malformed, of another class or with a wrong value is "
     "refused.",
     "Microsoft Learn, ModifySystemSettings; WMI Error Constants",
     "tests/unit/hyperv/test_refusals.py::test_embedded_instances"),
    ("An instance whose keys are references, such as an association, has no path.",
     "PyMI 1.0.9, MI/MI++.cpp (Instance::GetPath)",
     "tests/unit/hyperv/test_refusals.py::test_paths_that_pymi_does_not_make"),
    ("Instances of Hyper-V are not put, made or deleted but changed by methods.",
     "Microsoft Learn, Hyper-V WMI provider (V2), Msvm_VirtualSystemManagementService",
     "tests/unit/hyperv/test_refusals.py::test_stored_instances_change_by_methods_alone"),
    ("Associators of unknown classes are refused.",
     "Microsoft Learn, ASSOCIATORS OF Statement; WMI Error Constants",
     "tests/unit/hyperv/test_refusals.py::test_associators"),
    ("A declared method that is not simulated is refused, never a success.",
     "Microsoft Learn, WMI Error Constants (WBEM_E_METHOD_NOT_IMPLEMENTED)",
     "tests/unit/hyperv/test_refusals.py::test_what_has_no_provider_is_refused"),
    ("Server 2012 R2 has no security service and no Host Guardian Service.",
     "Microsoft Learn, Msvm_SecurityService (Requirements)",
     "tests/unit/hyperv/test_wmi.py::test_an_old_host_has_no_security"),
)

_HARDWARE = "tests/unit/hyperv/test_hardware.py::"

AREAS["Virtual machines"] = _rows(
    ("DefineSystem makes a machine of the generation that is asked for, with its files; it"
     " is found by name and starts.",
     "Microsoft Learn, DefineSystem, RequestStateChange",
     "tests/functional/test_hyperv_drivers.py::NovaDriverTest::test_power"),
    ("nova's own driver's spawn, power, rescue, resize, revert and destroy run on it.",
     "nova 27 and 28, nova/virt/hyperv",
     "tests/functional/test_hyperv_drivers.py::NovaDriverTest"),
    ("compute-hyperv's spawn, power, rescue, resize, revert and destroy run on it.",
     "compute-hyperv 16",
     "tests/functional/test_hyperv_drivers.py::ComputeHyperVTest"),
    ("A machine in rescue has the rescue disk first and its own disk second; after it, its own "
     "alone.",
     "nova 28, nova/virt/hyperv/vmops.py; compute-hyperv 16, vmops.py (rescue_instance)",
     "tests/functional/test_hyperv_drivers.py::ComputeHyperVTest::test_rescue"),
    ("compute-hyperv's resize, revert and confirm carry a virtual TPM between hosts that share no "
     "disk.",
     "compute-hyperv 16, migrationops.py",
     "tests/functional/test_hyperv_drivers.py::ComputeHyperVTpmTest::test_resize"),
    ("A machine changes its state by RequestStateChange and tells who watches.",
     "Microsoft Learn, RequestStateChange method of the Msvm_ComputerSystem class",
     "tests/functional/test_stock_hyperv_driver.py::test_life_in_one_process"),
    ("A request that does not fit the machine's state is refused: invalid state.",
     "assumed: when-states-are-invalid",
     "tests/unit/hyperv/test_security_settings.py::test_each_request_in_each_state"),
    ("The request Shut Down (4), of version 1 of Hyper-V only, is refused.",
     "Microsoft Learn, RequestStateChange method of the Msvm_ComputerSystem class "
     "(RequestedState)",
     "tests/unit/hyperv/test_security_settings.py::test_each_request_in_each_state"),
    ("Destroying a VM removes its definition and guest state; its disks stay.",
     "Microsoft Learn, DestroySystem",
     "tests/unit/hyperv/test_export_and_import.py::test_destroying_removes_the_guest_state"),
    ("A VM that runs or is paused is not destroyed: invalid state.",
     "assumed: when-states-are-invalid",
     "tests/unit/hyperv/test_export_and_import.py::test_a_running_vm_is_not_destroyed"),
    ("Destroying a VM with snapshots merges its disks.",
     "assumed: snapshot-files",
     "tests/unit/hyperv/test_snapshots.py::test_destroying_a_vm_merges_its_disks"),
    ("A VM of Generation 2 does not start without its guest state file.",
     "assumed: guest-state-missing",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_a_vm_does_not_start_without_its_guest_state"),
    ("A VM does not start with an empty, cut or otherwise damaged guest state file.",
     "assumed: guest-state-missing",
     "tests/unit/hyperv/test_starts.py::test_a_damaged_guest_state_does_not_start"),
    ("A VM whose TPM was started does not start with the file of one that never was.",
     "assumed: guest-state-missing",
     "tests/unit/hyperv/test_starts.py::test_a_lost_guest_state_is_not_replaced_by_a_new_one"),
    ("A VM does not start without a disk, a disk's parent or a DVD image.",
     "assumed: disks-of-a-start",
     "tests/unit/hyperv/test_starts.py::test_a_start_needs_the_disks"),
    ("Nor does it resume from a saved state.",
     "assumed: disks-of-a-start",
     "tests/unit/hyperv/test_starts.py::test_a_saved_vm_needs_its_disks_too"),
    ("A VM does not start with a disk that another one has open.",
     "assumed: disks-of-a-start",
     "tests/unit/hyperv/test_starts.py::test_a_disk_of_a_running_vm_is_in_use"),
    ("A saved VM does not resume without its .VMRS file, which no change of its settings makes.",
     "assumed: saved-state-missing",
     "tests/unit/hyperv/test_starts.py::test_a_saved_vm_needs_its_memory"),
    ("A VM whose open disk or guest state was deleted or moved does not change its state.",
     "assumed: open-files",
     "tests/unit/hyperv/test_starts.py::test_a_vm_in_memory_needs_the_files_that_it_has_open"),
    ("A guest state file that was deleted under a running VM does not come back.",
     "assumed: open-files",
     "tests/unit/hyperv/test_starts.py::test_a_guest_state_that_is_deleted_does_not_come_back"),
    ("A start whose files cannot be written leaves guest state and key protector as they were.",
     "[MS-KPS] RollTransportKey: the state is sealed for the new protector only",
     "tests/unit/hyperv/test_starts.py::test_a_failed_start_changes_nothing"),
    ("Encrypted state without a TPM needs the key protector unwrapped.",
     "assumed: encrypted-state-needs-the-key",
     "tests/unit/hyperv/test_starts.py::test_encrypted_state_needs_the_key"),
    ("A new VM has the configuration version that DefineSystem is given, if the host supports it.",
     "assumed: version-of-a-new-vm",
     "tests/unit/hyperv/test_definitions.py::test_the_version_of_a_new_vm"),
    ("Each release of Windows loads the configuration versions of its row.",
     "Microsoft Learn, Upgrade virtual machine version in Hyper-V (supported versions)",
     "tests/unit/hyperv/test_definitions.py::test_versions_that_a_host_loads"),
    ("Folders of a new VM are full paths; where they cannot be made there is no VM.",
     "Microsoft Learn, Msvm_VirtualSystemSettingData (ConfigurationDataRoot)",
     "tests/unit/hyperv/test_definitions.py::test_a_vm_whose_files_cannot_be_made"),
    ("Version, generation and identifiers do not change by a setting.",
     "assumed: settings-that-stay",
     "tests/unit/hyperv/test_definitions.py::test_settings_that_stay"),
    ("Processors, dynamic memory, controllers and the boot order change while the VM is off.",
     "assumed: hardware-of-a-vm", _HARDWARE + "test_what_needs_the_vm_off"),
    ("So do IDE drives and the network adapters of Generation 1.",
     "assumed: hardware-of-a-vm", _HARDWARE + "test_generation_1_changes_while_it_is_off"),
    ("A VM of Generation 2 gets SCSI drives and network adapters while it is in memory.",
     'Microsoft Learn, "What\'s new in Hyper-V on Windows Server 2016" (hot add and remove)',
     _HARDWARE + "test_what_generation_2_takes_while_it_is_in_memory"),
    ("A saved VM gets none.",
     "assumed: hardware-of-a-vm", _HARDWARE + "test_a_saved_vm_gets_nothing"),
    ("The memory of a running VM changes on 2016 or later, without dynamic memory.",
     'Microsoft Learn, "What\'s new in Hyper-V on Windows Server 2016" (hot add and remove)',
     _HARDWARE + "test_the_memory_of_a_vm_that_is_not_off"),
    ("A SCSI controller has 64 locations, an IDE controller two; one drive is at each.",
     'Microsoft Learn, "Plan for Hyper-V scalability in Windows Server", "Add-VMHardDiskDrive"',
     _HARDWARE + "test_locations"),
    ("A VM has at most four SCSI controllers; Generation 2 has no IDE.",
     'Microsoft Learn, "Plan for Hyper-V scalability in Windows Server"',
     _HARDWARE + "test_controllers"),
    ("A disk that is missing or attached already, and a VHD of Generation 2, are refused.",
     "assumed: hardware-of-a-vm", _HARDWARE + "test_disks"),
    ("A VM has from one processor to as many as its generation and the host allow.",
     'Microsoft Learn, "Plan for Hyper-V scalability in Windows Server"',
     _HARDWARE + "test_how_many_processors"),
    ("It has from 32 MB of memory to what its generation and the release of Windows allow.",
     'Microsoft Learn, "Plan for Hyper-V scalability in Windows Server"; the least: assumption '
     "hardware-of-a-vm",
     _HARDWARE + "test_how_much_memory"),
    ("The folders of a realized VM do not change by a setting.",
     "assumed: roots-stay",
     "tests/unit/hyperv/test_export_and_import.py::test_a_vms_files_do_not_move_by_a_setting"),
)

_JOBS = "tests/unit/hyperv/test_jobs.py::"

AREAS["Jobs"] = _rows(
    ("Methods answer 4096 with a job, or 0 at once.",
     "assumed: which-are-jobs",
     _JOBS + "test_a_job_is_finished_unless_it_is_delayed"),
    ("A job that a test delays is Starting, then Running with a growing "
     "PercentComplete and ElapsedTime; its work is done when its time has come on "
     "the clock.",
     'Microsoft Learn, "Msvm_ConcreteJob class" (JobState, PercentComplete, '
     "ElapsedTime)",
     _JOBS + "test_a_delayed_job_works_at_its_end"),
    ("The Nth call of a method is delayed, the others are not.",
     "tests/hyperv/faults.py",
     _JOBS + "test_only_the_calls_that_were_asked_for_are_delayed"),
    ("Out-parameters that exist at the end only are null while the job runs; the job "
     "is then associated with what it made.",
     'Microsoft Learn, "Msvm_AffectedJobElement class"; '
     "os_win/utils/compute/vmutils.py (take_vm_snapshot)",
     _JOBS + "test_out_parameters_come_with_the_end"),
    ("What a method is given is checked when it is called: a refusal has no job.",
     'Microsoft Learn, return values ("Method Parameters Checked - Job Started '
     '(4096)")',
     _JOBS + "test_parameters_and_state_are_checked_when_the_method_is_called"),
    ("A job whose work is refused when it runs ends with JobState 10 and that code.",
     "assumed: job-codes",
     _JOBS + "test_the_state_is_checked_again_when_the_job_runs"),
    ("A job fails before its work, which stays undone, or after it, at once or with "
     "a delay.",
     'Microsoft Learn, "Msvm_ConcreteJob class" (JobState 10, ErrorCode, '
     "ErrorDescription)",
     _JOBS + "test_a_job_fails_before_or_after_its_work"),
    ("A method returns a failure although its work was done.",
     "tests/hyperv/faults.py",
     _JOBS + "test_a_method_fails_after_its_work"),
    ("GetErrorEx and GetError give Msvm_Error instances as CIM-XML for a job that "
     "failed or was stopped, null else.",
     'Microsoft Learn, "GetErrorEx method of the Msvm_ConcreteJob class", '
     '"Msvm_Error class"',
     _JOBS + "test_the_errors_of_a_job"),
    ("A failed job's OperationalStatus stays OK.",
     "assumed: job-status",
     _JOBS + "test_the_errors_of_a_job"),
    ("While a job of a VM runs, changes to it are refused; reading it and changing "
     "others works.",
     "assumed: one-job-a-machine",
     _JOBS + "test_other_changes_are_refused_while_a_job_of_the_machine_runs"),
    ("The job of a snapshot is one of its VM, whose changes it refuses and which it names.",
     "assumed: one-job-a-machine",
     _JOBS + "test_the_job_of_a_snapshot_is_one_of_its_machine"),
    ("While a job of a VM runs, its snapshots stay as they are, too.",
     "assumed: one-job-a-machine",
     _JOBS + "test_a_snapshot_stays_while_a_job_of_its_machine_runs"),
    ("A finished job names its VM and what it made, as long as they exist.",
     'Microsoft Learn, "Msvm_AffectedJobElement class"',
     _JOBS + "test_the_elements_of_finished_jobs"),
    ("A file that cannot be read or written fails the job.",
     "assumed: job-codes",
     _JOBS + "test_a_file_that_cannot_be_written_fails_the_job"),
    ("While its state changes, a VM shows a state on the way.",
     "assumed: states-on-the-way",
     _JOBS + "test_a_delayed_job_works_at_its_end"),
    ("RequestStateChange of a job terminates (4) or kills (5) it; its work stays "
     "undone.",
     'Microsoft Learn, "RequestStateChange method of the Msvm_ConcreteJob class"',
     _JOBS + "test_a_job_is_stopped"),
    ("A finished job answers 4097 to that, a time limit 4098, an unknown state 5.",
     'Microsoft Learn, "RequestStateChange method of the Msvm_ConcreteJob class" '
     "(return values)",
     _JOBS + "test_requests_that_a_job_refuses"),
    ("A job that is not cancellable cannot be stopped.",
     "assumed: job-cancelled",
     _JOBS + "test_requests_that_a_job_refuses"),
    ("os-win stops the jobs of a VM through their associations.",
     "os_win/utils/jobutils.py (stop_jobs)",
     _JOBS + "test_os_win_stops_jobs"),
    ("os-win waits for delayed jobs and shows their errors.",
     "os_win/utils/jobutils.py (check_ret_val)",
     _JOBS + "test_os_win_waits_for_jobs"),
    ("A finished job vanishes after five minutes, with its associations.",
     'Microsoft Learn, "Msvm_ConcreteJob class" (TimeBeforeRemoval)',
     _JOBS + "test_a_finished_job_is_kept_for_five_minutes"),
    ("A host that lost its power has no jobs of before.",
     "assumed: jobs-and-power",
     _JOBS + "test_a_host_that_lost_its_power_has_no_jobs"),
    ("Watchers see a job's states change.",
     'Microsoft Learn, "Msvm_ConcreteJob class" (JobState)',
     _JOBS + "test_who_watches_a_job_sees_it_change"),
    ("Delays and the clock work behind the socket of a fabric process too.",
     "tests/hyperv/fabric_client.py",
     _JOBS + "test_jobs_behind_a_socket"),
    ("compute-hyperv and os-win take delayed jobs while a server is built, rebooted, deleted; "
     "those of AddResourceSettings must be finished when it returns.",
     "os_win/utils/compute/vmutils.py (attach_drive)",
     "tests/functional/test_vtpm_driver.py::VtpmDriverTest::test_jobs_that_take_time"),
)

_SECURITY = "tests/unit/hyperv/test_security_settings.py::"

AREAS["Security settings and the virtual TPM"] = _rows(
    ("An unset key protector reads back as the bytes 0 0 0 4.",
     "assumed: unset-protector",
     _SECURITY + "test_the_empty_protector_can_be_set_and_reads_back"),
    ("A protector is a length of four bytes, big endian, itself included, and the "
     "rest; what does not fit it is refused (32773).",
     "assumed: protector-prefix",
     _SECURITY + "test_protectors_that_do_not_fit_their_prefix"),
    ("A protector of a wrong Python type is a TypeError; a bool in it would end the "
     "process.",
     "PyMI 1.0.9, PyMI/utils.cpp",
     _SECURITY + "test_wrong_types_of_a_protector"),
    ("A protector with a wrong signature is refused when it is set; whom it is for "
     "is not looked at.",
     "assumed: protector-read-when-set",
     _SECURITY + "test_a_damaged_signature_is_refused_when_it_is_set"),
    ("The empty protector is refused while a setting needs one.",
     "assumed: protector-in-use",
     _SECURITY + "test_the_empty_protector_is_refused_while_a_setting_needs_one"),
    ("No vTPM, shielding or encryption without a key protector: the job fails, in "
     "Windows' words.",
     "user report: GitHub, hashicorp/vagrant pull request 11978 (of Enable-VMTPM, in slightly "
     "other words)",
     _SECURITY + "test_no_setting_without_a_protector"),
    ("Other security settings need no protector.",
     'Microsoft Learn, "Msvm_SecuritySettingData class"',
     _SECURITY + "test_other_settings_need_no_protector"),
    ("Settings that are not given stay.",
     'Microsoft Learn, "ModifySecuritySettings method"',
     _SECURITY + "test_what_is_not_given_stays"),
    ("KsdEnabled is refused on Generation 2.",
     "assumed: ksd-generation-2",
     _SECURITY + "test_a_key_storage_drive_is_for_generation_1"),
    ("Generation 1 has no security settings.",
     "assumed: security-generation-2",
     _SECURITY + "test_generation_1_has_no_security_settings"),
    ("Security changes of a VM that is not off are refused: 32775, and 5 from "
     "ModifySecuritySettings.",
     "assumed: when-states-are-invalid",
     _SECURITY + "test_security_changes_need_the_machine_off"),
    ("So is RestoreLastKnownGoodKeyProtector where there is something to restore.",
     "assumed: when-states-are-invalid",
     _SECURITY + "test_a_protector_is_restored_while_the_machine_is_off"),
    ("SetSecurityPolicy starts a job and takes any bytes.",
     "assumed: any-policy",
     _SECURITY + "test_a_security_policy_is_set_by_a_job"),
    ("So they are, and wrong parameters too, at once where their jobs are delayed.",
     'Microsoft Learn, "Msvm_SecurityService class" ("Method Parameters Checked - '
     'Job Started")',
     _SECURITY + "test_they_are_refused_at_once_also_where_jobs_are_delayed"),
    ("A VM with a configuration version before 8.0 takes none of them.",
     "assumed: old-configuration-versions",
     _SECURITY + "test_a_virtual_machine_of_2012_r2_takes_none_of_them"),
    ("Each start unwraps the protector, opens the TPM's state, and stores both under "
     "a new transport key.",
     '[MS-KPS] RollTransportKey; Microsoft Learn, "Msvm_TPMSettingData class"',
     "tests/unit/hyperv/test_vtpm.py::test_each_start_rolls_the_transport_key_and_keeps_the_tpm"),
    ("A start with a protector for others fails in Windows' words and leaves the VM "
     "off.",
     _VTPM_ISSUES + "; the words: " + _MIGRATED_VTPM,
     _SECURITY + "test_a_protector_for_others_is_refused_at_the_start"),
    ("A start with a protector whose transport key's signature is wrong fails "
     "likewise.",
     "[MS-KPS] TransportKeySignature",
     _SECURITY + "test_a_damaged_protector_that_only_its_key_betrays_is_refused_at_the_start"),
    ("Another protector can be set while the vTPM is enabled; where it is not that "
     "of the TPM's state, the start fails.",
     'Microsoft Learn, "Managing the Host Guardian Service" (Renewing or replacing '
     "keys)",
     _SECURITY + "test_a_protector_set_again_over_a_tpm_that_has_state"),
    ("The words of that failure name 0xC000A002.",
     "assumed: words-of-a-wrong-tpm-key",
     _SECURITY + "test_a_protector_set_again_over_a_tpm_that_has_state"),
    ("RestoreLastKnownGoodKeyProtector brings back the protector of the last start.",
     'Microsoft Learn, "Managing the Host Guardian Service" (Renewing or replacing '
     'keys); "Msvm_TPMSettingData class" (LastKnownGoodKeyProtector)',
     _SECURITY + "test_a_protector_set_again_over_a_tpm_that_has_state"),
    ("Where the VM was never started there is nothing to restore (32775).",
     "assumed: when-states-are-invalid",
     _SECURITY + "test_nothing_to_restore"),
    ("A disabled vTPM keeps what it holds.",
     "assumed: disabled-tpm",
     _SECURITY + "test_a_disabled_tpm_keeps_what_it_holds"),
    ("A shielded VM needs the vTPM, encryption and Secure Boot to start, and keeps them.",
     "assumed: shielding-needs",
     _SECURITY + "test_a_shielded_machine_needs_the_other_settings"),
    ("The Secure Boot template stays that of a vTPM that was started, also while it is disabled.",
     "The words: user reports of Set-VMFirmware",
     _SECURITY + "test_the_template_of_a_tpm_that_was_started_stays"),
    ("Secure Boot of a shielded VM cannot be turned off.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" (Secure Boot: '
     "required and enforced)",
     _SECURITY + "test_secure_boot_of_a_shielded_machine_stays"),
    ("Only the owner takes shielding back.",
     "assumed: unshielding",
     _SECURITY + "test_shielding_stays_where_the_owner_is_not"),
    ("On a host with the owner's private keys it can be taken back.",
     'Microsoft, "Step by Step - Shielded VM Recovery" (datacenter security blog)',
     _SECURITY + "test_the_owner_takes_shielding_back"),
    ("A shielded VM's serial ports cannot be connected; those of an encrypted one "
     "can.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" (COM/Serial ports)',
     _SECURITY + "test_a_shielded_machine_has_no_serial_port"),
    ("Msvm_SecurityElement: whether a VM in memory is shielded and encrypted.",
     'Microsoft Learn, "Msvm_SecurityElement class"',
     _SECURITY + "test_the_security_of_a_machine_in_memory"),
    ("It is there while the VM is in memory.",
     "assumed: security-element",
     _SECURITY + "test_the_security_of_a_machine_in_memory"),
    ("The Secure Boot template cannot change once there is a vTPM: the job fails, in "
     "Windows' words.",
     "user report: GitHub, hashicorp/packer-plugin-hyperv issue 49 (of Set-VMFirmware)",
     _SECURITY + "test_the_template_is_fixed_once_there_is_a_tpm"),
    ("A VM without a template of its own has the one for Windows, also in that rule.",
     'Microsoft Learn, "Set-VMFirmware"',
     _SECURITY + "test_the_first_template_comes_before_the_tpm_too"),
    ("Secure Boot and its template change while the VM is off.",
     "assumed: firmware-refusals",
     _SECURITY + "test_secure_boot_changes_while_the_machine_is_off"),
    ("Templates that do not exist, and Secure Boot of Generation 1, are refused.",
     "assumed: firmware-refusals",
     _SECURITY + "test_templates_that_do_not_exist"),
    ("A guest asked to shut down does so at once.",
     "assumed: guest-obeys",
     _SECURITY + "test_the_guest_obeys"),
    ("The guest state file is sealed whole, with a key of the transport key.",
     "assumed: guest-state-form",
     _SECURITY + "test_the_guest_state_is_sealed_and_sealed_anew"),
    ("Any sequence of these calls has the outcome that the rules of this table give.",
     "assumed: when-states-are-invalid",
     _SECURITY + "test_any_sequence_of_calls_has_the_outcome_of_the_rules"),
)

_CRYPT32 = "tests/unit/hyperv/test_crypt32.py::"

AREAS["Guardians and key protectors"] = _rows(
    ('NewByGenerateCertificates makes two self-signed RSA-2048 certificates with their '
     'private keys in the store "Shielded VM Local Certificates".',
     'Microsoft Learn, "New-HgsGuardian"; "Create a shielding data file"',
     "tests/unit/hyperv/test_guardians.py::test_generated"),
    ("They are valid for ten years, one for signatures, one for encryption.",
     "assumed: certificate-usages",
     "tests/unit/hyperv/test_guardians.py::test_certificates_are_for_their_use_and_ten_years"),
    ("A guardian's name is unique whatever its case.",
     'Microsoft Learn, "MSFT_HgsGuardian class" (Name is its key)',
     "tests/unit/hyperv/test_guardians.py::test_a_name_is_unique_in_any_case"),
    ("NewByAcceptCertificates reads two PFX files with their passwords.",
     'Microsoft Learn, "NewByAcceptCertificates method"',
     "tests/unit/hyperv/test_guardians.py::test_accepted_from_pfx_files"),
    ("A wrong password, a missing file, a PFX file without the private key are refused "
     "with the system's own error codes.",
     "assumed: static-faults",
     "tests/unit/hyperv/test_guardians.py::test_a_wrong_password"),
    ("RSA keys below 2048 bits are refused.",
     'Microsoft Learn, "Obtain certificates for HGS"',
     "tests/unit/hyperv/test_guardians.py::test_a_key_below_2048_bits"),
    ("Certificates that have expired, or are not valid yet, are refused without "
     "AllowExpired.",
     'Microsoft Learn, "NewByAcceptCertificates method" (AllowExpired)',
     "tests/unit/hyperv/test_guardians.py::test_an_expired_certificate"),
    ("Certificates whose chain does not end in a trusted root of the host are refused "
     "without AllowUntrustedRoot.",
     'Microsoft Learn, "NewByAcceptCertificates method" (AllowUntrustedRoot)',
     "tests/unit/hyperv/test_guardians.py::test_an_untrusted_root"),
    ("With the root among the host's trusted ones they are taken.",
     'Microsoft Learn, "NewByAcceptCertificates method" (AllowUntrustedRoot)',
     "tests/unit/hyperv/test_guardians.py::test_a_trusted_root"),
    ("NewByCertificateThumbprints takes certificates with private keys from the local "
     "machine's stores.",
     'Microsoft Learn, "NewByCertificateThumbprints method"',
     "tests/unit/hyperv/test_guardians.py::test_made_of_thumbprints"),
    ("A guardian with the certificates of another one is refused.",
     "assumed: one-guardian-a-certificate",
     "tests/unit/hyperv/test_guardians.py::test_the_certificates_of_another_guardian"),
    ("Remove takes a guardian out of the store; its private keys stay on the host.",
     "assumed: removed-guardian",
     "tests/unit/hyperv/test_guardians.py::test_remove_leaves_the_private_keys"),
    ("A generated guardian's certificates are named 'Shielded VM Signing Certificate (guardian) "
     "(host)', uncut, and likewise for Encryption.",
     "listings of that store in public scripts and articles",
     "tests/unit/test_protector_maker.py::test_leftovers_are_only_those_that_were_made_here"),
    ("crypt32.dll lists and finds the certificates of the local machine's stores, for ctypes.",
     'Microsoft Learn, "CertEnumCertificatesInStore", "CertFindCertificateInStore"',
     _CRYPT32 + "test_certificates_are_listed_as_memory"),
    ("A certificate that is deleted leaves its private key on the disk.",
     'Microsoft, Certificates snap-in, "Delete a certificate"',
     _CRYPT32 + "test_a_deleted_certificate_leaves_its_private_key"),
    ("NCryptDeleteKey deletes a private key; its certificate stays, and names a key that is not "
     "found.",
     "assumed: deleted-keys-place",
     _CRYPT32 + "test_a_deleted_private_key_leaves_its_certificate"),
    ("Private keys of generated certificates are CNG's, or CryptoAPI's where a test says so.",
     "assumed: guardian-key-provider",
     "tests/unit/test_protector_maker.py::test_whatever_call_fails_nothing_stays"),
    ("CertEnumCertificatesInStore, CertDeleteCertificateFromStore and NCryptDeleteKey free the "
     "handle that they are given; handles that are used later or freed twice are errors.",
     'Microsoft Learn, the pages of the functions',
     _CRYPT32 + "test_misuse_of_handles_is_an_error"),
    ("A store that does not exist is not opened with CERT_STORE_OPEN_EXISTING_FLAG "
     "(ERROR_FILE_NOT_FOUND), and made without it.",
     'Microsoft Learn, "CertOpenStore"',
     _CRYPT32 + "test_stores_that_there_are_not"),
    ("CreateDirectoryW takes a security descriptor: a folder that belongs to the administrators, "
     "and whose protected DACL names them and Local System, is for nobody else; "
     "GetNamedSecurityInfoW tells it.",
     'Microsoft Learn, "CreateDirectoryW function", "Security Descriptor String Format"',
     "tests/unit/test_private_folders.py::test_the_simulation_tells_who_may_read"),
    ("Export writes the public metadata, Import reads it and makes a guardian without "
     "private keys.",
     'Microsoft Learn, "Export-HgsGuardian", "Import-HgsGuardian"; [MS-KPS] 6.4',
     "tests/unit/hyperv/test_guardians.py::test_export_and_import"),
    ("A guardian without its private signing key cannot be exported.",
     "assumed: export-needs-the-key",
     "tests/unit/hyperv/test_guardians.py::test_export_and_import"),
    ("The metadata document has an XML signature of the guardian's own key, over all of it.",
     "assumed: metadata-signature",
     "tests/unit/hyperv/test_guardians.py::test_metadata_is_signed_whole"),
    ("Import refuses metadata with a wrong signature.",
     "[MS-KPS] 6.4",
     "tests/unit/hyperv/test_guardians.py::test_import_of_metadata_with_a_wrong_signature"),
    ("A guardian shows its certificates as DER bytes.",
     "assumed: certificates-as-der",
     "tests/unit/hyperv/test_guardians.py::test_accepted_from_pfx_files"),
    ("A key protector is a length of four bytes and a Protector document, with wrappings, "
     "transport key signature and guardian signature that are really signed.",
     "[MS-KPS] 2.2.2.3 to 2.2.2.10",
     "tests/unit/hyperv/test_key_protectors.py::test_each_guardian_unwraps_the_same_key"),
    ("Its algorithms are those that its URIs name.",
     "assumed: algorithms",
     "tests/unit/hyperv/test_key_protectors.py::test_algorithms_are_those_that_are_named"),
    ("It carries MaxOfflineUnwraps.",
     "[MS-KPS] 2.2.2.3",
     "tests/unit/hyperv/test_key_protectors.py::test_max_offline_unwraps"),
    ("A protector that is cut, wrongly signed, or not one is refused.",
     "[MS-KPS] 2.2.2.3 to 2.2.2.10",
     "tests/unit/hyperv/test_key_protectors.py::test_a_damaged_protector_is_refused"),
    ("A protector has one owner, from whose wrapping all others descend.",
     "assumed: one-owner",
     "tests/unit/hyperv/test_key_protectors.py::test_a_damaged_protector_is_refused"),
    ("NewByGuardians makes a protector of an owner with its private keys and any number of "
     "guardians.",
     'Microsoft Learn, "New-HgsKeyProtector"',
     "tests/unit/hyperv/test_key_protectors.py::test_new_by_guardians"),
    ("A guardian without private keys, as a fabric's is, cannot be the owner.",
     _VTPM_ISSUES + ' ("HGS cannot be an owner")',
     "tests/unit/hyperv/test_key_protectors.py::test_new_by_guardians_refuses"),
    ("The members' certificates are looked at, too: expired ones, and those without a trusted "
     "root, need AllowExpired and AllowUntrustedRoot.",
     'Microsoft Learn, "New-HgsKeyProtector" (AllowExpired, AllowUntrustedRoot)',
     "tests/unit/hyperv/test_key_protectors.py::"
     "test_new_by_guardians_looks_at_the_members_certificates"),
    ("ConvertToByRawBytes shows the owner and the guardians of a protector's bytes.",
     'Microsoft Learn, "ConvertToByRawBytes method"',
     "tests/unit/hyperv/test_key_protectors.py::test_new_by_guardians"),
    ("It refuses bytes that do not begin with their length, and what is no protector.",
     "assumed: protector-prefix",
     "tests/unit/hyperv/test_key_protectors.py::test_convert_refuses_what_is_no_protector"),
    ("A guardian that the host does not know has no name.",
     "assumed: unknown-guardian-name",
     "tests/unit/hyperv/test_key_protectors.py::test_convert_refuses_what_is_no_protector"),
    ("Grant adds a guardian, Revoke takes one out; both need the owner's private keys on "
     "the host.",
     'Microsoft Learn, "Grant method", "Revoke method"',
     "tests/unit/hyperv/test_key_protectors.py::test_grant_and_revoke_need_the_owners_keys"),
    ("A virtual TPM opens its state after its protector was granted or revoked.",
     "assumed: grant-keeps-the-transport-key",
     "tests/unit/hyperv/test_key_protectors.py::test_a_vm_whose_protector_was_granted_opens_its_tpm"),
    ("The owner can grant and revoke after the fabric has rolled the transport key.",
     "[MS-KPS] 3.1.4.1 (the wrappings stay)",
     "tests/unit/hyperv/test_key_protectors.py::test_grant_and_revoke_after_the_fabric_rolled"),
    ("Expired certificates of a fabric are imported with AllowExpired only; renewed ones the owner "
     "grants, and the TPM's state goes on being opened.",
     "Microsoft Learn, \"Managing the Host Guardian Service\" (renewing keys)",
     "tests/unit/hyperv/test_key_protectors.py::"
     "test_certificates_of_a_fabric_expire_and_are_renewed"),
    ("The owner cannot be revoked.",
     'Microsoft Learn, "New-HgsKeyProtector" (the owner cannot be changed)',
     "tests/unit/hyperv/test_key_protectors.py::test_revoke_refuses"),
    ("Without an HGS the certificates in the host's store unwrap, also those of a removed "
     "guardian.",
     "Microsoft Japan's System Center support blog, on virtual machines with a TPM (error 10698: "
     "both certificates are imported into the other host's store)",
     "tests/unit/hyperv/test_key_protectors.py::test_local_mode_unwraps_with_the_certificates_that_are_there"),
)

_ATTESTATION = "tests/unit/hyperv/test_attestation.py::"

AREAS["Host Guardian Service and attestation"] = _rows(
    ("A host attests when it starts.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" ("Host requests '
     'attestation")',
     _ATTESTATION + "test_a_host_attests_when_it_starts"),
    ("A host attests every eight hours after that.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" ("Host requests '
     'attestation")',
     _ATTESTATION + "test_a_host_attests_every_eight_hours"),
    ("A health certificate is valid for eight hours.",
     "assumed: health-certificate-life",
     _ATTESTATION + "test_a_health_certificate_ends_after_eight_hours"),
    ("Starting a VM attests where the host has no valid health certificate.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" ("Host requests '
     'attestation")',
     _ATTESTATION + "test_a_start_attests_where_there_is_no_certificate"),
    ("Get attests where the host has no valid health certificate.",
     'Microsoft Learn, "Confirm guarded hosts can attest"',
     _ATTESTATION + "test_reading_the_configuration_attests_where_there_is_no_certificate"),
    ("A host that is de-authorised stays guarded until it attests.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" ("Release of key")',
     _ATTESTATION + "test_a_host_that_is_not_authorised_any_more_is_guarded_until_it_attests"),
    ("IsHostGuarded is true with AttestationStatus 100 alone.",
     "assumed: guarded-means-passed",
     _ATTESTATION + "test_a_status_that_a_test_sets_stays"),
    ("Status 301: the host is not authorised.",
     'Microsoft Learn, "MSFT_HgsClientConfiguration class"',
     _ATTESTATION + "test_each_mode_asks_whether_the_host_is_authorised"),
    ("Status 300: the service was not reached.",
     'Microsoft Learn, "MSFT_HgsClientConfiguration class"',
     _ATTESTATION + "test_reading_the_configuration_attests_where_there_is_no_certificate"),
    ("Status 200: attestation passed, and the certificate has expired by the time of "
     "the host.",
     'Microsoft Learn, "MSFT_HgsClientConfiguration class", "Troubleshoot guarded hosts" '
     "(Expired)",
     _ATTESTATION + "test_a_certificate_that_has_expired"),
    ("Status 303 with the bits of AttestationSubstatus, and 302: what TPM "
     "attestation finds; the other modes do not look at it.",
     'Microsoft Learn, "MSFT_HgsClientConfiguration class"; "Guarded fabric and '
     'shielded VMs overview" (modes)',
     _ATTESTATION + "test_tpm_attestation_looks_at_the_host"),
    ("AttestationOperationMode is the mode of the service: 1 TPM, 2 Active "
     "Directory, 3 host key.",
     'Microsoft Learn, "MSFT_HgsClientConfiguration class"',
     _ATTESTATION + "test_each_mode_asks_whether_the_host_is_authorised"),
    ("A host in local mode: Mode 1, AttestationStatus 0, not guarded.",
     'Microsoft Learn, "MSFT_HgsClientConfiguration class"',
     _ATTESTATION + "test_a_host_in_local_mode_has_no_attestation"),
    ("A test can fix the status of a host.",
     "tests/hyperv/fabric.py (set_attestation)",
     _ATTESTATION + "test_a_status_that_a_test_sets_stays"),
    ("RollTransportKey gives a protector with a new transport key, and both keys.",
     "[MS-KPS] RollTransportKey",
     _ATTESTATION + "test_roll_transport_key"),
    ("The keys it gives are encrypted to the key of the health certificate.",
     "[MS-KPS] common simple types (EncryptedTransferKey)",
     _ATTESTATION + "test_the_keys_are_for_the_host_of_the_certificate_alone"),
    ("It refuses a health certificate that is none, with HealthCertificateException.",
     "[MS-KPS] RollTransportKey",
     _ATTESTATION + "test_health_certificates_that_are_none"),
    ("It refuses a health certificate that an attestation service it does not trust "
     "has signed.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" ("Release of key")',
     _ATTESTATION + "test_health_certificates_of_another_service"),
    ("It refuses a health certificate that has expired.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" ("Release of key")',
     _ATTESTATION + "test_a_health_certificate_ends_after_eight_hours"),
    ("It refuses a damaged protector with InvalidProtectorException, one for others "
     "with InvalidWrappingException.",
     "[MS-KPS] RollTransportKey",
     _ATTESTATION + "test_protectors_that_are_refused"),
    ("A service that is away unwraps nothing.",
     "tests/hyperv/fabric.py (set_hgs_reachable)",
     _ATTESTATION + "test_a_service_that_is_away_unwraps_nothing"),
    ("A refused start says the same for each of these reasons.",
     "assumed: words-of-a-refused-start",
     _ATTESTATION + "test_a_service_that_is_away_unwraps_nothing"),
    ("A fabric that has renewed its certificates unwraps with the old ones too, "
     "until they are removed; its metadata have the new ones.",
     'Microsoft Learn, "Managing the Host Guardian Service" (Renewing or replacing '
     "keys)",
     _ATTESTATION + "test_old_certificates_of_the_fabric_unwrap_until_they_are_dropped"),
    ("Any sequence of these events leaves the status that the rules give.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview"',
     _ATTESTATION + "test_a_host_is_guarded_just_when_its_last_attestation_passed"),
    ("All of it can be changed over the socket of a fabric process.",
     "tests/hyperv/fabric_client.py",
     _ATTESTATION + "test_behind_a_socket"),
    ("The key protection server gives its metadata over HTTP, where a test asks for it.",
     'Microsoft Learn, "Create a shielding data file"',
     "tests/unit/hyperv/test_key_protection_http.py::test_its_metadata"),
    ("What a host reports to placement follows its attestation on the clock.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" ("Host requests attestation")',
     "tests/functional/test_vtpm_driver.py::VtpmDriverTest::"
     "test_a_host_loses_its_traits_when_its_attestation_ends"),
)

AREAS["Live migration"] = _rows(
    ("A VM moves to another host while it runs, its state, uptime and settings with it.",
     "Microsoft Learn, Msvm_VirtualSystemMigrationService, MigrateVirtualSystemToHost",
     "tests/unit/hyperv/test_live_migration.py::test_a_vm_moves_while_it_runs"),
    ("What a running TPM holds goes with it: the destination unwraps the protector, seals the "
     "state under a new transport key and keeps that protector as the last known good.",
     "[MS-KPS] RollTransportKey; Microsoft Learn, Guarded fabric and shielded VMs",
     "tests/unit/hyperv/test_live_migration.py::test_a_tpm_goes_with_what_it_holds"),
    ("A VM with a TPM moves there and back.",
     "[MS-KPS] RollTransportKey",
     "tests/unit/hyperv/test_live_migration.py::test_there_and_back"),
    ("A destination of another fabric refuses a running TPM; the VM runs on at the source.",
     _VTPM_ISSUES + "; the words: " + _MIGRATED_VTPM,
     "tests/unit/hyperv/test_live_migration.py::test_another_fabric_does_not_take_it"),
    ("A destination that has not passed attestation refuses a running TPM.",
     'Microsoft Learn, "Guarded fabric and shielded VMs overview" ("Release of key")',
     "tests/unit/hyperv/test_live_migration.py::test_a_host_that_is_not_attested_does_not_take_it"),
    ("An old or damaged key protector fails when it arrives.",
     "[MS-KPS] RollTransportKey",
     "tests/unit/hyperv/test_live_migration.py::"
     "test_an_old_or_damaged_protector_fails_at_the_arrival"),
    ("In local mode the destination needs a guardian's private keys in its own store.",
     _VTPM_ISSUES + " (Cause 1); " + _MIGRATED_VTPM,
     "tests/unit/hyperv/test_live_migration.py::"
     "test_in_local_mode_a_guardian_with_private_keys_is_needed"),
    ("A destination that is unknown, has live migration disabled, listens elsewhere, is too old "
     "or too small refuses; so does the check before a move.",
     "assumed: words-of-migration",
     "tests/unit/hyperv/test_live_migration.py::test_refused_destinations"),
    ("Live migration is disabled until it is enabled, as Windows comes.",
     "Microsoft Learn, Msvm_VirtualSystemMigrationServiceSettingData",
     "tests/unit/hyperv/test_live_migration.py::test_live_migration_must_be_enabled"),
    ("A move of the storage alone is refused as not supported.",
     "assumed: moves-not-simulated",
     "tests/unit/hyperv/test_live_migration.py::test_moves_of_the_storage_alone_are_not_supported"),
    ("A staged migration makes a planned VM, which the move then becomes.",
     "os-win, livemigrationutils.py",
     "tests/unit/hyperv/test_live_migration.py::test_a_planned_vm_is_where_it_arrives"),
    ("A refused move leaves the planned VM planned; destroying that one removes no file.",
     "os-win, livemigrationutils.py",
     "tests/unit/hyperv/test_live_migration.py::"
     "test_a_planned_vm_stays_planned_when_the_move_fails"),
    ("A VM with the same identifier at the destination refuses the move.",
     "assumed: words-of-migration",
     "tests/unit/hyperv/test_live_migration.py::test_a_vm_of_that_id_is_there"),
    ("A VM does not move while a job of it runs, nor to its planned VM while a job of that one "
     "runs.",
     "assumed: one-job-a-machine",
     "tests/unit/hyperv/test_live_migration.py::test_a_vm_whose_job_runs_does_not_move"),
    ("The refusal names the host where the job runs.",
     "assumed: words-of-migration",
     "tests/unit/hyperv/test_live_migration.py::"
     "test_a_planned_vm_whose_job_runs_is_no_destination"),
    ("What a migration is given is checked when it is called, also where its job is delayed.",
     'Microsoft Learn, return values ("Method Parameters Checked - Job Started (4096)")',
     "tests/unit/hyperv/test_live_migration.py::test_a_migration_is_checked_when_it_is_called"),
    ("A physical disk that the planned VM does not have refuses the move.",
     "assumed: words-of-migration",
     "tests/unit/hyperv/test_live_migration.py::test_a_planned_vm_that_lost_its_physical_disk"),
    ("So does a file of the VM that is gone.",
     "assumed: words-of-migration",
     "tests/unit/hyperv/test_live_migration.py::test_a_definition_that_is_gone"),
    ("A migration whose job takes its time can be stopped; the VM is where it was.",
     "Microsoft Learn, Msvm_ConcreteJob class (RequestStateChange)",
     "tests/unit/hyperv/test_live_migration.py::test_a_migration_that_takes_its_time"),
    ("A VM that is off moves without anything being unwrapped.",
     "assumed: cold-moves-keep-protectors",
     "tests/unit/hyperv/test_live_migration.py::test_a_vm_that_is_off_brings_its_guest_state"),
    ("A running TPM goes to another host and back over the fabric's socket, on native threads and "
     "on eventlet's.",
     "this package: connection.py",
     "tests/unit/hyperv/test_live_migration.py::test_a_tpm_goes_and_comes_back_over_a_socket"),
    ("Another host takes over the VMs of one that died from their shared files, TPM included.",
     "Microsoft Learn, Failover clustering",
     "tests/unit/hyperv/test_live_migration.py::test_another_host_takes_over_when_one_dies"),
    ("With storage the definition, guest state and disks move to the same-named place and are "
     "gone at the source.",
     "assumed: storage-that-moves",
     "tests/unit/hyperv/test_migration_of_storage.py::test_files_move_to_the_same_place"),
    ("Without storage a VM on the source's own disk does not move.",
     "assumed: storage-that-moves",
     "tests/unit/hyperv/test_migration_of_storage.py::test_local_files_do_not_stay_behind"),
    ("A refused move leaves nothing at the destination and the VM as it was.",
     "assumed: storage-that-moves",
     "tests/unit/hyperv/test_migration_of_storage.py::test_a_refused_move_leaves_nothing"),
    ("A disk error during a move undoes it.",
     "assumed: storage-that-moves",
     "tests/unit/hyperv/test_migration_of_storage.py::test_a_disk_error_undoes_the_move"),
    ("On shared storage a failed move leaves the TPM readable at the source.",
     "assumed: storage-that-moves",
     "tests/unit/hyperv/test_migration_of_storage.py::"
     "test_a_disk_error_on_shared_storage_leaves_the_tpm_readable"),
    ("Files on shared storage stay where they are, with or without storage.",
     "assumed: storage-that-moves",
     "tests/unit/hyperv/test_migration_of_storage.py::test_shared_files_stay"),
    ("A DVD's file must lie at the destination before the VM moves.",
     "compute-hyperv, livemigrationops.py (copy_vm_dvd_disks)",
     "tests/unit/hyperv/test_migration_of_storage.py::test_a_dvd_must_be_there_already"),
    ("Snapshots move with the storage, and can be applied at the destination.",
     "assumed: storage-that-moves",
     "tests/unit/hyperv/test_migration_of_storage.py::test_snapshots_move_with_the_storage"),
)

AREAS["Snapshots, export and import"] = _rows(
    ("A snapshot of a running VM keeps its definition and guest state and lets it go on with "
     "differencing disks; removing it merges them.",
     "Microsoft Learn, CIM_VirtualSystemSnapshotService; os-win, vmutils.py (take_vm_snapshot)",
     "tests/unit/hyperv/test_snapshots.py::test_a_snapshot_is_taken_and_removed_while_the_vm_runs"),
    ("A snapshot is setting data of its own, with the snapshot before it as its parent.",
     "Microsoft Learn, Msvm_VirtualSystemSettingData (VirtualSystemType, Parent)",
     "tests/unit/hyperv/test_snapshots.py::test_a_snapshot_has_the_settings_of_then"),
    ("Applying a snapshot brings back disks, definition, TPM and key protector of then.",
     "assumed: snapshots-and-tpms",
     "tests/unit/hyperv/test_snapshots.py::test_going_back_brings_the_tpm_of_then"),
    ("After that, the key protector from before it does not open the TPM.",
     "assumed: snapshots-and-tpms",
     "tests/unit/hyperv/test_snapshots.py::"
     "test_the_protector_of_now_does_not_open_the_tpm_of_then"),
    ("A snapshot that cannot be applied leaves the VM as it was: definition, disks, TPM, key "
     "protector.",
     "assumed: snapshots-and-tpms",
     "tests/unit/hyperv/test_snapshots.py::test_a_snapshot_is_applied_whole_or_not_at_all"),
    ("Settings and system have the name of then.",
     "assumed: snapshots-and-tpms",
     "tests/unit/hyperv/test_snapshots.py::test_going_back_brings_the_name_of_then"),
    ("One without its guest state, or without a disk, is not applied.",
     "assumed: snapshots-and-tpms",
     "tests/unit/hyperv/test_snapshots.py::test_what_is_needed_to_go_back"),
    ("Going back moves no files: the VM's folders stay.",
     "assumed: snapshots-and-tpms",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_snapshots_of_an_import_are_applied_where_it_lies"),
    ("The folder of snapshots stays while there are any.",
     "assumed: roots-stay",
     "tests/unit/hyperv/test_snapshots.py::test_the_folder_of_snapshots_stays"),
    ("A running VM does not go back to a snapshot.",
     "assumed: when-states-are-invalid",
     "tests/unit/hyperv/test_snapshots.py::test_a_running_vm_does_not_go_back"),
    ("Snapshots of disks alone, and of what is no snapshot, are refused.",
     "Microsoft Learn, CIM_VirtualSystemSnapshotService (Invalid Type, Invalid Parameter)",
     "tests/unit/hyperv/test_snapshots.py::test_refused_snapshots"),
    ("So they are at once where their jobs are delayed.",
     'Microsoft Learn, return values ("Method Parameters Checked - Job Started (4096)")',
     "tests/unit/hyperv/test_snapshots.py::"
     "test_refusals_come_at_once_also_where_jobs_are_delayed"),
    ("A VM with a physical disk gets no snapshot.",
     "assumed: snapshot-files",
     "tests/unit/hyperv/test_snapshots.py::test_a_vm_with_a_physical_disk_gets_no_snapshot"),
    ("A VM whose disks are not all there gets no snapshot.",
     "assumed: snapshot-files",
     "tests/unit/hyperv/test_snapshots.py::test_a_vm_without_its_disks_gets_no_snapshot"),
    ("Disks that cannot be merged keep the snapshot, and the VM that has it.",
     "assumed: snapshot-files",
     "tests/unit/hyperv/test_snapshots.py::"
     "test_disks_that_cannot_be_merged_keep_the_snapshot"),
    ("Removing a snapshot amid others merges its disk only.",
     "assumed: snapshot-files",
     "tests/unit/hyperv/test_snapshots.py::test_a_chain_is_merged_from_the_middle"),
    ("A disk that several branches share stays until the last of them goes.",
     "assumed: snapshot-files",
     "tests/unit/hyperv/test_snapshots.py::test_branches_keep_the_disk_they_share"),
    ("A disk error leaves no snapshot.",
     "assumed: snapshot-files",
     "tests/unit/hyperv/test_snapshots.py::test_a_disk_error_leaves_no_snapshot"),
    ("A VM's snapshots go with it in a live migration.",
     "assumed: snapshot-files",
     "tests/unit/hyperv/test_snapshots.py::test_snapshots_go_with_a_live_migration"),
    ("An export with storage holds all that a VM is: definition, guest state, disks with their "
     "parents.",
     "Microsoft Learn, Msvm_VirtualSystemExportSettingData",
     "tests/unit/hyperv/test_export_and_import.py::test_an_export_is_a_whole_vm"),
    ("Without CopyVmStorage the disks are left out; CreateVmExportSubdirectory names a folder for "
     "the VM.",
     "Microsoft Learn, Msvm_VirtualSystemExportSettingData",
     "tests/unit/hyperv/test_export_and_import.py::test_an_export_without_storage_has_no_disks"),
    ("CopyVmRuntimeInformation false leaves the run-time state out.",
     "Microsoft Learn, Msvm_VirtualSystemExportSettingData",
     "tests/unit/hyperv/test_export_and_import.py::test_the_runtime_state_can_be_left_out"),
    ("A running VM is exported with what its TPM holds at that moment.",
     "Microsoft Learn, Msvm_VirtualSystemExportSettingData (CaptureLiveState)",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_a_running_vm_is_exported_with_what_its_tpm_holds"),
    ("CopySnapshotConfiguration decides whether snapshots are exported; the export of one as a VM "
     "is refused.",
     "Microsoft Learn, Msvm_VirtualSystemExportSettingData",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_snapshots_are_exported_where_they_are_wanted"),
    ("An export into a folder that has the VM already is refused.",
     "assumed: export-layout",
     "tests/unit/hyperv/test_export_and_import.py::test_no_second_export_into_a_folder"),
    ("A failed export leaves nothing.",
     "assumed: export-layout",
     "tests/unit/hyperv/test_export_and_import.py::test_a_failed_export_leaves_nothing"),
    ("What a VM was imported from may be gone before it is realized.",
     "assumed: planned-keeps-guest-state",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_what_an_import_came_from_is_needed_no_more"),
    ("An import that lacks its snapshots is not realized.",
     "Microsoft Learn, ImportSystemDefinition (SnapshotFolder)",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_an_import_without_its_snapshots_is_not_realized"),
    ("Destroying a planned VM removes no file.",
     "Microsoft Learn, ImportSystemDefinition",
     "tests/unit/hyperv/test_export_and_import.py::test_destroying_a_planned_vm_removes_no_file"),
    ("An import without its guest state is not realized with an empty TPM.",
     "assumed: guest-state-missing",
     "tests/unit/hyperv/test_export_and_import.py::test_a_missing_guest_state_is_not_a_new_tpm"),
    ("An imported VM with a key protector that is not its TPM's does not start.",
     "[MS-KPS] RollTransportKey",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_an_import_with_another_protector_does_not_start"),
    ("An imported VM with an older guest state than its key protector does not start.",
     "[MS-KPS] RollTransportKey",
     "tests/unit/hyperv/test_export_and_import.py::test_an_older_guest_state_does_not_start"),
    ("A definition file in use, and one with an identifier that exists, are refused.",
     "Microsoft Learn, ImportSystemDefinition (File in Use); assumption import-refusals",
     "tests/unit/hyperv/test_export_and_import.py::test_an_identifier_is_there_once"),
    ("GenerateNewSystemIdentifier gives a VM with a new identifier, the same key protector and "
     "the same TPM.",
     "Microsoft Learn, ImportSystemDefinition",
     "tests/unit/hyperv/test_export_and_import.py::test_a_new_identifier_keeps_the_tpm"),
    ("An imported VM has the folders that it is imported from, or those that the planned VM is "
     "given, not those of the host that it comes from.",
     "assumed: import-roots",
     "tests/unit/hyperv/test_export_and_import.py::test_an_import_has_folders_of_its_own"),
    ("Its files are copied into its data root when it is realized.",
     "Microsoft Learn, RealizePlannedSystem",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_what_an_import_came_from_is_needed_no_more"),
    ("A realization does not write over another guest state.",
     "assumed: import-refusals",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_a_realization_does_not_replace_a_guest_state"),
    ("Disks of a planned VM are not removed.",
     "assumed: planned-keeps-disks",
     "tests/unit/hyperv/test_export_and_import.py::test_a_planned_vm_keeps_its_disks"),
    ("A guest state in a folder of its own is used and removed there; an export has it beside the "
     "definition, where an import looks for it.",
     "assumed: guest-state-place",
     "tests/unit/hyperv/test_export_and_import.py::test_a_guest_state_elsewhere"),
    ("A planned VM without a disk of a snapshot is not valid.",
     "assumed: import-refusals",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_a_planned_vm_needs_the_disks_of_its_snapshots"),
    ("A planned VM without a disk, or without what the disk is based on, is not valid.",
     "assumed: import-refusals",
     "tests/unit/hyperv/test_export_and_import.py::"
     "test_a_planned_vm_without_its_disks_is_not_valid"),
    ("A damaged definition file is refused.",
     "assumed: definition-form",
     "tests/unit/hyperv/test_export_and_import.py::test_a_damaged_definition"),
    ("A definition file under another identifier's name is refused.",
     "assumed: definition-form",
     "tests/unit/hyperv/test_export_and_import.py::test_a_definition_under_another_name"),
    ("A definition of a version that the host does not support is refused.",
     "Microsoft Learn, Upgrade virtual machine version in Hyper-V",
     "tests/unit/hyperv/test_export_and_import.py::test_a_definition_of_a_newer_version"),
    ("A path that is no definition file is an invalid parameter.",
     "Microsoft Learn, ImportSystemDefinition (Invalid parameter)",
     "tests/unit/hyperv/test_export_and_import.py::test_what_is_no_definition"),
    ("A failed realization leaves no file and the VM planned.",
     "assumed: import-refusals",
     "tests/unit/hyperv/test_export_and_import.py::test_a_failed_realize_leaves_nothing"),
)

AREAS["Failover cluster"] = _rows(
    ("root/MSCluster is there on the nodes of a cluster alone; each shows the same nodes, "
     "groups and resources.",
     "Microsoft Learn, Cluster WMI provider; os-win, clusterutils.py",
     "tests/unit/hyperv/test_failover_cluster.py::test_what_a_node_knows_of_its_cluster"),
    ("A host in no cluster has none to open; another cluster is opened by its name.",
     "Microsoft Learn, OpenCluster; System Error Codes 1753, 1722",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_host_in_no_cluster"),
    ("clusapi.dll is called through ctypes with the arguments that os-win declares.",
     "os-win, winapi/libs/clusapi.py",
     "tests/unit/hyperv/test_failover_cluster.py::test_arguments_are_those_that_os_win_declares"),
    ("Handles have a kind and end with their cluster's handle; a wrong one is "
     "ERROR_INVALID_HANDLE.",
     "[MS-CMRP] 3.1.4.2; os-win, _clusapi_utils.py (close_cluster)",
     "tests/unit/hyperv/test_failover_cluster.py::test_handles"),
    ("A handle that two threads close is invalid for the second one.",
     "[MS-CMRP] 3.1.4.2",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_handle_that_two_threads_close"),
    ("Buffers that are too small are ERROR_MORE_DATA, with the size that is needed.",
     "Microsoft Learn, GetClusterGroupState, ClusterGroupControl",
     "tests/unit/hyperv/test_failover_cluster.py::test_buffers_that_are_too_small"),
    ("AddVirtualMachine makes a group with two resources, DestroyGroup takes it away and "
     "leaves the VM.",
     "Microsoft Learn, MSCluster_Cluster, MSCluster_ResourceGroup; os-win, clusterutils.py",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_vm_joins_and_leaves"),
    ("A VM that is not on the node, or in a group already, is refused.",
     "assumed: cluster-add-here",
     "tests/unit/hyperv/test_failover_cluster.py::test_what_cannot_join"),
    ("The methods of MSCluster classes give nothing back.",
     "Microsoft Learn, AddVirtualMachine and DestroyGroup (void)",
     "tests/unit/hyperv/test_failover_cluster.py::test_the_methods_are_void"),
    ("Common properties of groups can be put within their limits; read-only ones are refused.",
     "Microsoft Learn, MSCluster_ResourceGroup (access types, Min, Max)",
     "tests/unit/hyperv/test_failover_cluster.py::test_properties_that_are_refused"),
    ("The group's state follows the VM's; off is partially online.",
     "assumed: cluster-partial",
     "tests/unit/hyperv/test_failover_cluster.py::test_the_state_follows_the_vm"),
    ("Taking a group offline saves its VM.",
     "assumed: cluster-offline-saves",
     "tests/unit/hyperv/test_failover_cluster.py::test_the_state_follows_the_vm"),
    ("A live move takes the VM with its TPM; the destination unwraps the key protector and "
     "renews it.",
     "Microsoft Learn, MoveClusterGroupEx; os-win, clusterutils.py (live_migrate_vm)",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_live_move_takes_the_tpm_along"),
    ("A node that cannot unwrap the protector refuses the move, and the VM goes on where it "
     "was.",
     "assumed: cluster-refused-move",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_move_that_is_refused_leaves_the_vm_where_it_was"),
    ("A move to a node that is down is ERROR_HOST_NODE_NOT_AVAILABLE; to the owner, nothing is "
     "done.",
     "Microsoft Learn, MoveClusterGroupEx; [MS-CMRP] 3.1.4.2.53",
     "tests/unit/hyperv/test_failover_cluster.py::test_moves_that_do_not_begin"),
    ("A group that moves takes no other order: ERROR_CLUSTER_GROUP_MOVING.",
     "System Error Codes, 5908",
     "tests/unit/hyperv/test_failover_cluster.py::test_only_one_move_of_a_group_at_a_time"),
    ("While a job of its VM runs a group is locked: orders to it are refused with "
     "ERROR_CLUSTER_RESOURCE_LOCKED_STATUS.",
     "[MS-CMRP] 3.1.4.2.50 to 53; Microsoft Learn, MoveClusterGroupEx",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_group_is_locked_while_a_job_of_its_vm_runs"),
    ("Any job of the VM locks its group; at the job's end it is unlocked.",
     "assumed: cluster-locked",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_group_is_unlocked_when_the_job_ends"),
    ("CLUSAPI_GROUP_MOVE_IGNORE_RESOURCE_STATUS moves a locked group; the job is killed.",
     "assumed: cluster-locked",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_move_that_ignores_the_lock_ends_the_job"),
    ("A queued move waits for the end of a job that began meanwhile; other orders are "
     "ERROR_CLUSTER_GROUP_QUEUED.",
     "Microsoft Learn, MoveClusterGroupEx (CLUSAPI_GROUP_MOVE_QUEUE_ENABLED); System Error Codes, "
     "5959",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_queued_move_waits_for_the_job_of_its_vm"),
    ("Without that flag it fails.",
     "Microsoft Learn, MoveClusterGroupEx",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_move_that_is_not_to_be_queued_fails"),
    ("While a cluster moves a VM, changes to it are refused.",
     "assumed: one-job-a-machine",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_vm_that_moves_takes_no_changes"),
    ("A job that changes the VM's state changes that of the group at its end.",
     "assumed: cluster-locked",
     "tests/unit/hyperv/test_failover_cluster.py::test_the_state_stays_while_a_job_changes_that_of_the_vm"),
    ("A move whose destination fails ends, and the VM goes on where it was.",
     "assumed: cluster-refused-move",
     "tests/unit/hyperv/test_failover_cluster.py::test_the_destination_of_a_move_fails"),
    ("OnlineClusterGroup with a node that does not take the VM fails, and the VM goes on where it "
     "was.",
     "assumed: cluster-refused-move",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_node_that_does_not_take_the_vm_to_start"),
    ("A handle of a group that was destroyed is ERROR_GROUP_NOT_AVAILABLE.",
     "[MS-CMRP] 3.1.4.1.26; System Error Codes, 5012",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_group_that_is_destroyed_meanwhile"),
    ("A move that is pending or queued can be cancelled; the VM stays at the source.",
     "Microsoft Learn, CancelClusterGroupOperation",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_move_that_takes_too_long_is_cancelled"),
    ("Cancelling where nothing moves is ERROR_INVALID_STATE.",
     "[MS-CMRP] 3.1.4.2.133",
     "tests/unit/hyperv/test_failover_cluster.py::test_nothing_to_cancel"),
    ("A queued move shows in StatusInformation; the end of a move comes as an event.",
     "Microsoft Learn, MoveClusterGroupEx; [MS-CMRP] 2.2.2.13; os-win, clusterutils.py",
     "tests/unit/hyperv/test_failover_cluster.py::test_os_win_waits_for_the_end_of_a_move"),
    ("A quick move saves and resumes the VM, and brings it back where it cannot resume.",
     "Microsoft Learn, Move-ClusterVirtualMachineRole",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_quick_move_saves_the_vm_and_resumes_it"),
    ("Notification ports keep events until they are read; closing one ends the waiting.",
     "Microsoft Learn, GetClusterNotifyV2, CloseClusterNotifyPort",
     "tests/unit/hyperv/test_failover_cluster.py::test_an_event_waits_until_it_fits"),
    ("A change of the owner is an event of the port, whose parent is the new owner node.",
     "[MS-CMRP] 2.2.2.13; os-win, clusterutils.py",
     "tests/unit/hyperv/test_failover_cluster.py::test_the_owner_change_listener"),
    ("A change of the owner is a WMI event about MSCluster_Resource.",
     "os-win, clusterutils.py (_get_failover_watcher)",
     "tests/unit/hyperv/test_failover_cluster.py::test_the_owner_change_as_a_wmi_event"),
    ("When a node is lost its running VMs start on another, with the TPM; those that were off "
     "stay off.",
     "Microsoft Learn, MSCluster_ResourceGroup (FailoverThreshold); [MS-CMRP] 3.1.4.2.53 "
     "(persistent state)",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_running_vm_restarts_elsewhere_with_its_tpm"),
    ("A VM comes home when its node is up again, if AutoFailbackType says so.",
     "assumed: cluster-failback",
     "tests/unit/hyperv/test_failover_cluster.py::test_without_automatic_failback_it_stays"),
    ("A VM whose protector the next node cannot unwrap leaves its group failed there.",
     "Microsoft Learn, Guarded fabric and shielded VMs",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_node_that_cannot_unwrap_the_protector_fails_the_group"),
    ("Nodes are tried in the cluster's order, as often as FailoverThreshold allows.",
     "assumed: cluster-order",
     "tests/unit/hyperv/test_failover_cluster.py::test_the_next_node_is_tried_as_often_as_the_group_says"),
    ("Failovers are counted within FailoverPeriod.",
     "Microsoft Learn, MSCluster_ResourceGroup (FailoverPeriod)",
     "tests/unit/hyperv/test_failover_cluster.py::test_failovers_are_counted_within_their_period"),
    ("A VM that joins while a job of it runs makes a locked group.",
     "assumed: cluster-locked",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_vm_joins_while_it_starts"),
    ("A job ends with the power of its host; the VM fails over as it was before.",
     "assumed: cluster-locked",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_job_is_lost_with_its_node"),
    ("A VM does not come home while a job of it runs.",
     "assumed: cluster-locked",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_vm_does_not_come_home_while_a_job_of_it_runs"),
    ("A VM that is destroyed behind the cluster's back fails its group, which can be moved, taken "
     "offline and destroyed.",
     "assumed: cluster-lost",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_vm_that_is_destroyed_behind_the_cluster"),
    ("The group of a lost VM goes to another node when its own fails.",
     "assumed: cluster-lost",
     "tests/unit/hyperv/test_failover_cluster.py::test_the_node_of_a_lost_vm_fails"),
    ("A lost VM that is imported again can be brought online.",
     "assumed: cluster-lost",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_lost_vm_that_is_there_again"),
    ("Without its definition file a VM does not fail over.",
     "Microsoft Learn, Failover clustering: storage requirements",
     "tests/unit/hyperv/test_failover_cluster.py::test_files_that_are_gone"),
    ("A group that no node could take is ERROR_HOST_NODE_NOT_AVAILABLE to all orders but its "
     "destruction.",
     "[MS-CMRP] 3.1.4.2.53",
     "tests/unit/hyperv/test_failover_cluster.py::test_no_node_is_left_for_a_vm"),
    ("A saved VM stays saved when its node fails, and fails over so.",
     "Microsoft Learn, RequestStateChange method of the Msvm_ComputerSystem class (Offline)",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_saved_vm_fails_over_as_it_is"),
    ("A saved VM outlives a power cut of its host.",
     "Microsoft Learn, RequestStateChange method of the Msvm_ComputerSystem class (Offline)",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_saved_vm_outlives_a_power_cut"),
    ("A file of the VM that cannot be written fails the group that is brought online.",
     "[MS-CMRP] 3.1.4.2.50",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_file_that_cannot_be_written"),
    ("A VM on its host's local disk cannot fail over.",
     "Microsoft Learn, Failover clustering: storage requirements",
     "tests/unit/hyperv/test_failover_cluster.py::test_storage_that_is_not_shared"),
    ("A host that is down answers no WMI and no cluster call; its VMs are off when it is back.",
     "System Error Codes, 1722",
     "tests/unit/hyperv/test_failover_cluster.py::test_a_host_that_is_down_answers_nobody"),
    ("Clusters work the same over the fabric's socket, on native threads and on eventlet's.",
     "this package: connection.py",
     "tests/unit/hyperv/test_failover_cluster.py::test_over_a_socket"),
    ("compute-hyperv's cluster driver does power operations, rescue and deletion; the TPM "
     "stays.",
     "compute-hyperv, cluster/driver.py",
     "tests/functional/cluster_operations.py::ClusterOperations::test_power"),
    ("Its resize takes the VM out of the cluster and puts it in again at the destination, with "
     "its TPM.",
     "compute-hyperv, cluster/driver.py, migrationops.py",
     "tests/functional/cluster_operations.py::ClusterOperations::test_resize"),
    ("Its live migration within the cluster is a move by the cluster.",
     "compute-hyperv, cluster/livemigrationops.py",
     "tests/functional/cluster_operations.py::ClusterOperations::test_live_migration_within_the_cluster"),
    ("Its live migration to a host outside takes the VM out of the cluster first.",
     "compute-hyperv, cluster/livemigrationops.py",
     "tests/functional/cluster_operations.py::ClusterOperations::test_live_migration_out_of_the_cluster"),
    ("Once two faults between compute-hyperv 16 and Nova are corrected, as the test does, it "
     "follows failovers, also those that it did not see happen.",
     "compute-hyperv, cluster/clusterops.py",
     "tests/functional/cluster_operations.py::ClusterOperations::test_a_failover_while_nova_was_not_running"),
    ("As it is, it does not follow a failover with Nova 28, which wants the compute_id of the new "
     "node.",
     "compute-hyperv, cluster/clusterops.py; nova, objects/instance.py",
     "tests/functional/test_cluster_driver.py::ClusterDriverTest::"
     "test_nova_28_does_not_follow_a_failover"),
)

AREAS["Provisioning of shielded virtual machines"] = _rows(
    ("compute-hyperv boots servers with os_vtpm and os_shielded_vm from shielding data in a key "
     "manager.",
     "compute-hyperv, compute_hyperv/nova/vmops.py and pdk.py",
     "tests/functional/test_shielded_provisioning.py::ShieldedProvisioningTest::"
     "test_a_server_with_a_vtpm"),
    ("A host with FabricShieldedTools has the namespace root/msps; one without it has not.",
     "os-win, `vmutils10.py <https://opendev.org/openstack/os-win>`__",
     "tests/unit/hyperv/test_provisioning.py::test_without_the_feature_there_is_no_namespace"),
    ("A shielding data file shows its key protector and policy, not what is sealed in it.",
     'Microsoft Learn, "Msps_PDK class"',
     "tests/unit/hyperv/test_provisioning.py::test_what_a_pdk_and_an_fsk_show"),
    ("A specialization data file holds pairs of placeholders and values; only such a file "
     "can be written.",
     'Microsoft Learn, "Msps_FSK class", "SerializeToFile method"',
     "tests/unit/hyperv/test_provisioning.py::test_files_that_are_refused"),
    ("Both are files of the simulation's own format.",
     "assumed: provisioning-files",
     "tests/unit/hyperv/test_provisioning.py::test_files_that_are_refused"),
    ("os-win's add_vtpm and provision_vm give a VM the data's protector and policy, and a "
     "provisioning job that waits for its boot.",
     'Microsoft Learn, "Msps_ProvisioningJob class"',
     "tests/unit/hyperv/test_provisioning.py::test_os_wins_flow"),
    ("ProvisionMachine refuses a VM that has been started, one without virtual TPM, and "
     "files that are missing or not what they should be.",
     "assumed: provisioning-job",
     "tests/unit/hyperv/test_provisioning.py::test_provisioning_that_is_refused"),
    ("The first start opens the shielding data with the protector's transport key, fills "
     "in the answer file and puts the disk's key into the TPM.",
     "assumed: provisioning-at-boot",
     "tests/unit/hyperv/test_provisioning.py::test_os_wins_flow"),
    ("A VM whose job runs is not provisioned.",
     "assumed: provisioning-job",
     "tests/unit/hyperv/test_provisioning.py::test_a_vm_whose_job_runs_is_not_provisioned"),
    ("Shielding data sealed for another protector fails the job.",
     "assumed: provisioning-at-boot",
     "tests/unit/hyperv/test_provisioning.py::test_shielding_data_of_another_protector"),
    ("On a host that is not guarded, or with data for another fabric, the VM does not "
     "start and the job goes on waiting.",
     'Microsoft Learn, "Troubleshoot guarded hosts"',
     "tests/unit/hyperv/test_provisioning.py::test_a_host_that_is_not_guarded"),
)

_SEVERAL = "tests/unit/hyperv/test_several_hosts.py::"
_STORAGE = "tests/unit/hyperv/test_storage.py::StorageTest::"
_CLIENT = "tests/unit/hyperv/test_fabric_client.py::"
_CONFIGURATION = "tests/unit/hyperv/test_configuration.py::"
AREAS["Several hosts"] = _rows(
    ("A key that the configuration does not know, and a value that is none for its key, is "
     "refused before a host is made, with the key's place and what there could be.",
     "this package: configuration.py", _CONFIGURATION + "test_what_is_refused"),
    ("Tests call the same methods of a fabric in this process and behind a socket.",
     "this package: remote_methods.py",
     _CLIENT + "test_the_client_has_the_methods_of_the_fabric"),
    ("Behind the socket an unknown method is refused, and what is more than data.",
     "this package: remote_methods.py", _CLIENT + "test_unknown_methods_are_refused"),
    ("A path on a host's local disk has the same name on every host and is another file there.",
     "Microsoft Learn, \"Set up hosts for live migration without Failover Clustering\": the "
     "virtual machine's files keep their paths on the destination",
     _STORAGE + "test_the_same_name_on_another_host"),
    ("A path outside of the local disks is one file for all hosts, as on an SMB share.",
     "Microsoft Learn, \"Deploy Hyper-V over SMB\"",
     _STORAGE + "test_shared_paths_are_the_same_everywhere"),
    ("``\\\\HV2\\C$\\...`` is a path on the local disk of HV2.",
     "Microsoft Learn, \"Problems when administrative shares are missing\"",
     _STORAGE + "test_administrative_shares"),
    ("A share of a host that is not there is not found.",
     "System Error Codes, 53", _STORAGE + "test_a_share_of_nobody"),
    ("A connection to ``.`` reaches the host whose service calls; nobody's call is refused.",
     "Microsoft Learn, \"Describing the Location of a WMI Object\": a dot is the local computer",
     _SEVERAL + "test_the_local_host_is_the_caller_s"),
    ("A connection by name or address reaches another host; an unknown one is an RPC error.",
     "Microsoft Learn, \"Describing the Location of a WMI Object\"",
     _SEVERAL + "test_another_host_is_reached_by_name_and_by_address"),
    ("What os-win keeps for a process (connections, version of Windows) is kept for each host.",
     "os-win, os_win/utils/baseutils.py, hostutils.py and utilsfactory.py",
     _SEVERAL + "test_each_host_has_its_version_of_windows"),
    ("A call is done before the next one begins, on all hosts of a fabric.",
     "assumed: calls-one-by-one", _SEVERAL + "test_one_call_at_a_time"),
    ("Threads use several hosts at once without seeing each other's machines.",
     "Microsoft Learn, \"Hyper-V WMI provider (V2)\": a host's objects are its own",
     _SEVERAL + "test_threads_work_on_two_hosts_at_once"),
)

_HEAD = """\
.. Printed by "python -m tests.hyperv.behaviours"; a test compares it.

==========================
The simulated Hyper-V host
==========================

What ``tests/hyperv`` does in the place of Windows, and on whose word. Nothing here was tried on a
real Windows host. "assumed" links to the decisions that no public document settles.

"""

_ASSUMPTIONS_HEAD = """\
Assumptions
===========

"""


def page():
    """The documentation page, as text."""
    parts = [_HEAD]
    for area, rows in AREAS.items():
        parts += [area, "\n", "=" * len(area), "\n\n", ".. list-table::\n", "   :header-rows: 1\n",
                  "   :widths: 50 30 20\n\n", "   * - The simulated host\n     - Basis\n",
                  "     - Test\n"]
        for row in rows:
            parts.append("   * - %s\n     - %s\n     - ``%s``\n" % (
                row.what, _linked(row.basis), row.test.rpartition("::")[2]))
        parts.append("\n")
    parts.append(_ASSUMPTIONS_HEAD)
    for entry in ASSUMPTIONS:
        parts.append(".. _%s:\n\n%s\n    %s *Why:* %s\n\n" % (
            entry.id, entry.id, entry.what, entry.reason))
    return "".join(parts).rstrip("\n") + "\n"


def _linked(basis):
    word, _, identifier = basis.partition(": ")
    return "assumed: `%s`_" % identifier if word == "assumed" else basis


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(page(), encoding="utf-8")
