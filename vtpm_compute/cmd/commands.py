"""What each subcommand of the tenant's tool does. :mod:`vtpm_compute.cmd.protector` calls them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from vtpm_compute import errors, guardian_metadata, key_protector
from vtpm_compute.cmd import files, pieces, secret_store, upload
from vtpm_scheduling import policy

_SHA256_DIGITS, _SHA1_DIGITS = 64, 40
_THUMBPRINT = re.compile("[0-9a-f]+")
# Barbican's own limit is 255; the number follows.
_MOST_NAME = 200
_NO_GUARDIAN = "%s is guardian metadata, and --guardian is about key protectors: leave it out."


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The guardian that a key protector is to name.

    :ivar thumbprint: of its encryption certificate: SHA-256, lower-case hexadecimal.
    """

    thumbprint: str

    @classmethod
    def of(cls, text: str) -> Wanted:
        """From what ``--guardian`` says.

        :param text: a thumbprint, or a file that holds guardian metadata.
        :raises vtpm_compute.errors.VtpmError: when it is neither.
        """
        digits = re.sub(r"[\s:]", "", text).lower()
        if _THUMBPRINT.fullmatch(digits) and not os.path.exists(text):
            if len(digits) == _SHA256_DIGITS:
                return cls(digits)
            if len(digits) == _SHA1_DIGITS:
                raise errors.UnusableFileError(
                    "--guardian %s is a SHA-1 thumbprint, as Windows shows it: give the SHA-256 "
                    "one of the encryption certificate, or the guardian's metadata." % text)
        data = files.read(text)
        if not guardian_metadata.is_metadata(data):
            raise errors.UnusableFileError(
                "--guardian %s is not guardian metadata, nor a SHA-256 thumbprint (64 digits): "
                "give one of the two." % files.shown(text))
        return cls(guardian_metadata.parse(data, files.shown(text)).thumbprint)


def show(options: argparse.Namespace) -> None:
    """Say what files hold.

    :raises vtpm_compute.errors.VtpmError: when they hold nothing that is known, or the guardian
        that was asked for cannot unwrap it.
    """
    _check_one_stdin(options.files)
    wanted = Wanted.of(options.guardian) if options.guardian is not None else None
    contents = [files.read(path) for path in options.files]
    source = ", ".join(map(files.shown, options.files))
    of_metadata = [path for path, data in zip(options.files, contents)
                   if guardian_metadata.is_metadata(data)]
    if not of_metadata:
        _show_protector(key_protector.parse(contents, source), source, wanted, options.json)
    elif len(options.files) > 1:
        raise errors.UnusableFileError(
            "%s is guardian metadata, which is in one piece: show it alone." % files.shown(
                of_metadata[0]))
    elif wanted is not None:
        raise errors.UnusableFileError(_NO_GUARDIAN % source)
    else:
        _show_metadata(guardian_metadata.parse(contents[0], source), options.json)


def _show_protector(found: key_protector.KeyProtector, source: str, wanted: Wanted | None,
                    as_json: bool) -> None:
    can_unwrap = wanted and [one for one in found.guardians if one.thumbprint == wanted.thumbprint]
    if as_json:
        described = protector_as_json(found)
        if wanted is not None:
            described["asked_for"] = {"thumbprint": wanted.thumbprint,
                                      "can_unwrap": bool(can_unwrap)}
        _print_json(described)
    else:
        _print(found.lines())
        for guardian in can_unwrap or ():
            _print(["The guardian that was asked for can unwrap it: wrapping %d, %s" % (
                guardian.wrapping_id, guardian.name)])
    if wanted is not None:
        found.require_guardian(wanted.thumbprint, source)


def _show_metadata(found: guardian_metadata.GuardianMetadata, as_json: bool) -> None:
    if as_json:
        _print_json({
            "kind": "guardian_metadata", "bytes": len(found.raw), "name": found.name,
            "thumbprint": found.thumbprint, "key_bits": found.key_bits,
            "not_before": found.not_before.isoformat(), "not_after": found.not_after.isoformat(),
            "signatures": _signatures_as_json(found.signatures),
            "warnings": list(found.warnings)})
    else:
        _print(found.lines())


def split(options: argparse.Namespace) -> None:
    """Cut a key protector into files.

    :raises vtpm_compute.errors.VtpmError: when it is none, or they cannot be written.
    """
    data = files.read(options.file)
    source = files.shown(options.file)
    key_protector.parse([data], source)
    cut = pieces.cut(data, options.piece_bytes, source)
    name = "key-protector" if options.file == files.STDIN else os.path.basename(options.file)
    _print(map(str, files.write_pieces(cut, options.output_dir, name)))


def store(options: argparse.Namespace) -> None:
    """Store a key protector, or guardian metadata, and print the value of os_vtpm_keys.

    :raises vtpm_compute.errors.VtpmError: when it is neither, or cannot be stored; nothing is left
        in the key manager then, or the message says what.
    :raises vtpm_compute.cmd.interruption.Interrupted: likewise.
    """
    def say(line: str) -> None:
        if not options.quiet:
            # Nobody who listens: no reason to leave secrets behind.
            with contextlib.suppress(OSError):
                print(line, file=sys.stderr, flush=True)

    cut = _to_store(options)
    name = options.name or (
        "key protector" if options.file == files.STDIN else os.path.basename(options.file))
    if len(name) > _MOST_NAME:
        raise errors.UnusableFileError(
            "The secrets' name has %d characters: give a --name of at most %d." % (
                len(name), _MOST_NAME))
    keys = _connected(options)
    with upload.all_or_none(keys, say) as running:
        running.run(cut, name, options.private, options.expiration)
        value = ",".join(running.secret_ids)
        try:
            print(value, flush=True)
        except OSError as exc:
            raise errors.UnusableFileError(
                "The value cannot be printed: %s." % exc.strerror) from None
    say("Use it so:")
    say("openstack image set --property hw_machine_type=hyperv-gen2 --property os_vtpm=required "
        "--property %s=%s IMAGE" % (policy.IMAGE_KEYS, value))
    say("openstack server create --image IMAGE --flavor FLAVOR SERVER")


def _to_store(options: argparse.Namespace) -> list[bytes]:
    """The pieces of a file that was checked."""
    source = files.shown(options.file)
    wanted = Wanted.of(options.guardian) if options.guardian is not None else None
    data = files.read(options.file)
    found: key_protector.KeyProtector | guardian_metadata.GuardianMetadata
    if guardian_metadata.is_metadata(data):
        if wanted is not None:
            raise errors.UnusableFileError(_NO_GUARDIAN % source)
        found = guardian_metadata.parse(data, source)
        cut = [data]
        if len(data) > options.piece_bytes:
            raise errors.UnusableFileError(
                "%s is guardian metadata of %d bytes, and is not cut: %s" % (
                    source, len(data), "give --piece-bytes %d." % len(data)
                    if len(data) <= pieces.MOST_IN_A_SECRET else "it is too large for a secret."))
    else:
        found = key_protector.parse([data], source)
        if wanted is not None:
            found.require_guardian(wanted.thumbprint, source)
        cut = pieces.cut(data, options.piece_bytes, source)
    for warning in found.warnings:
        print("Warning: %s" % warning, file=sys.stderr)
    return cut


def delete(options: argparse.Namespace) -> None:
    """Delete the secrets of a value of os_vtpm_keys.

    :raises vtpm_compute.errors.VtpmError: when the value is none, it is not confirmed, or one
        cannot be deleted.
    """
    keys = policy.parse_keys(options.value)
    if isinstance(keys, policy.Refusal):
        raise errors.RequestRefusedError(keys.sentence)
    found = _connected(options)
    there = []
    for key in keys:
        try:
            described = found.describe(key.secret_id)
        except errors.SecretStoreError as exc:
            if exc.status != 404:
                raise errors.SecretStoreError(
                    "Secret %s: %s. Nothing was deleted." % (key.secret_id, exc)) from None
            print("Secret %s is not there: deleted before, or expired, or another's" %
                  key.secret_id, file=sys.stderr)
        else:
            there.append(key.secret_id)
            print("Secret %s \"%s\", stored %s" % (
                key.secret_id, described.name, described.created), file=sys.stderr)
    if not there:
        raise errors.SecretStoreError("None of these secrets is there: check the value and the "
                                      "project.")
    if not options.yes and not _confirmed("Delete %d for ever? [y/N]" % len(there)):
        raise errors.RequestRefusedError("Nothing was deleted: answer y, or give --yes.")
    for position, secret_id in enumerate(there):
        try:
            found.delete(secret_id)
        except errors.SecretStoreError as exc:
            raise errors.SecretStoreError("Secret %s cannot be deleted: %s. Not deleted: %s" % (
                secret_id, exc, ",".join(there[position:]))) from None
        print("Deleted %s" % secret_id, file=sys.stderr, flush=True)


def _connected(options: argparse.Namespace) -> secret_store.SecretStore:
    try:
        found = secret_store.connect(options.os_cloud)
        found.log_in()
    except errors.SecretStoreError as exc:
        raise errors.SecretStoreError("Not logged in: %s." % exc, exc.status) from None
    return found


def _confirmed(question: str) -> bool:
    print(question, file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _check_one_stdin(paths: Sequence[str]) -> None:
    if paths.count(files.STDIN) > 1:
        raise errors.UnusableFileError("Standard input (-) can be read once only: name files.")


def protector_as_json(found: key_protector.KeyProtector) -> dict[str, Any]:
    """What there is to know of a key protector, for programs."""
    return {
        "kind": "key_protector",
        "bytes": len(found.raw),
        "max_offline_unwraps": found.max_offline_unwraps,
        "guardians": [{
            "wrapping_id": one.wrapping_id, "name": one.name, "is_owner": one.is_owner,
            "thumbprint": one.thumbprint, "key_bits": one.key_bits,
            "not_before": one.not_before.isoformat(), "not_after": one.not_after.isoformat(),
            "signatures": _signatures_as_json(one.signatures)} for one in found.guardians],
        "signatures": _signatures_as_json(found.signatures),
        "warnings": list(found.warnings),
    }


def _signatures_as_json(signatures: Sequence[Any]) -> list[dict[str, str]]:
    return [{"what": one.what, "verdict": one.verdict.name.lower(), "reason": one.reason}
            for one in signatures]


def _print(lines: Any) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()


def _print_json(value: Any) -> None:
    _print([json.dumps(value, indent=2)])
