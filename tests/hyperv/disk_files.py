"""Which disk file is based on which, and what a start needs of them."""
import os

from tests.hyperv import definition as definitions
from tests.hyperv.windows_stand_ins import VhdUtils

SUFFIXES = (".vhd", ".vhdx", ".avhd", ".avhdx")

# What users report of a start without a disk; a parent is named likewise
# [assumption disks-of-a-start].
ATTACHMENT = (
    "Attachment '%s' not found. Error: 'The system cannot find the file specified.' (0x80070002)")


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


def missing(definition):
    """What Windows says of each disk, parent of a disk and DVD image that is not there.

    :param definition: a VM's or a snapshot's; see :mod:`tests.hyperv.definition`
    """
    return [ATTACHMENT % link for path, _ in definitions.all_disks(definition)
            for link in chain(path) if not os.path.exists(link)]


def opened(definition):
    """The virtual hard disks that a running VM has open.

    :returns: (those that it writes to, those under them that it reads): sets of paths
    """
    chains = [chain(path) for path, _ in definitions.disks(definition)]
    return ({os.path.realpath(links[0]) for links in chains},
            {os.path.realpath(link) for links in chains for link in links[1:]})
