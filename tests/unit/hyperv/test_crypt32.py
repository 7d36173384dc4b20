"""crypt32.dll, ncrypt.dll and advapi32.dll of a simulated host: with ctypes, as on Windows."""
import ctypes
import hashlib

import pytest

from tests.hyperv import certificates, crypt32, current_host, fabric, windows
from tests.hyperv.fabric_client import FabricClient
from tests.hyperv.fabric_process import Server
from tests.hyperv.guardian import Guardian
from tests.hyperv.native import module

HOST, OTHER_HOST, GUARDIAN = "HV1", "HV2", "Fabrikam"
STORE = certificates.SHIELDED
LOCAL_MACHINE, OPEN_EXISTING, READ_ONLY = 0x20000, 0x4000, 0x8000
ONLY_NCRYPT, KEY_PROV_INFO, SHA1 = 0x40000, 2, 0x10000
NOT_FOUND, BAD_KEYSET, ACCESS_DENIED = 0x80092004, 0x80090016, 0x80070005
POINTER, NUMBER, TEXT = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_wchar_p
DECLARED = {
    "CertOpenStore": (POINTER, [POINTER, NUMBER, POINTER, NUMBER, TEXT]),
    "CertCloseStore": (NUMBER, [POINTER, NUMBER]),
    "CertEnumCertificatesInStore": (POINTER, [POINTER, POINTER]),
    "CertFindCertificateInStore": (POINTER, [POINTER, NUMBER, NUMBER, NUMBER, POINTER, POINTER]),
    "CertGetCertificateContextProperty": (NUMBER, [POINTER, NUMBER, POINTER, POINTER]),
    "CertDeleteCertificateFromStore": (NUMBER, [POINTER]),
    "CertFreeCertificateContext": (NUMBER, [POINTER]),
    "CryptAcquireCertificatePrivateKey": (
        NUMBER, [POINTER, NUMBER, POINTER, POINTER, POINTER, POINTER]),
    "NCryptDeleteKey": (ctypes.c_int32, [POINTER, NUMBER]),
    "NCryptFreeObject": (ctypes.c_int32, [POINTER])}


class Caller:
    """A program that declares the functions and calls them."""

    def __init__(self, libraries):
        self.libraries = libraries
        loaded = [libraries.WinDLL(name, use_last_error=True) for name in ("crypt32", "ncrypt")]
        for name, (result, arguments) in DECLARED.items():
            library = next(one for one in loaded if hasattr(one, name))
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def last_error(self):
        return self.libraries.get_last_error() & 0xFFFFFFFF

    def open(self, name=STORE, flags=OPEN_EXISTING):
        return self.CertOpenStore(10, 0, None, LOCAL_MACHINE | flags, name)

    def find(self, store, certificate):
        class Blob(ctypes.Structure):
            _fields_ = [("length", NUMBER), ("data", POINTER)]
        digest = ctypes.create_string_buffer(hashlib.sha1(certificate).digest(), 20)
        blob = Blob(20, ctypes.addressof(digest))
        return self.CertFindCertificateInStore(
            store, 0x10001, 0, SHA1, ctypes.addressof(blob), None)

    def acquire(self, context):
        """(whether it worked, key handle)"""
        key, kind, frees = POINTER(), NUMBER(), NUMBER()
        done = self.CryptAcquireCertificatePrivateKey(
            context, ONLY_NCRYPT, None, *(ctypes.addressof(one) for one in (key, kind, frees)))
        return bool(done), key.value


@pytest.fixture(scope="module")
def guardian():
    return Guardian.generate(GUARDIAN, computer=HOST)


@pytest.fixture(params=["in this process", "over the socket"])
def simulated(request, guardian, tmp_path):
    """A fabric whose first host has one guardian with private keys."""
    one = fabric.Fabric({"hosts": [{"name": HOST}, {"name": OTHER_HOST}]})
    one.host(HOST).hgs_client.add(guardian)
    if request.param == "in this process":
        windows.install(one, HOST)
        yield one
        return
    server = Server(one, tmp_path / "socket")
    thread = module("threading").Thread(target=server.run)
    thread.start()
    try:
        windows._prepare(windows._Installed(
            windows.RemoteComputer(tmp_path / "socket", HOST).named, lambda: HOST), HOST)
        yield FabricClient(tmp_path / "socket")
    finally:
        server.stop()
        thread.join()


@pytest.fixture
def caller(simulated):
    return Caller(crypt32.Libraries(current_host.computer))


def test_certificates_are_listed_as_memory(caller, guardian):
    store, context, found = caller.open(), None, []
    assert store > 2 ** 32
    while context := caller.CertEnumCertificatesInStore(store, context):
        memory = crypt32._Context.from_address(context)
        found.append(ctypes.string_at(memory.encoded, memory.length))
    assert caller.last_error() == NOT_FOUND
    assert caller.libraries.get_last_error() < 0
    assert found == [guardian.signing_certificate, guardian.encryption_certificate]
    assert caller.CertCloseStore(store, 0)
    assert caller.libraries.open_handles() == {}


def test_a_deleted_certificate_leaves_its_private_key(caller, simulated, guardian):
    store = caller.open()
    assert caller.CertDeleteCertificateFromStore(caller.find(store, guardian.signing_certificate))
    assert not caller.find(store, guardian.signing_certificate)
    assert caller.last_error() == NOT_FOUND
    assert [one["store"] for one in simulated.private_keys(HOST)] == [None, STORE]
    assert len(simulated.certificates(HOST)) == 1


def test_a_deleted_private_key_leaves_its_certificate(caller, simulated, guardian):
    store = caller.open()
    context = caller.find(store, guardian.signing_certificate)
    done, key = caller.acquire(context)
    assert done
    assert key > 2 ** 32
    assert simulated.guardians(HOST)[0]["has_private_keys"]
    assert caller.NCryptDeleteKey(key, 0) == 0
    assert not simulated.guardians(HOST)[0]["has_private_keys"]
    assert [one["has_private_key"] for one in simulated.certificates(HOST)] == [False, True]
    assert len(simulated.private_keys(HOST)) == 1
    assert caller.acquire(context) == (False, None)
    assert caller.last_error() == BAD_KEYSET


def test_stores_that_there_are_not(caller):
    assert not caller.open("No such store")
    assert caller.last_error() == 2
    assert not caller.open("No such store")  # still not
    assert caller.open("No such store", flags=0)
    assert caller.open("No such store")


def test_another_host_has_other_stores(caller, simulated):
    with windows.acting_as(OTHER_HOST):
        assert not caller.open()
    assert caller.open()


def test_a_store_that_was_opened_for_reading(caller, simulated, guardian):
    store = caller.open(flags=OPEN_EXISTING | READ_ONLY)
    context = caller.find(store, guardian.signing_certificate)
    assert not caller.CertDeleteCertificateFromStore(context)
    assert caller.last_error() == ACCESS_DENIED
    assert caller.libraries.open_handles() == {"store": 1}  # freed all the same
    assert len(simulated.certificates(HOST)) == 2


def test_a_property_that_does_not_fit(caller, guardian):
    context = caller.find(caller.open(), guardian.signing_certificate)
    size = NUMBER()
    assert caller.CertGetCertificateContextProperty(
        context, KEY_PROV_INFO, None, ctypes.addressof(size))
    needed = size.value
    buffer = ctypes.create_string_buffer(needed)
    size.value = needed - 1
    assert not caller.CertGetCertificateContextProperty(
        context, KEY_PROV_INFO, ctypes.addressof(buffer), ctypes.addressof(size))
    assert (caller.last_error(), size.value) == (234, needed)


@pytest.mark.parametrize("misuse", [
    lambda caller, store, context: [caller.CertCloseStore(store, 0) for _ in range(2)],
    lambda caller, store, context: [caller.CertFreeCertificateContext(context) for _ in range(2)],
    lambda caller, store, context: [
        caller.CertDeleteCertificateFromStore(context), caller.CertFreeCertificateContext(context)],
    lambda caller, store, context: [
        caller.CertEnumCertificatesInStore(store, context), caller.acquire(context)],
    lambda caller, store, context: [
        caller.CertCloseStore(store, 0), caller.CertEnumCertificatesInStore(store, None)],
    lambda caller, store, context: caller.CertFreeCertificateContext(store),
    lambda caller, store, context: caller.NCryptDeleteKey(context, 0),
    lambda caller, store, context: [
        delete(key, 0) for key in [caller.acquire(context)[1]]
        for delete in (caller.NCryptDeleteKey, caller.NCryptDeleteKey)],
    lambda caller, store, context: caller.CertCloseStore(store & 0xFFFFFFFF, 0)],
    ids=["store closed twice", "context freed twice", "deleted context freed",
         "context that enumeration freed", "closed store", "store for a context",
         "context for a key", "key deleted twice", "half a handle"])
def test_misuse_of_handles_is_an_error(caller, guardian, misuse):
    store = caller.open()
    context = caller.CertEnumCertificatesInStore(store, None)
    with pytest.raises(crypt32.Misuse):
        misuse(caller, store, context)
    assert len(caller.libraries.misuses()) == 1
    assert caller.libraries.misuses() == []


def test_what_is_not_declared_is_not_called(simulated):
    library = crypt32.Libraries(current_host.computer).WinDLL("crypt32.dll")
    with pytest.raises(crypt32.Misuse, match="CertOpenStore is called before"):
        library.CertOpenStore(10, 0, None, LOCAL_MACHINE, STORE)
    library.CertOpenStore.argtypes = DECLARED["CertOpenStore"][1]
    with pytest.raises(crypt32.Misuse):  # the handle would be cut to an int
        library.CertOpenStore(10, 0, None, LOCAL_MACHINE, STORE)
    with pytest.raises(AttributeError):
        library.CertOpenNothing  # noqa: B018
    with pytest.raises(OSError, match="user32"):
        crypt32.Libraries(current_host.computer).WinDLL("user32")


def test_the_last_error_is_kept_for_those_who_ask_for_it(simulated):
    libraries = crypt32.Libraries(current_host.computer)
    for use_last_error, expected in ((False, 0), (True, 2)):
        function = libraries.WinDLL("crypt32", use_last_error=use_last_error).CertOpenStore
        function.restype, function.argtypes = DECLARED["CertOpenStore"]
        assert not function(10, 0, None, LOCAL_MACHINE | OPEN_EXISTING, "No such store")
        assert libraries.get_last_error() == expected


def test_calls_fail_on_demand_and_are_listed(caller, simulated):
    simulated.add_fault(HOST, "crypt32.CertOpenStore", return_value=ACCESS_DENIED)
    assert not caller.open()
    assert caller.last_error() == ACCESS_DENIED
    assert caller.open()
    assert simulated.calls(HOST, "crypt32.*") == [
        ("crypt32", "CertOpenStore", {}, ACCESS_DENIED), ("crypt32", "CertOpenStore", {}, 0)]


def test_a_call_can_fail_after_its_work(caller, simulated, guardian):
    context = caller.find(caller.open(), guardian.signing_certificate)
    _, key = caller.acquire(context)
    simulated.add_fault(HOST, "ncrypt.NCryptDeleteKey", return_value=BAD_KEYSET, point="after")
    assert caller.NCryptDeleteKey(key, 0) & 0xFFFFFFFF == BAD_KEYSET
    assert len(simulated.private_keys(HOST)) == 1
