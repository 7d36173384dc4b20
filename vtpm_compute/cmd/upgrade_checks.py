"""The checks of ``upgrade check``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import nova.conf
from nova.scheduler import filters
from oslo_upgradecheck import upgradecheck
from oslo_upgradecheck.upgradecheck import Code, Result

from vtpm_compute import conf as compute_conf
from vtpm_compute.cmd import option_files
from vtpm_scheduling import conf, policy

CONF = nova.conf.CONF
# Where Nova is one process, or one file serves all, controllers have it too.
compute_conf.register_opts(CONF)

_FILTER = "GuardedHostFilter"
_PATH = "vtpm_scheduling.guarded_host_filter." + _FILTER
# Names of hosts in a message; the others are counted.
_SHOWN = 5


class UpgradeChecks(upgradecheck.UpgradeCommands):
    """The checks, in their order.

    :param records: :mod:`vtpm_compute.cmd.nova_records`.
    """

    display_title = "vTPM on Hyper-V Upgrade Check Results"

    def __init__(self, records: Any) -> None:
        super().__init__()
        self._records = records

    def check_filter(self) -> Result:
        """Whether nova-scheduler has the filter, and asks it first."""
        section = CONF.filter_scheduler
        try:
            classes = filters.HostFilterHandler().get_matching_classes(section.available_filters)
        except (ImportError, AttributeError, ValueError) as exc:
            return Result(Code.FAILURE, "[filter_scheduler] available_filters cannot be loaded: "
                          "%s. Correct it." % exc)
        if all("%s.%s" % (one.__module__, one.__name__) != _PATH for one in classes):
            return Result(Code.FAILURE, "%s is not in [filter_scheduler] available_filters: add "
                          "the line available_filters = %s." % (_FILTER, _PATH))
        enabled = list(section.enabled_filters)
        if _FILTER not in enabled:
            return Result(Code.FAILURE, "%s is not in [filter_scheduler] enabled_filters: servers "
                          "with a vTPM go to any host. Put it first." % _FILTER)
        if enabled[0] != _FILTER:
            return Result(Code.WARNING, "%s is not the first of [filter_scheduler] "
                          "enabled_filters: after one that left no host it is not asked, and "
                          "users do not read why. Put it before %s." % (_FILTER, enabled[0]))
        return Result(Code.SUCCESS)

    def check_aggregates(self) -> Result:
        """Whether there are fabrics to choose hosts from."""
        found = self._records.aggregates()
        if not found:
            if not self._records.require_fabric_aggregate():
                return Result(Code.SUCCESS)
            return Result(
                Code.FAILURE, "No host aggregate carries %s, so no host gets a server with a "
                "vTPM. Make one (openstack aggregate set --property %s=LABEL AGGREGATE), or, with "
                "one fabric, set [vtpm_scheduling] require_fabric_aggregate = false." % (
                    policy.AGGREGATE_FABRIC, policy.AGGREGATE_FABRIC))
        empty = sorted(name for name, (_, hosts) in found.items() if not hosts)
        several = sorted(host for host, labels in self._records.fabric_labels().items()
                         if len(labels) > 1)
        said = []
        if empty:
            said.append("Aggregates without hosts: %s." % _shown(empty))
        if several:
            said.append("Hosts in several fabrics get no servers with a vTPM: %s. Leave each in "
                        "one." % _shown(several))
        return Result(Code.WARNING, " ".join(said)) if said else Result(Code.SUCCESS)

    def check_reports(self) -> Result:
        """Whether the Hyper-V hosts report what the filter reads."""
        hosts = [one for one in self._records.compute_nodes()
                 if (one.facts.hypervisor_type or "").lower() == policy.HYPERV]
        if not hosts:
            return Result(Code.WARNING, "There is no Hyper-V host.")
        newer = [one.host for one in hosts
                 if one.report is not None and one.report.version > policy.REPORT_VERSION]
        older = [one.host for one in hosts
                 if one.report is not None and one.report.version < policy.REPORT_VERSION]
        silent = [one.host for one in hosts if one.report is None]
        said = []
        if newer:
            said.append("Hosts report in a newer form than this one (%d): %s. Upgrade the "
                        "controllers first." % (policy.REPORT_VERSION, _shown(newer)))
        if older:
            said.append("Hosts report in an older form than this one (%d): %s. Upgrade them." % (
                policy.REPORT_VERSION, _shown(older)))
        if silent:
            said.append("Hyper-V hosts without a report, which get no servers with a vTPM: %s. "
                        "Set their compute_driver, if they are to have some." % _shown(silent))
        code = Code.FAILURE if newer else Code.WARNING if said else Code.SUCCESS
        return Result(code, " ".join(said) or None)

    def check_fabrics(self) -> Result:
        """Whether each fabric's hosts have one guardian, as far as they are in use."""
        mixed = policy.mixed_fabrics(
            one.facts for one in self._records.compute_nodes() if one.is_in_use)
        if not mixed:
            return Result(Code.SUCCESS)
        return Result(Code.FAILURE, "%s. Correct the aggregates, or the hosts' guardians." % (
            "; ".join(policy.mixed_sentence(label, [one[:16] + "..." for one in thumbprints])
                      for label, thumbprints in sorted(mixed.items()))))

    def check_options(self) -> Result:
        """Whether nova.conf has options of this project that there are not."""
        found = []
        ((_, scheduling),) = conf.list_opts()
        for section, known in (
                (conf.SECTION, scheduling),
                (compute_conf.SECTION, option_files.of_compute(CONF.vtpm_compute.auth_type))):
            found += option_files.strange(CONF.config_file or [], section, known)
        return Result(Code.WARNING, "; ".join(found) + ".") if found else Result(Code.SUCCESS)

    _upgrade_checks = (
        ("Scheduler filter", check_filter),
        ("Host aggregates of fabrics", check_aggregates),
        ("Hosts' reports", check_reports),
        ("Mixed fabrics", check_fabrics),
        ("Options", check_options),
    )


def _shown(names: Iterable[str]) -> str:
    names = sorted(set(names))
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (" and %d more" % more if more > 0 else "")
