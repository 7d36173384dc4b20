"""Puts a simulated Hyper-V host under every process of an environment that asks for one.

A ``.pth`` file in site-packages runs :func:`activate` at the start of each Python. It does nothing
unless both variables are set:

* ``SIMULATED_HYPERV_HOST``: the computer name this process runs on;
* ``SIMULATED_HYPERV_SOCKET``: the socket of the fabric process.
"""
import os
import pathlib
import sys

HOST_VARIABLE, SOCKET_VARIABLE = "SIMULATED_HYPERV_HOST", "SIMULATED_HYPERV_SOCKET"
FILE_NAME = "simulated_hyperv.pth"

# One line, since site runs lines; it looks at the environment before it imports anything of ours.
_LINE = (
    "import os, sys; os.environ.get({host!r}) and os.environ.get({socket!r}) and "
    "(sys.path.append({root!r}), os.environ.setdefault('PYMI_DIR', {pymi!r}), "
    "__import__('tests.hyperv.site_hook', fromlist=['activate']).activate())\n")


def install_site_hook(site_packages_dir, repository_root, pymi_dir):
    """Write the ``.pth`` file.

    :param site_packages_dir: the folder of the environment
    :param repository_root: where the package ``tests`` lies
    :param pymi_dir: where PyMI's wheel is unpacked; PYMI_DIR goes before it
    :returns: the path of the file
    """
    path = pathlib.Path(site_packages_dir, FILE_NAME)
    path.write_text(_LINE.format(
        host=HOST_VARIABLE, socket=SOCKET_VARIABLE, root=str(repository_root),
        pymi=str(pymi_dir)), encoding="utf-8")
    return path


def activate():
    """Run this process on the host that the environment variables name.

    ``site`` prints an error of a ``.pth`` line and goes on; a process that should run on a
    simulated host must not run on the real one, so this ends it.
    """
    try:
        from tests.hyperv import windows
        windows.run_as(os.environ[HOST_VARIABLE], os.environ[SOCKET_VARIABLE])
    except Exception as fault:  # noqa: BLE001 - see above
        sys.stderr.write("simulated Hyper-V host: %s: %s\n" % (type(fault).__name__, fault))
        sys.stderr.flush()
        os._exit(3)
