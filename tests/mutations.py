"""Twenty faults that a careless developer could make in vtpm_compute; a test must catch each.

``tools/check-mutations`` puts each into a copy of the tree and runs the tests that are named here.
"""

from __future__ import annotations

import dataclasses

_CONTRACT = "tests/contract/test_windows_contract.py::TestWindowsContract::"
_GUARDIANS = "tests/unit/test_guardians.py::"
_MAKER = "tests/unit/test_protector_maker.py::"
_SECURITY = "tests/unit/test_security.py::"
_KEYS = "tests/unit/test_keys.py::"
_PROTECTORS = "tests/unit/test_key_protector.py::"
_DRIVER = "tests/functional/test_vtpm_driver.py::VtpmDriverTest::"
_OWN_STEPS = _CONTRACT + "test_the_products_own_steps"


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One fault.

    :ivar name: its short name
    :ivar cost: what it does to a user or an operator on Windows
    :ivar file: in vtpm_compute; in tests/hyperv for those of tests/simulator_mutations.py
    :ivar old: text that the file holds exactly once
    :ivar new: what stands there instead
    :ivar tests: those that are to catch it, as pytest takes them
    """

    name: str
    cost: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "wrong parameter name",
        "The class has Guardians, its method takes Guardian: WMI refuses, no protector is made.",
        "guardians.py",
        "            Guardian=[guardian.handle for",
        "            Guardians=[guardian.handle for",
        (_OWN_STEPS,)),
    Mutation(
        "owner left behind",
        "The owner's private keys, which open the VM's TPM, stay on the host when a step fails.",
        "protector_maker.py",
        """\
                raw = attempts.make(lambda: making.protector(fabric, owner, further))
            finally:
                attempts.make(functools.partial(self._undo, making))
""",
        """\
                raw = attempts.make(lambda: making.protector(fabric, owner, further))
                if raw:
                    attempts.make(functools.partial(self._undo, making))
            finally:
                pass
""",
        (_MAKER + "test_whatever_call_fails_nothing_stays",)),
    Mutation(
        "private keys left on the disk",
        "Only the certificates go: the keys that open the TPM of every server built here stay.",
        "certificate_store.py",
        "            if not self._delete_key(context) and not key_may_be_gone:\n",
        "            if not self._property(context, _KEY_PROV_INFO_PROPERTY):\n",
        (_MAKER + "test_an_owner_goes_with_its_private_keys",)),
    Mutation(
        "positional order",
        "PyMI sorts positional arguments by name: the protector goes where the settings belong.",
        "security.py",
        """\
                SecuritySettingData=self._data(vm_name).GetText_(_TEXT),
                # A list: PyMI takes bytes apart wrongly where it expects uint8[].
                KeyProtector=list(protector))
""",
        """\
                self._data(vm_name).GetText_(_TEXT), list(protector))
""",
        (_OWN_STEPS,)),
    Mutation(
        "settings kept",
        "What was loaded before a change counts: a setting that Hyper-V did not take seems taken.",
        "security.py",
        "        return found[0]\n",
        "        return self.__dict__.setdefault(vm_name, found[0])\n",
        (_SECURITY + "test_settings_are_read_anew",)),
    Mutation(
        "saved state and migration not encrypted",
        "The TPM's memory goes over the network, and into the file of a saved VM, as it is.",
        "security.py",
        "            data.EncryptStateAndVmMigrationTraffic = True\n",
        "",
        (_OWN_STEPS,)),
    Mutation(
        "protector set twice",
        "A VM that has started gets its first protector again: its TPM, and BitLocker, are lost.",
        "vtpm.py",
        """\
        if not key_protector.is_unset(self._security.read_key_protector(vm_name)):
            raise errors.AttachError(
                "The virtual machine already has a key protector: setting another would lose its "
                "TPM. Nothing was changed.")
""",
        "",
        (_SECURITY + "test_a_protector_that_has_rolled_is_not_set_again",
         _DRIVER + "test_a_protector_is_never_set_a_second_time")),
    Mutation(
        "vTPM before the protector",
        "Hyper-V refuses a vTPM without a valid key protector: no server is built.",
        "vtpm.py",
        """\
        self._security.set_key_protector(vm_name, prepared.protector)
        self._security.enable_vtpm(vm_name, prepared.shielded)
""",
        """\
        self._security.enable_vtpm(vm_name, prepared.shielded)
        self._security.set_key_protector(vm_name, prepared.protector)
""",
        (_SECURITY + "test_attach",)),
    Mutation(
        "wrong fabric",
        "A protector for another fabric: the VM is made, and never starts.",
        "vtpm.py",
        "        material.require_guardian(fabric, policy.IMAGE_KEYS)\n",
        "",
        (_DRIVER + "test_protector_of_another_fabric",)),
    Mutation(
        "VM running",
        "Hyper-V changes the security of a VM that is off only: no server is built.",
        "vtpm_vmops.py",
        "        self.vtpm.attach(instance.name, prepared)\n",
        "        super().power_on(instance)\n"
        "        self.vtpm.attach(instance.name, prepared)\n",
        (_DRIVER + "test_given_protector",)),
    Mutation(
        "undo not run",
        "A failed build leaves its mark: the next host refuses the server for a TPM it never had.",
        "vtpm_driver.py",
        """\
            if not marks.is_marked(instance):
                undo.callback(self._unmark, instance)
""",
        "",
        (_DRIVER + "test_a_start_that_fails_leaves_no_mark",)),
    Mutation(
        "mark not written",
        "Nobody knows that the server has a TPM: an evacuation gives it an empty one.",
        "vtpm_driver.py",
        "                    marks.mark(instance, prepared.shielded, prepared.fabric_thumbprint)\n",
        "",
        (_DRIVER + "test_given_protector",)),
    Mutation(
        "protector without its length",
        "Hyper-V takes a key protector with its length before it: it refuses this one.",
        "key_protector.py",
        """\
        raw=(len(document) + _PREFIX_LENGTH).to_bytes(_PREFIX_LENGTH, "big") + document,
""",
        """\
        raw=document,
""",
        (_OWN_STEPS,)),
    Mutation(
        "forged protector",
        "Whoever can write to the key manager puts a guardian of their own into a tenant's.",
        "key_protector_signatures.py",
        """\
    if is_settled:
        return wrong("is over something else")
""",
        "",
        (_PROTECTORS + "TestSignatures::test_wrappings_that_were_changed_after_signing",)),
    Mutation(
        "stranger's guardian",
        "A guardian whom the owner never signed in can unwrap the VM's keys.",
        "key_protector_signatures.py",
        """\
    except InvalidSignature:
        return wrong("was not made with its key")
""",
        """\
    except InvalidSignature:
        return not_verified("its key did not make it")
""",
        (_PROTECTORS + "test_damaged_and_forged",)),
    Mutation(
        "key in the log",
        "Whoever reads nova-compute's debug log has the tenant's key.",
        "keys.py",
        "        if not payload:\n",
        '        LOG.debug("Key %s: %r", key.secret_id, payload)\n'
        "        if not payload:\n",
        (_KEYS + "TestLog::test_nothing_secret_is_logged",)),
    Mutation(
        "key read as text",
        "keystoneauth writes text into the debug log, and bytes that are no text are damaged.",
        "keys.py",
        '_OCTETS = "application/octet-stream"',
        '_OCTETS = "text/plain"',
        (_KEYS + "TestRequests::test_one_request_a_key_in_order",)),
    Mutation(
        "redirect followed",
        "The user's token goes wherever an answer points.",
        "timed_transport.py",
        '            response.headers.pop("Location", None)\n            response.close()\n',
        '            response = requests.Session().get(\n'
        '                response.headers.get("Location", request.url), headers=request.headers)\n',
        (_KEYS + "TestFailures::test_redirects_do_not_take_the_token_away",)),
    Mutation(
        "attestation read once",
        "A host attests every eight hours: one that lost it still gets servers that cannot start.",
        "host_report.py",
        "        configuration = client.read_configuration()\n",
        "        configuration = client.__dict__.setdefault(\n"
        '            "configuration", client.read_configuration())\n',
        (_GUARDIANS + "test_the_report_follows_the_attestation",)),
    Mutation(
        "WMI's errors not translated",
        "Nova takes WMI's own error for trouble of this host: it tries them all, without a reason.",
        "windows_errors.py",
        "_WMI_ERRORS = (os_win_exceptions.x_wmi, os_win_exceptions.OSWinException,",
        "_WMI_ERRORS = (os_win_exceptions.OSWinException,",
        (_GUARDIANS + "test_what_wmi_refuses_is_our_error",)),
)
