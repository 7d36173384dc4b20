"""Puts faults into copies of the tree, one each, and sees whether a test fails: mutation testing.

A fault is caught when a test fails on it that passes without it. A copy that cannot be imported, or
that lacks a name, shows nothing of the tests: such a fault is an error of the list, as is one
whose text the source no longer holds exactly once.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from xml.etree import ElementTree

PACKAGE, SIMULATOR = "vtpm_compute", "tests/hyperv"
AT_A_TIME = 2
# Seconds for one run of pytest on a few tests, and on all.
_LIMIT, _LIMIT_OF_ALL = 300, 900
# Nova's functional tests patch what the others use: never in one process with them.
_APART = "tests/functional"
_ALL = (("tests/unit", "tests/contract"), (_APART,))
_NO_FINDING = ("ImportError:", "ModuleNotFoundError:", "NameError:")
_IGNORED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")

CAUGHT, SURVIVED, STALE, BROKEN = "caught", "SURVIVED", "STALE", "BROKEN"


class TestsFailAlready(Exception):
    """The tests that are to catch something fail on the tree as it is."""

    __test__ = False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one fault.

    :ivar kind: CAUGHT, SURVIVED, STALE or BROKEN
    :ivar words: by which test, or what is wrong
    """

    kind: str
    words: str


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """Of one run of pytest: its exit code, (test, report) of each failure, its last words."""

    code: int
    failures: tuple[tuple[str, str], ...]
    end: str


def check(repository, python, mutations, say=print, folder=PACKAGE):
    """Check each fault and say what became of it.

    :param repository: the tree, which stays as it is
    :param python: an interpreter that has what the tests need
    :param mutations: a sequence of :class:`tests.mutations.Mutation`
    :param folder: that their files are in, of the tree
    :returns: the verdicts, in the order of the faults
    :raises TestsFailAlready: see there
    """
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch, \
            concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        checker = _Checker(pathlib.Path(repository), python, pathlib.Path(scratch), folder)
        # In their order, each once.
        tests = dict.fromkeys(test for mutation in mutations if not checker.staleness(mutation)
                              for test in mutation.tests)
        start = time.monotonic()
        list(pool.map(checker.require_passing, _processes(tests)))
        say("%6.1f s  the tests pass without a fault" % (time.monotonic() - start))

        def judge(mutation):
            start = time.monotonic()
            stale = checker.staleness(mutation)
            verdict = Verdict(STALE, stale) if stale else checker.judge(mutation)
            say("%6.1f s  %-8s  %s (%s): %s" % (
                time.monotonic() - start, verdict.kind, mutation.name, mutation.file,
                verdict.words))
            return verdict
        return list(pool.map(judge, mutations))


def mutated(text, mutation):
    """A source with the fault in it."""
    return text.replace(mutation.old, mutation.new)


class _Checker:
    def __init__(self, repository, python, scratch, folder):
        # It runs in other folders; a link stays one, as those of virtual environments are.
        self._python = os.path.abspath(shutil.which(str(python)) or python)
        self._repository, self._scratch = repository, scratch
        self._folder = folder

    def staleness(self, mutation):
        """Why the fault cannot be put into the tree; "" when it can."""
        text = (self._repository / self._folder / mutation.file).read_text(encoding="utf-8")
        found = text.count(mutation.old)
        if found != 1:
            return "its text is there %d times, not once: bring the list up to date" % found
        return "it changes nothing" if mutation.new == mutation.old else ""

    def require_passing(self, tests):
        """:raises TestsFailAlready: one of them does not pass on the tree as it is"""
        with self._copy() as tree:
            outcome = self._run(tree, tests, _LIMIT_OF_ALL)
        if outcome.code:
            raise TestsFailAlready("without a fault: %s\n%s" % (
                ", ".join(test for test, _ in outcome.failures) or "pytest ends with %d"
                % outcome.code, outcome.end))

    def judge(self, mutation):
        """Run the tests that are named for it, and if they pass all others."""
        with self._copy() as tree:
            source = tree / self._folder / mutation.file
            text = mutated(source.read_text(encoding="utf-8"), mutation)
            try:
                compile(text, mutation.file, "exec")
            except SyntaxError as fault:
                return Verdict(BROKEN, "SyntaxError: %s" % fault.msg)
            source.write_text(text, encoding="utf-8")
            for tests in _processes(mutation.tests):
                verdict = _verdict(self._run(tree, tests, _LIMIT))
                if verdict.kind != SURVIVED:
                    return verdict
            for tests in _ALL:
                there = [test for test in tests if (tree / test).exists()]
                verdict = _verdict(self._run(tree, there, _LIMIT_OF_ALL)) if there else None
                if verdict and verdict.kind != SURVIVED:
                    return dataclasses.replace(
                        verdict, words="by none of the tests named for it, " + verdict.words)
        return Verdict(SURVIVED, "no test fails")

    @contextlib.contextmanager
    def _copy(self):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            shutil.copytree(self._repository, folder / "tree", ignore=_IGNORED)
            yield folder / "tree"
        finally:
            shutil.rmtree(folder)

    def _run(self, tree, tests, limit):
        report, temporary = tree.parent / "report.xml", tree.parent / "tmp"
        temporary.mkdir(exist_ok=True)
        report.unlink(missing_ok=True)
        # The environment has this project installed: the copy goes before it.
        environment = dict(os.environ, PYTHONPATH=str(tree), TMPDIR=str(temporary))
        try:
            done = subprocess.run(
                [self._python, "-m", "pytest", "-q", "--maxfail=1", "--junitxml", str(report),
                 *tests], cwd=tree, env=environment, timeout=limit, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except subprocess.TimeoutExpired:
            return _Outcome(-1, (), "no answer in %d seconds" % limit)
        failures = []
        if report.exists():
            for case in ElementTree.parse(report).iter("testcase"):
                failures += [
                    (case.get("name"), "%s\n%s" % (failure.get("message"), failure.text))
                    for failure in case.findall("failure")]
        return _Outcome(done.returncode, tuple(failures), done.stdout[-2000:])


def _verdict(outcome):
    if outcome.code == 0:
        return Verdict(SURVIVED, "")
    for test, report in outcome.failures:
        # Those of nova's services are in what a test of theirs has logged.
        unfit = [line for line in (line.lstrip("E ") for line in report.splitlines())
                 if line.startswith(_NO_FINDING)]
        return Verdict(BROKEN, unfit[0]) if unfit else Verdict(CAUGHT, "by " + test)
    return Verdict(BROKEN, "no test fails, but pytest ends with %d: %s" % (
        outcome.code, outcome.end.strip().rpartition("\n")[2]))


def _processes(tests):
    """The tests by the processes they run in."""
    groups = [[test for test in tests if test.startswith(_APART) is apart]
              for apart in (False, True)]
    return [group for group in groups if group]
