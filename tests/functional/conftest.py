"""Leaves out the tests that need what is not installed, and says so.

A file that needs os-win cannot even be imported without it: its mark is read from its text.
"""
import importlib.util

import pytest

MARKER = "compute_hyperv"
OS_WIN_MARK = "pytestmark = pytest.mark.os_win"
_LEFT_OUT = pytest.StashKey[int]()
_FILES_LEFT_OUT = pytest.StashKey[list]()


def pytest_ignore_collect(collection_path, config):
    if collection_path.suffix != ".py" or importlib.util.find_spec("os_win") is not None:
        return None
    if OS_WIN_MARK not in collection_path.read_text().splitlines():
        return None
    config.stash.setdefault(_FILES_LEFT_OUT, []).append(collection_path.name)
    return True


def pytest_collection_modifyitems(config, items):
    if importlib.util.find_spec("compute_hyperv") is not None:
        return
    left_out = [item for item in items if item.get_closest_marker(MARKER)]
    if left_out:
        config.stash[_LEFT_OUT] = len(left_out)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker(MARKER)]


def pytest_terminal_summary(terminalreporter, config):
    files = config.stash.get(_FILES_LEFT_OUT, [])
    if files:
        terminalreporter.write_line(
            "%d files of tests left out: they need os-win, which is not installed here (%s)"
            % (len(files), ", ".join(sorted(files))))
    count = config.stash.get(_LEFT_OUT, 0)
    if count:
        terminalreporter.write_line(
            "%d tests left out: they run compute-hyperv, which is not installed here" % count)
