"""root/MSCluster: what a node shows of its failover cluster, and the methods there.

Source: Microsoft Learn, "MSCluster_Cluster class", "MSCluster_Node class",
"MSCluster_ResourceGroup class" (which properties can be written, and their limits),
"MSCluster_Resource class".
"""
from tests.hyperv import cim
from tests.hyperv.cluster_error import ClusterError
from tests.hyperv.failover_cluster import FAILED, OFFLINE, ONLINE, PARTIAL, PENDING

NAMESPACE = "root/mscluster"

# {property of a group that can be written: (least, greatest)}
_WRITABLE = {
    "AutoFailbackType": (0, 1), "FailbackWindowStart": (-1, 23), "FailbackWindowEnd": (-1, 23),
    "FailoverPeriod": (1, 1193), "FailoverThreshold": (0, 0xFFFFFFFF), "PersistentState": None,
    "Priority": (0, 4000), "Description": None, "AntiAffinityClassNames": None}

# CLUSTER_RESOURCE_STATE of (the VM, its configuration) for each state of the group.
_ONLINE, _OFFLINE, _FAILED, _PENDING = 2, 3, 4, 129
_RESOURCE_STATES = {
    ONLINE: (_ONLINE, _ONLINE), OFFLINE: (_OFFLINE, _OFFLINE), FAILED: (_FAILED, _ONLINE),
    PARTIAL: (_OFFLINE, _ONLINE), PENDING: (_PENDING, _ONLINE)}
# Those of a VM that is lost.
_LOST = (_FAILED, _FAILED)

_NODE_UP = 0
_NONE, _PERFORM_CLEANUP = 1, 2


class ClusterView:
    """The namespace on one node.

    :param cluster: the :class:`tests.hyperv.failover_cluster.FailoverCluster`
    :param node: one of its members
    """

    def __init__(self, cluster, node):
        self._cluster, self._node = cluster, node
        self._repository = node.host.repository
        self._repository.add_namespace(NAMESPACE)
        self._repository.add(NAMESPACE, "MSCluster_Cluster", Name=cluster.name)
        for member in cluster.members:
            self._repository.add(NAMESPACE, "MSCluster_Node", Name=member.name, State=_NODE_UP,
                                 Id=str(member.number), NodeInstanceID=member.identifier,
                                 NodeWeight=1)
        for class_name, methods in (
                ("MSCluster_Cluster", {"AddVirtualMachine": self._add}),
                ("MSCluster_ResourceGroup", {
                    "BringOnline": self._online, "TakeOffline": self._offline,
                    "MoveToNewNode": self._move, "DestroyGroup": self._destroy})):
            self._repository.provide(NAMESPACE, class_name, methods)
        self._repository.allow_changes(NAMESPACE, "MSCluster_ResourceGroup", self._put)
        cluster.add_view(self)

    # The cluster tells.

    def show(self, group):
        """Show a group that is new or not what it was."""
        self._store("MSCluster_ResourceGroup", Name=group.name, Id=group.identifier,
                    GroupType=group.type, IsCore=False, OwnerNode=group.owner.name,
                    State=group.state, StatusInformation=group.status, **group.settings)
        states = (_LOST if group.is_lost and group.state == FAILED
                  else _RESOURCE_STATES[group.state])
        for resource, state in zip(group.resources, states):
            self._store("MSCluster_Resource", Name=resource.name, Id=resource.identifier,
                        Type=resource.type_name, OwnerGroup=group.name, State=state,
                        OwnerNode=group.owner.name, CoreResource=False, PersistentState=True)

    def hide(self, group):
        for class_name, names in (
                ("MSCluster_Resource", [resource.name for resource in group.resources]),
                ("MSCluster_ResourceGroup", [group.name])):
            for name in names:
                for stored in self._repository.instances(NAMESPACE, class_name, Name=name):
                    self._repository.remove(stored)

    def _store(self, class_name, **values):
        found = self._repository.instances(NAMESPACE, class_name, Name=values["Name"])
        if not found:
            self._repository.add(NAMESPACE, class_name, **values)
            return
        before = found[0].clone()
        for name, value in values.items():
            found[0][name] = value
        if before.values != found[0].values:
            self._repository.changed(found[0], before)

    # The methods: void, so they give nothing back.

    def _add(self, cluster, VirtualMachine=None):  # noqa: N803
        self._call(self._cluster.add_virtual_machine, self._node, VirtualMachine or "")

    def _online(self, group, TimeOut=None, Flags=None):  # noqa: N803
        self._call(self._cluster.online, group["Id"])

    def _offline(self, group, TimeOut=None, Parameters=None, Flags=None):  # noqa: N803
        self._call(self._cluster.offline, group["Id"])

    def _move(self, group, NodeName=None, TimeOut=None):  # noqa: N803
        node = self._call(self._cluster.find_node, NodeName or "")
        self._call(self._cluster.move, group["Id"], node, 0, {})

    def _destroy(self, group, Options=None):  # noqa: N803
        if Options not in (None, _NONE, _PERFORM_CLEANUP):
            raise cim.error("INVALID_PARAMETER", "Options: %s" % Options)
        self._call(self._cluster.destroy, group["Id"])

    def _put(self, stored, given):
        changed = {name: value for name, value in given.values.items()
                   if value is not None and value != stored[name]}
        for name, value in changed.items():
            if name not in _WRITABLE:
                raise cim.error("INVALID_PARAMETER", "%s is read-only" % name)
            limits = _WRITABLE[name]
            if limits and not limits[0] <= value <= limits[1]:
                raise cim.error("INVALID_PARAMETER", "%s: %s" % (name, value))
        self._call(lambda: self._cluster.configure(
            self._cluster.group_named(stored["Name"]), changed))

    @staticmethod
    def _call(function, *arguments):
        try:
            return function(*arguments)
        except ClusterError as error:
            raise cim.Error({"mi_result": cim.RESULTS["FAILED"][0], "error_code": error.hresult,
                             "message": "%s %s" % (error.name, error.reason)}) from None
