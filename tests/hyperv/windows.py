"""The seams that let os-win and Nova's Hyper-V drivers run on Linux over a simulated host.

Nothing installed is edited: modules are changed right after they are first imported, by a finder
on ``sys.meta_path``, so that this module brings in neither os-win nor eventlet before
nova-compute patches its threads. Two ways in:

* :func:`run_as` for a process that plays one host (the site hook calls it);
* :func:`install` for tests in one process, again and again with other hosts, or with several hosts
  at once (:func:`acting_as`).
"""
import builtins
import ctypes
import functools
import importlib
import importlib.machinery
import os
import platform
import socket
import sys
import threading
import types

from tests.hyperv import clusapi, crypt32, current_host, windows_stand_ins
from tests.hyperv import mi as mi_face
from tests.hyperv.connection import LocalComputer, RemoteComputer
from tests.hyperv.storage import COMPUTER_NAME

_STAND_INS = {"vhdutils": "VhdUtils", "diskutils": "DiskUtils", "networkutils": "NetworkUtils",
              "metricsutils": "MetricsUtils"}

# What os-win and the drivers keep for the whole process: {module: attributes}, each a dictionary.
_CACHES = {
    "os_win.utils.baseutils": ("BaseUtils._WMI_CONS",),
    "os_win.utils.network.networkutils": tuple("NetworkUtils." + name for name in (
        "_switches", "_switch_ports", "_vlan_sds", "_profile_sds", "_hw_offload_sds", "_vsid_sds",
        "_sg_acl_sds", "_bandwidth_sds")),
    "os_win.utils.storage.smbutils": ("SMBUtils._loopback_share_map",),
    "compute_hyperv.nova.serialconsoleops": ("_console_handlers",),
    "nova.virt.hyperv.serialconsoleops": ("_console_handlers",)}

# The Windows libraries that code here loads with ctypes.WinDLL.
libraries = crypt32.Libraries(current_host.computer)

_real_node, _real_gethostname = platform.node, socket.gethostname
_installed = None
# In which thread an object of PyMI that was collected ends what it had with Windows.
_collecting = threading.local()


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
    one = RemoteComputer(socket_path, host_name)
    _prepare(_Installed(one.named, lambda: host_name), host_name)


def install(fabric, host_name=None):
    """Let this process run on hosts of a :class:`tests.hyperv.fabric.Fabric` in it.

    Can be called again; what was remembered of the hosts before is forgotten.

    :param host_name: the host that all code runs on which does not act as another; None: there is
        none, and code that does not say is refused
    :raises PymiMissing: see :func:`pymi_dir`
    """
    _prepare(_Installed(lambda name: LocalComputer(fabric, fabric.require_host(name)),
                        lambda: fabric.hosts()[0]["name"]), host_name)


def acting_as(host_name):
    """A context manager: its block, and the green threads begun in it, run on this host.

    :raises cim.Error: the fabric has no such host
    """
    return current_host.acting_on(_installed.computer(host_name))


def bind(service, host_name):
    """Let all methods of an object, such as a compute driver, run on this host; returns it."""
    return current_host.bind_methods(service, _installed.computer(host_name))


def forget(host_name):
    """Let all that programs on this host remember go with them: they were killed.

    What still acts on the host acts on the computer that they ran on; see
    :func:`tests.hyperv.current_host.computer`.
    """
    _installed.forget(host_name)


def is_remembered(one):
    """Whether a computer object stands for its computer still; see :func:`forget`."""
    return _installed.computer(one.name) is one


class _Installed:
    """The computers of the fabric on which this process runs.

    :param find: a function that gives a computer for a name or an address
    :param any_name: a function that gives the name of one of them
    """

    def __init__(self, find, any_name):
        self._find, self._any_name, self._computers = find, any_name, {}

    def computer(self, name):
        """The one object that stands for this computer: programs on it keep their caches there."""
        if name.lower() not in self._computers:
            found = self._find(name)
            # Another thread may have found it meanwhile.
            found = self._computers.setdefault(found.name.lower(), found)
            self._computers[name.lower()] = found
        return self._computers[name.lower()]

    def forget(self, name):
        """Let another object stand for this computer from now on."""
        old = self.computer(name)
        self._computers = {key: one for key, one in self._computers.items() if one is not old}

    def named(self, name):
        """What PyMI's sessions ask for: ``.`` is where the caller runs."""
        if name.lower() in (".", "localhost", ""):
            return current_host.computer()
        return self.computer(name)

    def on_some_host(self):
        """A context manager for code that asks for its host and then forgets it."""
        return current_host.acting_on(
            current_host.computer_or_none() or self.computer(self._any_name()))


def _prepare(installed, host_name):
    global _installed
    folder = pymi_dir()
    _installed = installed
    current_host.set_only(installed.computer(host_name) if host_name else None)
    platform.node, socket.gethostname = _node, _gethostname
    sys.modules.update(mi_face.make_modules(installed))
    if folder not in sys.path:
        sys.path.append(folder)
    if not hasattr(builtins, "WindowsError"):
        builtins.WindowsError = WindowsErrorOnLinux
    wmi = sys.modules.get("wmi")
    if wmi is not None:
        wmi.mi, wmi.mi_error, wmi._app = sys.modules["mi"], sys.modules["mi.mi_error"], None
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
    for name in _CHANGES:
        if name in sys.modules:
            _change(sys.modules[name])


def _node():
    here = current_host.computer_or_none()
    return here.name if here else _real_node()


def _gethostname():
    here = current_host.computer_or_none()
    return here.name if here else _real_gethostname()


# What is changed in which module, right after its own code has run. Each is done once a module.

def _change(module):
    if getattr(module, "_runs_on_simulated_hosts", False):
        return
    for path in _CACHES.get(module.__name__, ()):
        owner, _, attribute = path.rpartition(".")
        setattr(getattr(module, owner) if owner else module, attribute,
                current_host.PerComputerDict("%s.%s" % (module.__name__, path)))
    _CHANGES[module.__name__](module)
    module._runs_on_simulated_hosts = True


def _change_caches(module):
    pass  # they are all


def _change_libs(module):
    real = module.get_shared_lib_handle

    def get_shared_lib_handle(lib_name):
        return windows_stand_ins.Kernel32 if lib_name == module.KERNEL32 else real(lib_name)
    module.get_shared_lib_handle = get_shared_lib_handle


def _change_clusapi(module):
    # os-win's register() takes the library from ctypes.windll and declares its functions.
    library = clusapi.make_library(
        current_host.computer, windows_stand_ins.Kernel32.SetLastError, module)
    module.ctypes = types.SimpleNamespace(
        POINTER=ctypes.POINTER, windll=types.SimpleNamespace(clusapi=library))
    module.register()


def _change_clusapi_utils(module):
    module.clusapi = module.clusapi_def.lib_handle
    module.ClusApiUtils.__new__ = staticmethod(_remember_computer)
    _run_on_its_computer(module.ClusApiUtils, "open_cluster")


def _change_ctypes(module):
    # Not in ctypes itself: many programs take it for a sign of Windows.
    module.ctypes = types.SimpleNamespace(
        **vars(ctypes), WinDLL=libraries.WinDLL, get_last_error=libraries.get_last_error)


def _change_kernel32(module):
    module.kernel32 = windows_stand_ins.Kernel32


def _change_hostutils(module):
    _change_kernel32(module)
    module.HostUtils._windows_version = _VersionOfTheComputer()
    _run_on_its_computer(module.HostUtils, "get_windows_version", "get_local_ips")


def _change_baseutils(module):
    from os_win import exceptions
    wmi = importlib.import_module("wmi")
    # os-win made its own classes on Linux and has them as default arguments already: PyMI must
    # raise those.
    wmi.x_wmi, wmi.x_wmi_timed_out = exceptions.x_wmi, exceptions.x_wmi_timed_out
    module.wmi = wmi
    module.sys = types.SimpleNamespace(platform="win32")
    module.BaseUtils.__new__ = staticmethod(_remember_computer)
    module.BaseUtilsVirt._os_version = _VersionOfTheComputer(
        lambda version: [int(part) for part in version.split(".")])
    _run_on_its_computer(module.BaseUtils, "_get_wmi_conn", "_get_wmi_obj")
    _run_on_its_computer(module.BaseUtilsVirt, "_get_wmi_obj", "_compat_conn", "_vs_man_svc")


def _remember_computer(cls, *arguments, **keywords):
    made = object.__new__(cls)
    made._simulated_computer = current_host.computer_or_none()
    return made


class _VersionOfTheComputer:
    """The version of Windows that os-win keeps in a class, for each computer its own.

    It is never unset, so that os-win does not set it.

    :param form: what os-win makes of the text
    """

    def __init__(self, form=str):
        self._form = form

    def __get__(self, instance, owner):
        memory = current_host.computer().memory
        if "version" not in memory:
            memory["version"] = sys.modules["wmi"].WMI().Win32_OperatingSystem()[0].Version
        return self._form(memory["version"])


def _run_on_its_computer(cls, *names):
    """Let methods and properties run where their object was made, whoever calls them."""
    def running_there(function):
        @functools.wraps(function)
        def call(self, *arguments, **keywords):
            with current_host.of_an_object(self._simulated_computer):
                return function(self, *arguments, **keywords)
        return call
    for name in names:
        own = vars(cls)[name]
        setattr(cls, name, property(running_there(own.fget)) if isinstance(own, property)
                else running_there(own))


def _change_os_win_utils(module):
    real = module.get_ips

    def get_ips(addr):
        try:
            return [current_host.computer().address_of(addr)]
        except KeyError:
            return real(addr)
    module.get_ips = get_ips


class _HostUtilsOfTheComputer:
    """In the place of the one HostUtils by which os-win tells versions of Windows apart."""

    def __getattr__(self, name):
        memory = current_host.computer().memory
        if "hostutils" not in memory:
            memory["hostutils"] = sys.modules["os_win.utils.hostutils"].HostUtils()
        return getattr(memory["hostutils"], name)


def _change_clusterutils(module):
    module.sys = types.SimpleNamespace(platform="win32")


def _change_utilsfactory(module):
    module.utils = _HostUtilsOfTheComputer()
    for kind, name in _STAND_INS.items():
        module.utils_map[kind] = [{"path": "%s.%s" % (windows_stand_ins.__name__, name)}]


def _change_pathutils(module):
    # The administrative share of another host is its folder on this machine.
    for name in ("get_instances_dir", "get_remote_path"):
        if name in vars(module.PathUtils):
            setattr(module.PathUtils, name, _by_shares(vars(module.PathUtils)[name]))


def _by_shares(function):
    @functools.wraps(function)
    def call(self, *arguments, **keywords):
        here = current_host.computer()
        return here.storage.reached(function(self, *arguments, **keywords), here.name)
    return call


def _change_oslo_config(module):
    real = module.ConfigOpts.__getattr__

    def __getattr__(self, name):  # noqa: N807
        value = real(self, name)
        here = current_host.computer_or_none()
        # Who is on no host (the scheduler prints all settings) reads what is written there.
        if name == "instances_path" and here and COMPUTER_NAME in value:
            return here.storage.expand(value, here.name)
        return value
    module.ConfigOpts.__getattr__ = __getattr__


def _change_greenthread(module):
    # Every kind of spawning comes by one of these two.
    begin, spawn_n = module.GreenThread.__init__, module._spawn_n

    def __init__(self, parent):  # noqa: N807
        begin(self, parent)
        current_host.inherit(self)

    def _spawn_n(*arguments):
        timer, begun = spawn_n(*arguments)
        current_host.inherit(begun)
        return timer, begun
    module.GreenThread.__init__, module._spawn_n = __init__, _spawn_n


def _change_tpool(module):
    real, hubs = module.execute, module.greenthread.hubs

    def execute(function, *arguments, **keywords):
        function = current_host.carried(function)
        # PyMI ends a connection where the garbage collector finds it. That may be in one of the
        # two greenlets which bring the pool's results to those who wait: they would wait for ever
        # for themselves, and so would all others. A nova-compute on Windows is not spared that.
        hub = getattr(hubs._threadlocal, "hub", None)
        if getattr(_collecting, "depth", 0) or module.greenthread.getcurrent() in (
                module._coro, hub and hub.greenlet):
            return function(*arguments, **keywords)
        return real(function, *arguments, **keywords)
    module.execute = execute


def _change_wmi(module):
    # Or in a green thread that is in the middle of a transaction: Nova's tests have one connection
    # to the database for all green threads, and what another one rolls back then is lost for this.
    def at_once(end):
        def __del__(self):  # noqa: N807
            _collecting.depth = getattr(_collecting, "depth", 0) + 1
            try:
                end(self)
            finally:
                _collecting.depth -= 1
        return __del__
    for owner in (module._Connection, module._EventWatcher):
        owner.__del__ = at_once(owner.__del__)


_CHANGES = {
    "os_win._utils": _change_os_win_utils,
    "os_win.utils.winapi.libs": _change_libs,
    "os_win.utils.winapi.libs.clusapi": _change_clusapi,
    "os_win.utils.compute._clusapi_utils": _change_clusapi_utils,
    "os_win.utils.compute.clusterutils": _change_clusterutils,
    "os_win.utils.hostutils": _change_hostutils,
    "os_win.utils.pathutils": _change_kernel32,
    "os_win.utils.win32utils": _change_kernel32,
    "os_win.utils.baseutils": _change_baseutils,
    "os_win.utilsfactory": _change_utilsfactory,
    "compute_hyperv.nova.pathutils": _change_pathutils,
    "nova.virt.hyperv.pathutils": _change_pathutils,
    "oslo_config.cfg": _change_oslo_config,
    "eventlet.greenthread": _change_greenthread,
    "eventlet.tpool": _change_tpool,
    "wmi": _change_wmi,
    "vtpm_compute.windows_libraries": _change_ctypes}
_CHANGES.update((name, _change_caches) for name in _CACHES if name not in _CHANGES)


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
            with _installed.on_some_host():
                run(module)
            _change(module)
        spec.loader.exec_module = exec_module
        return spec
