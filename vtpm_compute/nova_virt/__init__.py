"""Installed as ``nova.virt.vtpm_hyperv``: ``compute_driver = vtpm_hyperv.HyperVDriver``.

nova-compute imports drivers from the package ``nova.virt`` only.
"""

from vtpm_compute.driver import HyperVDriver

__all__ = ["HyperVDriver"]
