"""The table of a server's operations: whole, and printed as it is."""

import pathlib

import pytest

from vtpm_compute import errors, lifecycle
from vtpm_compute.lifecycle import Condition, Driver, Operation, Verdict

PAGE = pathlib.Path(__file__).parents[2] / "doc" / "source" / "user" / "server-operations.rst"
_ALL = [(operation, driver, lifecycle.RULES[operation][driver])
        for operation in Operation for driver in Driver]


def test_the_page_is_the_table():
    assert PAGE.read_text(encoding="utf-8") == lifecycle.page(), (
        "python -m vtpm_compute.lifecycle doc/source/user/server-operations.rst")


def test_a_rule_has_what_its_verdict_needs():
    for operation, driver, rule in _ALL:
        assert bool(rule.conditions) == (rule.verdict is Verdict.KEEPS_IF), (operation, driver)
        assert bool(rule.sentence) == (rule.verdict is Verdict.REFUSED), (operation, driver)
        assert rule.text.endswith("."), (operation, driver)


def test_nova_does_not_cut_a_sentence():
    sentences = [rule.sentence for _, _, rule in _ALL]
    sentences += [condition.value[0] for condition in Condition]
    assert [text for text in sentences if len(text) > errors.MOST_CHARACTERS] == []


def test_what_is_refused_always():
    refused = {(operation, driver) for operation, driver, rule in _ALL
               if lifecycle.decide(operation, driver) is not None}
    always = {Operation.SHELVE, Operation.UNSHELVE, Operation.CROSS_CELL,
              Operation.REBUILD_ON_VOLUME}
    assert refused == {(operation, driver) for operation in always for driver in Driver} | {
        (Operation.RESIZE, Driver.NOVA), (Operation.EVACUATION, Driver.NOVA)}


def test_each_condition_refuses_alone():
    for operation, driver, rule in _ALL:
        for condition in rule.conditions:
            assert lifecycle.decide(operation, driver, {condition: ""}) == condition.value[0]
            assert lifecycle.decide(operation, driver, {condition: "Better."}) == "Better."


def test_the_first_condition_is_told():
    rule = lifecycle.RULES[Operation.RESIZE][Driver.COMPUTE_HYPERV]
    unmet = dict.fromkeys(reversed(rule.conditions), "")
    assert lifecycle.decide(Operation.RESIZE, Driver.COMPUTE_HYPERV, unmet) == (
        rule.conditions[0].value[0])


def test_a_condition_that_nobody_looks_at():
    with pytest.raises(ValueError, match="no such condition"):
        lifecycle.decide(Operation.REBUILD, Driver.NOVA, {Condition.GUARDED: ""})
