"""The texts that the packages' source gives to errors, refusals and findings.

Read off the source: what is imported would be only what ran. Values that are only known when it
happens are :data:`VALUE`.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# What stands for a value that is not known before it happens.
VALUE = "…"
PACKAGES = ("vtpm_scheduling", "vtpm_compute")

# Exceptions of a module, and functions that make one, that become another of the errors; with the
# position of the text among the arguments, and what stands before it.
_BECOME = {"_UnreadableError": ("KeyFetchError", 0, "vTPM key … "),
           "KeyFetchError": ("KeyFetchError", 1, "vTPM key … "),
           "wrong": ("WrongSignatureError", 0, "… ")}
_DEPTH = 8
# Functions whose values are many: what a stranger wrote, names, a status of the table of them.
_OPAQUE = ("quote", "shown", "_shown", "_capital", "attestation_meaning")
# With more ways to fill a message its places stay places.
_MOST_FILLINGS = 6


class Site(NamedTuple):
    """Where the source gives a text to something.

    :ivar place: the file and the call.
    :ivar name: what gets it: the name of an error, or of the function that is called.
    :ivar texts: what it may be; empty where that cannot be told from the source.
    """

    place: str
    name: str
    texts: tuple[str, ...]


def error_sites() -> Iterator[Site]:
    """Every place where an error of this project is made."""
    for source in _sources().values():
        yield from source.error_sites()


def messages() -> dict[str, list[str]]:
    """By the name of an error, the messages that the packages' source gives it."""
    found: dict[str, set[str]] = {}
    for site in error_sites():
        found.setdefault(site.name, set()).update(site.texts)
    return {error: sorted(said) for error, said in found.items()}


def docstring(error: str) -> str:
    """The first paragraph that an error has."""
    text = ast.get_docstring(_error_classes()[error]) or ""
    return " ".join(text.split("\n\n")[0].split())


def calls(module: str, *names: str) -> Iterator[tuple[ast.Call, str]]:
    """The calls of some functions in a module, with the name of the function around each."""
    source = _sources()[module]
    for name, function in source.functions.items():
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and name_of(node.func) in names:
                yield node, name


def texts(module: str, node: ast.expr) -> list[str]:
    """What an expression of a module may be."""
    return sorted({_with_values(text) for text in _sources()[module].texts(node, _DEPTH)})


def returned(module: str, function: str) -> list[str]:
    """What a function of a module may return, without the empty text."""
    source = _sources()[module]
    return sorted({_with_values(text) for one in ast.walk(source.functions[function])
                   if isinstance(one, ast.Return) and one.value is not None
                   for text in source.texts(one.value, _DEPTH)} - {""})


def appended(module: str, function: str) -> list[str]:
    """What a function of a module puts into a list."""
    return [text for call, name in calls(module, "append") if name == function
            for text in texts(module, call.args[0])]


def is_like(text: str, sentence: str) -> bool:
    """Whether a sentence is a text with its values."""
    return re.search(".*".join(map(re.escape, text.split(VALUE))), sentence) is not None


def name_of(node: ast.expr) -> str:
    """The last part of a name."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


@functools.cache
def _sources() -> dict[str, _Source]:
    """By the name of a module, without its packages."""
    found: dict[str, _Source] = {}
    for package in PACKAGES:
        folder = pathlib.Path(importlib.util.find_spec(package).origin).parent
        for path in sorted(folder.rglob("*.py")):
            if path.stem != "__init__":
                found[path.stem] = _Source(
                    path.relative_to(folder.parent).as_posix(),
                    ast.parse(path.read_text(encoding="utf-8")))
    return found


@functools.cache
def _error_classes() -> dict[str, ast.ClassDef]:
    """The errors of this project: not those of Nova, which only carry the text of one of them."""
    classes = [node for source in _sources().values() for node in source.tree.body
               if isinstance(node, ast.ClassDef)]
    found: dict[str, ast.ClassDef] = {}
    while True:
        more = {one.name: one for one in classes if one.name not in found and any(
            name_of(base) == "Exception" or name_of(base) in found for base in one.bases)}
        if not more:
            return found
        found.update(more)


def _with_values(text: str) -> str:
    return re.sub(VALUE + "{2,}", VALUE, re.sub(r"%0?\d*[sdrXx]", VALUE, text)).replace("%%", "%")


class _Source:
    """One module, of which the texts are found."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.path, self.tree = path, tree
        self._values: dict[str, list[ast.expr]] = {}
        self.functions: dict[str, ast.FunctionDef] = {}
        # What the parameters of the functions that are looked into were given.
        self._given: list[dict[str, list[str]]] = [{}]
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._values.setdefault(target.id, []).append(node.value)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                self._values.setdefault(name_of(node.target), []).append(node.value)
            elif isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node

    def error_sites(self) -> Iterator[Site]:
        """Every place of the module where an error of this project is made."""
        wrappers = dict(self._wrappers())
        known = _error_classes()
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = name_of(node.func)
            if name == "translated" and len(node.args) > 1:
                wrapped = name_of(node.args[1])
            else:
                wrapped = wrappers.get(name)
            if wrapped in known:
                yield self._site(node, wrapped, self._problems(node), "", ": " + VALUE)
                continue
            error, position, before = _BECOME.get(name, (name, 0, ""))
            if error in known:
                yield self._site(node, error, self.texts(node.args[position], _DEPTH) if len(
                    node.args) > position else [], before, "")

    def _problems(self, node: ast.Call) -> list[str]:
        """What stands before what went wrong, with what a wrapper puts before it."""
        problems = self.texts(node.args[0], _DEPTH)
        wrapper = self.functions.get(name_of(node.func))
        if wrapper is None or not problems:
            return problems
        self._given.append({"problem": problems})
        try:
            return [text for one in ast.walk(wrapper) if isinstance(one, ast.Call) and one.args
                    and name_of(one.func) == "translated"
                    for text in self.texts(one.args[0], _DEPTH)] or problems
        finally:
            self._given.pop()

    def _site(self, node: ast.Call, error: str, found: list[str], before: str,
              after: str) -> Site:
        # Not what is made of values alone.
        said = sorted({_with_values(text) for text in found
                       if re.search(r"[a-z]{2} [a-z]|[a-z]{3} (%|…)", text)})
        return Site("%s: %s" % (self.path, ast.unparse(node)), error,
                    tuple(before + text + after for text in said))

    def _wrappers(self) -> Iterable[tuple[str, str]]:
        """Functions that put a problem before what went wrong, and the error that they raise."""
        for name, function in self.functions.items():
            if function.args.args and function.args.args[0].arg == "problem":
                raised = {one.attr for one in ast.walk(function) if isinstance(one, ast.Attribute)
                          and getattr(one.value, "id", "") == "errors"}
                if len(raised) == 1:
                    yield name, raised.pop()

    def texts(self, node: ast.expr, depth: int) -> list[str]:
        """What an expression may be, with places for values; empty where that is not known."""
        if depth == 0:
            return []
        more = depth - 1
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            return self._formatted(node, more)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return [left + right for left in self.texts(node.left, more) or ["%s"]
                    for right in self.texts(node.right, more) or ["%s"]]
        if isinstance(node, ast.IfExp):
            return self.texts(node.body, more) + self.texts(node.orelse, more)
        if isinstance(node, ast.Name):
            if node.id in self._given[-1]:
                return self._given[-1][node.id]
            return [text for value in self._values.get(node.id, ())
                    for text in self.texts(value, more)]
        if isinstance(node, ast.Attribute) and name_of(node.value) in _sources():
            return _sources()[name_of(node.value)].texts(ast.Name(node.attr), more)
        if isinstance(node, ast.Dict):
            return [text for value in node.values for text in self.texts(value, more)]
        if isinstance(node, ast.Subscript):
            return self.texts(node.value, more)
        if isinstance(node, ast.Call):
            return self._returned(node, more)
        return []

    def _formatted(self, node: ast.BinOp, depth: int) -> list[str]:
        """A text with its places: those with a text of their own, such as a remedy, are filled."""
        values = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
        found = self.texts(node.left, depth)
        fillings = [one if any(one) else [] for one in (
            self.texts(value, depth) for value in values)]
        constant = [len(texts) == 1 and re.fullmatch("_?[A-Z][A-Z0-9_]+", name_of(value))
                    is not None for value, texts in zip(values, fillings)]
        others = [texts for texts, one in zip(fillings, constant) if texts and not one]
        if len(others) > 1 or any(len(texts) > _MOST_FILLINGS for texts in others):
            fillings = [texts if one else [] for texts, one in zip(fillings, constant)]
        filled = []
        for text in found:
            parts = re.split(r"(%0?\d*[sdrXx])", text)
            if len(parts) // 2 != len(fillings):
                filled.append(text)
                continue
            for choice in itertools.product(*[texts or [None] for texts in fillings]):
                filled.append("".join(
                    (part if choice[number // 2] is None else choice[number // 2])
                    if number % 2 else part for number, part in enumerate(parts)))
        return filled

    def _returned(self, node: ast.Call, depth: int) -> list[str]:
        name = name_of(node.func)
        if name == "fitted":
            template, _, _, remedy = node.args
            return [text[::-1].replace("s%", end[::-1], 1)[::-1]
                    for text in self.texts(template, depth)
                    for end in self.texts(remedy, depth) or [VALUE]]
        if name == "get" and isinstance(node.func, ast.Attribute):
            return [text for one in (node.func.value, *node.args[1:])
                    for text in self.texts(one, depth)]
        if name == "join" and isinstance(node.args[0], (ast.GeneratorExp, ast.ListComp)):
            return self.texts(node.args[0].elt, depth)
        if name == "MappingProxyType":
            return self.texts(node.args[0], depth)
        source = self._owner(node.func) if name not in _OPAQUE else None
        if source is None:
            return []
        function = source.functions[name]
        names = [one.arg for one in function.args.args if one.arg != "self"]
        given = {one: found for one, value in zip(names, node.args)
                 if (found := self.texts(value, depth))}
        source._given.append(given)
        try:
            return [text for one in ast.walk(function)
                    if isinstance(one, ast.Return) and one.value is not None
                    for text in source.texts(one.value, depth)]
        finally:
            source._given.pop()

    def _owner(self, function: ast.expr) -> _Source | None:
        """The module that a called function is of."""
        name = name_of(function)
        if isinstance(function, ast.Name):
            return self if name in self.functions else None
        if isinstance(function, ast.Attribute):
            module = _sources().get(name_of(function.value))
            if module is not None and name in module.functions:
                return module
            if getattr(function.value, "id", "") == "self" and name in self.functions:
                return self
            owners = [one for one in _sources().values() if name in one.functions]
            return owners[0] if len(owners) == 1 else None
        return None
