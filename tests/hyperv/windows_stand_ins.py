"""Stand-ins for what os-win does in Windows' own libraries instead of WMI.

Each has the methods that Nova's Hyper-V drivers call, and no others: a call of another one is an
AttributeError that says what is missing. A virtual disk here is any file; what is known of it
stands in a trailer behind its contents.
"""
import json
import os
import shutil
import time

from tests.hyperv import native

_ERROR_FILE_EXISTS = 80

_TRAILER = b"\nSIMULATED-DISK "
_FOOTER = 512
_VHD_COOKIE, _VHDX_SIGNATURE = b"conectix", b"vhdxfile"
# An image that Glance and VhdUtils take for a VHDX; a simulated host asks no more of it.
TINY_VHDX = _VHDX_SIGNATURE + bytes(512)


class VhdUtils:
    """In the place of os_win.utils.storage.virtdisk.vhdutils.VHDUtils (virtdisk.dll)."""

    def get_vhd_format(self, vhd_path):
        """By name, else by contents: a VHDX's signature begins it, a VHD's footer ends it."""
        by_name = os.path.splitext(vhd_path)[1][1:].upper()
        if by_name in ("VHD", "VHDX"):
            return by_name
        with open(vhd_path, "rb") as disk:
            if disk.read(len(_VHDX_SIGNATURE)) == _VHDX_SIGNATURE:
                return "VHDX"
            disk.seek(max(os.path.getsize(vhd_path) - _FOOTER, 0))
            if disk.read(len(_VHD_COOKIE)) == _VHD_COOKIE:
                return "VHD"
        from os_win import exceptions
        raise exceptions.VHDException("Could not retrieve VHD format: %s" % vhd_path)

    def get_best_supported_vhd_format(self):
        return "VHDX"

    def create_dynamic_vhd(self, path, max_internal_size):
        _write(path, _VHDX_SIGNATURE, {"VirtualSize": max_internal_size})

    def create_differencing_vhd(self, path, parent_path):
        _write(path, _VHDX_SIGNATURE, {"VirtualSize": self.get_vhd_size(parent_path)["VirtualSize"],
                                       "ParentPath": parent_path})

    def get_vhd_info(self, vhd_path, info_members=None, open_parents=False):
        return _read(vhd_path)[1]

    def get_vhd_size(self, vhd_path):
        return {"VirtualSize": self.get_vhd_info(vhd_path)["VirtualSize"]}

    def get_vhd_parent_path(self, vhd_path):
        return self.get_vhd_info(vhd_path).get("ParentPath")

    def get_internal_vhd_size_by_file_size(self, vhd_path, new_vhd_file_size):
        return new_vhd_file_size

    def resize_vhd(self, vhd_path, new_max_size, is_file_max_size=True, validate_new_size=True):
        """To another size; a smaller one is refused unless ``validate_new_size`` is false."""
        size = self.get_vhd_size(vhd_path)["VirtualSize"]
        if validate_new_size and new_max_size < size:
            from os_win import exceptions
            raise exceptions.VHDException(
                "Cannot resize image %s to a smaller size. Image virtual size: %s, Requested "
                "virtual size: %s" % (vhd_path, size, new_max_size))
        self._update(vhd_path, VirtualSize=new_max_size)

    def reconnect_parent_vhd(self, child_path, parent_path):
        self._update(child_path, ParentPath=parent_path)

    def merge_vhd(self, vhd_path, delete_merged_image=True):
        """Write a differencing disk into its parent.

        Source: Microsoft Learn, "MergeVirtualDisk function"; winerror.h (ERROR_VHD_INVALID_TYPE,
        ERROR_VHD_PARENT_VHD_NOT_FOUND).
        """
        contents, information = _read(vhd_path)
        parent = information.get("ParentPath")
        if not parent:
            raise _vhd_error("MergeVirtualDisk", 0xC03A001B, "The virtual disk type is invalid.")
        if not os.path.exists(parent):
            raise _vhd_error("OpenVirtualDisk", 0xC03A000D, _BROKEN_CHAIN)
        below, kept = _read(parent)
        # What no guest has written to is only its header: all that it shows is its parent's.
        written = contents != _VHDX_SIGNATURE
        _write(parent, contents if written else below,
               {**kept, "VirtualSize": information["VirtualSize"]})
        if delete_merged_image:
            os.remove(vhd_path)

    @staticmethod
    def _update(path, **changed):
        contents, information = _read(path)
        _write(path, contents, {**information, **changed})


_BROKEN_CHAIN = (
    "The chain of virtual hard disks is broken. The system cannot locate the parent virtual hard "
    "disk for the differencing disk.")


def _vhd_error(function, code, words):
    from os_win import exceptions
    return exceptions.VHDWin32APIException(
        func_name=function, error_code=code, error_message=words)


# Of MSFT_StorageSetting.NewDiskPolicy: new disks are for virtual machines.
_OFFLINE_ALL = 3


class DiskUtils:
    """In the place of os_win.utils.storage.diskutils.DiskUtils."""

    def get_disk_capacity(self, path, ignore_errors=False):
        """(total, free) bytes of the disk with this path, or with its nearest parent."""
        path = os.path.abspath(path)
        while not os.path.exists(path):
            path = os.path.dirname(path)
        usage = shutil.disk_usage(path)
        return usage.total, usage.free

    def get_device_number_from_device_name(self, device_name):
        return device_name.removeprefix("\\\\.\\PHYSICALDRIVE")

    def get_new_disk_policy(self):
        return _OFFLINE_ALL


class NetworkUtils:
    """In the place of os_win.utils.network.networkutils: every port is connected at once."""

    def connect_vnic_to_vswitch(self, vswitch_name, switch_port_name):
        pass


class MetricsUtils:
    """In the place of os_win.utils.metrics.metricsutils.MetricsUtils."""

    def enable_vm_metrics_collection(self, vm_name):
        pass

    def enable_port_metrics_collection(self, switch_port_name):
        pass

    def enable_disk_metrics_collection(self, attached_disk_path=None, is_physical=False,
                                       serial=None):
        pass


class Kernel32:
    """The functions of kernel32.dll that os-win calls in a driver's ordinary life."""

    _started = time.monotonic()
    _last_errors = {}  # {native thread: number}

    @classmethod
    def CopyFileW(cls, source, target, fail_if_exists):  # noqa: N802
        if fail_if_exists.value and os.path.exists(target.value):
            cls.SetLastError(_ERROR_FILE_EXISTS)
            return 0
        shutil.copyfile(source.value, target.value)
        return 1

    @classmethod
    def GetTickCount64(cls):  # noqa: N802
        return int((time.monotonic() - cls._started) * 1000)

    @staticmethod
    def IsProcessorFeaturePresent(feature):  # noqa: N802
        return 0

    @classmethod
    def GetLastError(cls):  # noqa: N802
        return cls._last_errors.get(_native_thread(), 0)

    @classmethod
    def SetLastError(cls, number):  # noqa: N802
        cls._last_errors[_native_thread()] = number

    @staticmethod
    def FormatMessageA(*arguments):  # noqa: N802
        return 0

    @staticmethod
    def LocalFree(handle):  # noqa: N802
        return 0

    @staticmethod
    def CloseHandle(handle):  # noqa: N802
        return 1


def _native_thread():
    return native.module("threading").get_ident()


def _read(path):
    """(contents, information) of a disk file; one without a trailer is as large as it looks."""
    with open(path, "rb") as disk:
        contents, found, trailer = disk.read().rpartition(_TRAILER)
    if not found:
        return trailer, {"VirtualSize": len(trailer)}
    return contents, json.loads(trailer)


def _write(path, contents, information):
    with open(path, "wb") as disk:
        disk.write(contents + _TRAILER + json.dumps(information).encode("utf-8"))
