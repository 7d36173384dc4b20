"""Everything the simulation decides that no public document settles.

The code names an entry as ``[assumption <id>]``; a test holds both lists together. Nothing here
was tried on a real Windows host.
"""
from typing import NamedTuple


class Assumption(NamedTuple):
    """One decision: its id, what is assumed, and why."""

    id: str
    what: str
    reason: str


ASSUMPTIONS = tuple(Assumption(*entry) for entry in (
    ("algorithms",
     "Protectors use RSA-SHA256, RSA-OAEP with SHA-1, HMAC-SHA256 and HKDF-SHA256, named by the "
     "W3C's URIs; certificate signatures are over the DER bytes; the text is UTF-8.",
     "[MS-KPS] has places for algorithms and fixes none; no public sample exists. A protector "
     "made here is not one for Windows, nor the other way round."),
    ("references-checked",
     "A reference parameter of another class, of another computer, or to nothing is refused before "
     "the method runs; so is a call without a parameter that may not be left out.",
     "Hyper-V refuses each; whether as an error or as a return value is not documented for all."),
    ("events-at-once",
     "Events come at once, not at the next poll of the query's WITHIN interval.",
     "Tests would wait for up to a minute for nothing."),
    ("not-selected",
     "An instance of which a query selects some properties has these and its keys; the others are "
     "null.",
     "WMI is documented to give what is selected and system properties. os-win asks such an "
     "instance for its path, which PyMI makes of the keys; whether PyMI finds the others null or "
     "missing is not documented."),
    ("wql-comparisons",
     "A text is compared with a literal in quotation marks, a number with one that is its type's, "
     "a datetime with one in DMTF's form, an array with nothing; only texts are LIKE something, "
     "and booleans and references have no order. Else the query is invalid. Null is like nothing.",
     "WQL is documented without a list of what it converts and compares."),
    ("event-queries-checked",
     "An event query is refused when it is subscribed: its conditions are checked as those of a "
     "query about instances, and it names the class of its TargetInstance with ISA "
     "(WBEMESS_E_REGISTRATION_TOO_BROAD).",
     "The errors are documented, not which fault gives which. PyMI may tell at the first wait."),
    ("events-by-polling",
     "No class has an event provider: a query about its instances needs WITHIN "
     "(WBEMESS_E_REGISTRATION_TOO_PRECISE), and 0.001 seconds or less is refused.",
     "The error has a name, and 0.001 is documented as an example of what may be refused. What "
     "providers there are is not; os-win always polls."),
    ("calls-one-by-one",
     "A call is done before the next one begins, on all hosts of a fabric.",
     "Windows works on several calls at once; what each then sees of the other's changes is not "
     "documented. Delayed jobs are how one call meets another that is not done."),
    ("which-are-jobs",
     "Defining, destroying, importing, changing states and changing security start a job (4096); "
     "the other methods answer 0.",
     "Every method is documented with both; callers must take both. Jobs are finished when the "
     "method returns, unless a test delays them."),
    ("when-states-are-invalid",
     "The state is invalid (32775; 5 from ModifySecuritySettings) for changes of a VM's security "
     "while it is not off, for restoring a key protector where none was good, for destroying a "
     "running VM and for taking it back to a snapshot. Of RequestStateChange, Enabled is taken "
     "from off, saved and paused, Disabled from all but off, Offline (saving) from running and "
     "paused, Quiesce and Reboot from running, Reset from running and paused; all else is "
     "invalid.",
     "The code is documented for these methods, when it comes is not. os-win asks for Reboot while "
     "a VM runs, although the document has it lead from off or saved to running."),
    ("one-job-a-machine",
     "While a job of a VM or of its snapshots runs, or a cluster moves it, changes to them are "
     "refused: a change of its state with 32775 (invalid state), of its security settings and by "
     "the methods of CIM_VirtualSystemSnapshotService with 5 (likewise), any other with 32774 (in "
     "use).",
     "The codes are documented, when they are given is not."),
    ("states-on-the-way",
     "While a job starts a VM its EnabledState is 10 (starting), while it turns it off 4 (shutting "
     "down), else 1 (other).",
     "The values are documented, when they are seen is not."),
    ("job-cancelled",
     "A job that was stopped did nothing and has ErrorCode 32768; one that is not cancellable "
     "answers 1 (not supported).",
     "The states and return values are documented, the rest is job-specific."),
    ("job-status",
     "A failed job's OperationalStatus is OK (2), and GetErrorEx gives its errors.",
     "The class says that it is always OK, GetErrorEx that there are no errors then."),
    ("jobs-and-power",
     "A host that comes up after a power cut has no jobs of before, finished ones neither.",
     "Nothing public says what becomes of them; a client that waits must bear that one is gone."),
    ("job-codes",
     "A failed job has JobState 10 and ErrorCode 32768; an HRESULT is in its words.",
     "ErrorCode is a uint16 and cannot hold one."),
    ("guest-state-place",
     "GuestStateDataRoot is ConfigurationDataRoot where it is not given; the file is "
     "'Virtual Machines/<id>.vmgs'. A realized import has it in its new root; it is found beside "
     "the imported definition only.",
     "The properties are documented, their defaults are not, nor where an import looks."),
    ("guest-state-form",
     "The guest state file is sealed whole with a key derived from the transport key; it is never "
     "empty, and any damage is noticed.",
     "Only that it is encrypted with the protector's key is documented. That an unused .vmgs has "
     "some megabytes is what users see."),
    ("security-generation-2",
     "VMs of Generation 1 have no Msvm_SecuritySettingData.",
     "A virtual TPM needs Generation 2; a Generation 1 VM's key storage drive is not simulated."),
    ("guarded-means-passed",
     "IsHostGuarded is true with AttestationStatus 100 only.",
     "Status 200 (certificate expired) leaves no valid health certificate to present; 300 "
     "(retriable error) says nothing of an older certificate that is still valid."),
    ("health-certificate-life",
     "A health certificate is valid for eight hours. An attempt that fails for any reason but an "
     "unreachable service takes it away.",
     "That hosts attest every eight hours is documented, how long the certificate lives is not."),
    ("words-of-a-refused-start",
     "A start says the same whether no guardian fits, the host does not pass attestation, or the "
     "Host Guardian Service is away.",
     "Only the words of the first are recorded: by users, of an arrival by live migration."),
    ("shielding-needs",
     "A VM with ShieldingRequested and without TpmEnabled, EncryptStateAndVmMigrationTraffic or "
     "Secure Boot does not start; to turn one of the first two off is an invalid parameter.",
     "They are documented as required and enforced for a shielded VM, the refusal is not. The "
     "cmdlets request shielding (Set-VMSecurityPolicy) before they enable the TPM."),
    ("unshielding",
     "ShieldingRequested is taken back only on a host with the private signing key of the key "
     "protector's owner; elsewhere the state is invalid.",
     "That a fabric administrator cannot and the owner can is documented, how it is refused is "
     "not."),
    ("unset-protector",
     "An unset key protector reads back as the bytes 0 0 0 4, which can also be set.",
     "No document of Microsoft's has these bytes. The source of eryph (ConvergeTpmTests.cs) says "
     "that Hyper-V returns them; the public script ConvertTo-ShieldedVM takes four bytes or less "
     "for no key protector."),
    ("protector-prefix",
     "A key protector begins with its length: four bytes, big endian, themselves included. Where "
     "they are wrong it is refused (32773).",
     "Microsoft Learn, Get-KeyProtectorFromShieldingDataFile, shows one that begins 0 0 36 52, and "
     "an unset one is 0 0 0 4; that this is the length is said nowhere."),
    ("any-policy",
     "SetSecurityPolicy takes any bytes, also none, with a key protector or without.",
     "What a policy looks like is not public, nor what Windows checks of it."),
    ("protector-in-use",
     "The empty key protector is refused (32775) while a security setting needs one.",
     "Only the other order, no setting without a protector, is recorded."),
    ("protector-read-when-set",
     "SetKeyProtector refuses (32773) what is no key protector, or is wrongly signed; whom it is "
     "for shows at the next start.",
     "Its documentation names no check."),
    ("ksd-generation-2",
     "KsdEnabled is refused (4, invalid parameter) for a VM of Generation 2.",
     "Key storage drives are documented for Generation 1, the refusal is not."),
    ("old-configuration-versions",
     "Before configuration version 8.0, security settings are not supported (1), nor are key "
     "protectors and policies (32770).",
     "The version is documented, the codes are not."),
    ("firmware-refusals",
     "Secure Boot and its template: 32773 for Generation 1 or an unknown template, 32775 while the "
     "VM is not off, and for a shielded VM; likewise 32775 for a shielded VM's serial port, and "
     "for another boot order while the VM is not off.",
     "What must not change is documented, the return values are not."),
    ("disabled-tpm",
     "A TPM that is disabled keeps its state, sealed, for the day when it is enabled again.",
     "Nothing public says what becomes of it."),
    ("security-element",
     "A VM has its Msvm_SecurityElement while it is in memory, with the settings it started with.",
     "The class is documented as the runtime view, when its instances exist is not."),
    ("guest-obeys",
     "A guest asked to shut down does so at once; a reboot changes nothing.",
     "There is no guest."),
    ("words-of-a-wrong-tpm-key",
     "A start with a valid protector that is not the TPM state's fails with 0xC000A002.",
     "Microsoft Learn, Troubleshoot vTPM, shielded VM, and HGS issues in Hyper-V clusters, has the "
     "sentence with this code, and no cause; what the job says around it is not recorded."),
    ("words-of-migration",
     "A refused migration's job names the VM and the host in the words of Hyper-V's events, with "
     "the Win32 error that fits.",
     "Users report the words for some refusals; no document lists them."),
    ("cold-moves-keep-protectors",
     "A VM that is off or saved moves with its guest state file as it is; its next start unwraps "
     "the key protector.",
     "Only a running TPM must be opened on arrival; for the others nothing is documented."),
    ("moves-not-simulated",
     "MigrateVirtualSystemToHost answers 1 (not supported) to a move of the storage alone "
     "(MigrationType 32769) and to one with new system settings.",
     "Windows does both; no driver here asks for them. The code is the documented one."),
    ("storage-that-moves",
     "With storage all virtual hard disks move, the definition and the guest state too; a DVD's "
     "file and a parent that is an image of many must be at the destination already, else the "
     "move is refused, as it is where a file exists there.",
     "os-win and compute-hyperv copy DVD images and images before they migrate; the refusals are "
     "not documented."),
    ("definition-form",
     "A definition file is a digest and JSON; any damage is noticed.",
     "The format of .vmcx is not public. Windows notices damage too; how well is not known."),
    ("export-layout",
     "An export is 'Virtual Machines', 'Snapshots' and 'Virtual Hard Disks' below the folder, the "
     "guest state beside the definition; where the VM is there already it is refused.",
     "Only CreateVmExportSubdirectory is documented; the folders are those that users see."),
    ("import-roots",
     "All folders of an imported VM are the one above the definition file's 'Virtual Machines', or "
     "that of the file where it lies in none of this name, until ModifySystemSettings gives the "
     "planned VM others.",
     "Import-VM is documented to register a VM in place; which folders a planned VM has is not. "
     "compute-hyperv sets them all but GuestStateDataRoot."),
    ("planned-keeps-disks",
     "RemoveResourceSettings of a planned VM's virtual hard disk is refused (32775).",
     "compute-hyperv says that disks of a planned VM cannot be removed, and waits until it is "
     "realized; the code is not recorded."),
    ("planned-keeps-guest-state",
     "A planned VM has the guest states that were found at the import; what it was imported from "
     "may be gone when it is realized.",
     "Windows has planned VMs' files in a folder of its own ('Planned Virtual Machines'); "
     "compute-hyperv removes what it imported before it realizes. A contract test asks a real host "
     "(tests/contract)."),
    ("import-refusals",
     "An import of a damaged definition, of a version that is not supported or of an identifier "
     "that exists fails, as does the realization without a disk of the VM or of a snapshot, "
     "without a snapshot or the guest state, or where another guest state lies already.",
     "The return values are documented, what makes them and their words are not."),
    ("guest-state-missing",
     "A VM of Generation 2 neither starts nor is realized without its guest state file, nor does "
     "it start with an empty or damaged one. A VM whose TPM was started does not start with the "
     "file of a TPM that never was: it never gets an empty TPM in the place of its own.",
     "Users report that a VM without the file does not start; the words are not recorded, nor what "
     "Windows does with the other files. Code must not rely on a new TPM."),
    ("disks-of-a-start",
     "A VM starts only where its virtual hard disks with all their parents and its DVD images are "
     "there, and no other VM of the host that runs has one of them open for writing. The job names "
     "all that is missing.",
     "Users report the words for a missing disk and for one in use; of a parent Windows says more. "
     "Other hosts' VMs are not looked at, nor physical disks and volumes."),
    ("open-files",
     "A VM that runs or is paused changes its state only while the disks, DVD images and the guest "
     "state that it has open are there; a TPM whose guest state file is gone keeps nothing more. "
     "A host's power cut asks for no file.",
     "Windows refuses to delete or move them, with a sharing violation. Nothing here stands "
     "between a caller and the file system, so that it shows at the VM's next step."),
    ("saved-state-missing",
     "A saved VM does not start without its .VMRS file.",
     "Its memory is in it; the words are not recorded."),
    ("hardware-of-a-vm",
     "32775 while a VM is not off for: its processors' number and features, dynamic memory turned "
     "on or off, controllers, what is at an IDE controller but for a DVD's image, network adapters "
     "of Generation 1 or on 2012 R2; for its memory unless it runs, on 2016 or later, without "
     "dynamic memory; while it is saved, for any drive, disk or adapter. In any state the job "
     "fails for a location that there is not, or that is occupied, a disk or image that is "
     "missing, a disk that the VM has already, a VHD of Generation 2, and numbers of processors, "
     "megabytes and controllers out of range. More processors than the host has are out of range; "
     "memory is from 32 MB on in steps of 2 MB.",
     "The limits and what a running VM takes are documented; how a refusal comes, what Hyper-V "
     "Manager shows in grey, and the words are not. Reserve, limit and weight of a processor, QoS "
     "of a disk and the like change at any time here."),
    ("encrypted-state-needs-the-key",
     "A VM with EncryptStateAndVmMigrationTraffic and no TPM starts only where its key protector "
     "can be unwrapped; the protector stays.",
     "The setting is documented to need a key protector; when it is unwrapped is not."),
    ("roots-stay",
     "ConfigurationDataRoot and GuestStateDataRoot of a realized VM cannot be changed, nor "
     "SnapshotDataRoot while it has snapshots.",
     "Its files lie there; only migrations are documented to move them."),
    ("settings-that-stay",
     "ModifySystemSettings refuses (32773) another Version, generation, type, identifier or "
     "GuestStateFile.",
     "The properties are documented as read-only, and versions as raised by UpgradeSystemVersion; "
     "whether a change is refused or not looked at is not."),
    ("version-of-a-new-vm",
     "DefineSystem takes a Version that the host supports, and refuses (32773) any other; without "
     "one it is the host's newest.",
     "New-VM has -Version and its values are documented; the property is documented as read-only, "
     "the refusal not at all."),
    ("snapshot-files",
     "A snapshot's definition, run-time state and guest state lie in 'Snapshots' below "
     "SnapshotDataRoot, its differencing disks beside the disks; a VM with physical disks gets no "
     "snapshot; a removed VM's disks are merged.",
     "Users see files so; only the methods are documented."),
    ("snapshots-and-tpms",
     "Applying a snapshot brings back the TPM of then and the key protector that opens it; the "
     "VM's files stay in their folders. Where anything fails nothing has changed.",
     "A snapshot is documented to hold all settings and state of its VM, the guest state is not "
     "named, nor what a failure leaves."),
    ("certificates-as-der",
     "EncryptionCertificate and SigningCertificate of MSFT_HgsGuardian are the DER bytes.",
     "They are declared as uint8 arrays without a format."),
    ("static-faults",
     "A refused MSFT_Hgs method raises a WMI error; none returns a code other than 0.",
     "The CDXML cmdlets show errors as exceptions; their codes are not documented."),
    ("certificate-usages",
     "A signing certificate has the KeyUsage digitalSignature, an encryption certificate "
     "keyEncipherment and dataEncipherment; no ExtendedKeyUsage.",
     "Microsoft's examples make them so; what Windows itself gives is not documented."),
    ("removed-guardian",
     "Remove takes the guardian out of the store; its certificates and private keys stay in "
     "'Shielded VM Local Certificates'.",
     "Not documented. Public scripts (FFU of rbalsleyMSFT: Remove-FFUVM) delete the certificates "
     "themselves after Remove-HgsGuardian."),
    ("guardian-key-provider",
     "The private keys of generated certificates are those of CNG's Microsoft Software Key Storage "
     "Provider; a test can have them made by a provider of CryptoAPI.",
     "Not documented. A program reads the place from CERT_KEY_PROV_INFO_PROP_ID."),
    ("deleted-keys-place",
     "A certificate whose private key was deleted still names its place, where CNG and CryptoAPI "
     "find nothing (NTE_BAD_KEYSET).",
     "Documented for CryptAcquireContext; the same is seen of CNG."),
    ("one-guardian-a-certificate",
     "A guardian with the certificates of another one of the store is refused, as is one that is "
     "in a key protector already.",
     "Only the name is documented as unique; nothing should rely on two."),
    ("unknown-guardian-name",
     "A guardian of a key protector that the host's store does not have is shown with the name "
     "'(not in the store)'.",
     "A protector holds certificates, no names; what Windows shows is not documented."),
    ("export-needs-the-key",
     "Export of a guardian without its private signing key is refused.",
     "The metadata is signed with the guardian's signing key [MS-KPS]; whether Windows keeps the "
     "document that was imported is not documented."),
    ("grant-keeps-the-transport-key",
     "Grant and Revoke keep the transport key; they need the owner's private encryption key, too.",
     "Documented is the signing key only. But TransportKeySignature is over all wrappings by a key "
     "derived from the transport key ([MS-KPS] 2.2.2.7), so it has to be unwrapped; with a new one "
     "the TPM's state could not be opened."),
    ("one-owner",
     "A key protector with two owners, or whose wrappings do not descend from the owner's, is "
     "refused.",
     "[MS-KPS] speaks of at least one owner; MSFT_HgsKeyProtector has one."),
    ("cluster-order",
     "A failover tries the nodes that are up in the order of the cluster's configuration; each try "
     "counts towards FailoverThreshold. A move is pending, then the owner changes, then it ends.",
     "The order of a failover follows settings that no driver here makes; the steps are "
     "documented, what a listener sees between them is not."),
    ("cluster-failback",
     "With AutoFailbackType 1 a VM moves back, live and at once, to the node that it failed over "
     "from when that node is up again; the failback window is not looked at.",
     "Windows goes by the list of preferred owners, which os-win does not set although it "
     "promises that the VM moves back to its original host."),
    ("cluster-partial",
     "A VM that is off makes its group partially online: its configuration is online.",
     "The states of groups are documented, those of a VM's two resources are not."),
    ("cluster-refused-move",
     "A live migration that the destination refuses, or whose destination fails, leaves the group "
     "online at the source, with and without CLUSAPI_GROUP_MOVE_RETURN_TO_SOURCE_NODE_ON_ERROR.",
     "Hyper-V's live migration leaves the VM running where it is; the flag's part in that is not "
     "documented."),
    ("cluster-locked",
     "Any job of its VM puts a group into locked mode (StatusInformation 1), which orders are "
     "refused with (5960); a move that ignores it kills the job. A queued move waits for the job, "
     "an automatic failback does not come. Meanwhile the group's state is what it was.",
     "What locked mode does is documented, which operations of Hyper-V set it is not, nor what is "
     "terminated by a move that ignores it."),
    ("cluster-lost",
     "When a VM leaves its node and the cluster did not move it, both resources have failed. "
     "Bringing the group online is 5038 (a cluster resource failed); it can be moved, taken "
     "offline and destroyed, and goes to another node when its own fails.",
     "[MS-CMRP] says how groups with failed resources move; what the resources of a deleted VM "
     "answer is not documented."),
    ("cluster-add-here",
     "AddVirtualMachine finds VMs of the node that is asked, by name, and refuses one that is in a "
     "group already; the errors are 5007 and 5010.",
     "The method is documented without its errors."),
    ("cluster-offline-saves",
     "Taking a group offline saves its VM, at once.",
     "Saving is the default of the resource's offline action; how long it takes is not simulated."),
    ("provisioning-files",
     "PDK and FSK files are JSON; a PDK's answer file is sealed with a key derived from the "
     "transport key of its protector.",
     "Documented is what they hold and that a PDK is encrypted; not the format. A file made here "
     "is not one for Windows, nor the other way round."),
    ("provisioning-job",
     "ProvisionMachine returns 0 with its job embedded; it refuses missing files, a VM that was "
     "started before, one without virtual TPM and one whose job runs with WMI errors.",
     "The return values are not documented. A caller such as os-win, which takes the job for a "
     "path, could not wait for it with 4096."),
    ("provisioning-at-boot",
     "The first start of the VM completes the provisioning at once, if its key protector opens "
     "the shielding data; else the job fails and the VM runs.",
     "Documented is that the job waits for the boot. The guest that does the work is not "
     "simulated."),
    ("metadata-signature",
     "The ds:Signature of guardian metadata is enveloped, over the whole document in exclusive "
     "canonical form, RSA-SHA256, by the guardian's signing key, with its certificate.",
     "[MS-KPS] has the element and refers to the W3C; no public sample exists."),
))
