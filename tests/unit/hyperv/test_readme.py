"""The program in the simulation's README runs as it stands there."""
import os
import pathlib
import re
import subprocess
import sys
import textwrap

from tests.hyperv import windows

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
README = REPOSITORY / "tests" / "hyperv" / "README.rst"


def test_the_program():
    section = re.search(r"In one process\n-+\n.*?::\n\n(    .*?)\n\n\S",
                        README.read_text(encoding="utf-8"), re.DOTALL)
    program = textwrap.dedent(section.group(1))
    assert "write_tpm" in program
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=REPOSITORY, capture_output=True,
        text=True, timeout=120,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY), PYMI_DIR=windows.pymi_dir()))
    assert done.returncode == 0, done.stderr[-2000:]
