"""How many requests six keys cost, counted at the key manager, beside compute-hyperv's own flow."""

import subprocess
import sys

import pytest


def requests_counted(*arguments):
    """What the benchmark prints: {name: [requests of the first server, of each further one]}."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.bench.fetch_keys", "--servers", "2",
         *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:3] for line in done.stdout.splitlines()[1:]}


def test_six_requests_for_six_keys():
    pytest.importorskip("compute_hyperv")
    requests = requests_counted("--delay", "0")
    assert requests["vtpm_compute.keys"] == ["6", "6"]
    # A container, and for each secret its description and its payload, at the very least.
    assert all(int(count) >= 13 for count in requests["compute_hyperv.nova.pdk"])
