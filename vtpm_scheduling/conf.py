"""Options of the scheduler's half, section ``[vtpm_scheduling]`` of nova-scheduler's nova.conf."""

from __future__ import annotations

from oslo_config import cfg

SECTION = "vtpm_scheduling"


def _group() -> cfg.OptGroup:
    # A new one each time: oslo.config keeps the options of a group in the object itself.
    return cfg.OptGroup(
        SECTION, title="vTPM scheduling",
        help="How GuardedHostFilter chooses hosts for servers that ask for a vTPM.")


OPTIONS = [
    cfg.BoolOpt(
        "require_fabric_aggregate", default=True,
        help="""
Whether a host must be in a host aggregate that carries ``hgs_fabric`` to run servers with a vTPM.

``hgs_fabric=<label>`` on an aggregate says that its hosts are attested by one Host Guardian
Service. A cloud that has a single fabric and no such aggregates may turn this off; hosts that do
carry labels are then still kept apart by them.
"""),
    cfg.BoolOpt(
        "require_guarded_trait", default=True,
        help="""
Whether placement is asked for hosts with the trait ``CUSTOM_HYPERV_GUARDED_HOST`` where a server
gets a vTPM.

It spares the scheduler the hosts that cannot run such a server, and keeps placement's limit of
candidates from hiding those that can. Turned off, the filter alone looks at the hosts, by what
they report to Nova. A host that a server is forced to is checked in either case.
"""),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the section with ``conf``; repeating it is harmless."""
    conf.register_group(_group())
    conf.register_opts(OPTIONS, group=SECTION)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """The options for ``oslo-config-generator`` (entry point ``oslo.config.opts``)."""
    return [(_group(), OPTIONS)]
