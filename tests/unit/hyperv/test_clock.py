"""The clock that tests move."""
import pytest

from tests.hyperv import windows
from tests.hyperv.clock import Clock
from tests.hyperv.fabric import Fabric

GENERATION_2 = 2
HOUR = 3600


def test_it_goes_with_the_time_and_with_tests():
    clock = Clock()
    before = clock.now()
    clock.advance(HOUR)
    assert clock.now() >= before + HOUR
    assert abs(clock.utc().timestamp() - clock.now()) < HOUR
    with pytest.raises(ValueError):
        clock.advance(-1)


def test_uptime_follows_it(tmp_path):
    fabric = Fabric({"hosts": [{"name": "HV1"}]})
    windows.install(fabric, "HV1")
    from os_win import constants, utilsfactory
    vmutils = utilsfactory.get_vmutils()
    vmutils.create_vm("vm", False, GENERATION_2, str(tmp_path), [])
    vmutils.set_vm_state("vm", constants.HYPERV_VM_STATE_ENABLED)
    fabric.advance_clock(HOUR)
    assert vmutils.get_vm_summary_info("vm")["UpTime"] >= HOUR * 1000
