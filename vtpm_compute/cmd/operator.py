"""``nova-hyperv-vtpm``: the operator's command, in the manner of nova-status and nova-manage.

Changes nothing anywhere. Exit codes: 0 all is well, 1 it is not, 2 wrong usage or it cannot be
told, 130 interrupted; ``upgrade check`` has those of ``nova-status``: 0 success, 1 warning, 2
failure, 255 error.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from vtpm_compute import errors
from vtpm_compute.cmd import tables

_CANNOT_BE_TOLD, _INTERRUPTED = 2, 130
_PROGRAM = "nova-hyperv-vtpm"
_DESCRIPTION = """\
Look at vTPMs on Hyper-V as the cloud's operator: why a server would run or
not, what is wrong with a host or with the set-up. Changes nothing.
"""
_LOGIN = ("Logs in as the openstack client does: OS_CLOUD and clouds.yaml, or the OS_* variables. "
          "Hosts are for administrators to see.")
_GUARDIAN = ("the guardian of the fabric: its metadata file, or the SHA-256 thumbprint of its "
             "encryption certificate (64 digits)")
# The modules of the commands: each imports what no other one needs.
_MODULES = {("explain", None): "explain"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :param arguments: without the program's name; None: those of this process.
    :returns: the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name in a certificate may have letters that the terminal does not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    try:
        module = importlib.import_module(
            "vtpm_compute.cmd.%s" % _MODULES[options.command, getattr(options, "action", None)])
        code = int(module.run(options))
        sys.stdout.flush()
    except errors.VtpmError as exc:
        return _failed(str(exc))
    except KeyboardInterrupt:
        print("error: Interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Who read it has seen enough. Python would try again at its end, and complain.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return _CANNOT_BE_TOLD
    return code


def _failed(message: str) -> int:
    print("error: %s." % " ".join(message.split()).rstrip("."), file=sys.stderr)
    return _CANNOT_BE_TOLD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    explain = commands.add_parser(
        "explain", help="say whether a server would run, and what speaks against it",
        description="Say what an image and a flavor ask for, or a server has; what the keys are; "
                    "and of each host whether it fits. " + _LOGIN,
        epilog="Exit code: 0 it would run, 1 it would not, 2 it cannot be told. --config-file "
               "reads Nova's databases too, for what its API does not show: what hosts report, "
               "and which servers have a vTPM.")
    explain.add_argument("--image", metavar="IMAGE", help="an image, by id or name")
    explain.add_argument("--flavor", metavar="FLAVOR",
                         help="a flavor, by id or name; with --server: a resize to it")
    explain.add_argument("--server", metavar="SERVER", help="a server, by id or name")
    explain.add_argument("--guardian", metavar="GUARDIAN",
                         help="say whether the key protector names %s" % _GUARDIAN)
    explain.add_argument("--os-cloud", metavar="NAME", help="a cloud of your clouds.yaml")
    _add_config_file(explain)
    _add_format(explain)
    return parser


def _add_config_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file", metavar="FILE", nargs="?", action="append", const="",
        help="read Nova's records, on a controller, with this nova.conf; without FILE: where "
             "Nova's services look for theirs; may be given several times")


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=tables.FORMATS, default=tables.TABLE,
                        help="how to print it (default: %(default)s)")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What argparse cannot say."""
    if options.command == "explain" and (
            options.server is None) is (options.image is None):
        parser.error("explain takes --server, or --image and --flavor")
    if options.command == "explain" and options.image is not None and options.flavor is None:
        parser.error("explain takes --image with --flavor")
    if getattr(options, "config_file", None) is not None:
        options.config_file = [file for file in options.config_file if file]


if __name__ == "__main__":
    sys.exit(main())
