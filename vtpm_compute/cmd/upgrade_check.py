"""``upgrade check``: what an operator wants to know before nova-scheduler restarts, as nova-status.

On oslo.upgradecheck, in its words and with its exit codes. Reads nova.conf and Nova's databases.
"""

from __future__ import annotations

import argparse
import types

from vtpm_compute import errors
from vtpm_compute.cmd import controller, missing

_ERROR = 255


def run(options: argparse.Namespace) -> int:
    """Check.

    :returns: the exit code: 0 success, 1 warning, 2 failure, 255 when it cannot be checked.
    """
    try:
        return _check(options)
    except errors.RecordsError as exc:
        print("Error: %s." % str(exc).rstrip("."))
        return _ERROR


def _check(options: argparse.Namespace) -> int:
    try:
        records = controller.load(options.config_file or [])
        # Not above: only controllers have them.
        from oslo_upgradecheck import upgradecheck

        from vtpm_compute.cmd import upgrade_checks
    except ModuleNotFoundError as exc:
        raise errors.RecordsError(missing.clause(exc, missing.install("operator"))) from None
    # Where it looks for its own command line, of which ours is none.
    upgradecheck.CONF = types.SimpleNamespace(
        command=types.SimpleNamespace(json=options.json))
    return int(upgrade_checks.UpgradeChecks(records).check())
