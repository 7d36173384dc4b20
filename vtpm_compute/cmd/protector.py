"""``nova-hyperv-vtpm-protector``: a tenant's tool for key protectors, on a machine of their own.

Shows what a key protector is, cuts it, stores it in Barbican, and deletes it there. Exit codes: 0
done, 1 not done (one line says why and what to do), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
from collections.abc import Sequence

from vtpm_compute import errors
from vtpm_compute.cmd import interruption, missing, pieces, terminal

_DONE, _NOT_DONE, _BY_SIGNAL, _SIGINT = 0, 1, 128, 2
_PROGRAM = "nova-hyperv-vtpm-protector"
_DESCRIPTION = """\
Work with the key protector of a virtual TPM: the file that says who owns a
server's TPM and which cloud may run it. Make one on a Windows machine of your
own with New-HgsKeyProtector; then look at it, and store it, with this tool.
"""
_LOGIN = "Logs in as the openstack client does: OS_CLOUD and clouds.yaml, or the OS_* variables."
_GUARDIAN_HELP = ("the guardian of the cloud's fabric: its metadata file, or the SHA-256 "
                  "thumbprint of its encryption certificate (64 digits)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool.

    :param arguments: without the program's name; None: those of this process.
    :returns: the exit code.
    """
    terminal.print_any_letter()
    options = _parser().parse_args(arguments)
    try:
        # Not above: without them even --help would fail.
        from vtpm_compute.cmd import commands
    except ModuleNotFoundError as exc:
        return _failed(missing.clause(exc, missing.install("tool")))
    run = {"show": commands.show, "split": commands.split, "store": commands.store,
           "delete": commands.delete}[options.command]
    try:
        run(options)
        sys.stdout.flush()
    except errors.VtpmError as exc:
        return _failed(str(exc))
    except interruption.Interrupted as exc:
        _failed("Interrupted. %s" % exc.outcome)
        return _BY_SIGNAL + exc.number
    except KeyboardInterrupt:
        _failed("Interrupted.")
        return _BY_SIGNAL + _SIGINT
    except OSError as exc:
        return _failed("The output cannot be written: %s." % exc.strerror)
    return _DONE


def _failed(message: str) -> int:
    print("error: %s" % " ".join(message.split()), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        # Who read our output has gone. Python would try again at its end, and complain.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return _NOT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, words: str, more: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(name, help=words, description="%s. %s" % (
            words[0].upper() + words[1:], more))

    show = add("show", "say what a key protector is: owner, guardians, what was verified",
               "Guardian metadata is told too. Exit code 1: it is damaged, or --guardian cannot "
               "unwrap it.")
    show.add_argument("files", nargs="+", metavar="FILE",
                      help="the key protector, or its pieces in order; - is standard input")
    show.add_argument("--guardian", metavar="GUARDIAN",
                      help="say whether it names %s" % _GUARDIAN_HELP)
    show.add_argument("--json", action="store_true", help="print JSON")

    split = add("split", "cut a key protector into files that fit into Barbican secrets",
                "Prints their names, in order.")
    _add_file(split)
    split.add_argument("--output-dir", required=True, metavar="DIR",
                       help="where the files go; nothing is overwritten")
    _add_piece_bytes(split)

    store = add("store", "store a key protector in Barbican and print the os_vtpm_keys value",
                "It is checked before anything is stored; if a step fails, what was stored is "
                "deleted again. " + _LOGIN)
    _add_file(store)
    store.add_argument("--guardian", metavar="GUARDIAN",
                       help="refuse a key protector that does not name %s" % _GUARDIAN_HELP)
    store.add_argument("--name", type=_name, help="name of the secrets, before their number "
                                                  "(default: the file's)")
    store.add_argument("--expiration", type=_moment, metavar="TIME",
                       help="when Barbican is to delete them, such as 2031-12-31 or "
                            "2031-12-31T18:00:00Z (default: never). A server keeps its vTPM; a "
                            "new one, or a rebuild, needs the secrets")
    store.add_argument("--private", action="store_true",
                       help="let nobody else of your project read them, but for its "
                            "administrators; then only you can make servers with them")
    _add_piece_bytes(store)
    store.add_argument("--quiet", action="store_true", help="print the value and errors only")
    _add_cloud(store)

    delete = add("delete", "delete the secrets of an os_vtpm_keys value from Barbican",
                 "Servers keep their vTPMs; new ones can no longer be made with this value. "
                 + _LOGIN)
    delete.add_argument("value", metavar="VALUE",
                        help="what store printed: ids of secrets, joined by commas")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    _add_cloud(delete)
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the key protector; - is standard input")


def _add_piece_bytes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--piece-bytes", type=_piece_bytes, default=pieces.MOST_IN_ONE_REQUEST, metavar="NUMBER",
        help="bytes in a piece at most, 1 to %d (default: %%(default)s, what Barbican takes in "
             "one request unless its administrator changed that)" % pieces.MOST_IN_A_SECRET)


def _add_cloud(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--os-cloud", metavar="NAME", help="a cloud of your clouds.yaml")


def _name(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError("it is empty, or has characters that cannot be printed")
    return text


def _piece_bytes(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text) or not 1 <= int(text) <= pieces.MOST_IN_A_SECRET:
        raise argparse.ArgumentTypeError(
            "it is a number from 1 to %d" % pieces.MOST_IN_A_SECRET)
    return int(text)


def _moment(text: str) -> str:
    """A time as Barbican takes it: UTC, without a zone."""
    try:
        found = datetime.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        utc = datetime.timezone.utc
        found = found.replace(tzinfo=utc) if found.tzinfo is None else found.astimezone(utc)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "%r is no time; write it as 2031-12-31 or 2031-12-31T18:00:00Z" % text) from None
    if found <= datetime.datetime.now(utc):
        raise argparse.ArgumentTypeError("%s has passed" % text)
    return found.replace(tzinfo=None).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
