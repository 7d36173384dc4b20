"""``nova-hyperv-vtpm``: the operator's command, in the manner of nova-status and nova-manage.

Changes nothing anywhere. Exit codes: 0 all is well, 1 it is not, 2 wrong usage or it cannot be
told, 130 interrupted; ``upgrade check`` has those of ``nova-status``: 0 success, 1 warning, 2
failure, 255 error.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from vtpm_compute import errors
from vtpm_compute.cmd import tables, terminal

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
_MODULES = {
    ("explain", None): "explain",
    ("inventory", None): "inventory",
    ("upgrade", "check"): "upgrade_check",
    ("host", "check"): "host_check",
    ("host", "inventory"): "host_inventory",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :param arguments: without the program's name; None: those of this process.
    :returns: the exit code.
    """
    terminal.print_any_letter()
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
    explain.add_argument(
        "--config-file", metavar="FILE", nargs="?", action="append", const="",
        help="read Nova's records, on a controller, with this nova.conf; without FILE: where "
             "Nova's services look for theirs; may be given several times")
    _add_format(explain)

    inventory = commands.add_parser(
        "inventory", help="list the servers with a vTPM and their fabrics, on a controller",
        description="List the servers that have a vTPM, by Nova's records, and tell which are on "
                    "a host of another fabric.",
        epilog="Exit code: 0 done, 1 some server is where it does not belong, or that cannot be "
               "told, 2 the records cannot be read.")
    _add_config_file(inventory)
    _add_format(inventory)

    upgrade = commands.add_parser(
        "upgrade", help="check the set-up before an upgrade, on a controller").add_subparsers(
            dest="action", required=True, metavar="ACTION")
    check = upgrade.add_parser(
        "check", help="check filter, aggregates, hosts' reports, options",
        description="Check the scheduler's filter, the aggregates of fabrics, what hosts report, "
                    "and options, as nova-status upgrade check does.",
        epilog="Exit code: 0 success, 1 warning, 2 failure, 255 an error.")
    check.add_argument("--json", action="store_true", dest="json",
                       help="print JSON, as nova-status does")
    _add_config_file(check)

    host = commands.add_parser(
        "host", help="look at a Hyper-V host, on it").add_subparsers(
            dest="action", required=True, metavar="ACTION")
    check = host.add_parser(
        "check", help="say what is wrong with this host, and what to do",
        description="Look at Windows, the Host Guardian Service's client, the fabric's guardian "
                    "and nova.conf of this host. Run it as an administrator.",
        epilog="Exit code: 0 VMs with a vTPM can run here, 1 they cannot, 2 it cannot be told.")
    _add_days(check)
    _add_config_file(check)
    _add_format(check)
    machines = host.add_parser(
        "inventory", help="list the VMs with a vTPM, who owns them and who can start them",
        description="List this host's virtual machines with a vTPM, and the owner and the "
                    "guardians of their key protectors. Run it as an administrator.",
        epilog="Exit code: 0 done, 1 some certificate has expired or soon will, or a key "
               "protector cannot be read, 2 the host cannot be asked.")
    _add_days(machines)
    _add_format(machines)
    return parser


def _add_config_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", metavar="FILE", action="append",
                        help="a nova.conf; may be given several times (default: where Nova's "
                             "services look for theirs)")


def _add_days(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=_days, default=60, metavar="NUMBER",
                        help="tell certificates that expire within so many days (default: "
                             "%(default)s)")


def _days(text: str) -> int:
    if not text.isdecimal() or len(text) > 5:
        raise argparse.ArgumentTypeError("it is a number from 0 to 99999")
    return int(text)


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
    if options.command == "explain" and options.config_file is not None:
        options.config_file = [file for file in options.config_file if file]


if __name__ == "__main__":
    sys.exit(main())
