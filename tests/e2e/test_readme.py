"""As a new operator would, by the README alone: from its wheel to the first refusal.

The commands and the options are the README's own, in its order. The cloud has compute-hyperv and
nothing of this project before they are followed.
"""

import os
import pathlib
import shlex
import shutil

import pytest

from tests import fresh_environment
from tests.cloud import guarded_cloud
from tests.e2e import conftest, tenants_home

README = tenants_home.REPOSITORY / "README.rst"
SECTION = "Use it"
STOCK_DRIVER = "compute_hyperv.driver.HyperVDriver"


class Steps:
    """The indented texts of the README's section, each taken once and in their order."""

    def __init__(self):
        section = README.read_text().split("\n%s\n%s\n" % (SECTION, "=" * len(SECTION)))[1]
        self._left = tenants_home.blocks(section.split("\n===")[0])

    def next(self, before):
        """The next one, which comes after a line with these words."""
        heading, block = self._left.pop(0)
        assert before in heading
        return block

    def end(self):
        """Nothing is left that was not followed."""
        assert self._left == []


class Machine:
    """One with Nova and its Python environment, which has nothing of this project yet."""

    def __init__(self, folder, with_simulator=False):
        folder.mkdir()
        self.folder, self.prefix = folder, folder / "environment"
        fresh_environment.without_project("nova-28", self.prefix, with_simulator)

    def follow(self, block, folder=None):
        """Run commands of the README in a folder."""
        for command in tenants_home.lines_of(block):
            printed = fresh_environment.run(
                shlex.split(command), cwd=folder or self.folder, env=dict(
                    fresh_environment.PIP, HOME=str(self.folder), LANG="C.UTF-8",
                    PATH=os.pathsep.join([str(self.prefix / "bin"), os.environ["PATH"]])))
            # pip's only word on an extra that there is not.
            assert "WARNING" not in printed, printed


class CloudOfReadme(guarded_cloud.HyperVCloud):
    """With the stock driver and Nova's own filters, and then what was added to the files."""

    HOSTS = [one for one in guarded_cloud.HOSTS if one["name"] == guarded_cloud.GUARDED]

    def __init__(self, state_dir, controller, host, added):
        """Remember the machines, and ``added``: what the scheduler's and the hosts' files get."""
        super().__init__(
            state_dir, prefix=controller.prefix, host_prefix=host.prefix,
            compute_driver=STOCK_DRIVER, available_filters=None)
        self._added = added

    def _write_configuration(self):
        super()._write_configuration()
        of_scheduler, of_host = self._added
        files = {self._settings.etc / "nova" / "nova.conf": of_scheduler}
        if self._settings.one_process:
            files = dict.fromkeys(files, of_scheduler + of_host)
        files.update((self.compute_file(name), of_host) for name in self.compute_host_names)
        for path, text in files.items():
            with path.open("a") as file:
                file.write("\n" + text)


@pytest.fixture
def checkout(tmp_path):
    """Where the wheel is built."""
    fresh_environment.checkout_without_builds(tmp_path / "checkout")
    return tmp_path / "checkout"


def test_from_the_wheel_to_the_first_refusal(checkout, tmp_path):
    steps = Steps()
    controller = Machine(tmp_path / "controller")
    host = Machine(tmp_path / "host", with_simulator=True)
    controller.follow(steps.next("Build the wheel"), checkout)
    controller.follow(steps.next("Where nova-scheduler and nova-api are"), checkout)
    of_scheduler = steps.next("nova-scheduler's ``nova.conf``")
    (wheel,) = pathlib.Path(checkout, "dist").iterdir()
    shutil.copy(wheel, host.folder)
    host.follow(steps.next("to the Hyper-V hosts"))
    of_host = steps.next("nova-compute's")
    with CloudOfReadme(conftest.STATE.with_name(conftest.STATE.name + "-readme"),
                       controller, host, (of_scheduler, of_host)) as cloud:
        home = tenants_home.Home(conftest.Tenant(cloud), tmp_path)
        use(home, steps)
    steps.end()


def use(home, steps):
    """What the README does with the cloud, as the operator and as a tenant."""
    tenant, cloud = home.tenant, home.tenant.cloud
    names = {"HOST": guarded_cloud.GUARDED, "FLAVOR": tenant.plain_flavor,
             "IMAGE": "windows", "SERVER": "first", "SERVER2": "second"}
    home.write("disk.vhdx", guarded_cloud.IMAGE)

    def run(before, user):
        """What the commands printed."""
        return [home.run_openstack(names, one, user=user)
                for one in tenants_home.lines_of(steps.next(before))]

    # The filter is among the enabled ones, which the pre-filter does not stand in for.
    assert "hosts belong to no fabric" in tenant.fault(tenant.vtpm_image())
    run("as the operator", "admin")
    *_, shown = run("boot a server, as a tenant", "alice")
    assert "ACTIVE" in shown, shown
    machine = cloud.machine_of(tenant.alice.compute.find_server("first").id)
    assert machine["security"]["TpmEnabled"]
    # The host's own, of an owner and the fabric.
    assert [(one["is_owner"], one["name"]) for one in machine["guardians"]] == [
        (True, None), (False, guarded_cloud.FABRIC)]
    *_, shown = run("a vTPM on a Generation 1 VM", "alice")
    assert "ERROR" in shown and tenants_home.shows(
        shown, steps.next("which property to change")), shown
    assert len(cloud.machines()) == 1
