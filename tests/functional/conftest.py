"""Leaves out the tests that need compute-hyperv where it is not installed, and says so."""
import importlib.util

import pytest

MARKER = "compute_hyperv"
_LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config, items):
    if importlib.util.find_spec("compute_hyperv") is not None:
        return
    left_out = [item for item in items if item.get_closest_marker(MARKER)]
    if left_out:
        config.stash[_LEFT_OUT] = len(left_out)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker(MARKER)]


def pytest_terminal_summary(terminalreporter, config):
    count = config.stash.get(_LEFT_OUT, 0)
    if count:
        terminalreporter.write_line(
            "%d tests left out: they run compute-hyperv, which is not installed here" % count)
