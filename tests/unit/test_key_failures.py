"""The table of failures is whole: no message without a row, no row without its tests."""

import ast
import inspect
import pathlib
import re
import subprocess
import sys

import pytest

from tests import key_failures
from vtpm_compute import keys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def docstrings(tree):
    return {id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None}


def for_the_log(tree):
    return {id(part) for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("LOG.")
            for part in ast.walk(node)}


def texts(source):
    """Every piece of text in a module that may be of a message: two words, not for the log."""
    tree = ast.parse(source)
    other = docstrings(tree) | for_the_log(tree)
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            and id(node) not in other and re.search("[a-z]+ [a-z]+", node.value)]


def rows_that_say(text):
    """The rows whose problem contains a text, with anything where it has a %s or a %d."""
    pattern = re.sub("%[sd]", ".*", re.escape(text))
    return [row for row in key_failures.FAILURES
            if re.search(pattern, row.problem.replace("{nova}", "an-id"))]


@pytest.mark.parametrize("text", texts(inspect.getsource(keys)))
def test_every_text_is_of_a_row(text):
    assert rows_that_say(text)


def test_the_texts_are_found():
    found = texts(inspect.getsource(keys))
    for text in (keys._AWAY, keys._CUT_OFF, keys._MALFORMED):
        assert any(piece in text for piece in found)
    assert texts('"""A module."""\ndef f():\n    "What it does."\n    LOG.info("to the log")\n'
                 '    return A + "has no row" + "%s"\n') == ["has no row"]
    assert rows_that_say("has no row") == []


@pytest.mark.parametrize("status", keys._BY_STATUS)
def test_every_status_with_words_of_its_own_has_a_row(status):
    assert [row for row in key_failures.FAILURES if row.status == status
            and row.problem == keys._BY_STATUS[status]]


@pytest.mark.parametrize("status", keys._WORTH_A_RETRY)
def test_what_is_tried_again_may_be_tried_later(status):
    assert all("ry again later" in row.problem for row in key_failures.FAILURES
               if row.status == status)


def test_every_situation_is_there_once():
    situations = [row.situation for row in key_failures.FAILURES]
    assert len(set(situations)) == len(situations)


def test_both_barbicans_do_the_same():
    for row in key_failures.FAILURES:
        assert (key_failures.BARBICAN_17 in row.places) == (key_failures.BARBICAN_23 in row.places)


def test_every_row_has_its_tests_and_every_test_its_row():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "--collect-only",
         "tests/unit/test_keys.py", "tests/e2e/test_keys_from_barbican.py"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    collected = {line for line in done.stdout.splitlines() if "::test_as_the_table_says[" in line}
    assert collected == {test for row in key_failures.FAILURES for test in row.tests().values()}


def test_every_message_fits_into_a_fault():
    """Nova cuts it at 255 characters, with its own words before."""
    identifier = "x" * 36
    for row in key_failures.FAILURES:
        whole = "Build of instance %s aborted: %s" % (
            identifier, row.message(identifier, nova="x" * 32))
        assert len(whole) <= 255, row


def test_it_prints():
    done = subprocess.run([sys.executable, "-m", "tests.key_failures"], cwd=REPOSITORY,
                          capture_output=True, text=True, timeout=60)
    assert done.stdout.count("    message: vTPM key KEY ") == len(key_failures.FAILURES)
