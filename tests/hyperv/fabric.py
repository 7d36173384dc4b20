"""Several simulated hosts and their guarded fabrics, and what tests ask about them.

:class:`Fabric` is the whole simulation in one object. Its methods below "Asking and changing"
are those of :class:`tests.hyperv.fabric_client.FabricClient` too: they take and give plain values,
which :mod:`tests.hyperv.remote_methods` checks. A new public method is one of them, if it is not
named there as another.
"""
import functools

from tests.hyperv import cim, configuration, guest_state, host, key_protector, native
from tests.hyperv.attestation import INSECURE, MODES, PASSED, HostHealth
from tests.hyperv.clock import Clock
from tests.hyperv.cluster_error import ClusterError
from tests.hyperv.cluster_view import ClusterView
from tests.hyperv.failover_cluster import CLUSTER_CALLS, FailoverCluster
from tests.hyperv.guarded_fabric import GuardedFabric
from tests.hyperv.repository import REPOSITORY_CALLS
from tests.hyperv.storage import Storage


def _locked(method):
    @functools.wraps(method)
    def call(self, *arguments, **keywords):
        with self._lock:
            self.catch_up()
            return method(self, *arguments, **keywords)
    return call


class Fabric:
    """The simulation.

    :param config: {"fabrics": [name], "hosts": [{"name", "version", "fabric", "guarded",
        "attestation_status", "guardians", "processors", "memory_mb", "address", "live_migration",
        "live_migration_addresses", "shielded_vm_tools"}], "storage", "clusters"}; of a host, only
        the name is needed. ``fabric`` names the HGS it belongs to, ``guardians`` further fabrics
        whose public guardians are in its store, ``guarded`` false lets attestation fail.
        ``live_migration`` true enables it; ``live_migration_addresses`` are where the host
        listens for it: its address, if left out. ``shielded_vm_tools`` true: FabricShieldedTools
        is installed, which brings root/msps. ``storage``: the template of
        :class:`tests.hyperv.storage.Storage`. ``clusters``: [{"name", "nodes"}], see
        :meth:`add_cluster`.
    :raises tests.hyperv.configuration.ConfigurationError: an unknown key, or a value that is none
    :ivar clock: the :class:`tests.hyperv.clock.Clock` of all its parts
    :ivar storage: the hosts' disks, a :class:`tests.hyperv.storage.Storage`
    """

    def __init__(self, config):
        configuration.check(config, self.add_host)
        # [assumption calls-one-by-one]
        self._lock = native.module("threading").RLock()
        self.clock = Clock()
        self._fabrics, self._hosts, self._addresses = {}, {}, {}
        self.storage = Storage(config.get("storage"), self.computer_name)
        for name in config.get("fabrics", ()):
            self._fabrics[name] = GuardedFabric(name, self.clock)
        for entry in config.get("hosts", ()):
            self.add_host(**entry)
        self._clusters = {}
        for entry in config.get("clusters", ()):
            self.add_cluster(**entry)

    def add_host(self, name, version=host.SERVER_2019, fabric=None, guarded=True,
                 attestation_status=None, guardians=(), processors=8, memory_mb=32768,
                 address=None, live_migration=False, live_migration_addresses=None,
                 shielded_vm_tools=False):
        """Add a host, or put a new one in the place of that with the same name.

        Parameters: see the class.

        :raises tests.hyperv.configuration.ConfigurationError: a value that is none, such as a
            fabric that is not in the configuration
        """
        configuration.check_host(
            {"name": name, "version": version, "fabric": fabric, "guarded": guarded,
             "attestation_status": attestation_status, "guardians": guardians,
             "processors": processors, "memory_mb": memory_mb, "address": address,
             "live_migration": live_migration,
             "live_migration_addresses": live_migration_addresses,
             "shielded_vm_tools": shielded_vm_tools}, self._fabrics)
        if attestation_status is None:
            attestation_status = PASSED if guarded else INSECURE
        address = self._addresses[name.lower()] = self._address_for(name.lower(), address)
        if live_migration_addresses is None:
            live_migration_addresses = [address]
        if fabric:
            self._fabrics[fabric].attestation.authorised.add(name.lower())
        added = host.Host(name, version, self._fabrics[fabric] if fabric else None,
                          attestation_status, processors, memory_mb, self.clock, self.find_host,
                          live_migration, live_migration_addresses, self.storage,
                          shielded_vm_tools)
        for other in guardians:
            if other != fabric:
                added.hgs_client.add(self._fabrics[other].guardian)
        self._hosts[name.lower()] = added
        return added

    def _address_for(self, name, address):
        others = {used for other, used in self._addresses.items() if other != name}
        if address in others:
            raise configuration.ConfigurationError(
                "host %r: address: %s is another host's" % (name, address))
        # RFC 5737: addresses for documentation.
        numbered = ("198.51.100.%d" % number for number in range(1, 255))
        return address or self._addresses.get(name) or next(
            free for free in numbered if free not in others)

    def add_cluster(self, name, nodes):
        """Make a failover cluster of hosts.

        :param name: of the cluster
        :param nodes: names of hosts, in the order in which a failover tries them
        :raises tests.hyperv.configuration.ConfigurationError: a value that is none, or a host
            that is in a cluster already
        """
        configuration.check_cluster({"name": name, "nodes": nodes}, self._hosts)
        with self._lock:
            return self._add_cluster(name, nodes)

    def _add_cluster(self, name, nodes):
        hosts = [self.host(node) for node in nodes]
        if any(self._cluster_of(member) for member in hosts):
            raise configuration.ConfigurationError("a host is in another cluster: %s" % nodes)
        added = FailoverCluster(name, hosts, self._lock, self.clock.now)
        for member in added.members:
            ClusterView(added, member)
        self._clusters[name.lower()] = added
        return added

    def _cluster_of(self, of_host):
        return next((c for c in self._clusters.values() if c.member(of_host)), None)

    def host(self, name):
        """The :class:`tests.hyperv.host.Host`, for tests in this process.

        :raises KeyError: there is none
        """
        return self._hosts[name.lower()]

    def find_host(self, name):
        """A host as another one finds it.

        :raises cim.Error: see :meth:`require_host`
        """
        return self.host(self.require_host(name))

    def require_host(self, name):
        """The computer name of the host with this name or address.

        :raises cim.Error: there is none, or it is down
        """
        try:
            found = self.computer_name(name)
        except KeyError:
            found = None
        if found is None or self.host(found).is_down:
            raise cim.error("FAILED", "The RPC server is unavailable: " + name)
        return found

    @_locked
    def call_repository(self, host_name, method, *arguments):
        """What ``mi`` sessions call: a method of the host's repository.

        :param method: one of :data:`tests.hyperv.repository.REPOSITORY_CALLS`
        """
        if method not in REPOSITORY_CALLS:
            raise AttributeError(method)
        self.require_host(host_name)
        return getattr(self.host(host_name).repository, method)(*arguments)

    @_locked
    def call_certificates(self, host_name, function, operation, *arguments):
        """What crypt32 calls: see :class:`tests.hyperv.certificate_access.CertificateAccess`."""
        self.require_host(host_name)
        return self.host(host_name).certificate_access.call(function, operation, *arguments)

    def catch_up(self):
        """Let happen on all hosts what is due on the clock; called before each access."""
        for one in list(self._hosts.values()):
            one.catch_up()

    def call_cluster(self, host_name, cluster_name, method, *arguments):
        """What clusapi calls on a host: a method of a cluster, one of :data:`CLUSTER_CALLS`.

        With ``open`` as the method it gives the name of the host's own cluster (with None as the
        argument), or of the one that is named. Waiting for events does not hold the lock.

        :raises ClusterError: the host is in no cluster, is down, or what the method raises
        """
        caller = self.host(host_name)
        if caller.is_down:
            raise ClusterError("RPC_SERVER_UNAVAILABLE", host_name)
        if method == "open":
            return self._open_cluster(caller, *arguments)
        if method not in CLUSTER_CALLS:
            raise AttributeError(method)
        if method == "open_port":
            arguments = (host_name,)
        if method != "wait_for_event":
            with self._lock:
                self.catch_up()
        return getattr(self._clusters[cluster_name.lower()], method)(*arguments)

    def _open_cluster(self, caller, name):
        if name:
            found = self._clusters.get(name.lower())
        else:
            found = self._cluster_of(caller)
        if found is None:
            raise ClusterError("RPC_SERVER_UNAVAILABLE" if name else "ENDPOINT_NOT_REGISTERED")
        return found.name

    # Asking and changing.

    def storage_template(self):
        """The configuration's ``storage``, or None."""
        return self.storage.template

    def computer_name(self, name_or_address):
        """The name of a host, as the configuration writes it.

        :raises KeyError: there is no such host
        """
        for name, address in list(self._addresses.items()):
            if address == name_or_address:
                return self._hosts[name].name
        return self.host(name_or_address).name

    def address(self, host_name):
        """A host's IP address.

        :raises KeyError: there is no such host
        """
        return self._addresses[host_name.lower()]

    def hosts(self):
        """[{"name", "version", "fabric", "attestation_status"}] of all hosts."""
        return [{"name": h.name, "version": h.windows_version,
                 "fabric": h.hgs_client.fabric.name
                 if h.hgs_client and h.hgs_client.fabric else None,
                 "attestation_status": h.hgs_client.attestation_status if h.hgs_client else None}
                for h in list(self._hosts.values())]

    @_locked
    def virtual_machines(self, host_name):
        """The VMs of a host.

        :returns: [{"name", "id", "planned", "state" (EnabledState), "generation", "secure_boot",
            "security" ({property: bool}, {} without), "key_protector" (bytes),
            "guardians" ([{"thumbprint", "name", "is_owner"}]), "tpm_initialized",
            "guest_state_file", "notes"}]
        """
        return [self._describe(machine, self.host(host_name))
                for machine in self.host(host_name).management.machines.values()]

    def virtual_machine(self, host_name, vm_name):
        """One of :meth:`virtual_machines`.

        :raises KeyError: there is none
        """
        for found in self.virtual_machines(host_name):
            if found["name"] == vm_name:
                return found
        raise KeyError(vm_name)

    @_locked
    def guardians(self, host_name):
        """The guardian store: [{"name", "thumbprint", "has_private_keys"}]."""
        client = self.host(host_name).hgs_client
        return [{"name": g.name, "thumbprint": g.thumbprint,
                 "has_private_keys": g.signing_key is not None}
                for g in (client.guardians() if client else ())]

    @_locked
    def calls(self, host_name, pattern="*"):
        """The method calls a host got: [(class, method, parameters as text, return value)].

        Those of functions of a library too: ("crypt32", function, {}, code).

        :param pattern: for ``Class.Method``, as in file names
        """
        return [(class_name, method, {k: _shown(v) for k, v in parameters.items()}, result)
                for class_name, method, parameters, result
                in self.host(host_name).repository.calls.entries(pattern)]

    @_locked
    def clear_calls(self, host_name):
        self.host(host_name).repository.calls.clear()

    @_locked
    def advance_clock(self, seconds):
        """Move the time of all hosts and Host Guardian Services forward.

        :raises ValueError: time does not go backwards
        """
        self.clock.advance(seconds)
        self.catch_up()

    @_locked
    def set_attestation(self, host_name, status, substatus=0):
        """Let each attestation of a host end so, from now on, and attest.

        :param status: 100 passed, which also authorises the host and makes it healthy; 1 not
            attempted, 200 expired, 300 retriable, 301 not authorised, 302 TPM, 303 insecure
        :param substatus: with 303: 1 Secure Boot, 2 debug mode, 4 code integrity, added up
        :raises ValueError: another status, or a host that belongs to no fabric
        """
        attestation = self._attestation(host_name)
        if status == PASSED:
            attestation.health = HostHealth()
            self.authorise_host(host_name)
        attestation.force(status, substatus)

    def set_guarded(self, host_name, guarded):
        """Let the host pass attestation, or fail it for an insecure configuration."""
        self.set_attestation(host_name, PASSED if guarded else INSECURE)

    @_locked
    def attest(self, host_name):
        """Let a host attest now, as it does when it starts.

        :raises ValueError: it belongs to no fabric
        """
        self._attestation(host_name).attest()

    @_locked
    def authorise_host(self, host_name):
        """Let its fabric know a host; it counts when the host attests."""
        self._fabric_of(host_name).attestation.authorised.add(host_name.lower())

    @_locked
    def deauthorise_host(self, host_name):
        """Let its fabric know a host no more; it keeps its health certificate until it attests."""
        self._fabric_of(host_name).attestation.authorised.discard(host_name.lower())

    @_locked
    def set_host_health(self, host_name, secure_boot=None, debug_mode=None, code_integrity=None,
                        tpm=None):
        """Change what TPM attestation will find; None leaves a value.

        :raises ValueError: the host belongs to no fabric
        """
        health = self._attestation(host_name).health
        for name, value in (("secure_boot", secure_boot), ("debug_mode", debug_mode),
                            ("code_integrity", code_integrity), ("tpm", tpm)):
            if value is not None:
                setattr(health, name, value)

    @_locked
    def set_attestation_mode(self, fabric_name, mode):
        """Change how a fabric attests: "tpm", "ad" or "host_key"."""
        self._fabrics[fabric_name].attestation.mode = MODES[mode]

    @_locked
    def set_hgs_reachable(self, fabric_name, reachable):
        """Let a Host Guardian Service answer, or not."""
        self._fabrics[fabric_name].reachable = reachable

    @_locked
    def set_hgs_time(self, fabric_name, seconds_behind):
        """Let the time of a Host Guardian Service be behind that of the hosts."""
        self._fabrics[fabric_name].behind = seconds_behind

    @_locked
    def renew_fabric_guardian(self, fabric_name):
        """Give a fabric new certificates, which its metadata have from now on.

        The guardian stores of the hosts keep the old ones, which the fabric still unwraps.
        """
        self._fabrics[fabric_name].renew_guardian()

    @_locked
    def drop_old_fabric_guardians(self, fabric_name):
        """Let a fabric unwrap with its newest certificates only."""
        self._fabrics[fabric_name].drop_old_guardians()

    def serve_key_protection(self, fabric_name, is_served=True):
        """Let a fabric give its metadata over HTTP, on this machine.

        :returns: the URL of its key protection server, with which its hosts are configured
        """
        self._fabrics[fabric_name].serve_http(is_served)
        return self._fabrics[fabric_name].key_protection_url

    def _fabric_of(self, host_name):
        client = self.host(host_name).hgs_client
        if client is None or client.fabric is None:
            raise ValueError("%s belongs to no guarded fabric" % host_name)
        return client.fabric

    def _attestation(self, host_name):
        self._fabric_of(host_name)
        return self.host(host_name).hgs_client.attestation

    @_locked
    def remove_guardian(self, host_name, name):
        """Take a guardian out of a host's store, behind the back of every driver."""
        self.host(host_name).hgs_client.remove(name)

    @_locked
    def provisioning(self, host_name, vm_name):
        """The provisioning of a shielded VM: {"job_state" (3 waits for its boot, 7 done, 10
        failed), "job_status", "answer_file" (the specialised text, or None)}.

        :raises KeyError: no such VM, or it was never asked for
        """
        on = self.host(host_name)
        machine = on.management.machine_named(vm_name)
        if on.provisioning is None:
            raise KeyError(vm_name)
        state, status, text = on.provisioning.state(machine)
        return {"job_state": state, "job_status": status, "answer_file": text}

    @_locked
    def certificates(self, host_name):
        """A host's certificate stores: [{"store", "thumbprint" (Windows': SHA-1), "subject" (its
        common name), "has_private_key", "guardian" (the name of the stored guardian it belongs
        to, or None)}].

        Removing a guardian leaves its certificates with their private keys.
        """
        return self.host(host_name).hgs_client.describe_certificates()

    @_locked
    def private_keys(self, host_name):
        """All private keys on a host's disk: [{"subject", "thumbprint", "store"}], of the
        certificate that each was made for; the store is None where that is deleted.
        """
        client = self.host(host_name).hgs_client
        return client.describe_private_keys() if client else []

    @_locked
    def remove_certificate(self, host_name, thumbprint):
        """Delete a guardian's certificate and its private key, as an administrator does.

        :param thumbprint: Windows' (SHA-1, hexadecimal)
        :raises KeyError: there is none in the store "Shielded VM Local Certificates"
        """
        self.host(host_name).hgs_client.remove_certificate(thumbprint)

    @_locked
    def add_certificate(self, host_name, store, certificate):
        """Put a certificate (DER bytes) into a store of a host: "Root" trusts what it signed."""
        self.host(host_name).hgs_client.certificates.add(store, certificate)

    def metadata(self, fabric_name):
        """The guardian metadata a tenant downloads from the fabric: XML bytes."""
        return self._fabrics[fabric_name].metadata()

    def fabric_thumbprint(self, fabric_name):
        """SHA-256 of the fabric guardian's encryption certificate, hexadecimal."""
        return self._fabrics[fabric_name].guardian.thumbprint

    @_locked
    def fail_node(self, host_name):
        """Cut a host's power: it answers no more, and its cluster restarts its VMs elsewhere.

        :raises ValueError: it is down already
        """
        failed = self.host(host_name)
        if failed.is_down:
            raise ValueError("%s is down" % host_name)
        failed.lose_power()
        if cluster := self._cluster_of(failed):
            cluster.node_failed(failed)

    @_locked
    def restore_node(self, host_name):
        """Start a host that was down; its cluster may bring VMs back to it.

        :raises ValueError: it is not down
        """
        restored = self.host(host_name)
        if not restored.is_down:
            raise ValueError("%s is not down" % host_name)
        restored.boot()
        if cluster := self._cluster_of(restored):
            cluster.node_restored(restored)

    def close_clusters(self, host_name=None):
        """End the waiting for events of clusters, as it ends with the processes that wait.

        :param host_name: on which host; None: on all
        """
        for cluster in self._clusters.values():
            cluster.close(host_name)

    @_locked
    def cluster_groups(self, cluster_name):
        """The clustered VMs.

        :returns: [{"name", "owner" (host name), "state" (CLUSTER_GROUP_STATE: 0 online, 1 offline,
            2 failed, 3 partially online, 4 pending), "queued" (for a move), "vm_id", "reason" (of
            the last failure, or None)}]
        """
        return self._clusters[cluster_name.lower()].describe()

    def cluster_listeners(self, cluster_name):
        """How many filters of notification ports wait for events of a cluster."""
        return self._clusters[cluster_name.lower()].listeners()

    def hold_cluster_moves(self, cluster_name, how="pending"):
        """Let moves begin and not end ("pending"), or wait in the queue ("queued")."""
        self._clusters[cluster_name.lower()].hold_moves(how)

    @_locked
    def release_cluster_moves(self, cluster_name):
        """Let the moves that were held, and all others, go on."""
        self._clusters[cluster_name.lower()].release_moves()

    @_locked
    def write_tpm(self, host_name, vm_name, name, value):
        """As the guest: keep a secret in the TPM of a running VM.

        :param value: bytes
        :raises KeyError: no such VM
        :raises ValueError: it does not run, or has no TPM
        """
        self._tpm(host_name, vm_name).write(name, value)

    @_locked
    def read_tpm(self, host_name, vm_name, name):
        """As the guest: the secret (bytes), or None where the TPM does not hold it.

        :raises KeyError: no such VM
        :raises ValueError: it does not run, or has no TPM
        """
        return self._tpm(host_name, vm_name).secrets.get(name)

    @_locked
    def add_fault(self, host_name, pattern, **keywords):
        """See :meth:`tests.hyperv.faults.Faults.add`."""
        self.host(host_name).faults.add(pattern, **keywords)

    @_locked
    def add_delay(self, host_name, pattern, seconds, **keywords):
        """See :meth:`tests.hyperv.faults.Faults.add_delay`."""
        self.host(host_name).faults.add_delay(pattern, seconds, **keywords)

    @_locked
    def clear_faults(self, host_name):
        self.host(host_name).faults.clear()

    def _tpm(self, host_name, vm_name):
        machine = self.host(host_name).management.machine_named(vm_name)
        if machine.tpm is None:
            raise ValueError("%s does not run with a TPM" % vm_name)
        return machine.tpm

    def _describe(self, machine, on):
        settings, security = machine.settings, machine.security_settings
        initialized = machine.generation == 2 and not guest_state.is_new(
            machine.guest_state_file)
        return {
            "name": machine.name, "id": machine.identifier, "state": machine.state,
            "planned": machine.imported_from is not None, "generation": machine.generation,
            "secure_boot": bool(settings["SecureBootEnabled"]),
            "notes": list(settings["Notes"] or ()),
            "security": {k: v for k, v in security.values.items() if isinstance(v, bool)}
            if security else {},
            "key_protector": machine.key_protector,
            "guardians": self._guardians_of(machine.key_protector, on),
            "tpm_initialized": initialized,
            "guest_state_file": str(machine.guest_state_file) if machine.generation == 2 else None}

    @staticmethod
    def _guardians_of(protector, on):
        if len(protector) <= 4:
            return []
        described = []
        for wrapping in key_protector.read(protector):
            known = on.hgs_client.guardian_with(wrapping.encryption_certificate)
            described.append({
                "thumbprint": wrapping.thumbprint, "is_owner": wrapping.is_owner,
                "name": known.name if known else None})
        return described



def _shown(value):
    if isinstance(value, cim.Instance):
        return value.get_path() or value.get_class_name()
    if isinstance(value, tuple) and value and isinstance(value[0], cim.Instance):
        return [_shown(item) for item in value]
    return value
