"""Installed as ``nova.virt.vtpm_hyperv``: ``compute_driver = vtpm_hyperv.HyperVDriver``.

nova-compute imports drivers from the package ``nova.virt`` only. A driver is imported when it is
asked for: the stock driver below it may be the only one that is installed.
"""

from __future__ import annotations

import importlib

import vtpm_compute.vtpm_driver  # noqa: F401 - registers the options

_MODULES = {
    "HyperVDriver": "vtpm_compute.compute_hyperv_driver",
}

__all__ = ["HyperVDriver"]


def __getattr__(name: str) -> object:
    """:raises ImportError: when the stock driver below the one asked for is not installed."""
    if name not in _MODULES:
        raise AttributeError("module %s has no attribute %s" % (__name__, name))
    return getattr(importlib.import_module(_MODULES[name]), name)
