"""The seams that let os-win and Nova's Hyper-V drivers run on Linux over a simulated host.

Nothing installed is edited: modules are changed right after they are first imported, by a finder
on ``sys.meta_path``, so that this module brings in neither os-win nor eventlet before
nova-compute patches its threads. Two ways in:

* :func:`run_as` for a process that plays one host (the site hook calls it);
* :func:`install` for tests in one process, again and again with other hosts.
"""
import builtins
import importlib
import importlib.machinery
import os
import platform
import socket
import sys
import types

from tests.hyperv import mi as mi_face
from tests.hyperv import windows_stand_ins
from tests.hyperv.connection import LocalComputer, RemoteComputer

_STAND_INS = {"vhdutils": "VhdUtils", "diskutils": "DiskUtils", "networkutils": "NetworkUtils",
              "metricsutils": "MetricsUtils", "clusterutils": "ClusterUtils"}


class PymiMissing(Exception):
    """PyMI's files are not where they were looked for."""


class WindowsErrorOnLinux(OSError):
    """``WindowsError``, which Linux lacks; no error of Linux is one."""

    winerror = None


def pymi_dir():
    """The folder with PyMI's unpacked wheel: ``$PYMI_DIR``, else ``<sys.prefix>/pymi``.

    :raises PymiMissing: there is no ``wmi`` package in it
    """
    folder = os.environ.get("PYMI_DIR") or os.path.join(sys.prefix, "pymi")
    if not os.path.exists(os.path.join(folder, "wmi", "__init__.py")):
        raise PymiMissing(
            "No PyMI in %s. Unpack its wheel there (pip install --no-deps --platform win_amd64 "
            "--python-version 3.11 --only-binary=:all: --target FOLDER pymi==1.0.9), or set "
            "PYMI_DIR." % folder)
    return folder


def run_as(host_name, socket_path):
    """Let this process run on a host of a fabric process, for its whole life.

    :param host_name: the computer name; also what platform.node() and socket.gethostname() say
    :param socket_path: of the fabric process
    :raises PymiMissing: see :func:`pymi_dir`
    """
    platform.node = socket.gethostname = lambda: host_name
    _prepare(RemoteComputer(socket_path, host_name))


def install(fabric, host_name):
    """Let this process run on a host of a :class:`tests.hyperv.fabric.Fabric` in it.

    Can be called again with another host; drivers made before keep the old one's connections and
    must not be used any more.

    :raises PymiMissing: see :func:`pymi_dir`
    """
    platform.node = lambda: host_name
    _prepare(LocalComputer(fabric, host_name))
    _forget_connections()


def _prepare(computer):
    folder = pymi_dir()
    sys.modules.update(mi_face.make_modules(computer))
    if folder not in sys.path:
        sys.path.append(folder)
    if not hasattr(builtins, "WindowsError"):
        builtins.WindowsError = WindowsErrorOnLinux
    wmi = sys.modules.get("wmi")
    if wmi is not None:
        wmi.mi, wmi.mi_error, wmi._app = sys.modules["mi"], sys.modules["mi.mi_error"], None
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
    for name, change in _CHANGES.items():
        if name in sys.modules:
            change(sys.modules[name])


def _forget_connections():
    """Drop what os-win remembers of the host it ran on before."""
    baseutils = sys.modules.get("os_win.utils.baseutils")
    if baseutils is None:
        return
    baseutils.BaseUtils._WMI_CONS.clear()
    baseutils.BaseUtilsVirt._os_version = None
    hostutils = sys.modules.get("os_win.utils.hostutils")
    if hostutils is not None:
        hostutils.HostUtils._windows_version = None
    utilsfactory = sys.modules.get("os_win.utilsfactory")
    if utilsfactory is not None:
        utilsfactory.utils = hostutils.HostUtils()


# What is changed in which module, right after its own code has run.

def _change_libs(module):
    real = module.get_shared_lib_handle

    def get_shared_lib_handle(lib_name):
        return windows_stand_ins.Kernel32 if lib_name == module.KERNEL32 else real(lib_name)
    if real.__name__ == real.__qualname__:  # not changed before
        module.get_shared_lib_handle = get_shared_lib_handle


def _change_kernel32(module):
    module.kernel32 = windows_stand_ins.Kernel32


def _change_baseutils(module):
    from os_win import exceptions
    wmi = importlib.import_module("wmi")
    # os-win made its own classes on Linux and has them as default arguments already: PyMI must
    # raise those.
    wmi.x_wmi, wmi.x_wmi_timed_out = exceptions.x_wmi, exceptions.x_wmi_timed_out
    module.wmi = wmi
    module.sys = types.SimpleNamespace(platform="win32")


def _change_utilsfactory(module):
    for kind, name in _STAND_INS.items():
        module.utils_map[kind] = [{"path": "%s.%s" % (windows_stand_ins.__name__, name)}]


def _change_pathutils(module):
    # All simulated hosts are one machine: another host's share is a folder of this one.
    module.PathUtils.get_remote_path = lambda self, remote_server, remote_path: remote_path


_CHANGES = {
    "os_win.utils.winapi.libs": _change_libs,
    "os_win.utils.hostutils": _change_kernel32,
    "os_win.utils.pathutils": _change_kernel32,
    "os_win.utils.win32utils": _change_kernel32,
    "os_win.utils.baseutils": _change_baseutils,
    "os_win.utilsfactory": _change_utilsfactory,
    "compute_hyperv.nova.pathutils": _change_pathutils,
    "nova.virt.hyperv.pathutils": _change_pathutils}


class _AfterImport:
    """A finder that finds nothing itself, and changes a module once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name not in _CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            _CHANGES[name](module)
        spec.loader.exec_module = exec_module
        return spec
