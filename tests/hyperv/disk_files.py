"""Which disk file is based on which."""
import os

from tests.hyperv.windows_stand_ins import VhdUtils

SUFFIXES = (".vhd", ".vhdx", ".avhd", ".avhdx")


def is_disk(path):
    return str(path).lower().endswith(SUFFIXES)


def parent(path):
    """The parent of a differencing disk; None of any other file, and of one that is not there."""
    if not is_disk(path) or not os.path.exists(path):
        return None
    return VhdUtils().get_vhd_parent_path(path)


def chain(path):
    """A disk file and those that it is based on."""
    found = []
    while path:
        found.append(path)
        path = parent(path)
    return found
