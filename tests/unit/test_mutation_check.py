"""The check that tests catch faults: what counts as caught, and what does not."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import mutation_check
from tests.life_mutations import MUTATIONS as LIFE_MUTATIONS
from tests.mutations import MUTATIONS, Mutation

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / mutation_check.PACKAGE
SOURCE = "def double(number):\n    return number * 2\n\n\ndef forgotten():\n    return 1\n"
TESTS = """
def test_double():
    import vtpm_compute.numbers
    assert vtpm_compute.numbers.double(3) == 6

def test_beside():
    assert True
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    # Their start is most of the time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name, text in (("vtpm_compute/__init__.py", ""), ("vtpm_compute/numbers.py", SOURCE),
                       ("tests/unit/test_numbers.py", TESTS)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def mutation(old, new, test="test_double"):
    return Mutation("a fault", "a cost", "numbers.py", old, new,
                    ("tests/unit/test_numbers.py::" + test,))


def verdicts(tree, *faults):
    found = mutation_check.check(tree, sys.executable, faults, say=lambda line: None)
    assert (tree / "vtpm_compute" / "numbers.py").read_text() == SOURCE
    return [(verdict.kind, verdict.words) for verdict in found]


def test_the_interpreter_is_found_from_here(tree):
    """Its tests run in a copy of the tree."""
    (verdict,) = mutation_check.check(
        tree, os.path.relpath(sys.executable), [mutation("* 2", "* 3")], say=lambda line: None)
    assert verdict.kind == mutation_check.CAUGHT


def test_verdicts(tree):
    assert verdicts(
        tree,
        mutation("* 2", "* 3"),
        mutation("* 2", "* 3", test="test_beside"),
        mutation("return 1", "return 2"),
        mutation("* 2", "* two"),
        mutation("* 2", "* ("),
        mutation("* 4", "* 5"), mutation("return", "yield"), mutation("* 2", "* 2"),
    ) == [
        ("caught", "by test_double"),
        ("caught", "by none of the tests named for it, by test_double"),
        ("SURVIVED", "no test fails"),
        ("BROKEN", "NameError: name 'two' is not defined"),
        ("BROKEN", "SyntaxError: '(' was never closed"),
        ("STALE", "its text is there 0 times, not once: bring the list up to date"),
        ("STALE", "its text is there 2 times, not once: bring the list up to date"),
        ("STALE", "it changes nothing")]


def test_a_fault_of_another_folder(tree):
    source = tree / "tests" / "numbers.py"
    source.write_text("TWO = 2\n")
    (tree / "tests" / "unit" / "test_numbers.py").write_text(
        "def test_double():\n    from tests import numbers\n    assert numbers.TWO == 2\n")
    found = mutation_check.check(tree, sys.executable, [mutation("TWO = 2", "TWO = 3")],
                                 say=lambda line: None, folder="tests")
    assert [verdict.words for verdict in found] == ["by test_double"]
    assert source.read_text() == "TWO = 2\n"


def test_tests_that_fail_without_a_fault(tree):
    (tree / "tests" / "unit" / "test_numbers.py").write_text("def test_double():\n    assert 0\n")
    with pytest.raises(mutation_check.TestsFailAlready, match="without a fault: test_double"):
        verdicts(tree, mutation("* 2", "* 3"))


def test_the_list():
    every = MUTATIONS + LIFE_MUTATIONS
    names = [entry.name for entry in every]
    assert len(names) == len(set(names))
    assert len(MUTATIONS) == 20
    assert all(entry.name.startswith("life: ") for entry in LIFE_MUTATIONS)
    assert all(entry.cost and entry.tests for entry in every)


def test_no_fault_of_the_list_is_just_an_unknown_name(tmp_path):
    for number, entry in enumerate(MUTATIONS + LIFE_MUTATIONS):
        source = (PACKAGE / entry.file).read_text()
        assert source.count(entry.old) == 1, entry.name
        (tmp_path / ("fault_%d.py" % number)).write_text(mutation_check.mutated(source, entry))
    subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--quiet",
                    "--select", "E9,F821,F823", str(tmp_path)], check=True)
