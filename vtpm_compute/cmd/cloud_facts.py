"""What a cloud's API shows of images, flavors, servers and hosts: read, nothing decided.

Each service is asked in the version that has what is needed, and no later one: from microversion
2.88 on, Nova's API asks every host for its uptime when hypervisors are listed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import requests
from keystoneauth1 import exceptions as ksa_exceptions

from vtpm_compute import errors
from vtpm_compute.cmd import explanation, login
from vtpm_scheduling import policy

# The first with extra specs in flavors.
_FLAVORS = "2.61"
# The first where hypervisors have UUIDs; later than the one with a server's flavor in it, 2.47.
_COMPUTE = "2.53"
# The first with "required" of resource providers.
_PLACEMENT = "placement 1.18"
_OK = 200
# Of a server that Nova put on no host.
_UNBUILT = ("BUILD", "ERROR")
# Of a page; Nova's own limit is 1000 as a rule.
_PAGE = 500


@dataclasses.dataclass(frozen=True)
class Named:
    """An image or a flavor.

    :ivar values: its properties, or extra specs.
    """

    identifier: str
    name: str
    values: Mapping[str, str]

    def __str__(self) -> str:
        return "%s (%s)" % (self.name, self.identifier) if self.name else self.identifier


@dataclasses.dataclass(frozen=True)
class Server:
    """A server.

    :ivar image: the id of its image; None where it boots from a volume.
    :ivar extra_specs: of the flavor that it has; None: the caller may not see them.
    :ivar host: where it is; None: nowhere, or the caller may not see it.
    :ivar fault: what Nova says that went wrong; empty where nothing did.
    """

    identifier: str
    name: str
    status: str
    image: str | None
    flavor: str
    extra_specs: Mapping[str, str] | None
    host: str | None
    fault: str

    @property
    def was_built(self) -> bool:
        """Whether there is, or was, a virtual machine of it; its host may be hidden."""
        return self.host is not None or self.status not in _UNBUILT

    def __str__(self) -> str:
        return "%s (%s), %s" % (self.name, self.identifier, self.status)


class Cloud:
    """A cloud, as its API shows it to the caller.

    Every method raises :class:`vtpm_compute.errors.CloudError`.
    """

    def __init__(self, logged_in: login.Login) -> None:
        self._compute, self._placement = map(logged_in.adapter, ("compute", "placement"))
        # Clouds have it in their catalog with and without its version.
        self._image = logged_in.adapter("image", version="2")

    def image(self, name_or_id: str) -> Named:
        """An image, with all its properties."""
        found = self._by_id(self._image, "/images/", name_or_id) or self._one(
            "image", name_or_id, self._get(
                self._image, "/images?" + urllib.parse.urlencode({"name": name_or_id}))[
                    "images"])
        return Named(found["id"], found.get("name") or "", {
            key: value for key, value in found.items() if isinstance(value, str)})

    def flavor(self, name_or_id: str) -> Named:
        """A flavor, with its extra specs."""
        found = self._by_id(self._compute, "/flavors/", name_or_id, "flavor", _FLAVORS)
        if found is None:
            found = self._one("flavor", name_or_id, [
                one for one in self._pages("/flavors/detail?is_public=None", "flavors", _FLAVORS)
                if one["name"] == name_or_id])
        return Named(found["id"], found["name"], found.get("extra_specs") or {})

    def server(self, name_or_id: str) -> Server:
        """A server; by its id also one of another project, if the caller may see it."""
        found = self._by_id(self._compute, "/servers/", name_or_id, "server", _COMPUTE)
        if found is None:
            found = self._one("server", name_or_id, [
                one for one in self._pages("/servers/detail?" + urllib.parse.urlencode(
                    {"name": name_or_id}), "servers", _COMPUTE) if one["name"] == name_or_id])
        image = found.get("image")
        return Server(
            identifier=found["id"], name=found["name"], status=found["status"],
            image=image["id"] if image else None,
            flavor=found["flavor"].get("original_name", ""),
            extra_specs=found["flavor"].get("extra_specs"),
            host=found.get("OS-EXT-SRV-ATTR:host"),
            fault=(found.get("fault") or {}).get("message", ""))

    def hosts(self) -> list[explanation.Host]:
        """All hosts, with what placement says of them."""
        labels = self._labels()
        guarded = self._guarded()
        return sorted((explanation.Host(
            name=one["service"]["host"], node=one["hypervisor_hostname"],
            hypervisor_type=one["hypervisor_type"], hypervisor_version=one["hypervisor_version"],
            fabric_labels=labels.get(one["service"]["host"], frozenset()),
            has_trait=None if guarded is None else one["id"] in guarded,
            problem="its nova-compute is down" if one["state"] != "up" else
            "its nova-compute is disabled" if one["status"] != "enabled" else "")
            for one in self._pages("/os-hypervisors/detail", "hypervisors", _COMPUTE)),
            key=lambda host: (host.name, host.node))

    def _labels(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for one in self._get(self._compute, "/os-aggregates")["aggregates"]:
            label = one["metadata"].get(policy.AGGREGATE_FABRIC)
            if label is not None:
                for host in one["hosts"]:
                    found[host] = found.get(host, frozenset()) | {label}
        return found

    def _guarded(self) -> set[str] | None:
        """The UUIDs of hosts that placement has as guarded; None: it does not tell."""
        with _translated("placement"):
            answer = self._placement.get(
                "/resource_providers?required=" + policy.TRAIT_GUARDED_HOST, raise_exc=False,
                headers={"OpenStack-API-Version": _PLACEMENT})
            if answer.status_code == 400:
                # A trait that no host ever reported is unknown to placement.
                return set()
            if answer.status_code != _OK:
                return None
            return {one["uuid"] for one in answer.json()["resource_providers"]}

    def _by_id(self, adapter: Any, path: str, identifier: str, key: str = "",
               version: str = "") -> Any:
        """What has this id; None: nothing."""
        try:
            found = self._get(adapter, path + urllib.parse.quote(identifier, safe=""), version)
        except errors.CloudError as exc:
            if exc.status in (400, 404):
                return None
            raise
        return found[key] if key else found

    def _one(self, kind: str, name: str, found: list[Any]) -> Any:
        if len(found) != 1:
            raise errors.CloudError("%s %s %s. Give its id" % (
                kind, policy.quote(name),
                "is not there, or not yours to see" if not found else
                "is a name that %d have" % len(found)))
        return found[0]

    def _pages(self, path: str, key: str, version: str) -> Iterator[Any]:
        marker = ""
        while True:
            page = self._get(self._compute, "%s%slimit=%d%s" % (
                path, "&" if "?" in path else "?", _PAGE, marker), version)[key]
            yield from page
            if not page:
                return
            marker = "&marker=%s" % page[-1]["id"]

    def _get(self, adapter: Any, path: str, version: str = "") -> Any:
        who = adapter.service_type
        with _translated(who):
            answer = adapter.get(path, raise_exc=False, **(
                {"microversion": version} if version else {}))
            if answer.status_code == _OK:
                return answer.json()
        raise errors.CloudError("%s says %d of %s%s" % (
            _NAMES[who], answer.status_code, path.partition("?")[0],
            ": you may not see it. An administrator can" if answer.status_code == 403 else ""),
            answer.status_code)


_NAMES = {"compute": "Nova", "image": "Glance", "placement": "Placement"}


@contextlib.contextmanager
def _translated(who: str) -> Iterator[None]:
    """:param who: the service type that is asked."""
    name = _NAMES[who]
    try:
        yield
    except ksa_exceptions.Unauthorized:
        raise errors.CloudError("Keystone refuses your login (401). " + login.CREDENTIALS,
                                401) from None
    except (ksa_exceptions.EndpointNotFound, ksa_exceptions.CatalogException):
        raise errors.CloudError(
            "the catalog of your cloud has no %s in this region, or your login no project. %s" % (
                name, login.CREDENTIALS)) from None
    except (ksa_exceptions.ClientException, requests.RequestException, OSError) as exc:
        raise errors.CloudError("%s cannot be asked (%s). Try again later" % (
            name, type(exc).__name__)) from None
    except (ValueError, KeyError, TypeError):
        raise errors.CloudError("%s gave an answer that cannot be understood" % name) from None
