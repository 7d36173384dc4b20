"""The list of the simulated host's faults fits its sources, so that the check is of something."""
import ast
import pathlib
import subprocess
import sys

from tests import mutation_check
from tests.simulator_mutations import MUTATIONS
from tests.unit.hyperv.test_behaviours import exists

SOURCES = pathlib.Path(__file__).resolve().parents[3] / mutation_check.SIMULATOR


def test_the_list():
    names = [entry.name for entry in MUTATIONS]
    assert len(names) == len(set(names))
    assert all(entry.cost and entry.tests for entry in MUTATIONS)
    assert not [test for entry in MUTATIONS for test in entry.tests if not exists(test)]


def test_each_fault_changes_its_source_and_leaves_python(tmp_path):
    for number, entry in enumerate(MUTATIONS):
        source = (SOURCES / entry.file).read_text(encoding="utf-8")
        assert source.count(entry.old) == 1, (
            "%s: bring tests/simulator_mutations.py up to date" % entry.name)
        text = mutation_check.mutated(source, entry)
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(source)), entry.name
        (tmp_path / ("fault_%d.py" % number)).write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--quiet",
                    "--select", "E9,F821,F823", str(tmp_path)], check=True)
