"""A failover cluster of simulated hosts: a group for each clustered VM, moves, failover, failback.

A group is a VM with its two resources, "Virtual Machine <name>" and "Virtual Machine Configuration
<name>", on one node, the owner. Moves of a running VM are live migrations, without a limit of how
many at once; what comes to a node unwraps its key protector there. While a job of its VM runs a
group is locked [assumption cluster-locked]; when the VM leaves its node and the cluster did not
move it, the group has failed [assumption cluster-lost].

Source: Microsoft Learn, "Failover Cluster API" (clusapi.h), "MSCluster_ResourceGroup class",
"MoveClusterGroupEx function" (locked resources), "StatusInformation"; [MS-CMRP] 3.1.4.2.50 to 53;
os-win, ``clusterutils.py``. What these leave open: [assumption cluster-order],
[assumption cluster-failback].
"""
import contextlib
import functools
import uuid

from tests.hyperv import jobs, live_migration, native
from tests.hyperv.cluster_error import CODES, ClusterError
from tests.hyperv.notify_ports import (
    GROUP_COMMON_PROPERTY,
    GROUP_DELETED,
    GROUP_OWNER,
    GROUP_STATE,
    OBJECT_GROUP,
    NotifyPorts,
)
from tests.hyperv.virtual_machine import OFF, PAUSED, RUNNING, SAVED, V2

# CLUSTER_GROUP_STATE, and what a resource of the group is then (CLUSTER_RESOURCE_STATE).
ONLINE, OFFLINE, FAILED, PARTIAL, PENDING = range(5)

_VIRTUAL_MACHINE_GROUP = 111
# CLUSGRP_STATUS_...
_LOCKED_MODE, _WAITING_IN_QUEUE_FOR_MOVE = 1, 4

# VirtualMachineMigrationType, the value of the property "Virtual Machine" of a move.
_TURN_OFF, _QUICK, _SHUT_DOWN, _SHUT_DOWN_FORCED, _LIVE = range(5)
_MOVE_TYPE = "Virtual Machine"

# CLUSAPI_GROUP_MOVE_...: ignore resource status, return to source, queue, high priority, failback.
_MOVE_FLAGS = 0x1F
_IGNORE_RESOURCE_STATUS, _QUEUE_ENABLED = 0x1, 0x4

_VM_RESOURCE, _CONFIGURATION_RESOURCE = "Virtual Machine %s", "Virtual Machine Configuration %s"

# Why a group is not what it should be; the words are not documented.
LOST = "The virtual machine of '%s' was not found. (0x80070490)"
LOCKED = "The requested operation can not be completed because a resource has locked status."
NO_NODE = "The node '%s' is not available. (0x8007138D)"

_SECONDS_AN_HOUR = 3600
_NODES_MINUS_ONE = 0xFFFFFFFF

PENDING_MOVES, QUEUED_MOVES = "pending", "queued"

# The methods that clients may call from another machine.
CLUSTER_CALLS = frozenset((
    "nodes", "groups", "resources", "find_group", "find_node", "find_resource", "group_state",
    "group_properties", "online", "offline", "destroy", "move", "cancel", "open_port", "listen",
    "close_port", "wait_for_event"))

_WATCH = ("SELECT * FROM __InstanceModificationEvent WITHIN 1 WHERE TargetInstance ISA "
          "'Msvm_ComputerSystem'")


def _locked(method):
    @functools.wraps(method)
    def call(self, *arguments, **keywords):
        with self._lock:
            return method(self, *arguments, **keywords)
    return call


class FailoverCluster:
    """A cluster.

    :param name: of the cluster
    :param hosts: its nodes' :class:`tests.hyperv.host.Host`, in the order in which groups try them
    :param lock: the fabric's; held during everything but waiting
    :param now: a function that gives the time in seconds
    """

    def __init__(self, name, hosts, lock, now):
        self.name, self._lock, self._now = name, lock, now
        self._nodes = [Node(number, host) for number, host in enumerate(hosts, 1)]
        self._groups, self._views, self._ports = {}, [], NotifyPorts()
        self._hold = None
        for node in self._nodes:
            node.host.repository.subscribe(
                V2, _WATCH, functools.partial(self._vm_changed, node))
            node.host.jobs.watch(functools.partial(self._jobs_changed, node))
            node.host.management.on_forget.append(functools.partial(self._vm_gone, node))

    # For the WMI view of each node.

    def add_view(self, view):
        """Let an object know each change: ``show(group)`` and ``hide(group)``."""
        self._views.append(view)

    @property
    def members(self):
        return list(self._nodes)

    def member(self, host):
        """The node of a host, or None."""
        return next((node for node in self._nodes if node.host is host), None)

    def group_named(self, name):
        """:raises ClusterError: GROUP_NOT_FOUND"""
        for group in self._groups.values():
            if group.name.lower() == name.lower():
                return group
        raise ClusterError("GROUP_NOT_FOUND", name)

    @_locked
    def add_virtual_machine(self, node, vm_name):
        """Make a group of a VM that is realized on this node and in no group.

        A VM of another node is not found [assumption cluster-add-here].

        :raises ClusterError: RESOURCE_NOT_FOUND, OBJECT_ALREADY_EXISTS
        """
        found = [m for m in node.host.management.machines.values()
                 if m.name == vm_name and not m.is_planned]
        if len(found) != 1:
            raise ClusterError("RESOURCE_NOT_FOUND", vm_name)
        if any(g.name.lower() == vm_name.lower() or g.vm_id == found[0].identifier
               for g in self._groups.values()):
            raise ClusterError("OBJECT_ALREADY_EXISTS", vm_name)
        group = Group(found[0], node)
        self._groups[group.identifier] = group
        self._settle(group)
        self._jobs_changed(node, {group.vm_id})

    @_locked
    def configure(self, group, settings):
        """Change common properties of a group: {name: value}."""
        group.settings.update(settings)
        self._show(group)

    # What clusapi calls. Identifiers are those of groups and nodes.

    @_locked
    def nodes(self):
        """[(identifier, name)]"""
        return [(node.identifier, node.name) for node in self._nodes]

    @_locked
    def groups(self):
        """[(identifier, name)]"""
        return [(group.identifier, group.name) for group in self._groups.values()]

    @_locked
    def resources(self):
        """[(identifier, name)]"""
        return [(resource.identifier, resource.name) for group in self._groups.values()
                for resource in group.resources]

    @_locked
    def find_group(self, name):
        """The identifier. :raises ClusterError: GROUP_NOT_FOUND"""
        return self.group_named(name).identifier

    @_locked
    def find_node(self, name):
        """The identifier. :raises ClusterError: CLUSTER_NODE_NOT_FOUND"""
        return self._named(self._nodes, name, "CLUSTER_NODE_NOT_FOUND").identifier

    @_locked
    def find_resource(self, name):
        """The identifier. :raises ClusterError: RESOURCE_NOT_FOUND"""
        return self._named([r for g in self._groups.values() for r in g.resources], name,
                           "RESOURCE_NOT_FOUND").identifier

    @_locked
    def group_state(self, identifier):
        """(state, name of the owner node). :raises ClusterError: GROUP_NOT_AVAILABLE"""
        group = self._group(identifier)
        return group.state, group.owner.name

    @_locked
    def group_properties(self, identifier):
        """The read-only common properties: {name: (kind, value)}."""
        group = self._group(identifier)
        return {"Name": ("text", group.name), "GroupType": ("dword", _VIRTUAL_MACHINE_GROUP),
                "StatusInformation": ("ulonglong", group.status)}

    @_locked
    def online(self, identifier, node_identifier=None):
        """Start the VM where it is not started.

        :raises ClusterError: INVALID_STATE with the reason of the VM that does not start, or that
            the node does not take; RESOURCE_FAILED: the VM is lost; see :meth:`_free_group`
        """
        group = self._free_group(identifier)
        self._up(group.owner)
        if node_identifier and self._node(node_identifier) is not group.owner:
            try:
                self._relocate(group, self._up(self._node(node_identifier)), _QUICK)
            except jobs.JobFailure as failure:
                group.reason = failure.description
                self._settle(group)
                raise ClusterError("INVALID_STATE", failure.description) from failure
        group.taken_offline = False
        machine = self._machine(group)
        if machine is None:
            self._settle(group)
            raise ClusterError("RESOURCE_FAILED", group.reason)
        try:
            if machine.state != RUNNING:
                self._power(group, RUNNING)
        except jobs.JobFailure as failure:
            group.reason = failure.description
            self._set(group, FAILED)
            raise ClusterError("INVALID_STATE", failure.description) from failure
        self._settle(group)

    @_locked
    def offline(self, identifier):
        """Save the VM where it runs [assumption cluster-offline-saves].

        :raises ClusterError: INVALID_STATE with the reason; see :meth:`_free_group`
        """
        group = self._free_group(identifier)
        self._up(group.owner)
        machine = self._machine(group)
        if machine is not None and machine.state in (RUNNING, PAUSED):
            try:
                self._power(group, SAVED)
            except jobs.JobFailure as failure:
                raise ClusterError("INVALID_STATE", failure.description) from failure
        group.taken_offline = True
        self._settle(group)

    @_locked
    def destroy(self, identifier):
        """The VM is in the cluster no more; it goes on where it is.

        :raises ClusterError: see :meth:`_free_group`
        """
        group = self._free_group(identifier)
        del self._groups[identifier]
        for view in self._views:
            view.hide(group)
        self._post(group, GROUP_DELETED, None)

    @_locked
    def move(self, identifier, node_identifier, flags, properties):
        """Start to move a group.

        :param node_identifier: None: the first other node that is up
        :param properties: {"Virtual Machine": how}, 4 is a live migration; others are for other
            resource types
        :returns: 0 where there is nothing to do, else ERROR_IO_PENDING
        :raises ClusterError: HOST_NODE_NOT_AVAILABLE, INVALID_PARAMETER; see :meth:`_free_group`
        """
        is_forced = flags & _IGNORE_RESOURCE_STATUS
        group = self._free_group(identifier, is_forced)
        how = properties.get(_MOVE_TYPE, _LIVE)
        if flags & ~_MOVE_FLAGS or how > _LIVE:
            raise ClusterError("INVALID_PARAMETER")
        if node_identifier is None:
            node = next(iter(self._candidates(group)), None)
        else:
            node = self._node(node_identifier)
        if node is group.owner:
            return 0
        if node is None or not node.is_up or not group.owner.is_up:
            raise ClusterError("HOST_NODE_NOT_AVAILABLE")
        if is_forced:
            # "Terminates the resource if necessary": here, what is in the way.
            group.owner.host.jobs.kill(group.vm_id)
        group.move, group.reason = _Move(node, how, flags), None
        if self._hold == QUEUED_MOVES:
            self._set_status(group, _WAITING_IN_QUEUE_FOR_MOVE, True)
        else:
            self._begin_move(group)
        if self._hold is None:
            self._run_in_thread(group)
        return CODES["IO_PENDING"]

    @_locked
    def cancel(self, identifier):
        """Cancel a move that has not ended.

        :returns: 0 for one that waits in the queue, else ERROR_IO_PENDING
        :raises ClusterError: INVALID_STATE: there is none
        """
        group = self._group(identifier)
        if group.move is None or group.move.cancelled:
            raise ClusterError("INVALID_STATE")
        group.move.cancelled = True
        if group.status & _WAITING_IN_QUEUE_FOR_MOVE:
            self._finish_move(group, group.move)
            return 0
        self._run_in_thread(group)
        return CODES["IO_PENDING"]

    def open_port(self, host_name):
        """The number of a new notification port, which ends with the node it is opened on."""
        return self._ports.open(host_name)

    def listen(self, port, object_type, flags, key):
        """See :meth:`tests.hyperv.notify_ports.NotifyPorts.listen`."""
        self._ports.listen(port, object_type, flags, key)

    def close_port(self, port):
        self._ports.close(port)

    def wait_for_event(self, port, milliseconds):
        """See :meth:`tests.hyperv.notify_ports.NotifyPorts.wait`; without the fabric's lock."""
        return self._ports.wait(port, milliseconds)

    # What tests change.

    @_locked
    def hold_moves(self, how):
        """Let moves begin and not end (:data:`PENDING_MOVES`), or not even begin
        (:data:`QUEUED_MOVES`), until :meth:`release_moves`."""
        if how not in (PENDING_MOVES, QUEUED_MOVES):
            raise ValueError(how)
        self._hold = how

    @_locked
    def release_moves(self):
        self._hold = None
        for group in list(self._groups.values()):
            if group.move is not None:
                self._run_in_thread(group)

    @_locked
    def describe(self):
        """[{"name", "owner", "state", "queued", "vm_id", "reason"}]; see
        :meth:`tests.hyperv.fabric.Fabric.cluster_groups`."""
        return [{"name": group.name, "owner": group.owner.name, "state": group.state,
                 "queued": bool(group.status & _WAITING_IN_QUEUE_FOR_MOVE),
                 "vm_id": group.vm_id, "reason": group.reason}
                for group in self._groups.values()]

    def listeners(self):
        """How many filters of notification ports there are."""
        return self._ports.count()

    @_locked
    def node_failed(self, host):
        """A node is gone; its groups go to others. Called once the host is down."""
        failed = self.member(host)
        self._ports.close_of(host.name)
        for group in list(self._groups.values()):
            if group.owner is failed:
                self._end_move(group)
                self._fail_over(group)
            elif group.move is not None and group.move.node is failed:
                # The VM goes on where it was [assumption cluster-refused-move].
                group.reason = NO_NODE % failed.name
                self._finish_move(group, group.move)

    @_locked
    def node_restored(self, host):
        """A node is back: groups that no other node could take start, others may come home."""
        node = self.member(host)
        for group in list(self._groups.values()):
            if group.owner is node:
                self._restart(group)
            elif group.home is node and group.settings["AutoFailbackType"] and not group.move:
                self._fail_back(group)

    def close(self, host_name=None):
        """End the waiting for events on a host, or on all."""
        self._ports.close_of(host_name)

    # Moves.

    def _run_in_thread(self, group):
        native.module("threading").Thread(
            name="move of " + group.name, target=self._run_move, args=(group, group.move),
            daemon=True).start()

    @_locked
    def _run_move(self, group, move):
        if group.move is not move:
            return
        waits = False
        try:
            waits = not move.cancelled and self._must_wait(group)
            if not (move.cancelled or waits):
                self._begin_move(group)
                self._relocate(group, self._up(move.node), move.how)
                group.home = None
        except (jobs.JobFailure, ClusterError) as failure:
            # The VM goes on where it was, whether or not the caller asked for that
            # [assumption cluster-refused-move].
            group.reason = str(failure)
        finally:
            # Whoever waits for the end of the move shall not wait for ever.
            if not waits:
                self._finish_move(group, move)

    def _must_wait(self, group):
        """Whether a move waits in the queue for the end of a job that began before it.

        :raises jobs.JobFailure: there is one, and the move is not to be queued
        """
        if group.move.is_begun or not self._is_locked(group):
            return False
        if not group.move.flags & _QUEUE_ENABLED:
            raise jobs.JobFailure(LOCKED)
        self._set_status(group, _WAITING_IN_QUEUE_FOR_MOVE, True)
        return True

    def _waits(self, group):
        return bool(group.status & _WAITING_IN_QUEUE_FOR_MOVE)

    def _begin_move(self, group):
        self._set_status(group, _WAITING_IN_QUEUE_FOR_MOVE, False)
        group.move.is_begun = True
        group.owner.host.jobs.begin_move(group.vm_id)
        self._set(group, PENDING)

    def _end_move(self, group):
        group.move = None
        for node in self._nodes:
            node.host.jobs.end_move(group.vm_id)
        self._set_status(group, _WAITING_IN_QUEUE_FOR_MOVE, False)

    def _finish_move(self, group, move):
        if group.move is move:
            self._end_move(group)
            self._settle(group)

    def _relocate(self, group, node, how):
        """Bring a VM to another node that is up, and let it be there what it was.

        Of a lost VM only the group goes.

        :raises jobs.JobFailure: it is where it was, as it was
        """
        source, machine = group.owner, self._machine(group)
        if machine is None:
            group.owner = node
            self._owner_changed(group)
            return
        before = machine.state
        live_migration.check(machine, source.host, node.host)
        try:
            with self._quiet(group):
                if before in (RUNNING, PAUSED) and how != _LIVE:
                    self._power(group, SAVED if how == _QUICK else OFF)
                try:
                    live_migration.move(machine, source.host, node.host)
                    group.owner = node
                    if self._machine(group).state != before:
                        self._power(group, RUNNING)
                except jobs.JobFailure:
                    self._return(group, source, before)
                    raise
        finally:
            if group.owner is not source:
                self._owner_changed(group)

    def _return(self, group, source, state):
        if group.owner is not source:
            live_migration.move(self._machine(group), group.owner.host, source.host)
            group.owner = source
        if self._machine(group).state != state:
            self._power(group, RUNNING)

    def _fail_over(self, group):
        """Restart a group of a node that is gone on the others, one after the other.

        It ends as failed where FailoverThreshold is used up within FailoverPeriod, or where no
        node is left.
        """
        ran, group.reason = group.was_online, None
        group.home = group.home or group.owner
        if self._machine(group) is None:
            self._relocate(group, next(iter(self._candidates(group)), group.owner), _LIVE)
            self._settle(group)
            return
        self._set(group, PENDING)
        for node in self._candidates(group):
            if not self._may_fail_over(group):
                break
            group.failovers.append(self._now())
            try:
                with self._quiet(group):
                    live_migration.take_over(
                        self._machine(group), group.owner.host, node.host)
                    group.owner = node
                    self._owner_changed(group)
                    if ran:
                        self._power(group, RUNNING)
            except jobs.JobFailure as failure:
                group.reason = failure.description
                continue
            self._settle(group)
            return
        self._set(group, FAILED)

    def _may_fail_over(self, group):
        settings, now = group.settings, self._now()
        since = now - settings["FailoverPeriod"] * _SECONDS_AN_HOUR
        group.failovers = [time for time in group.failovers if time > since]
        threshold = settings["FailoverThreshold"]
        if threshold == _NODES_MINUS_ONE:
            threshold = len(self._nodes) - 1
        return len(group.failovers) < threshold

    def _restart(self, group):
        """The group of a node that is back and that no other node could take."""
        group.home = None
        machine = self._machine(group)
        try:
            if group.was_online and machine is not None and machine.state == OFF:
                with self._quiet(group):
                    self._power(group, RUNNING)
        except jobs.JobFailure as failure:
            group.reason = failure.description
            self._set(group, FAILED)
        else:
            self._settle(group)

    def _fail_back(self, group):
        self._set(group, PENDING)
        try:
            self._relocate(group, group.home, _LIVE)
            group.home = None
        except jobs.JobFailure as failure:
            group.reason = failure.description
        self._settle(group)

    def _candidates(self, group):
        return [node for node in self._nodes if node.is_up and node is not group.owner]

    # States.

    def _vm_changed(self, node, system, before):
        """A VM changed its power state by Hyper-V itself."""
        for group in self._left_alone(node):
            machine = self._machine(group)
            if group.vm_id == system["Name"] and machine is not None and machine.is_settled:
                group.taken_offline = False
                self._settle(group)

    def _vm_gone(self, node, identifier):
        """A VM is on a node no more."""
        for group in self._left_alone(node):
            if group.vm_id == identifier:
                self._settle(group)

    def _jobs_changed(self, node, machines):
        """A job of VMs of a node begins or ends; what it did not do is no event."""
        for group in self._groups.values():
            if group.vm_id in machines and group.owner is node:
                is_locked = node.host.jobs.runs_one_of({group.vm_id})
                self._set_status(group, _LOCKED_MODE, is_locked)
                if group.move is not None and self._waits(group) and not (
                        is_locked or self._hold):
                    self._run_in_thread(group)
        for group in self._left_alone(node):
            if group.vm_id in machines:
                self._settle(group)

    def _left_alone(self, node):
        """The groups of a node that is up which the cluster does not move or start itself."""
        return [group for group in self._groups.values()
                if group.owner is node and node.is_up and not group.is_quiet
                and group.move is None]

    @contextlib.contextmanager
    def _quiet(self, group):
        """The cluster itself moves and starts the VM: that is no change to follow."""
        group.is_quiet = True
        try:
            yield
        finally:
            group.is_quiet = False

    def _settle(self, group):
        """Take the state from the VM.

        Its configuration is online wherever the VM is known: a VM that is off makes the group
        partially online [assumption cluster-partial]. While a job changes the VM's state, that of
        the group stays.
        """
        machine = self._machine(group)
        group.is_lost = machine is None
        if machine is None:
            group.reason = LOST % group.name
            state = OFFLINE if group.taken_offline else FAILED
        elif not machine.is_settled:
            return
        elif machine.state in (RUNNING, PAUSED):
            state = ONLINE
        else:
            state = OFFLINE if group.taken_offline else PARTIAL
        group.was_online = state == ONLINE
        self._set(group, state)

    def _set(self, group, state):
        changed = group.state != state
        group.state = state
        self._show(group)
        if changed:
            self._post(group, GROUP_STATE, state)

    def _set_status(self, group, flag, is_set):
        status = group.status | flag if is_set else group.status & ~flag
        if group.status != status:
            group.status = status
            self._show(group)
            self._post(group, GROUP_COMMON_PROPERTY,
                       {"StatusInformation": ("ulonglong", status)})

    def _owner_changed(self, group):
        self._show(group)
        self._post(group, GROUP_OWNER, None)

    def _post(self, group, flag, data):
        # The parent of a group is the node that owns it: os-win reads the new owner there.
        self._ports.post(OBJECT_GROUP, flag, id=group.identifier, name=group.name,
                         parent=group.owner.identifier, data=data)

    def _show(self, group):
        if group.identifier in self._groups:
            for view in self._views:
                view.show(group)

    # Finding.

    def _group(self, identifier):
        try:
            return self._groups[identifier]
        except KeyError:
            raise ClusterError("GROUP_NOT_AVAILABLE", identifier) from None

    def _free_group(self, identifier, ignore_lock=False):
        """A group that takes orders.

        :raises ClusterError: GROUP_NOT_AVAILABLE: it is destroyed; GROUP_MOVING, GROUP_QUEUED: it
            has a move to do; RESOURCE_LOCKED_STATUS: a job of its VM runs
        """
        group = self._group(identifier)
        if group.move is not None:
            raise ClusterError("GROUP_QUEUED" if self._waits(group) else "GROUP_MOVING",
                               group.name)
        if not ignore_lock and self._is_locked(group):
            raise ClusterError("RESOURCE_LOCKED_STATUS", LOCKED)
        return group

    @staticmethod
    def _is_locked(group):
        return group.owner.host.jobs.runs_one_of({group.vm_id})

    def _node(self, identifier):
        for node in self._nodes:
            if node.identifier == identifier:
                return node
        raise ClusterError("CLUSTER_NODE_NOT_FOUND", identifier)

    @staticmethod
    def _up(node):
        if not node.is_up:
            raise ClusterError("HOST_NODE_NOT_AVAILABLE", node.name)
        return node

    @staticmethod
    def _named(objects, name, error):
        for found in objects:
            if found.name.lower() == name.lower():
                return found
        raise ClusterError(error, name)

    @staticmethod
    def _machine(group):
        """The VM, or None: it is lost. One that is planned is none yet."""
        found = group.owner.host.management.machines.get(group.vm_id)
        return None if found is None or found.is_planned else found

    def _power(self, group, state):
        """:raises jobs.JobFailure: the VM does not start, or its files cannot be reached"""
        try:
            group.owner.host.power.change_state(self._machine(group), state)
        except OSError as fault:
            raise jobs.JobFailure(str(fault)) from None


class Node:
    """A host as a member of the cluster."""

    def __init__(self, number, host):
        self.number, self.host, self.name = number, host, host.name
        self.identifier = "00000000-0000-0000-0000-%012d" % number

    @property
    def is_up(self):
        return not self.host.is_down


class Resource:
    """One of a group's two resources."""

    def __init__(self, name, type_name):
        self.name, self.type_name, self.identifier = name, type_name, str(uuid.uuid4())


class Group:
    """A clustered VM.

    :ivar settings: its writable common properties; the defaults of a new group
    :ivar home: the node from which it failed over, or None
    :ivar failovers: when it failed over, in seconds
    :ivar move: the :class:`_Move` under way, or None
    :ivar reason: why its last move, start or failover did not succeed, or None
    """

    def __init__(self, machine, owner):
        self.name, self.vm_id, self.owner = machine.name, machine.identifier, owner
        self.identifier = str(uuid.uuid4())
        self.resources = (
            Resource(_VM_RESOURCE % self.name, "Virtual Machine"),
            Resource(_CONFIGURATION_RESOURCE % self.name, "Virtual Machine Configuration"))
        self.state, self.status, self.reason = OFFLINE, 0, None
        self.settings = {
            "AutoFailbackType": 0, "FailbackWindowStart": -1, "FailbackWindowEnd": -1,
            "FailoverPeriod": 6, "FailoverThreshold": _NODES_MINUS_ONE, "PersistentState": True,
            "Priority": 2000, "Description": "", "AntiAffinityClassNames": ()}
        self.home, self.failovers, self.move = None, [], None
        self.taken_offline = self.is_quiet = self.was_online = self.is_lost = False

    @property
    def type(self):
        return _VIRTUAL_MACHINE_GROUP


class _Move:
    """A move under way.

    :ivar is_begun: whether it is out of the queue
    """

    def __init__(self, node, how, flags):
        self.node, self.how, self.flags = node, how, flags
        self.cancelled = self.is_begun = False
