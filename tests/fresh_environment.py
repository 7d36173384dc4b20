"""Copies in which the project is built and installed as the documentation says.

Nova's environments are the tests' own, copied with hard links: the project that they have is
uninstalled in the copy.
"""
import os
import re
import shutil
import subprocess

from tests import environment
from tests.hyperv import site_hook

# For pip in such a copy. What the project requires is there: it asks no index, and builds with the
# setuptools that it has.
PIP = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "false", "PIP_NO_INPUT": "1",
       "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}


def run(command, **options):
    """What a program prints, when it succeeds."""
    done = subprocess.run([str(one) for one in command], text=True, capture_output=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


def checkout_without_builds(target):
    """What an sdist is made of: the checkout without what programs made in it."""
    shutil.copytree(
        environment.REPOSITORY, target, symlinks=True, ignore=shutil.ignore_patterns(
            ".*", "__pycache__", "*.egg-info", "build", "dist"))


def without_project(name, folder, with_simulator=False):
    """Copy an environment of the tests, without the project.

    :param folder: where it will lie
    :param with_simulator: whether its nova-computes can run on simulated hosts
    :returns: its interpreter
    """
    source = environment.folder_of_environment(name).resolve()
    try:
        shutil.copytree(source, folder, symlinks=True, copy_function=os.link)
    except (OSError, shutil.Error):
        # Another file system.
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder, symlinks=True)
    _take_over_programs(folder)
    if not with_simulator:
        for hook in folder.rglob("site-packages/" + site_hook.FILE_NAME):
            hook.unlink()
    python = folder / "bin" / "python"
    run([python, "-m", "pip", "uninstall", "-y", "nova-hyperv-vtpm"], env=dict(os.environ, **PIP))
    run([python, "-c", "import importlib.util, sys; sys.exit("
         "importlib.util.find_spec('vtpm_scheduling') is not None)"], cwd=folder)
    return python


def _take_over_programs(folder):
    """Let the programs of the copy run with its own interpreter."""
    for program in (folder / "bin").iterdir():
        if program.is_symlink() or program.is_dir():
            continue
        content, taken = re.subn(
            rb"\A#!\S+/bin/python[0-9.]*\n", lambda _: b"#!%s/bin/python\n" % os.fsencode(folder),
            program.read_bytes())
        if taken:
            # Not into the file, which is the other environment's too.
            mode = program.stat().st_mode
            program.unlink()
            program.write_bytes(content)
            program.chmod(mode)
