"""How long a spawn takes on the simulated host, in this process, without Nova's services.

``python -m tests.bench.spawn_on_simulator [spawns]``, in the environment of the tests. A line for
each way: compute-hyperv's own driver; ours with a protector that the tenant made, and with one that
is made on the host. The last makes an owner, and that is two RSA key pairs, which a thread makes
ahead: what the spawn still waits for is told apart. The image is in the cache of base images, as on
a host in use.

Times are those of a machine that has nothing else to do; where it had, the CPU's column says so.
Ends with 1 where the median of a way is above :data:`LIMIT_MS`.
"""
import collections
import contextlib
import importlib
import logging
import os
import statistics
import sys
import tempfile
import time
import uuid
from unittest import mock

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "1"

from tests import stub_key_manager
from tests.hyperv import guardian, key_protector, windows
from tests.hyperv.fabric import Fabric

HOST, FABRIC = "HV1", "Fabric"
LIMIT_MS = 100

IMAGE = "11111111-2222-3333-4444-555555555555"
KEY = "2f6ac6a8-4e14-4e4c-a73d-069cbf4541e6"
GENERATION_2 = {"hw_machine_type": "hyperv-gen2", "os_type": "windows"}
STOCK, OURS = "compute_hyperv.driver.HyperVDriver", "vtpm_hyperv.HyperVDriver"


class Stopwatch:
    """Milliseconds spent in a function, over a while."""

    def __init__(self, function):
        self._function, self.milliseconds = function, 0

    def __call__(self, *arguments, **keywords):
        start = time.perf_counter()
        try:
            return self._function(*arguments, **keywords)
        finally:
            self.milliseconds += (time.perf_counter() - start) * 1000


class CountingFabric(Fabric):
    """Counts what sessions ask of its hosts."""

    def __init__(self, config):
        self.asked = collections.Counter()
        super().__init__(config)

    def call_repository(self, host_name, method, *arguments):
        self.asked[method] += 1
        return super().call_repository(host_name, method, *arguments)


class Bench:
    """One host, and the drivers on it.

    :param folder: for the instances, on this machine's disk
    :param fabric: a :class:`CountingFabric` with :data:`HOST`
    """

    def __init__(self, folder, fabric):
        import nova.conf
        from nova import context, objects, rpc
        from oslo_concurrency import lockutils
        from oslo_messaging import conffixture
        self._conf, self._objects, self._fabric = nova.conf.CONF, objects, fabric
        self._conf([], default_config_files=[])
        self._conf.set_override("instances_path", os.path.join(folder, "instances"))
        lockutils.set_defaults(folder)
        transport = conffixture.ConfFixture(self._conf)
        transport.setUp()
        transport.transport_url = "fake:/"
        rpc.init(self._conf)
        objects.register_all()
        self._context = context.RequestContext("user", "project", auth_token="token")

    def driver(self, name, **options):
        """A driver, by the name that nova.conf gives it, with options of ``[vtpm_compute]``."""
        from nova.virt import driver as virt_driver
        from nova.virt import fake
        if options:
            importlib.import_module("nova.virt.vtpm_hyperv")  # registers them
        for option, value in options.items():
            self._conf.set_override(option, value, group="vtpm_compute")
        driver = virt_driver.load_compute_driver(fake.FakeVirtAPI(), name)
        # It waits for events in a green thread, and there are no patched threads here.
        with mock.patch.object(driver, "_event_handler"):
            driver.init_host(HOST)
        return driver

    def spawns(self, driver, count, **image_properties):
        """Spawn, and destroy, so often after a first time that does not count.

        :returns: [(milliseconds, of which RSA key pairs, of CPU, requests to WMI)]
        """
        results = []
        for _ in range(count + 1):
            instance, meta = self._server(image_properties)
            keys = Stopwatch(guardian.Guardian.generate)
            with mock.patch.object(guardian.Guardian, "generate", keys):
                self._fabric.asked.clear()
                start, cpu = time.perf_counter(), time.process_time()
                driver.spawn(self._context, instance, meta, [], "password", {}, *self._devices())
                elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
            results.append((elapsed * 1000, keys.milliseconds, cpu * 1000,
                            sum(self._fabric.asked.values())))
            instance.task_state = "deleting"
            driver.destroy(self._context, instance, *self._devices())
        return results[1:]

    @staticmethod
    def _devices():
        from nova.network import model
        network = model.NetworkInfo([model.VIF(
            id=str(uuid.uuid4()), address="fa:16:3e:00:00:01", type="hyperv", active=True)])
        return network, {"root_device_name": "/dev/sda", "ephemerals": [], "swap": None,
                         "block_device_mapping": []}

    def _server(self, image_properties):
        objects, properties = self._objects, {**GENERATION_2, **image_properties}
        meta = objects.ImageMeta.from_dict({
            "id": IMAGE, "disk_format": "vhdx", "container_format": "bare", "status": "active",
            "min_ram": 0, "min_disk": 0, "size": 8, "properties": properties})
        flavor = objects.Flavor(
            id=1, name="f", memory_mb=1024, vcpus=1, root_gb=2, ephemeral_gb=0, swap=0,
            extra_specs={}, flavorid="f", rxtx_factor=1.0)
        metadata = {"image_" + name: value for name, value in properties.items()}
        return objects.Instance(
            self._context, id=1, uuid=str(uuid.uuid4()), flavor=flavor, old_flavor=None,
            new_flavor=None, image_ref=IMAGE, project_id="project", user_id="user", hostname="h",
            host=HOST, node=HOST, metadata={}, trusted_certs=None, vm_state="building",
            task_state="spawning", display_name="n", config_drive="", ephemeral_gb=0, root_gb=2,
            root_device_name="/dev/sda", device_metadata=None, numa_topology=None,
            system_metadata=dict(metadata, image_disk_format="vhdx", image_base_image_ref=IMAGE),
            pci_requests=objects.InstancePCIRequests(requests=[])), meta


@contextlib.contextmanager
def without_nova_services():
    """Glance, the database and the configuration drive are not what is measured."""
    def fetch(context, image_id, path, *rest, **keywords):
        with open(path, "wb") as file:
            file.write(b"vhdxfile tiny image")

    nothing = mock.Mock(return_value=[])
    with mock.patch("nova.virt.images.fetch", fetch), \
            mock.patch("nova.image.glance.API.get", lambda self, context, image: {
                "id": image, "disk_format": "vhdx", "properties": GENERATION_2}), \
            mock.patch("nova.virt.configdrive.required_by", lambda instance: False), \
            mock.patch("nova.objects.VirtualInterfaceList.get_by_instance_uuid", nothing), \
            mock.patch("nova.objects.BlockDeviceMappingList.get_by_instance_uuid", nothing), \
            mock.patch("nova.objects.Instance.save", lambda self, *a, **k: None):
        yield


def report(way, results):
    """Print one way's line, and say whether it is fast enough."""
    times = [elapsed for elapsed, _, _, _ in results]
    keys = statistics.median(of_keys for _, of_keys, _, _ in results)
    median = statistics.median(times)
    print("%-36s min %6.1f  median %6.1f  max %6.1f ms, CPU %6.1f ms, %3d requests to WMI%s" % (
        way, min(times), median, max(times), statistics.median(cpu for _, _, cpu, _ in results),
        results[-1][3],
        "; of it RSA key pairs %.1f ms" % keys if keys else ""))
    return median <= LIMIT_MS


def main(count=20):
    logging.disable(logging.WARNING)
    fabric = CountingFabric({"fabrics": [FABRIC], "hosts": [{"name": HOST, "fabric": FABRIC}]})
    windows.install(fabric, HOST)
    protector = key_protector.make_protector(
        guardian.Guardian.generate("Contoso"),
        [guardian.Guardian.from_metadata(fabric.metadata(FABRIC), FABRIC)])
    with tempfile.TemporaryDirectory() as folder, stub_key_manager.running() as key_manager, \
            contextlib.ExitStack() as stack:
        bench = Bench(folder, fabric)
        stack.enter_context(without_nova_services())
        fits = [report("compute-hyperv's driver", bench.spawns(bench.driver(STOCK), count))]
        key_manager.payloads = {KEY: protector}
        ours = bench.driver(OURS, fabric_guardian=FABRIC, endpoint_override=key_manager.url)
        fits.append(report("vTPM, the tenant's protector", bench.spawns(
            ours, count, os_vtpm="required", os_vtpm_keys=KEY)))
        fits.append(report("vTPM, a protector made on the host", bench.spawns(
            ours, count, os_vtpm="required")))
    print("%s median is at most %d ms." % ("Each" if all(fits) else "NOT each", LIMIT_MS))
    return 0 if all(fits) else 1


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
