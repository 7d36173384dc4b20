"""What crypt32.dll, ncrypt.dll and advapi32.dll do with the certificate stores of a host.

Calls are made to fail, and are listed, as those of WMI methods: ``crypt32.CertOpenStore``. What the
library only does with memory is no call.

Source: Microsoft Learn, the pages of the functions.
"""
from tests.hyperv import certificates
from tests.hyperv.crypto_error import CODES, CryptoError


def _fails(name):
    return CryptoError(CODES[name])


class CertificateAccess:
    """The calls that programs make on one host.

    :param repository: that of the host, whose call log they stand in
    :param faults: the host's :class:`tests.hyperv.faults.Faults`
    :param hgs_client: the host's :class:`tests.hyperv.hgs_client.HgsClient`, or None
    """

    def __init__(self, repository, faults, hgs_client):
        self._log, self._faults, self._hgs_client = repository.calls, faults, hgs_client
        self._stores = hgs_client.certificates if hgs_client else certificates.CertificateStores()

    def call(self, function, operation, *arguments):
        """One call.

        :param function: such as ``crypt32.CertOpenStore``
        :param operation: the method of this class that does it
        :raises CryptoError: it fails
        """
        code = 0
        try:
            return self._faults.run(
                function, lambda: getattr(self, "_" + operation)(*arguments), CryptoError)
        except CryptoError as error:
            code = error.code
            raise
        finally:
            self._log.add(*function.split("."), {}, code)

    def _nothing(self):
        """For a call that does its work where it is made."""

    def _open(self, store, may_create):
        if may_create:
            self._stores.create(store)
        elif not self._stores.exists(store):
            raise _fails("ERROR_FILE_NOT_FOUND")

    def _certificates(self, store):
        return self._stores.in_store(store)

    def _find(self, store, digest):
        for certificate in self._stores.in_store(store):
            if certificates.thumbprint(certificate) == digest.hex().upper():
                return certificate
        raise _fails("CRYPT_E_NOT_FOUND")

    def _place_of_key(self, store, certificate):
        place = self._stores.place_of_key(store, certificate)
        if place is None:
            raise _fails("CRYPT_E_NOT_FOUND")
        return place

    def _open_key(self, store, certificate):
        place = self._stores.place_of_key(store, certificate)
        if place is None:
            raise _fails("CRYPT_E_NO_KEY_PROPERTY")
        if place.provider_type != certificates.CNG:
            raise _fails("NTE_NOT_SUPPORTED")
        # [assumption deleted-keys-place]
        if not self._stores.has_key(place.container):
            raise _fails("NTE_BAD_KEYSET")
        return place.container

    def _delete_key(self, container, provider_type):
        """:param provider_type: None: the key was opened, so its provider is known"""
        if not self._stores.has_key(container, provider_type):
            raise _fails("NTE_BAD_KEYSET")
        self._stores.delete_key(container)
        if self._hgs_client:
            self._hgs_client.keys_changed()

    def _delete_certificate(self, store, certificate):
        self._stores.delete_certificate(store, certificate)
