"""crypt32.dll, ncrypt.dll, advapi32.dll and kernel32.dll: a host's certificates, private folders.

:class:`Libraries` has ``WinDLL`` and ``get_last_error``, as ctypes has them on Windows. Its
functions are real foreign functions that nothing is declared of: a caller who leaves out argtypes
or a restype is stopped, handles are wider than 32 bits, and certificate contexts are memory.

A handle that is used after it was freed, freed twice or of the wrong kind is undefined behaviour on
Windows; here it is a :class:`Misuse` in the caller, and stays in :meth:`Libraries.misuses`.

Source: Microsoft Learn, the pages of the functions (wincrypt.h, ncrypt.h, sddl.h, fileapi.h);
"Security Descriptor String Format"; winerror.h.
"""
import collections
import ctypes
import itertools
import os
import re

from tests.hyperv import native
from tests.hyperv.crypto_error import CODES, CryptoError

_POINTER, _TEXT = ctypes.c_void_p, ctypes.c_wchar_p
_DWORD, _BOOL, _STATUS = ctypes.c_uint32, ctypes.c_int32, ctypes.c_int32

_STORE_PROV_SYSTEM_W, _LOCAL_MACHINE = 10, 0x20000
_OPEN_EXISTING, _READ_ONLY = 0x4000, 0x8000
_ENCODINGS = 0x10001
_FIND_SHA1_HASH = 0x10000
_SHA1_LENGTH = 20
_KEY_PROV_INFO = 2
_ONLY_NCRYPT, _SILENT, _NO_HEALING = 0x40000, 0x40, 0x8
_NCRYPT_KEY_SPEC = 0xFFFFFFFF
_MACHINE_KEYSET, _DELETE_KEYSET = 0x20, 0x10
_SDDL_REVISION_1 = 1
_FILE_OBJECT, _OWNER_AND_DACL = 1, 5
# An owner, and a DACL, protected or not, of entries that allow something to an account.
_DESCRIPTOR = re.compile(r"(?:O:([A-Z]{2}))?D:(P?)((?:\(A;(?:[A-Z]{2})*;[A-Z]{2,};;;[A-Z]{2}\))*)")
_ACCOUNT = re.compile(r"([A-Z]{2})\)")
# Local System, the administrators. A program that runs as one of them can make one the owner.
_TRUSTED = {"SY", "BA"}
_ONLY_OWNER, _ALL_READ = 0o700, 0o755
# What a folder's mode on this machine stands for, as Windows tells it.
_AS_TEXT = {True: "O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)",
            False: "O:S-1-5-21-1-2-3-1001D:AI(A;OICIID;FA;;;BA)(A;OICIID;0x1301bf;;;AU)"}


class Misuse(AssertionError):
    """A call that is undefined on Windows, or one that is not simulated."""


class _Context(ctypes.Structure):
    _fields_ = [("encoding", _DWORD), ("encoded", _POINTER), ("length", _DWORD),
                ("information", _POINTER), ("store", _POINTER)]


class _KeyProvInfo(ctypes.Structure):
    _fields_ = [("container", _POINTER), ("provider", _POINTER), ("type", _DWORD),
                ("flags", _DWORD), ("parameter_count", _DWORD), ("parameters", _POINTER),
                ("key_spec", _DWORD)]


class _Blob(ctypes.Structure):
    _fields_ = [("length", _DWORD), ("data", _POINTER)]


class _SecurityAttributes(ctypes.Structure):
    _fields_ = [("length", _DWORD), ("descriptor", _POINTER), ("inherit", _BOOL)]


# {library: {function: (type of its result, types of its arguments)}}
_SIGNATURES = {
    "crypt32": {
        "CertOpenStore": (_POINTER, (_POINTER, _DWORD, _POINTER, _DWORD, _TEXT)),
        "CertCloseStore": (_BOOL, (_POINTER, _DWORD)),
        "CertEnumCertificatesInStore": (_POINTER, (_POINTER, _POINTER)),
        "CertFindCertificateInStore": (
            _POINTER, (_POINTER, _DWORD, _DWORD, _DWORD, _POINTER, _POINTER)),
        "CertGetCertificateContextProperty": (_BOOL, (_POINTER, _DWORD, _POINTER, _POINTER)),
        "CertDeleteCertificateFromStore": (_BOOL, (_POINTER,)),
        "CertFreeCertificateContext": (_BOOL, (_POINTER,)),
        "CryptAcquireCertificatePrivateKey": (
            _BOOL, (_POINTER, _DWORD, _POINTER, _POINTER, _POINTER, _POINTER))},
    "ncrypt": {
        "NCryptDeleteKey": (_STATUS, (_POINTER, _DWORD)),
        "NCryptFreeObject": (_STATUS, (_POINTER,))},
    "advapi32": {
        "CryptAcquireContextW": (_BOOL, (_POINTER, _TEXT, _TEXT, _DWORD, _DWORD)),
        "ConvertStringSecurityDescriptorToSecurityDescriptorW": (
            _BOOL, (_TEXT, _DWORD, _POINTER, _POINTER)),
        "ConvertSecurityDescriptorToStringSecurityDescriptorW": (
            _BOOL, (_POINTER, _DWORD, _DWORD, _POINTER, _POINTER)),
        "GetNamedSecurityInfoW": (
            _DWORD, (_TEXT, _DWORD, _DWORD, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER))},
    "kernel32": {
        "CreateDirectoryW": (_BOOL, (_TEXT, _POINTER)),
        "LocalFree": (_POINTER, (_POINTER,))},
}


class Libraries:
    """What a module's ``ctypes`` has of Windows.

    :param computer: a function that gives the :mod:`tests.hyperv.connection` computer of the caller
    """

    def __init__(self, computer):
        self._functions = _Functions(computer)
        self._last_errors = {}  # {native thread: number}: the copy that ctypes keeps

    def WinDLL(self, name, use_last_error=False):  # noqa: N802
        """:raises OSError: a library that is not simulated"""
        known = _SIGNATURES.get(name.lower().removesuffix(".dll"))
        if known is None:
            raise OSError("Could not find module '%s'" % name)
        return _Library(self, self._functions, known, use_last_error)

    def get_last_error(self):
        """Signed, as ctypes gives it."""
        return ctypes.c_int(self._last_errors.get(_thread(), 0)).value

    def keep_last_error(self, number):
        self._last_errors[_thread()] = number

    def open_handles(self):
        """{kind: how many are open}: nothing, where the caller frees what it gets."""
        return self._functions.open_handles()

    def misuses(self):
        """What was misused since this was asked last, as text."""
        return self._functions.take_misuses()


class _Library:
    """A loaded library; a name that it does not have is an AttributeError, as with ctypes."""

    def __init__(self, libraries, functions, signatures, use_last_error):
        for name, (result, arguments) in signatures.items():
            setattr(self, name, self._foreign(
                libraries if use_last_error else None, functions, name, result, arguments))

    @staticmethod
    def _foreign(libraries, functions, name, result, arguments):
        function = getattr(functions, name)
        faults = []

        def call(*values):
            try:
                return function(*values) or 0
            except CryptoError as error:
                if name.startswith("NCrypt"):  # SECURITY_STATUS, no last error
                    return ctypes.c_int32(error.code).value
                if libraries:
                    libraries.keep_last_error(error.code)
            except BaseException as fault:  # noqa: BLE001 - ctypes would drop it
                faults.append(fault)
            return 0
        callback = ctypes.CFUNCTYPE(result, *arguments)(call)
        foreign = _Undeclared(ctypes.cast(callback, _POINTER).value)
        foreign.name, foreign.callback, foreign.faults = name, callback, faults
        foreign.is_wide = result is _POINTER
        return foreign


class _Undeclared(ctypes._CFuncPtr):
    """A function as a library gives it: an int comes out, and ints go in as such."""

    _flags_ = ctypes._FUNCFLAG_CDECL
    _restype_ = ctypes.c_int

    def __call__(self, *arguments):
        if self.argtypes is None or (self.is_wide and self.restype is ctypes.c_int):
            raise Misuse("%s is called before its types are declared" % self.name)
        result = super().__call__(*arguments)
        if self.faults:
            raise self.faults.pop()
        return result


class _Functions:
    """The functions; each raises :class:`CryptoError` for what Windows tells as a code."""

    def __init__(self, computer):
        self._computer = computer
        self._lock = native.module("threading").RLock()
        self._handles, self._misuses = {}, []
        self._numbers = itertools.count(0x7_0000_1000, 16)
        # Freed contexts: no address comes again, and reading one shows nothing.
        self._freed = collections.deque(maxlen=10000)

    def open_handles(self):
        with self._lock:
            return dict(collections.Counter(one.kind for one in self._handles.values()))

    def take_misuses(self):
        with self._lock:
            taken, self._misuses = self._misuses, []
        return taken

    # Handles.

    def _misused(self, text):
        self._misuses.append(text)
        raise Misuse(text)

    def _get(self, number, kind):
        with self._lock:
            handle = self._handles.get(number)
        if handle is None or handle.kind != kind:
            self._misused("%r is no %s, or no more" % (number, kind))
        return handle

    def _add(self, number, handle):
        with self._lock:
            self._handles[number] = handle
        return number

    def _free(self, number, kind):
        handle = self._get(number, kind)
        with self._lock:
            del self._handles[number]
        if kind == "context":
            handle.memory.length = 0
            self._freed.append(handle)
        return handle

    def _new_context(self, store, encoded, index=None):
        data = ctypes.create_string_buffer(encoded, len(encoded))
        memory = _Context(1, ctypes.addressof(data), len(encoded), None, store.number)
        return self._add(ctypes.addressof(memory), _Handle(
            "context", store.computer, store=store, memory=memory, data=data, encoded=encoded,
            index=index))

    # crypt32.dll.

    def CertOpenStore(self, provider, encoding, crypt_provider, flags, name):  # noqa: N802
        if provider != _STORE_PROV_SYSTEM_W or crypt_provider or not name:
            self._misused("only system stores are simulated")
        if flags & ~(_OPEN_EXISTING | _READ_ONLY) != _LOCAL_MACHINE:
            self._misused("only stores of the local machine are simulated: flags 0x%X" % flags)
        computer = self._computer()
        computer.call_certificates(
            "crypt32.CertOpenStore", "open", name, not flags & _OPEN_EXISTING)
        number = next(self._numbers)
        return self._add(number, _Handle(
            "store", computer, number=number, name=name, read_only=bool(flags & _READ_ONLY)))

    def CertCloseStore(self, store, flags):  # noqa: N802
        if flags:
            self._misused("flags of CertCloseStore are not simulated")
        self._free(store, "store")
        return 1

    def CertEnumCertificatesInStore(self, store, previous):  # noqa: N802
        store, index = self._get(store, "store"), 0
        if previous:
            # Always freed, whatever comes.
            index = self._free(previous, "context").index + 1
        listed = store.call("crypt32.CertEnumCertificatesInStore", "certificates")
        if not previous:
            store.listed = listed
        if index >= len(store.listed):
            raise CryptoError(CODES["CRYPT_E_NOT_FOUND"])
        return self._new_context(store, store.listed[index], index)

    def CertFindCertificateInStore(self, store, encoding, flags, kind, wanted,  # noqa: N802
                                   previous):
        store = self._get(store, "store")
        if previous:
            self._free(previous, "context")
        if kind != _FIND_SHA1_HASH or flags:
            self._misused("only CERT_FIND_SHA1_HASH is simulated")
        blob = _Blob.from_address(wanted)
        if encoding != _ENCODINGS or blob.length != _SHA1_LENGTH:
            raise CryptoError(CODES["E_INVALIDARG"])
        encoded = store.call("crypt32.CertFindCertificateInStore", "find",
                             ctypes.string_at(blob.data, blob.length))
        if previous:  # there are no two with one hash
            raise CryptoError(CODES["CRYPT_E_NOT_FOUND"])
        return self._new_context(store, encoded)

    def CertGetCertificateContextProperty(self, context, number, data, size):  # noqa: N802
        context = self._get(context, "context")
        if number != _KEY_PROV_INFO:
            self._misused("only CERT_KEY_PROV_INFO_PROP_ID is simulated")
        place = context.call("crypt32.CertGetCertificateContextProperty", "place_of_key")
        texts = [bytes(ctypes.create_unicode_buffer(text))
                 for text in (place.container, place.provider)]
        needed = ctypes.sizeof(_KeyProvInfo) + sum(map(len, texts))
        size = _DWORD.from_address(size)
        room, size.value = size.value, needed
        if not data:
            return 1
        if room < needed:
            raise CryptoError(CODES["ERROR_MORE_DATA"])
        information = _KeyProvInfo.from_address(data)
        information.type, information.flags = place.provider_type, _MACHINE_KEYSET
        information.parameter_count = information.key_spec = 0
        information.parameters = None
        position = data + ctypes.sizeof(_KeyProvInfo)
        for field, text in zip(("container", "provider"), texts):
            ctypes.memmove(position, text, len(text))
            setattr(information, field, position)
            position += len(text)
        return 1

    def CertDeleteCertificateFromStore(self, context):  # noqa: N802
        # Always freed, also when it fails.
        context = self._free(context, "context")
        if context.store.read_only:
            raise CryptoError(CODES["E_ACCESSDENIED"])
        context.call("crypt32.CertDeleteCertificateFromStore", "delete_certificate")
        return 1

    def CertFreeCertificateContext(self, context):  # noqa: N802
        if context:
            self._free(context, "context")
        return 1

    def CryptAcquireCertificatePrivateKey(self, context, flags, parameters, key,  # noqa: N802
                                          key_spec, caller_frees):
        context = self._get(context, "context")
        if flags & ~(_SILENT | _NO_HEALING) != _ONLY_NCRYPT or parameters:
            self._misused("only CNG's keys are simulated here: flags 0x%X" % flags)
        container = context.call("crypt32.CryptAcquireCertificatePrivateKey", "open_key")
        number = next(self._numbers)
        self._add(number, _Handle("key", context.computer, container=container))
        ctypes.c_size_t.from_address(key).value = number
        _DWORD.from_address(key_spec).value = _NCRYPT_KEY_SPEC
        _BOOL.from_address(caller_frees).value = 1
        return 1

    # ncrypt.dll.

    def NCryptDeleteKey(self, key, flags):  # noqa: N802
        # "The NCryptDeleteKey function frees the handle."
        handle = self._free(key, "key")
        if flags & ~_SILENT:
            raise CryptoError(CODES["NTE_BAD_FLAGS"])
        handle.computer.call_certificates(
            "ncrypt.NCryptDeleteKey", "delete_key", handle.container, None)

    def NCryptFreeObject(self, key):  # noqa: N802
        self._free(key, "key")

    # advapi32.dll.

    def CryptAcquireContextW(self, handle, container, provider, kind, flags):  # noqa: N802
        if flags & ~_SILENT != _DELETE_KEYSET | _MACHINE_KEYSET:
            self._misused("only deleting the machine's keys is simulated: flags 0x%X" % flags)
        self._computer().call_certificates(
            "advapi32.CryptAcquireContextW", "delete_key", container, kind)
        ctypes.c_size_t.from_address(handle).value = 0  # undefined with this flag
        return 1

    def ConvertStringSecurityDescriptorToSecurityDescriptorW(  # noqa: N802
            self, text, revision, descriptor, size):
        if revision != _SDDL_REVISION_1:
            raise CryptoError(CODES["ERROR_UNKNOWN_REVISION"])
        read = _DESCRIPTOR.fullmatch(text or "")
        if read is None:
            raise CryptoError(CODES["ERROR_INVALID_ACL"])
        if (read[1] or "BA") not in _TRUSTED:
            raise CryptoError(CODES["ERROR_INVALID_OWNER"])
        accounts = set(_ACCOUNT.findall(read[3]))
        is_private = bool(read[1]) and bool(read[2]) and accounts == _TRUSTED
        number = next(self._numbers)
        self._add(number, _Handle(
            "memory", self._computer(), mode=_ONLY_OWNER if is_private else _ALL_READ))
        ctypes.c_size_t.from_address(descriptor).value = number
        return 1

    def ConvertSecurityDescriptorToStringSecurityDescriptorW(  # noqa: N802
            self, descriptor, revision, parts, text, size):
        if revision != _SDDL_REVISION_1 or parts != _OWNER_AND_DACL:
            self._misused("only the owner and the DACL are simulated")
        mode = self._get(descriptor, "memory").mode
        data = ctypes.create_unicode_buffer(_AS_TEXT[mode == _ONLY_OWNER])
        number = self._add(ctypes.addressof(data), _Handle(
            "memory", self._computer(), data=data, mode=None))
        ctypes.c_size_t.from_address(text).value = number
        return 1

    def GetNamedSecurityInfoW(self, path, kind, parts, owner, group, dacl, sacl,  # noqa: N802
                              descriptor):
        if kind != _FILE_OBJECT or parts != _OWNER_AND_DACL or owner or group or dacl or sacl:
            self._misused("only the owner and the DACL of files are simulated")
        try:
            self._computer().call_certificates("advapi32.GetNamedSecurityInfoW", "nothing")
            found = os.stat(path)  # follows links, as Windows does
        except CryptoError as error:
            return error.code
        except OSError:
            return CODES["ERROR_FILE_NOT_FOUND"]
        is_private = found.st_uid == os.getuid() and not found.st_mode & 0o077
        number = next(self._numbers)
        self._add(number, _Handle(
            "memory", self._computer(), mode=_ONLY_OWNER if is_private else _ALL_READ))
        ctypes.c_size_t.from_address(descriptor).value = number
        return 0

    # kernel32.dll.

    def CreateDirectoryW(self, path, attributes):  # noqa: N802
        mode = _ALL_READ
        if attributes:
            given = _SecurityAttributes.from_address(attributes)
            if given.length != ctypes.sizeof(_SecurityAttributes):
                raise CryptoError(CODES["ERROR_INVALID_PARAMETER"])
            mode = self._get(given.descriptor, "memory").mode
        self._computer().call_certificates("kernel32.CreateDirectoryW", "nothing")
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            raise CryptoError(CODES["ERROR_ALREADY_EXISTS"]) from None
        except FileNotFoundError:
            raise CryptoError(CODES["ERROR_PATH_NOT_FOUND"]) from None
        return 1

    def LocalFree(self, memory):  # noqa: N802
        if memory:
            self._free(memory, "memory")


class _Handle:
    """What a handle stands for; which attributes it has depends on its kind."""

    def __init__(self, kind, computer, **values):
        self.kind, self.computer = kind, computer
        vars(self).update(values)

    def call(self, function, operation, *arguments):
        """A call that names the store and, of a certificate, itself."""
        if self.kind == "context":
            arguments = (self.encoded, *arguments)
        store = self.store if self.kind == "context" else self
        return self.computer.call_certificates(function, operation, store.name, *arguments)


def _thread():
    return native.module("threading").get_ident()
