"""Provisioning data files of shielded VMs: PDK (the tenant's, sealed) and FSK (the fabric's).

Their contents are documented (Microsoft Learn, "Msps_PDK class", "Msps_FSK class"), their format is
not: this one is the simulation's own [assumption provisioning-files].

A tenant's script needs :func:`make_pdk` and :class:`tests.hyperv.guardian.Guardian` only.
"""
import json
import os
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.hyperv import key_protector

_PDK, _FSK = "shielding data file", "specialization data file"
_NONCE = 12


class InvalidFile(Exception):
    """Bytes that are no PDK or FSK; or a PDK whose secrets another key sealed."""


class Pdk(NamedTuple):
    """A PDK's clear parts, and its sealed one."""

    key_protector: bytes
    policy: bytes
    sealed: bytes

    def answer_file(self, transport_key):
        """The tenant's answer file (text).

        :param transport_key: that of the PDK's own key protector, not of a rolled one
        :raises InvalidFile: another key sealed it
        """
        try:
            return _cipher(transport_key).decrypt(
                self.sealed[:_NONCE], self.sealed[_NONCE:], None).decode("utf-8")
        except InvalidTag:
            raise InvalidFile("the shielding data is not for this key protector") from None


def make_pdk(owner, guardians, answer_file, policy=b"policy"):
    """A PDK, as New-ShieldingDataFile makes it: bytes.

    :param owner: a guardian with private keys
    :param guardians: of the fabrics that may provision from it
    :param answer_file: text; ``@@name@@`` in it is replaced from the FSK
    :param policy: PolicyData, opaque
    """
    protector = key_protector.make_protector(owner, guardians)
    nonce = os.urandom(_NONCE)
    transport_key = key_protector.unwrap(protector, [owner.encryption_key])
    sealed = nonce + _cipher(transport_key).encrypt(nonce, answer_file.encode("utf-8"), None)
    return _bytes(_PDK, key_protector=protector.hex(), policy=policy.hex(), sealed=sealed.hex())


def make_fsk(pairs):
    """An FSK: bytes.

    :param pairs: {placeholder: value}
    """
    return _bytes(_FSK, pairs=pairs)


def read_pdk(data):
    """:raises InvalidFile: it is none"""
    fields = _fields(data, _PDK)
    try:
        protector = bytes.fromhex(fields["key_protector"])
        key_protector.read(protector)
        return Pdk(protector, bytes.fromhex(fields["policy"]), bytes.fromhex(fields["sealed"]))
    except (KeyError, ValueError, key_protector.InvalidProtector):
        raise InvalidFile("not a whole %s" % _PDK) from None


def read_fsk(data):
    """{placeholder: value}

    :raises InvalidFile: it is none
    """
    return _fields(data, _FSK)["pairs"]


def _bytes(kind, **fields):
    return json.dumps(dict(fields, kind=kind)).encode("utf-8")


def _fields(data, kind):
    try:
        fields = json.loads(data)
        if fields["kind"] == kind:
            return fields
    except (ValueError, KeyError, TypeError):
        pass  # not of this format: the same as of another kind
    raise InvalidFile("not a %s" % kind)


def _cipher(transport_key):
    return AESGCM(HKDF(hashes.SHA256(), 32, None, b"shielding data").derive(transport_key))
