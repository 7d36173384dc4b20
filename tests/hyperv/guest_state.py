"""A VM's guest state file (.vmgs): the contents of its TPM, sealed.

The file is empty until the TPM is first started. Then it holds a dictionary of secrets, sealed
with a key that only the transport key of the VM's key protector gives; a protector with another
transport key, even one for the right guardians, does not open it. The form is this package's own
[assumption guest-state-form].
"""
import json
import os
import pathlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_MAGIC = b"GUESTRTS"
_NONCE = 12


class WrongKey(Exception):
    """The state is sealed with another transport key."""


def create(path):
    """Make an empty file where there is none."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)


def is_empty(path):
    """Whether no TPM has ever been started with this file."""
    path = pathlib.Path(path)
    return not path.exists() or path.stat().st_size == 0


def read(path, transport_key):
    """The TPM's secrets; {} for a TPM that was never started.

    :raises WrongKey: see the class
    """
    if is_empty(path):
        return {}
    data = pathlib.Path(path).read_bytes()
    if not data.startswith(_MAGIC):
        raise WrongKey(str(path))
    nonce, sealed = data[len(_MAGIC):][:_NONCE], data[len(_MAGIC) + _NONCE:]
    try:
        text = _cipher(transport_key).decrypt(nonce, sealed, _MAGIC)
    except InvalidTag:
        raise WrongKey(str(path)) from None
    return {name: bytes.fromhex(value) for name, value in json.loads(text).items()}


def write(path, transport_key, secrets):
    """Seal the TPM's secrets: {name: bytes}."""
    create(path)
    nonce = os.urandom(_NONCE)
    text = json.dumps({name: value.hex() for name, value in secrets.items()})
    sealed = _cipher(transport_key).encrypt(nonce, text.encode("utf-8"), _MAGIC)
    temporary = pathlib.Path(str(path) + ".new")
    temporary.write_bytes(_MAGIC + nonce + sealed)
    os.replace(temporary, path)


def _cipher(transport_key):
    return AESGCM(HKDF(hashes.SHA256(), 32, None, b"guest state").derive(transport_key))
