"""The table of what is simulated: its page, its tests, its assumptions."""
import ast
import pathlib

from tests.hyperv import assumptions, behaviours

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "doc" / "source" / "contributor" / "simulated-host.rst"
ROWS = [row for rows in behaviours.AREAS.values() for row in rows]


def test_the_page_is_the_table():
    assert PAGE.read_text(encoding="utf-8") == behaviours.page(), (
        "run: python -m tests.hyperv.behaviours %s" % PAGE.relative_to(REPOSITORY))


def test_every_basis_is_a_source_or_an_assumption():
    """That something is not simulated is no basis: what happens instead is a decision."""
    assert not [row.basis for row in ROWS if not row.basis.strip()
                or row.basis.lower().startswith(("none", "not "))]


def test_every_row_names_a_test_that_exists():
    missing = [row.test for row in ROWS if not exists(row.test)]
    assert not missing


def exists(test):
    """Whether a file defines the class or function that a node id names."""
    path, *names = test.split("::")
    path = REPOSITORY / path
    if not path.is_file():
        return False
    module = node = ast.parse(path.read_text(encoding="utf-8"))
    for name in names:
        node = defined(name, node, module)
        if node is None:
            return False
    return bool(names)


def defined(name, node, module):
    """What a module or a class, or a base of the class in the same module, defines; or None."""
    for child in ast.walk(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef)) and child.name == name:
            return child
    bases = [defined(base.id, module, module) for base in getattr(node, "bases", ())
             if isinstance(base, ast.Name)]
    return next((found for base in bases if base is not None
                 for found in [defined(name, base, module)] if found is not None), None)


def test_every_assumption_is_in_the_table_and_the_other_way_round():
    named = {row.basis.partition(": ")[2] for row in ROWS if row.basis.startswith("assumed: ")}
    assert named == {entry.id for entry in assumptions.ASSUMPTIONS}
