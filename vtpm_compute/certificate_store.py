"""Windows' certificate stores: lists certificates, deletes them together with their private keys.

A certificate in a store names its private key, which lies elsewhere: deleting the certificate
alone leaves the key on the disk, without a trace. So the key goes first.

Source: Microsoft Learn, "Certificate and Certificate Store Functions" (wincrypt.h: CertOpenStore,
CertEnumCertificatesInStore, CertFindCertificateInStore, CertGetCertificateContextProperty,
CertDeleteCertificateFromStore), "CRYPT_KEY_PROV_INFO", "CryptAcquireCertificatePrivateKey",
"CryptAcquireContextW", "NCryptDeleteKey". Values are those of wincrypt.h and winerror.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
from typing import Any

from cryptography import x509
from oslo_log import log as logging

from vtpm_compute import errors, rsa_certificates, windows_libraries
from vtpm_compute.windows_libraries import BOOL, DWORD, POINTER, STATUS, TEXT, last_error

LOG = logging.getLogger(__name__)

_STORE_PROV_SYSTEM_W = 10
_STORE_LOCAL_MACHINE, _STORE_OPEN_EXISTING = 0x20000, 0x4000
_X509_AND_PKCS7 = 0x10001
_FIND_SHA1_HASH = 0x10000
_KEY_PROV_INFO_PROPERTY = 2
_ACQUIRE_NO_HEALING, _ACQUIRE_SILENT, _ACQUIRE_ONLY_NCRYPT = 0x8, 0x40, 0x40000
_NCRYPT_SILENT = 0x40
_DELETE_KEYSET, _MACHINE_KEYSET, _CONTEXT_SILENT = 0x10, 0x20, 0x40

_FILE_NOT_FOUND, _NO_MORE_FILES = 2, 18
_NOT_FOUND, _BAD_KEYSET = 0x80092004, 0x80090016


class _CertContext(ctypes.Structure):
    _fields_ = [("dwCertEncodingType", DWORD), ("pbCertEncoded", POINTER),
                ("cbCertEncoded", DWORD), ("pCertInfo", POINTER), ("hCertStore", POINTER)]


class _KeyProvInfo(ctypes.Structure):
    _fields_ = [("pwszContainerName", TEXT), ("pwszProvName", TEXT), ("dwProvType", DWORD),
                ("dwFlags", DWORD), ("cProvParam", DWORD), ("rgProvParam", POINTER),
                ("dwKeySpec", DWORD)]


class _Blob(ctypes.Structure):
    _fields_ = [("cbData", DWORD), ("pbData", POINTER)]


_CONTEXT = ctypes.POINTER(_CertContext)

_FUNCTIONS: windows_libraries.Functions = {
    "crypt32": {
        "CertOpenStore": (POINTER, [POINTER, DWORD, POINTER, DWORD, TEXT]),
        "CertCloseStore": (BOOL, [POINTER, DWORD]),
        "CertEnumCertificatesInStore": (_CONTEXT, [POINTER, _CONTEXT]),
        "CertFindCertificateInStore": (
            _CONTEXT, [POINTER, DWORD, DWORD, DWORD, ctypes.POINTER(_Blob), _CONTEXT]),
        "CertGetCertificateContextProperty": (
            BOOL, [_CONTEXT, DWORD, POINTER, ctypes.POINTER(DWORD)]),
        "CertDeleteCertificateFromStore": (BOOL, [_CONTEXT]),
        "CertFreeCertificateContext": (BOOL, [_CONTEXT]),
        "CryptAcquireCertificatePrivateKey": (
            BOOL, [_CONTEXT, DWORD, POINTER, ctypes.POINTER(POINTER), ctypes.POINTER(DWORD),
                   ctypes.POINTER(BOOL)])},
    "ncrypt": {"NCryptDeleteKey": (STATUS, [POINTER, DWORD])},
    "advapi32": {"CryptAcquireContextW": (
        BOOL, [ctypes.POINTER(POINTER), TEXT, TEXT, DWORD, DWORD])},
}


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate in a store.

    :ivar thumbprint: Windows': SHA-1 of its DER bytes.
    :ivar common_name: of its subject; empty where it has none, or cannot be read.
    """

    thumbprint: bytes
    common_name: str


def thumbprint(certificate: bytes) -> bytes:
    """Windows' thumbprint of a certificate in DER."""
    return hashlib.sha1(certificate, usedforsecurity=False).digest()


class CertificateStore:
    """A certificate store of the local machine; as a context manager it is opened and closed.

    Needs the rights of an administrator. A store that does not exist is empty. Every method raises
    :class:`vtpm_compute.errors.HostGuardianError`, with the function and its code, when Windows
    refuses.

    :param name: such as "My".
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._api = windows_libraries.load(_FUNCTIONS)
        self._handle: int | None = None

    def __enter__(self) -> CertificateStore:
        # Not created: whoever only looks leaves no trace.
        self._handle = self._api.CertOpenStore(
            _STORE_PROV_SYSTEM_W, 0, None, _STORE_LOCAL_MACHINE | _STORE_OPEN_EXISTING, self._name)
        if not self._handle and (code := last_error()) != _FILE_NOT_FOUND:
            raise _failed("CertOpenStore", code)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._handle:
            # It says no more than whether somebody else still holds certificates of it.
            self._api.CertCloseStore(self._handle, 0)
            self._handle = None

    def certificates(self) -> list[Certificate]:
        """All certificates of the store."""
        found: list[Certificate] = []
        context = None
        while self._handle:
            # Frees the one before, also at the end and when it fails.
            context = self._api.CertEnumCertificatesInStore(self._handle, context)
            if not context:
                if (code := last_error()) not in (_NOT_FOUND, _NO_MORE_FILES):
                    raise _failed("CertEnumCertificatesInStore", code)
                break
            encoded = ctypes.string_at(
                context.contents.pbCertEncoded, context.contents.cbCertEncoded)
            found.append(Certificate(thumbprint(encoded), _common_name(encoded)))
        return found

    def delete(self, certificate: Certificate, key_may_be_gone: bool) -> None:
        """Delete a certificate and its private key; one that is gone already is no error.

        When it fails, the certificate is still there: it is how its key is found again.

        :param key_may_be_gone: whether to delete one whose key Windows does not find: an earlier
            try may have failed between the two. Windows also says so of some keys that may not be
            opened.
        """
        hash_ = ctypes.create_string_buffer(certificate.thumbprint, len(certificate.thumbprint))
        context = self._handle and self._api.CertFindCertificateInStore(
            self._handle, _X509_AND_PKCS7, 0, _FIND_SHA1_HASH,
            _Blob(len(hash_), ctypes.addressof(hash_)), None)
        if not context:
            if self._handle and (code := last_error()) != _NOT_FOUND:
                raise _failed("CertFindCertificateInStore", code)
            return
        with contextlib.ExitStack() as undo:
            undo.callback(self._api.CertFreeCertificateContext, context)
            if not self._delete_key(context) and not key_may_be_gone:
                raise errors.HostGuardianError(
                    "Windows does not find the private key of certificate %s." % (
                        certificate.thumbprint.hex().upper()))
            undo.pop_all()
            # Frees it, also when it fails.
            if not self._api.CertDeleteCertificateFromStore(context):
                raise _failed("CertDeleteCertificateFromStore", last_error())

    def _delete_key(self, context: Any) -> bool:
        """Delete a certificate's private key; whether there was one."""
        buffer = self._property(context, _KEY_PROV_INFO_PROPERTY)
        if buffer is None:
            return False
        place = _KeyProvInfo.from_buffer(buffer)
        # "CRYPT_KEY_PROV_INFO": zero is a key storage provider of CNG, others are CryptoAPI's.
        delete = self._delete_cryptoapi_key if place.dwProvType else self._delete_cng_key
        return delete(context, place)

    def _delete_cng_key(self, context: Any, place: _KeyProvInfo) -> bool:
        key, kind, caller_frees = POINTER(), DWORD(), BOOL()
        if not self._api.CryptAcquireCertificatePrivateKey(
                context, _ACQUIRE_ONLY_NCRYPT | _ACQUIRE_SILENT | _ACQUIRE_NO_HEALING, None,
                ctypes.byref(key), ctypes.byref(kind), ctypes.byref(caller_frees)):
            return _was_there("CryptAcquireCertificatePrivateKey", last_error())
        # Frees the handle.
        if status := self._api.NCryptDeleteKey(key, _NCRYPT_SILENT):
            raise _failed("NCryptDeleteKey", status)
        return True

    def _delete_cryptoapi_key(self, context: Any, place: _KeyProvInfo) -> bool:
        nothing = POINTER()  # with this flag no handle is given
        if not self._api.CryptAcquireContextW(
                ctypes.byref(nothing), place.pwszContainerName, place.pwszProvName,
                place.dwProvType,
                _DELETE_KEYSET | _CONTEXT_SILENT | place.dwFlags & _MACHINE_KEYSET):
            return _was_there("CryptAcquireContextW", last_error())
        return True

    def _property(self, context: Any, number: int) -> Any:
        """A property of a certificate: a buffer; None where it has none."""
        size, buffer = DWORD(), None
        for _ in range(2):  # how long it is, then what it is
            if not self._api.CertGetCertificateContextProperty(
                    context, number, buffer, ctypes.byref(size)):
                if (code := last_error()) == _NOT_FOUND:
                    return None
                raise _failed("CertGetCertificateContextProperty", code)
            buffer = buffer or ctypes.create_string_buffer(size.value)
        return buffer


def _failed(function: str, code: int) -> errors.HostGuardianError:
    return errors.HostGuardianError("%s failed with 0x%08X." % (function, code & 0xFFFFFFFF))


def _was_there(function: str, code: int) -> bool:
    """Whether a private key that cannot be had is there at all: False, or raises."""
    if code == _BAD_KEYSET:
        return False
    raise _failed(function, code)


def _common_name(certificate: bytes) -> str:
    try:
        subject = x509.load_der_x509_certificate(certificate).subject
        for attribute in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
            return str(attribute.value)
    except rsa_certificates.UNREADABLE:
        # Whatever it is: it must not keep others from being deleted.
        LOG.debug("Certificate %s cannot be read", thumbprint(certificate).hex())
    return ""
