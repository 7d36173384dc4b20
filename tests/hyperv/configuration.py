"""Checks the configuration of a fabric before anything is made of it.

The keys are those of :class:`tests.hyperv.fabric.Fabric`; those of a host are the parameters of its
``add_host``.
"""
import inspect
import ipaddress
import re

from tests.hyperv.attestation import STATUSES
from tests.hyperv.storage import Storage

_KEYS = ("fabrics", "hosts", "storage", "clusters")
_CLUSTER_KEYS = ("name", "nodes")

# Hyper-V's namespace root/virtualization/v2 came with Server 2012 (6.2).
_VERSION = re.compile(r"(6\.[2-9]|[1-9]\d+\.\d+)\.\d+(\.\d+)?")


class ConfigurationError(ValueError):
    """The configuration has a key that there is not, or a value that is none for its key."""


def check(config, add_host):
    """Refuse a configuration that no fabric can be made of.

    :param config: see :class:`tests.hyperv.fabric.Fabric`
    :param add_host: the function whose parameters are the keys of a host
    :raises ConfigurationError: see there
    """
    _check_keys("the configuration", config, _KEYS)
    fabrics = _list("fabrics", config.get("fabrics", ()))
    for name in fabrics:
        _check_text("fabrics", name)
    _check_unique("fabrics", fabrics)
    _check_storage(config.get("storage"))
    hosts = _list("hosts", config.get("hosts", ()))
    for number, host in enumerate(hosts):
        _check_keys("hosts[%d]" % number, host, inspect.signature(add_host).parameters, ("name",))
        check_host(host, fabrics)
    _check_unique("hosts", [host["name"] for host in hosts])
    _check_unique("addresses of hosts", [host["address"] for host in hosts if host.get("address")])
    clusters = _list("clusters", config.get("clusters", ()))
    for number, cluster in enumerate(clusters):
        _check_keys("clusters[%d]" % number, cluster, _CLUSTER_KEYS, _CLUSTER_KEYS)
        check_cluster(cluster, [host["name"] for host in hosts])
    _check_unique("clusters", [cluster["name"] for cluster in clusters])
    _check_unique("nodes of clusters", [node for cluster in clusters for node in cluster["nodes"]])


def check_host(values, fabrics):
    """Refuse values that are none for a host.

    :param values: {key: value}
    :param fabrics: the names of the fabrics that there are
    :raises ConfigurationError: see there
    """
    where = "host %r: " % (values["name"],)
    for key, value in values.items():
        CHECKS[key](where + key, value, fabrics)


def check_cluster(values, hosts):
    """Refuse values that are none for a cluster.

    :param values: {"name", "nodes"}
    :param hosts: the names of the hosts that there are
    :raises ConfigurationError: see there
    """
    _check_text("clusters: name", values["name"])
    where = "cluster %r: nodes" % values["name"]
    known = [host.lower() for host in hosts]
    for node in _list(where, values["nodes"]):
        _check_text(where, node)
        if node.lower() not in known:
            raise ConfigurationError("%s: no host %r; there are: %s" % (
                where, node, ", ".join(sorted(hosts)) or "none"))
    if not values["nodes"]:
        raise ConfigurationError("%s: a cluster has a node" % where)
    _check_unique(where, values["nodes"])


def _check_keys(where, value, known, needed=()):
    if not isinstance(value, dict):
        raise ConfigurationError("%s: a dictionary is needed, not %r" % (where, value))
    unknown = sorted(repr(key) for key in set(value) - set(known))
    if unknown:
        raise ConfigurationError("%s: unknown %s; known: %s" % (
            where, ", ".join(unknown), ", ".join(known)))
    missing = [key for key in needed if key not in value]
    if missing:
        raise ConfigurationError("%s: %s is missing" % (where, ", ".join(missing)))


def _list(where, value):
    if not isinstance(value, (list, tuple)):
        raise ConfigurationError("%s: a list is needed, not %r" % (where, value))
    return value


def _check_unique(where, names):
    seen = set()
    for name in names:
        if name.lower() in seen:
            raise ConfigurationError("%s: %r is there twice" % (where, name))
        seen.add(name.lower())


def _check_storage(template):
    if template is not None:
        _check_text("storage", template)
        try:
            Storage(template)
        except ValueError as fault:
            raise ConfigurationError("storage: %s" % fault) from None


# The checks of values: functions of (place, value, names of fabrics).

def _check_text(where, value, fabrics=()):
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError("%s: a text is needed, not %r" % (where, value))


def _check_version(where, value, fabrics):
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise ConfigurationError(
            "%s: a version of Windows from 6.2 on is needed, such as 10.0.17763, not %r" % (
                where, value))


def _check_truth(where, value, fabrics):
    if not isinstance(value, bool):
        raise ConfigurationError("%s: true or false is needed, not %r" % (where, value))


def _check_positive(where, value, fabrics):
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError("%s: a number from 1 on is needed, not %r" % (where, value))


def _check_fabric(where, value, fabrics):
    _check_text(where, value)
    if value not in fabrics:
        raise ConfigurationError("%s: no fabric %r; there are: %s" % (
            where, value, ", ".join(sorted(fabrics)) or "none"))


def _check_status(where, value, fabrics):
    if isinstance(value, bool) or value not in STATUSES:
        raise ConfigurationError("%s: %r is no status; there are: %s" % (
            where, value, ", ".join(map(str, STATUSES))))


def _check_address(where, value, fabrics):
    try:
        if not isinstance(value, str):
            raise ValueError
        ipaddress.ip_address(value)
    except ValueError:
        raise ConfigurationError("%s: an IP address is needed, not %r" % (where, value)) from None


def _each(check_item):
    def check_list(where, value, fabrics):
        for item in _list(where, value):
            check_item(where, item, fabrics)
    return check_list


def _or_none(check_value):
    def check_optional(where, value, fabrics):
        if value is not None:
            check_value(where, value, fabrics)
    return check_optional


CHECKS = {
    "name": _check_text, "version": _check_version, "fabric": _or_none(_check_fabric),
    "guarded": _check_truth, "attestation_status": _or_none(_check_status),
    "guardians": _each(_check_fabric), "processors": _check_positive,
    "memory_mb": _check_positive, "address": _or_none(_check_address),
    "live_migration": _check_truth,
    "live_migration_addresses": _or_none(_each(_check_address)),
    "shielded_vm_tools": _check_truth}
