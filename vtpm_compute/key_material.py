"""What the secrets of a server hold: a key protector, or what one is to be made of.

Each of them says by its bytes what it is; a wrong mixture is refused. Pure: no Windows, no network.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence

from vtpm_compute import errors, guardian_metadata, key_protector, owner_pfx

_NO_PRIVATE_KEYS = (
    "Secret %d of %s is a PFX file: this cloud takes no private keys. Make the key protector "
    "yourself (New-HgsKeyProtector), and store its RawData.")
_SHIELDED = (
    "A shielded server needs a key protector that its owner made. Secret %d of %s is %s. Use "
    "New-HgsKeyProtector yourself, and store its RawData.")
_EXCLUDE = (
    "Secret %d of %s is (part of) a key protector, and secret %d is %s: they exclude each other. "
    "Name either, and let the protector name all guardians.")
_CUT = (
    "Secret %d of %s is guardian metadata that was cut. Store each document whole in one secret.")
_UNKNOWN = (
    "What secret %d of %s holds is neither guardian metadata%s, nor whole. Store each document "
    "whole in one secret.")
_OWNERS = "Secrets %s of %s are PFX files of more than one owner. Name the two of one owner."
_TWICE = "Secrets %d and %d of %s are metadata of the same guardian. Name each guardian once."
_OWNER_TWICE = (
    "Secret %d of %s is metadata of the owner, whose PFX file is there already. Remove it.")
_OUT_OF_TIME = (
    "The guardian of secret %d of %s cannot be granted: %s. Store metadata with certificates that "
    "are valid now, or leave it out.")


@dataclasses.dataclass(frozen=True)
class Ingredients:
    """What a key protector is to be made of, on the host.

    :ivar owner: whose it will be; None: a new owner's, whose keys nobody keeps.
    :ivar guardians: further ones who can unwrap it, beside the fabric's.
    """

    owner: owner_pfx.Owner | None
    guardians: tuple[guardian_metadata.GuardianMetadata, ...]


class _Kind(enum.Enum):
    """What a secret looks like; its value is for people."""

    PROTECTOR = "a key protector"
    METADATA = "guardian metadata"
    PFX = "a PFX file"
    UNKNOWN = "unknown"


def read(secrets: Sequence[bytes], source: str, allow_owner_keys: bool, shielded: bool,
         refuse_wrong_signatures: bool = True) -> key_protector.KeyProtector | Ingredients:
    """Read and check a server's secrets.

    :param secrets: their bytes, in the order of the references; at least one.
    :param source: the property that names them, for messages.
    :param allow_owner_keys: whether this cloud takes PFX files, and with them private keys.
    :param shielded: whether the server is shielded: its owner must have made its key protector.
    :param refuse_wrong_signatures: whether a signature that is wrong is an error; else a warning.
    :raises vtpm_compute.errors.KeyProtectorError: when they are not one key protector, nor what
        one can be made of. Its message quotes nothing of them.
    """
    kinds = [_kind(secret) for secret in secrets]
    given = [kind for kind in kinds if kind in (_Kind.METADATA, _Kind.PFX)]
    if not given:
        return key_protector.parse(
            secrets, source, refuse_wrong_signatures=refuse_wrong_signatures)
    if shielded:
        raise errors.KeyProtectorError(
            _SHIELDED % (_first(kinds, given), source, given[0].value))
    if _Kind.PFX in kinds and not allow_owner_keys:
        raise errors.KeyProtectorError(_NO_PRIVATE_KEYS % (_first(kinds, [_Kind.PFX]), source))
    _check_mixture(secrets, kinds, source, allow_owner_keys)
    made = _ingredients(secrets, kinds, source, refuse_wrong_signatures)
    if isinstance(made, str):
        # Here, where no private key is in reach: what an exception passes, its traceback keeps.
        raise errors.KeyProtectorError(made)
    return made


def described(secret: bytes) -> str:
    """What a secret looks like by its bytes alone, for people; quotes nothing of it."""
    return {_Kind.PROTECTOR: "a key protector, or its first piece",
            _Kind.METADATA: "guardian metadata",
            _Kind.PFX: "a PFX file with an owner's private keys",
            _Kind.UNKNOWN: "a further piece of a key protector, or something else"}[_kind(secret)]


def _ingredients(secrets: Sequence[bytes], kinds: Sequence[_Kind], source: str,
                 refuse_wrong_signatures: bool) -> Ingredients | str:
    """The ingredients, or the message that says why there are none."""
    guardians = {
        position: guardian_metadata.parse(
            secret, "secret %d of %s" % (position, source),
            refuse_wrong_signatures=refuse_wrong_signatures)
        for position, (secret, kind) in enumerate(zip(secrets, kinds), 1)
        if kind is _Kind.METADATA}
    seen: dict[str, int] = {}
    for position, guardian in guardians.items():
        if guardian.out_of_time:
            return _OUT_OF_TIME % (position, source, guardian.out_of_time)
        if guardian.thumbprint in seen:
            return _TWICE % (seen[guardian.thumbprint], position, source)
        seen[guardian.thumbprint] = position
    files = [secret for secret, kind in zip(secrets, kinds) if kind is _Kind.PFX]
    owner = owner_pfx.read(files, source) if files else None
    if owner is not None and owner.encryption.thumbprint in seen:
        return _OWNER_TWICE % (seen[owner.encryption.thumbprint], source)
    return Ingredients(owner, tuple(guardians.values()))


def _kind(secret: bytes) -> _Kind:
    if owner_pfx.is_pfx(secret):
        return _Kind.PFX
    if guardian_metadata.is_metadata(secret):
        return _Kind.METADATA
    if key_protector.is_piece(secret):
        return _Kind.PROTECTOR
    return _Kind.UNKNOWN


def _first(kinds: Sequence[_Kind], wanted: Iterable[_Kind]) -> int:
    """The position of the first secret of these kinds, from 1."""
    return next(position for position, kind in enumerate(kinds, 1) if kind in wanted)


def _check_mixture(secrets: Sequence[bytes], kinds: Sequence[_Kind], source: str,
                   allow_owner_keys: bool) -> None:
    """Check that there is nothing but whole metadata and one owner's PFX files."""
    if _Kind.PROTECTOR in kinds:
        other = _first(kinds, (_Kind.METADATA, _Kind.PFX))
        raise errors.KeyProtectorError(_EXCLUDE % (
            _first(kinds, [_Kind.PROTECTOR]), source, other, kinds[other - 1].value))
    for position, (secret, kind) in enumerate(zip(secrets, kinds), 1):
        if kind is _Kind.METADATA and guardian_metadata.is_cut(secret):
            raise errors.KeyProtectorError(_CUT % (position, source))
    if _Kind.UNKNOWN in kinds:
        raise errors.KeyProtectorError(_UNKNOWN % (
            _first(kinds, [_Kind.UNKNOWN]), source,
            ", nor an owner's PFX file" if allow_owner_keys else ""))
    owners = [position for position, kind in enumerate(kinds, 1) if kind is _Kind.PFX]
    if len(owners) > 2:
        raise errors.KeyProtectorError(_OWNERS % (", ".join(map(str, owners)), source))
