"""A program: compute-hyperv's stock driver makes, uses and destroys a server.

``stock_driver_life.py REPOSITORY FOLDER local|socket native|eventlet``; prints one line of JSON.
As nova-compute does, it patches its threads first and then loads the driver by its name.
"""
import json
import os
import sys
import tempfile

repository, folder, place, threads = sys.argv[1:]
sys.path.insert(0, repository)

if place == "socket":
    import site

    from tests.hyperv import site_hook
    site_packages = tempfile.mkdtemp(dir=folder)
    site_hook.install_site_hook(site_packages, repository, os.environ["PYMI_DIR"])
    site.addsitedir(site_packages)
    assert "eventlet" not in sys.modules and "os_win" not in sys.modules
if threads == "eventlet":
    import eventlet
    eventlet.monkey_patch()
else:
    os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "1"
if place == "local":
    from tests.hyperv import windows
    from tests.hyperv.fabric import Fabric
    windows.install(Fabric({"fabrics": ["east"], "hosts": [
        {"name": "HV-ONE", "fabric": "east"}]}), "HV-ONE")

from unittest import mock  # noqa: E402

import nova.conf  # noqa: E402
from nova import context, objects, rpc  # noqa: E402
from nova import exception as nova_exception  # noqa: E402
from nova.compute import power_state, provider_tree, vm_states  # noqa: E402
from nova.network import model  # noqa: E402
from nova.virt import driver as virt_driver  # noqa: E402
from nova.virt import fake  # noqa: E402
from oslo_concurrency import lockutils  # noqa: E402
from oslo_messaging import conffixture  # noqa: E402

IMAGE = "11111111-2222-3333-4444-555555555555"
STATES = {power_state.RUNNING: "running", power_state.SHUTDOWN: "off"}


def main():
    conf = nova.conf.CONF
    conf([], default_config_files=[])
    instances = os.path.join(folder, "instances")
    conf.set_override("instances_path", instances)
    lockutils.set_defaults(folder)
    transport = conffixture.ConfFixture(conf)
    transport.setUp()
    transport.transport_url = "fake:/"
    rpc.init(conf)
    objects.register_all()

    driver = virt_driver.load_compute_driver(
        fake.FakeVirtAPI(), "compute_hyperv.driver.HyperVDriver")
    events = []
    driver.register_event_listener(lambda event: events.append(event.transition))
    driver.init_host("host")
    said = {"nodes": driver.get_available_nodes()}
    node = said["nodes"][0]
    resources = driver.get_available_resource(node)
    said["resources"] = {k: resources[k] for k in (
        "vcpus", "memory_mb", "hypervisor_type", "hypervisor_version")}
    objects.NUMATopology.obj_from_db_obj(resources["numa_topology"])
    tree = provider_tree.ProviderTree()
    tree.new_root(node, "99999999-2222-3333-4444-555555555555")
    try:
        driver.update_provider_tree(tree, node)
    except NotImplementedError:
        pass  # nova then asks get_available_resource alone
    driver.get_host_uptime()

    request = context.RequestContext("user", "project", auth_token="token")
    instance, image = server(request), {"id": IMAGE, "disk_format": "vhdx", "properties": {
        "hw_machine_type": "hyperv-gen2"}}
    meta = objects.ImageMeta.from_dict(dict(
        image, status="active", container_format="bare", min_ram=0, min_disk=0, size=8))
    network = model.NetworkInfo([model.VIF(
        id="99999999-0000-0000-0000-000000000000", address="fa:16:3e:00:00:01", type="hyperv",
        active=True)])
    devices = {"root_device_name": "/dev/sda", "ephemerals": [], "swap": None,
               "block_device_mapping": []}

    def fetch(context_, image_id, path, *rest, **keywords):
        with open(path, "wb") as file:
            file.write(b"vhdxfile tiny image")

    states = said["states"] = []

    def note():
        states.append(STATES[driver.get_info(instance).state])
        assert driver.list_instance_uuids() == [instance.uuid]

    def disks():
        from os_win import utilsfactory
        paths, _ = utilsfactory.get_vmutils().get_vm_storage_paths(instance.name)
        return [os.path.basename(path) for path in paths]

    with mock.patch("nova.virt.images.fetch", fetch), \
            mock.patch("nova.image.glance.API.get", lambda self, c, i: dict(image)), \
            mock.patch("nova.virt.configdrive.required_by", lambda i: False), \
            mock.patch("nova.objects.VirtualInterfaceList.get_by_instance_uuid",
                       lambda c, u: objects.VirtualInterfaceList(objects=[])), \
            mock.patch("nova.objects.BlockDeviceMappingList.get_by_instance_uuid",
                       lambda c, u: objects.BlockDeviceMappingList(objects=[])), \
            mock.patch("nova.objects.Instance.save", lambda self, *a, **k: None):
        driver.spawn(request, instance, meta, [], "password", {}, network, devices)
        note()
        if threads == "eventlet":
            eventlet.sleep(0.5)  # the event of the start, while there is a server to name
        driver.power_off(instance)
        note()
        driver.power_on(request, instance, network, devices)
        note()
        driver.reboot(request, instance, network, "HARD")
        note()
        driver.power_off(instance)
        driver.rescue(request, instance, network, meta, "password", devices)
        note()
        said["disks in rescue"] = disks()
        instance.vm_state = vm_states.RESCUED
        driver.unrescue(request, instance)
        note()
        said["disks"] = disks()
        driver.destroy(request, instance, network, devices)
        try:
            driver.get_info(instance)
        except nova_exception.InstanceNotFound:
            states.append("gone")
    said["events"] = len(events)
    said["left"] = sorted(os.listdir(instances))
    print(json.dumps(said))


def server(request):
    flavor = objects.Flavor(id=1, name="f", memory_mb=1024, vcpus=1, root_gb=2, ephemeral_gb=0,
                            swap=0, extra_specs={}, flavorid="f", rxtx_factor=1.0)
    return objects.Instance(
        request, id=1, uuid="aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", flavor=flavor, old_flavor=None,
        new_flavor=None, image_ref=IMAGE, project_id="project", user_id="user", hostname="h",
        host="host", node="host", metadata={}, trusted_certs=None, vm_state="building",
        task_state="spawning", display_name="n", config_drive="", root_device_name="/dev/sda",
        ephemeral_gb=0, root_gb=2, device_metadata=None, numa_topology=None,
        system_metadata={"image_disk_format": "vhdx", "image_base_image_ref": IMAGE,
                         "image_hw_machine_type": "hyperv-gen2"},
        pci_requests=objects.InstancePCIRequests(requests=[]))


main()
