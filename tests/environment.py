#!/usr/bin/env python3
"""Makes the environments in which the tests run: ``python -m tests.environment [name]``.

``.environment/nova-28``, the default, is the one of the demonstration too: it holds the OpenStack
services of the release, nova and compute-hyperv among them. ``.environment/nova-27`` holds that
nova, whose own Hyper-V driver is the only one there, and what its functional tests need. Both have
PyMI's files. ``.environment/nova-29`` to ``.environment/nova-34`` hold those novas, which have no
Hyper-V any more, for the functional tests of the scheduler's half. All of these have this project
as an installed wheel. ``.environment/barbican-23`` has nothing of it: only that Barbican and the
Keystone of its release, which the tests start as services. All are in the versions of
``constraints/<name>-py311.txt``. ``.environment/docs`` has Sphinx, and the project for what the
pages print of it. A second run finds everything there and only builds the project again if its
source changed.

Standard library only: it must run where nothing is installed yet (Debian 12, Python 3.11).
"""
import contextlib
import fcntl
import hashlib
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
NAMES = ("nova-28", "nova-27", "nova-29", "nova-30", "nova-31", "nova-32", "nova-33", "nova-34",
         "barbican-23", "docs")
DEFAULT = "nova-28"
# Where a driver for Hyper-V runs, and with it os-win.
WITH_HYPERV = ("nova-28", "nova-27")
# Whose services run beside the project.
WITHOUT_PROJECT = ("barbican-23",)
PYMI = "pymi==1.0.9"
DIALECT = REPOSITORY / "tests" / "cloud" / "sqlite_immediate"

# Counts up when this file installs something else from the same pins.
RECIPE = "1"

# Top-level entries of the repository that are no part of the wheel.
NOT_SOURCE = {"tests", "doc", "tools", "constraints", "build", "dist", "etc", "releasenotes"}


class EnvironmentFailure(Exception):
    """The environment cannot be made; the message says what to do."""


def make_environment(progress=print, name=DEFAULT):
    """Make or complete an environment and return its folder.

    :param name: one of :data:`NAMES`
    :raises EnvironmentFailure: something is missing, or pip failed
    """
    folder = folder_of_environment(name)
    folder.parent.mkdir(exist_ok=True)
    with open(folder.parent / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another run that makes the environment")
            fcntl.flock(lock, fcntl.LOCK_EX)
        _Builder(name, progress).build()
    return folder


def folder_of_environment(name=DEFAULT):
    """Where an environment lies, whether it exists yet or not."""
    return REPOSITORY / ".environment" / name


def python_of_environment(name=DEFAULT):
    """The interpreter of an environment, whether it exists yet or not."""
    return folder_of_environment(name) / "bin" / "python"


class _Builder:
    def __init__(self, name, progress):
        self._progress = progress
        self._is_cloud = name == DEFAULT
        self._has_nova = name.startswith("nova-")
        self._has_hyperv = name in WITH_HYPERV
        self._has_project = name not in WITHOUT_PROJECT
        self._folder = folder_of_environment(name)
        self._pins = REPOSITORY / "constraints" / ("%s-py311.txt" % name)
        self._log = _Log(self._folder.with_suffix(".log"))
        self._site_packages = self._folder / "lib" / "python3.11" / "site-packages"
        self._pymi = self._folder / "pymi"

    def build(self):
        base = _python_3_11()
        stamp = self._stamp("environment", RECIPE, PYMI, base, hash_of_files([self._pins]))
        _provide_debian_packages(
            base, is_new=not stamp.holds(), is_cloud=self._is_cloud, step=self._step,
            log=self._log)
        if not stamp.holds():
            self._log.begin()
            self._install_pins(base)
            stamp.set()
        if self._is_cloud:
            self._install_project("sqlite-immediate", DIALECT, DIALECT.iterdir())
        if self._has_project:
            self._install_project("project", REPOSITORY, _source_entries())
        if self._is_cloud:
            self._install_site_hook()

    def _stamp(self, name, *parts):
        return _Stamp(self._folder / ("stamp-" + name), *parts)

    @contextlib.contextmanager
    def _step(self, title):
        start = time.monotonic()
        yield
        self._progress("%6.1f s  %s" % (time.monotonic() - start, title))

    def _install_pins(self, base):
        # A run that was interrupted leaves an environment without its stamp: begin anew.
        shutil.rmtree(self._folder, ignore_errors=True)
        with self._step("virtual environment"):
            self._log.run([base, "-m", "venv", str(self._folder)])
        pins = [line for line in self._pins.read_text().splitlines() if line and line[0] != "#"]
        with self._step("pip and the tools that build the rest"):
            self._pip_install(_named(pins, "pip", "setuptools", "pbr"))
        # compute-hyperv's wheel brings a nova/__init__.py and a nova/virt/__init__.py of its own,
        # which break nova unless nova's are written over them.
        nova = _named(pins, "nova")
        with self._step("%d packages (a minute or two)" % len(pins)):
            self._pip_install([pin for pin in pins if pin not in nova])
        if not self._has_nova:
            return
        with self._step("nova"):
            self._pip_install(nova)
        if not self._has_hyperv:
            return
        with self._step("PyMI, the Windows wheel"):
            self._pip_install(
                [PYMI], "--platform=win_amd64", "--python-version=3.11",
                "--only-binary=:all:", "--target=%s" % self._pymi)

    def _pip_install(self, requirements, *options):
        # The pins name every package, and the sdists among them build with the pinned setuptools.
        self._log.run([self._folder / "bin" / "python", "-m", "pip", "install", "--no-deps",
              "--no-build-isolation", "--no-input", "--disable-pip-version-check",
              *options, *requirements])

    def _install_project(self, name, folder, entries):
        entries = sorted(entries)
        stamp = self._stamp(name, hash_of_files(entries))
        if stamp.holds():
            return
        with self._step("wheel of %s" % name), tempfile.TemporaryDirectory() as scratch:
            # A copy: setuptools leaves a build folder in its source, and takes from it later what
            # the source no longer has.
            source, wheels = pathlib.Path(scratch, "source"), pathlib.Path(scratch, "wheels")
            source.mkdir()
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")
            for entry in entries:
                if entry.is_dir():
                    shutil.copytree(entry, source / entry.name, ignore=ignore)
                else:
                    shutil.copy(entry, source / entry.name)
            self._log.run([self._folder / "bin" / "python", "-m", "pip", "wheel", "--no-deps",
                           "--no-input", "--no-build-isolation", "--disable-pip-version-check",
                           "-w", wheels, source])
            self._pip_install(sorted(wheels.iterdir()), "--force-reinstall", "--no-index")
        stamp.set()

    def _install_site_hook(self):
        """Let the simulated Hyper-V host enter the environment's nova-computes, if there is one."""
        if not (REPOSITORY / "tests" / "hyperv" / "site_hook.py").exists():
            return
        if str(REPOSITORY) not in sys.path:
            sys.path.insert(0, str(REPOSITORY))
        site_hook = importlib.import_module("tests.hyperv.site_hook")
        site_hook.install_site_hook(
            str(self._site_packages), str(REPOSITORY), str(self._pymi))


class _Stamp:
    """A file that says from what a part of the environment was made."""

    def __init__(self, path, *parts):
        self._path = path
        self._content = " ".join(str(part) for part in parts) + "\n"

    def holds(self):
        return self._path.exists() and self._path.read_text() == self._content

    def set(self):
        self._path.write_text(self._content)


def hash_of_files(entries):
    """SHA-256 over the names and contents of files and of folders with all that is in them."""
    digest = hashlib.sha256()
    for entry in entries:
        files = sorted(entry.rglob("*")) if entry.is_dir() else [entry]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                digest.update(b"%s %d\n" % (os.fsencode(path.relative_to(entry.parent)),
                                            len(content)))
                digest.update(content)
    return digest.hexdigest()


def _source_entries():
    return [entry for entry in REPOSITORY.iterdir()
            if not entry.name.startswith(".") and entry.name not in NOT_SOURCE
            and entry.suffix != ".egg-info" and entry.name != "__pycache__"]


def _named(pins, *names):
    return [pin for pin in pins if pin.split("==")[0] in names]


def _python_3_11():
    if sys.version_info[:2] == (3, 11):
        return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    found = shutil.which("python3.11")
    if found is None:
        raise EnvironmentFailure(
            "Python 3.11 is needed (the newest for which the pinned OpenStack has been released);"
            " this is %d.%d." % sys.version_info[:2])
    return found


class _Log:
    """The output of the programs that make an environment."""

    def __init__(self, path):
        self._path = path

    def begin(self):
        self._path.write_text("")

    def run(self, command, **options):
        """Run a command with its output in the log; on failure show the end of it.

        :raises EnvironmentFailure: the command failed
        """
        command = [str(part) for part in command]
        with open(self._path, "ab") as log:
            log.write(("\n$ %s\n" % " ".join(command[:8])).encode())
            log.flush()
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=subprocess.STDOUT, check=False, **options).returncode
        if code:
            tail = "\n".join(self._path.read_text(errors="replace").splitlines()[-25:])
            raise EnvironmentFailure("%s ended with %d. The end of %s:\n%s" % (
                " ".join(command[:4]), code, self._path, tail))


def _provide_debian_packages(base, is_new, is_cloud, step, log):
    """Install what Debian has to give; each thing is looked for, not its package.

    What only pip needs is looked for only when an environment is to be made, what only the cloud
    needs only for the environment it runs in.
    """
    needed = _missing_for_pip(base) if is_new else []
    wanted = ["rabbitmq-server"] if is_cloud and not _has_rabbitmq() else []
    missing = needed + wanted
    if not missing:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        with step("Debian packages: %s" % " ".join(missing)):
            _apt_install(missing, log)
    elif needed:
        raise EnvironmentFailure(
            "These Debian packages are missing: %s. As root: apt-get install %s"
            % (" ".join(needed), " ".join(missing)))


def _missing_for_pip(base):
    """Debian packages without which the pinned packages cannot be installed or built."""
    headers = sysconfig.get_path("include")
    if base != os.path.realpath(sys.executable):
        query = "import sysconfig; print(sysconfig.get_path('include'))"
        headers = subprocess.run([base, "-c", query], capture_output=True, text=True,
                                 check=True).stdout.strip()
    has_venv = subprocess.run([base, "-c", "import ensurepip, venv"], check=False,
                              capture_output=True).returncode == 0
    present = {
        "gcc": shutil.which("gcc"),
        "libc6-dev": os.path.exists("/usr/include/stdlib.h"),
        "libssl-dev": os.path.exists("/usr/include/openssl/evp.h"),
        "python3-dev": os.path.exists(os.path.join(headers, "Python.h")),
        "python3-venv": has_venv,
    }
    return [name for name, found in present.items() if not found]


def _has_rabbitmq():
    return bool(list(pathlib.Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server")))


def _apt_install(packages, log):
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    log.run(["apt-get", "update", "-q"], env=environment)
    with _no_service_starts():
        log.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages],
                env=environment)


@contextlib.contextmanager
def _no_service_starts():
    """Keep Debian's packages from starting a RabbitMQ of the system: the tests start their own."""
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    if policy.exists():  # the administrator's own rule (container images bring one)
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else DEFAULT
    if name not in NAMES:
        sys.exit("error: no environment named %s; there are: %s" % (name, ", ".join(NAMES)))
    try:
        folder = make_environment(name=name)
    except EnvironmentFailure as failure:
        sys.exit("error: %s" % failure)
    print("environment: %s" % folder)


if __name__ == "__main__":
    main()
