"""What this host can do: for the resource tracker (stats) and for placement (traits)."""

from __future__ import annotations

import datetime
from typing import Any

from oslo_log import log as logging

from vtpm_compute import errors, fabric_guardian, guardians
from vtpm_scheduling import policy

LOG = logging.getLogger(__name__)

TRAIT_VTPM = "CUSTOM_HYPERV_VTPM"
_TRAITS = (TRAIT_VTPM, policy.TRAIT_GUARDED_HOST)


def read(client: guardians.HostGuardianClient, fabric: fabric_guardian.FabricGuardian,
         hypervisor_version: int) -> policy.HostReport:
    """Read the host's state anew.

    :param client: of this host's Host Guardian Service client.
    :param fabric: finds the fabric's guardian.
    :param hypervisor_version: Nova's integer.
    :returns: the report. What cannot be read counts as not guarded, and is logged: a report must
        never end the resource tracker's run.
    """
    if hypervisor_version < policy.MIN_HYPERVISOR_VERSION:
        # The Host Guardian Service's namespace came with Windows Server 2016.
        return policy.HostReport(False, hypervisor_version)
    read_at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    try:
        configuration = client.read_configuration()
    except errors.HostGuardianError as exc:
        LOG.warning("This host cannot run vTPMs: %s", exc)
        return policy.HostReport(False, hypervisor_version, read_at=read_at)
    thumbprint = None
    try:
        thumbprint = fabric.find().thumbprint
    except errors.HostGuardianError as exc:
        LOG.warning("This host cannot run vTPMs: %s", exc)
    return policy.HostReport(
        configuration.guarded, hypervisor_version, configuration.attestation_status,
        read_at=read_at, fabric_thumbprint=thumbprint)


def update_traits(provider_tree: Any, node_name: str, report: policy.HostReport) -> None:
    """Say in placement what the report says; takes back what is no longer so.

    :param provider_tree: Nova's ProviderTree, changed in place.
    """
    if report.guarded and report.fabric_thumbprint:
        provider_tree.add_traits(node_name, *_TRAITS)
    else:
        provider_tree.remove_traits(node_name, *_TRAITS)
