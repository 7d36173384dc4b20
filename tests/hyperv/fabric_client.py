"""Asks a fabric process what its hosts do, and changes what tests need changed."""
from tests.hyperv.connection import Channels


class FabricClient:
    """The inspection methods of :class:`tests.hyperv.fabric.Fabric`, over its socket.

    :param socket_path: of the fabric process
    """

    def __init__(self, socket_path):
        self._channels = Channels(socket_path)

    def storage_template(self):
        return self._call("storage_template")

    def computer_name(self, name_or_address):
        return self._call("computer_name", name_or_address)

    def address(self, host_name):
        return self._call("address", host_name)

    def hosts(self):
        return self._call("hosts")

    def virtual_machines(self, host_name):
        return self._call("virtual_machines", host_name)

    def virtual_machine(self, host_name, vm_name):
        return self._call("virtual_machine", host_name, vm_name)

    def guardians(self, host_name):
        return self._call("guardians", host_name)

    def calls(self, host_name, pattern="*"):
        return self._call("calls", host_name, pattern)

    def clear_calls(self, host_name):
        return self._call("clear_calls", host_name)

    def advance_clock(self, seconds):
        return self._call("advance_clock", seconds)

    def set_attestation(self, host_name, status, substatus=0):
        return self._call("set_attestation", host_name, status, substatus)

    def attest(self, host_name):
        return self._call("attest", host_name)

    def authorise_host(self, host_name):
        return self._call("authorise_host", host_name)

    def deauthorise_host(self, host_name):
        return self._call("deauthorise_host", host_name)

    def set_host_health(self, host_name, **keywords):
        return self._call("set_host_health", host_name, keywords)

    def set_attestation_mode(self, fabric_name, mode):
        return self._call("set_attestation_mode", fabric_name, mode)

    def set_hgs_reachable(self, fabric_name, reachable):
        return self._call("set_hgs_reachable", fabric_name, reachable)

    def set_hgs_time(self, fabric_name, seconds_behind):
        return self._call("set_hgs_time", fabric_name, seconds_behind)

    def renew_fabric_guardian(self, fabric_name):
        return self._call("renew_fabric_guardian", fabric_name)

    def serve_key_protection(self, fabric_name, is_served=True):
        return self._call("serve_key_protection", fabric_name, is_served)

    def drop_old_fabric_guardians(self, fabric_name):
        return self._call("drop_old_fabric_guardians", fabric_name)

    def set_guarded(self, host_name, guarded):
        return self._call("set_guarded", host_name, guarded)

    def remove_guardian(self, host_name, name):
        return self._call("remove_guardian", host_name, name)

    def provisioning(self, host_name, vm_name):
        return self._call("provisioning", host_name, vm_name)

    def certificates(self, host_name):
        return self._call("certificates", host_name)

    def private_keys(self, host_name):
        return self._call("private_keys", host_name)

    def remove_certificate(self, host_name, thumbprint):
        return self._call("remove_certificate", host_name, thumbprint)

    def add_certificate(self, host_name, store, certificate):
        return self._call("add_certificate", host_name, store, certificate)

    def metadata(self, fabric_name):
        return self._call("metadata", fabric_name)

    def fabric_thumbprint(self, fabric_name):
        return self._call("fabric_thumbprint", fabric_name)

    def fail_node(self, host_name):
        return self._call("fail_node", host_name)

    def restore_node(self, host_name):
        return self._call("restore_node", host_name)

    def cluster_groups(self, cluster_name):
        return self._call("cluster_groups", cluster_name)

    def close_clusters(self, host_name=None):
        return self._call("close_clusters", host_name)

    def cluster_listeners(self, cluster_name):
        return self._call("cluster_listeners", cluster_name)

    def hold_cluster_moves(self, cluster_name, how="pending"):
        return self._call("hold_cluster_moves", cluster_name, how)

    def release_cluster_moves(self, cluster_name):
        return self._call("release_cluster_moves", cluster_name)

    def write_tpm(self, host_name, vm_name, name, value):
        return self._call("write_tpm", host_name, vm_name, name, value)

    def read_tpm(self, host_name, vm_name, name):
        return self._call("read_tpm", host_name, vm_name, name)

    def add_fault(self, host_name, pattern, **keywords):
        return self._call("add_fault", host_name, pattern, keywords)

    def add_delay(self, host_name, pattern, seconds, **keywords):
        return self._call("add_delay", host_name, pattern, seconds, keywords)

    def clear_faults(self, host_name):
        return self._call("clear_faults", host_name)

    def _call(self, method, *arguments):
        return self._channels.call("fabric", method, *arguments)
