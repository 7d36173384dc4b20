"""The benchmarks run; what they measure is for people."""
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.compute_hyperv
def test_spawn_on_simulator():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.bench.spawn_on_simulator", "1"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1) and not done.stderr, done.stdout + done.stderr[-4000:]
    ways = done.stdout.splitlines()[:3]
    assert [" ms, " in way and "requests to WMI" in way for way in ways] == [True] * 3
    assert ["RSA key pairs" in way for way in ways] == [False, False, True]


def test_filter_hosts():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.bench.filter_hosts", "1", "60"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stdout + done.stderr[-4000:]
    passed = {tuple(line.split()[:2]): line.split()[-3] for line in done.stdout.splitlines()
              if line.partition(" ")[0].endswith("Filter")}
    assert passed == {(name, kind): count for name in (
        "GuardedHostFilter", "ImagePropertiesFilter", "AggregateInstanceExtraSpecsFilter",
        "ComputeCapabilitiesFilter") for kind, count in (
            ("nothing", "60"), ("all", "60"), ("half", "30"), ("none", "0"))}


def test_scheduler_memory():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.bench.scheduler_memory", "12", "20"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    # A request that gets another answer than it has to ends a process without its line.
    assert done.returncode in (0, 1), done.stdout + done.stderr[-4000:]
    ways = [line.split()[:2] for line in done.stdout.splitlines()[1:5]]
    assert ways == [["RSS", "without"], ["RSS", "with"], ["traced", "without"],
                    ["traced", "with"]], done.stdout + done.stderr[-4000:]
