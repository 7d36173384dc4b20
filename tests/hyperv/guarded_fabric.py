"""A guarded fabric: the Host Guardian Service with its private keys, and attestation.

Source: Microsoft Learn, "Guarded fabric and shielded VMs"; [MS-KPS] RollTransportKey.
"""
from tests.hyperv import key_protector
from tests.hyperv.guardian import Guardian

PASSED = 100


class NotAttested(Exception):
    """The host has no valid health certificate."""


class GuardedFabric:
    """A Host Guardian Service.

    :param name: of the fabric, and of its guardian in the stores of its hosts
    """

    def __init__(self, name):
        self.name = name
        self._guardian = Guardian.generate(name)

    @property
    def guardian(self):
        """Its public guardian, as hosts and tenants import it."""
        return self._guardian.public()

    @property
    def key_protection_url(self):
        return "http://hgs.%s.example/KeyProtection" % self.name

    @property
    def attestation_url(self):
        return "http://hgs.%s.example/Attestation" % self.name

    def metadata(self):
        """What ``.../service/metadata/2014-07/metadata.xml`` gives: bytes."""
        return self._guardian.metadata()

    def roll_transport_key(self, protector, attestation_status):
        """Unwrap a protector and wrap a new transport key.

        :param attestation_status: of the host that asks
        :returns: (transport key, new protector, new transport key)
        :raises NotAttested: the host's attestation has not passed
        :raises key_protector.InvalidProtector: see there
        :raises key_protector.CannotUnwrap: this fabric is none of its guardians
        """
        if attestation_status != PASSED:
            raise NotAttested(str(attestation_status))
        ingress = key_protector.unwrap(protector, [self._guardian.encryption_key])
        return (ingress,) + key_protector.roll(protector, self._guardian)
