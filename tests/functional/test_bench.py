"""The benchmark runs; what it measures is for people."""
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
