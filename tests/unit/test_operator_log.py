"""What is set up wrongly is logged once, and again only when it comes back."""

import logging
import threading

import pytest

from vtpm_scheduling import operator_log


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.WARNING)

    def take():
        lines = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return lines
    return take


def test_a_host_once(logged):
    problems = operator_log.Problems()
    for _ in range(3):
        problems.update_hosts(["a", "b"], {"a": "is in two fabrics"})
    assert logged() == ["Host a gets no servers with a vTPM: is in two fabrics"]
    problems.update_hosts(["a", "b"], {"a": "is in three fabrics", "b": "is in none"})
    assert len(logged()) == 2


def test_a_host_again_after_it_was_set_right(logged):
    problems = operator_log.Problems()
    problems.update_hosts(["a"], {"a": "is in none"})
    # Not looked at, not set right.
    problems.update_hosts(["b"], {})
    problems.update_hosts(["a"], {"a": "is in none"})
    assert len(logged()) == 1
    problems.update_hosts(["a"], {})
    problems.update_hosts(["a"], {"a": "is in none"})
    assert len(logged()) == 1


def test_a_fabric_once(logged):
    problems = operator_log.Problems()
    for seen in (["one mixes"], [], ["one mixes"], ["one mixes", "two mixes"]):
        problems.update_fabrics(seen)
    assert logged() == ["No servers with a vTPM: one mixes", "No servers with a vTPM: two mixes"]


def test_once_from_many_threads(logged):
    problems = operator_log.Problems()
    together = threading.Barrier(8)

    def ask():
        together.wait()
        for number in range(200):
            problems.update_hosts(["host%d" % number], {"host%d" % number: "is in none"})
            problems.update_fabrics(["fabric%d mixes" % number])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(logged()) == 400
