"""tools/run-tests: which environment and which threads a part has, and that tox knows its names."""

import configparser
import importlib.machinery
import importlib.util
import re
import signal
import sys
import time
from concurrent import futures

import pytest

from tests import environment

PATH = environment.REPOSITORY / "tools" / "run-tests"
NOT_BY_DEFAULT = ("29", "30", "31", "32", "33", "34", "32-threads", "33-threads")


@pytest.fixture(scope="module")
def run_tests():
    loader = importlib.machinery.SourceFileLoader("run_tests", str(PATH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("run_tests", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(("part", "name", "no_eventlet"), [
    ("unit", "nova-28", None), ("e2e-barbican-23", "nova-28", None),
    ("functional", "nova-28", "false"), ("functional-killed", "nova-28", "false"),
    ("functional-nova-27", "nova-27", "false"),
    ("random-lives", "nova-28", "false"), ("random-lives-nightly-4", "nova-28", "false"),
    ("functional-nova-34", "nova-34", "false"), ("functional-nova-34-threads", "nova-34", "true"),
])
def test_environment_and_threads_of_a_part(run_tests, part, name, no_eventlet):
    assert run_tests.environment_of(part) == name
    variables = run_tests.variables_of(part, "folder")
    assert variables.get("OS_NOVA_DISABLE_EVENTLET_PATCHING") == no_eventlet


def test_all_novas_are_all(run_tests):
    parts = run_tests.GROUPS["all-novas"]
    assert set(parts) <= set(run_tests.PARTS)
    assert {run_tests.environment_of(part) for part in parts} == {
        name for name in environment.NAMES if name.startswith("nova-")}
    assert sum(part.endswith("-threads") for part in parts) == 3


def test_what_runs_without_a_part(run_tests):
    assert set(run_tests.BY_DEFAULT) <= set(run_tests.PARTS)
    environments = {run_tests.environment_of(part) for part in run_tests.BY_DEFAULT}
    assert environments == {"nova-27", "nova-28", "nova-34", "docs"}


def test_a_night_has_new_sequences_and_a_commit_the_same(run_tests, monkeypatch):
    monkeypatch.delenv("VTPM_RANDOM_LIVES", raising=False)
    lives = [int(run_tests.variables_of(part, "folder")["VTPM_RANDOM_LIVES"])
             for part in run_tests.GROUPS["random-lives-nightly"]]
    assert sum(lives) >= 500
    assert "VTPM_RANDOM_LIVES" not in run_tests.variables_of("random-lives", "folder")


def test_tox_has_the_same_names(run_tests):
    tox = configparser.ConfigParser()
    tox.read(environment.REPOSITORY / "tox.ini")
    by_default = tox["tox"]["envlist"].replace("\n", "").split(",")
    assert by_default == run_tests.BY_DEFAULT
    assert "testenv:functional-nova-{%s}" % ",".join(NOT_BY_DEFAULT) in tox
    further = {"functional-nova-" + part for part in NOT_BY_DEFAULT}
    assert further | set(by_default) | set(run_tests.NIGHTLY) == set(run_tests.PARTS)
    assert {"testenv:" + group for group in run_tests.GROUPS} <= set(tox)


@pytest.fixture
def small_parts(run_tests, monkeypatch):
    """Parts that take no time, and no environment."""
    monkeypatch.setattr(run_tests, "PARTS", {
        "bad": ["timeit", "-n1", "-r1", "-s", "print('first')", "1/0"],
        "good": ["timeit", "-n1", "-r1", "print('second')"]})
    monkeypatch.setattr(run_tests.environment, "make_environment", lambda name: None)
    monkeypatch.setattr(
        run_tests.environment, "python_of_environment", lambda name: sys.executable)
    return run_tests


def test_each_part_runs_whatever_the_others_say(small_parts, monkeypatch, capfd):
    monkeypatch.setattr(small_parts, "BY_DEFAULT", ["bad", "good"])
    assert small_parts.main([]) == 1
    out = capfd.readouterr().out
    # What a part prints stands together, with its errors.
    assert re.search(r"== bad\nfirst\n(?s:.*)ZeroDivisionError.*\nbad +FAILED ", out)
    assert re.search(r"== good\nsecond\n", out)
    assert re.search(r"\nbad +FAILED .*\ngood +passed .*\nNot all passed.\n$", out)


def test_one_part_prints_as_it_goes(small_parts, capfd):
    assert small_parts.main(["good"]) == 0
    assert capfd.readouterr().out.endswith("All passed.\n")


def test_an_interruption_starts_no_more_parts(small_parts):
    programs = small_parts.Programs()
    programs.interrupt(signal.SIGINT, None)
    assert programs.run(["no-such-program"], {}) == 130


def test_a_termination_reaches_each_part(small_parts):
    programs = small_parts.Programs()
    with futures.ThreadPoolExecutor(2) as pool:
        codes = [pool.submit(programs.run, ["sleep", "60"], {}) for _ in range(2)]
        while len(programs.running) < 2:
            time.sleep(0.01)
        programs.interrupt(signal.SIGTERM, None)
        assert [code.result() for code in codes] == [-signal.SIGTERM] * 2


def test_an_unknown_part_runs_nothing(run_tests, capsys):
    assert run_tests.main(["functional-nova-26"]) == 2
    assert "all-novas" in capsys.readouterr().err
