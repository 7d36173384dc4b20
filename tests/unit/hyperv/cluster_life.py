"""A program: os-win's ClusterUtils on a node of a cluster behind a socket.

``cluster_life.py REPOSITORY SOCKET FOLDER native|eventlet``; prints one line of JSON.
"""
import json
import os
import sys

repository, socket_path, folder, threads = sys.argv[1:]
sys.path.insert(0, repository)
if threads == "eventlet":
    import eventlet
    eventlet.monkey_patch()

from tests.hyperv import windows  # noqa: E402
from tests.hyperv.fabric_client import FabricClient  # noqa: E402

windows.run_as("HV1", socket_path)

import threading  # noqa: E402
import time  # noqa: E402

from os_win import constants, exceptions, utilsfactory  # noqa: E402

PATIENCE = 20  # seconds


def main():
    client = FabricClient(socket_path)
    cluster, vmutils = utilsfactory.get_clusterutils(), utilsfactory.get_vmutils()
    said = {"node": cluster.get_node_name(), "nodes": cluster.get_cluster_node_names()}
    vmutils.create_vm("vm-1", False, 2, folder, ["notes"])
    cluster.add_vm_to_cluster("vm-1")
    vmutils.set_vm_state("vm-1", constants.HYPERV_VM_STATE_ENABLED)
    said["instances"] = cluster.list_instances()

    owners, heard = said.setdefault("owners", [cluster.get_vm_host("vm-1")]), threading.Event()

    def callback(name, node):
        owners.append(node)
        heard.set()
    threading.Thread(target=cluster.get_vm_owner_change_listener_v2(), args=(callback,),
                     daemon=True).start()
    while not client.cluster_listeners("CL1"):
        time.sleep(0.01)  # lets green threads run
    client.hold_cluster_moves("CL1")
    try:
        cluster.live_migrate_vm("vm-1", "HV2", timeout=1)
    except exceptions.ClusterGroupMigrationTimeOut as failure:
        said["timeout"] = type(failure).__name__
    client.release_cluster_moves("CL1")
    cluster.live_migrate_vm("vm-1", "HV2")
    assert heard.wait(PATIENCE)
    heard.clear()
    client.fail_node("HV2")  # HV1 could take it too: it is the first that is up
    assert heard.wait(PATIENCE)
    if owners[-1] == "HV1":
        owners.pop()
        heard.clear()
        cluster.live_migrate_vm("vm-1", "HV3")
        assert heard.wait(PATIENCE)
    try:
        cluster.get_vm_host("nobody")
    except exceptions.ClusterObjectNotFound as failure:
        said["unknown"] = type(failure).__name__
    cluster.delete("vm-1")
    said["left"] = cluster.list_instances()
    print(json.dumps(said), flush=True)


main()
# os-win's listener waits for the next event for ever, in a thread that eventlet would join.
os._exit(0)
