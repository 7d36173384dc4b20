"""The page of the operator's command is what the command prints."""

import pathlib

from tests import operator_page

PAGE = pathlib.Path(__file__).resolve().parents[2] / "doc/source/admin/operator-command.rst"


def test_the_page():
    assert PAGE.read_text(encoding="utf-8") == operator_page.page(), (
        "run: python -m tests.operator_page doc/source/admin/operator-command.rst")
