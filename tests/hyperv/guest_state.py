"""A VM's guest state file (.vmgs): the contents of its TPM, sealed.

A file that was just made says so; it is never empty. Once the TPM was started it holds a dictionary
of secrets, sealed with a key that only the transport key of the VM's key protector gives; a
protector with another transport key, even one for the right guardians, does not open it. A digest
tells damage from another key. The form is this package's own [assumption guest-state-form].
"""
import hashlib
import json
import os
import pathlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NEW = b"GUESTRTS NEW\n"
_MAGIC = b"GUESTRTS SEALED\n"
_NONCE, _DIGEST = 12, 32


class Damaged(Exception):
    """The file is empty, cut off, or no guest state."""


class WrongKey(Exception):
    """The state is sealed with another transport key."""


def create(path):
    """Make the file of a VM whose TPM was never started, where there is none."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(_NEW)


def is_new(path):
    """Whether no TPM has ever been started with this file, or there is none."""
    path = pathlib.Path(path)
    return not path.exists() or path.read_bytes() == _NEW


def check(path):
    """Refuse a file that is not whole.

    :raises Damaged: see the class
    :raises OSError: it cannot be read
    """
    _sealed(path)


def read(path, transport_key):
    """The TPM's secrets; {} for a TPM that was never started.

    :raises Damaged: see the class
    :raises WrongKey: see the class
    :raises OSError: it cannot be read
    """
    data = _sealed(path)
    if data is None:
        return {}
    try:
        text = _cipher(transport_key).decrypt(data[:_NONCE], data[_NONCE:], _MAGIC)
    except InvalidTag:
        raise WrongKey(str(path)) from None
    return {name: bytes.fromhex(value) for name, value in json.loads(text).items()}


def write(path, transport_key, secrets):
    """Seal the TPM's secrets: {name: bytes}.

    :raises OSError: there is no such file, or it cannot be written
    """
    os.stat(path)  # A file that a running VM has open comes back for nobody's write.
    nonce = os.urandom(_NONCE)
    text = json.dumps({name: value.hex() for name, value in secrets.items()})
    data = nonce + _cipher(transport_key).encrypt(nonce, text.encode("utf-8"), _MAGIC)
    temporary = pathlib.Path(str(path) + ".new")
    temporary.write_bytes(_MAGIC + hashlib.sha256(data).digest() + data)
    os.replace(temporary, path)


def _sealed(path):
    """The nonce and the sealed secrets; None: the file is new."""
    contents = pathlib.Path(path).read_bytes()
    if contents == _NEW:
        return None
    magic, rest = contents[:len(_MAGIC)], contents[len(_MAGIC):]
    digest, data = rest[:_DIGEST], rest[_DIGEST:]
    if magic != _MAGIC or digest != hashlib.sha256(data).digest():
        raise Damaged(str(path))
    return data


def _cipher(transport_key):
    return AESGCM(HKDF(hashes.SHA256(), 32, None, b"guest state").derive(transport_key))
