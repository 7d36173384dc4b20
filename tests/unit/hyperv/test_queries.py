"""Queries about instances and about events, through PyMI and os-win."""
import importlib

import pytest

from tests.hyperv import cim, event_query, schema, windows
from tests.hyperv.fabric import Fabric

V2 = "//./root/virtualization/v2"
GENERATION_2 = 2
OFF, RUNNING = 3, 2

INVALID_QUERY, INVALID_CLASS, NOT_EVENT_CLASS = 0x80041017, 0x80041010, 0x80041059
TOO_BROAD, TOO_PRECISE = 0x80042001, 0x80042002


@pytest.fixture
def fabric():
    made = Fabric({"hosts": [{"name": "HV1", "processors": 2}]})
    windows.install(made, "HV1")
    return made


@pytest.fixture
def wmi(fabric):
    return importlib.import_module("wmi")


@pytest.fixture
def connection(wmi):
    return wmi.WMI(V2)


@pytest.fixture
def vmutils(fabric):
    return importlib.import_module("os_win.utilsfactory").get_vmutils()


@pytest.fixture
def system(vmutils, connection, tmp_path):
    """A machine that is off."""
    vmutils.create_vm("machine", False, GENERATION_2, str(tmp_path), ["note"])
    return connection.Msvm_ComputerSystem(ElementName="machine")[0]


@pytest.fixture
def refused(wmi):
    """refused(hresult, function, *arguments): WMI refuses the call with this code."""
    def check(hresult, function, *arguments):
        with pytest.raises(wmi.x_wmi) as caught:
            function(*arguments)
        assert caught.value.com_error.hresult & 0xFFFFFFFF == hresult, arguments
    return check


# What is selected.

def test_what_is_not_selected_is_null(connection, system):
    for query in ("SELECT Name FROM Msvm_ComputerSystem WHERE ElementName = 'machine'",
                  "SELECT name FROM CIM_System WHERE ElementName = 'machine'"):
        (found,) = connection.query(query)
        assert found.Name == system.Name
        assert found.ElementName is None and found.EnabledState is None
        assert found.path_() == system.path_()
    (found,) = connection.Msvm_ComputerSystem(["EnabledState"], ElementName="machine")
    assert (found.EnabledState, found.ElementName) == (OFF, None)
    assert found.Name == system.Name  # a key
    (found,) = connection.query("SELECT __PATH FROM Msvm_ComputerSystem WHERE Name = '%s'"
                                % system.Name)
    assert (found.path_(), found.EnabledState) == (system.path_(), None)
    with pytest.raises(AttributeError):
        found.Nothing  # noqa: B018
    (found,) = connection.query("SELECT * FROM Msvm_ComputerSystem WHERE Name = '%s'" % system.Name)
    assert (found.ElementName, found.EnabledState) == ("machine", OFF)


def test_what_was_not_selected_stays_on_the_host(connection, system):
    (found,) = connection.Msvm_ComputerSystem(["Name"], ElementName="machine")
    assert found.RequestStateChange(RequestedState=RUNNING)[-1] == 4096
    (found,) = connection.Msvm_ComputerSystem(ElementName="machine")
    assert found.EnabledState == RUNNING


def test_os_wins_selections(fabric, vmutils, system):
    assert vmutils.list_instances() == ["machine"]
    assert vmutils.list_instance_notes() == [("machine", ["note"])]
    hostutils = importlib.import_module("os_win.utilsfactory").get_hostutils()
    (node,) = hostutils.get_numa_nodes()
    assert node["cpuset"] == {"0", "1"} and node["memory"] == 32768
    assert hostutils.get_memory_info() == (32768 * 1024,) * 2
    assert [cpu["NumberOfCores"] for cpu in hostutils.get_cpus_info()] == [2]


# What is refused.

@pytest.mark.parametrize("condition, taken", [
    ("ElementName = 'a'", True), ("ElementName = 5", False), ("ElementName = true", False),
    ("EnabledState = 2", True), ("EnabledState = '2'", True), ("EnabledState = 'two'", False),
    ("EnabledState < 70000", False), ("EnabledState = 2.5", False),
    ("InstallDate = '20200101000000.000000+000'", True), ("InstallDate = '2020'", False),
    ("InstallDate = 2020", False), ("EnabledState IS NULL", True), ("EnabledState = NULL", True)])
def test_literals(connection, refused, condition, taken):
    query = "SELECT * FROM Msvm_ComputerSystem WHERE " + condition
    if taken:
        assert connection.query(query) == []
    else:
        refused(INVALID_QUERY, connection.query, query)


@pytest.mark.parametrize("query", [
    "ASSOCIATORS OF {Msvm_ComputerSystem.Name='a'}",
    "ASSOCIATORS OF {Msvm_ComputerSystem.Name='a'} WHERE ResultClass = CIM_SettingData",
    "ASSOCIATORS OF {Msvm_ComputerSystem.Name='a'} WHERE Nothing = 1",
    "REFERENCES OF {Msvm_ComputerSystem.Name='a'} WHERE ClassDefsOnly",
    "SELECT * FROM meta_class", "SELECT * FROM Msvm_ComputerSystem WHERE __this ISA 'CIM_System'",
    "SELECT * FROM Msvm_ComputerSystem WHERE Name ISA 'CIM_System'",
    "SELECT * FROM Msvm_ComputerSystem WHERE Name = ElementName",
    "SELECT * FROM Msvm_ComputerSystem WHERE Name = TargetInstance.Name",
    "SELECT TargetInstance.Name FROM Msvm_ComputerSystem",
    "SELECT * FROM Msvm_ComputerSystem WHERE Name BETWEEN 'a' AND 'b'",
    "SELECT * FROM Msvm_ComputerSystem ORDER BY Name",
    "SELECT COUNT(*) FROM Msvm_ComputerSystem", "SELECT * FROM Msvm_ComputerSystem, CIM_System",
    "SELECT * FROM Msvm_ComputerSystem WHERE Name = 'a' GROUP WITHIN 5",
    "SELECT * FROM Msvm_ComputerSystem WHERE __DERIVATION = 'CIM_System'"])
def test_what_is_not_simulated_is_refused(connection, refused, query):
    hresult = INVALID_CLASS if "meta_class" in query else INVALID_QUERY
    refused(hresult, connection.query, query)


EVENTS = "SELECT * FROM __InstanceModificationEvent WITHIN 1 WHERE "
OF_SYSTEMS = EVENTS + "TargetInstance ISA 'Msvm_ComputerSystem' AND "


@pytest.mark.parametrize("query, hresult", [
    ("SELECT * FROM __InstanceNothingEvent WITHIN 1 WHERE "
     "TargetInstance ISA 'Msvm_ComputerSystem'", INVALID_CLASS),
    ("SELECT * FROM Msvm_ComputerSystem", NOT_EVENT_CLASS),
    ("SELECT * FROM __ExtrinsicEvent", INVALID_QUERY),
    (EVENTS.replace("WITHIN 1 ", "") + "TargetInstance ISA 'Msvm_ComputerSystem'", TOO_PRECISE),
    (EVENTS.replace("1", "soon") + "TargetInstance ISA 'Msvm_ComputerSystem'", INVALID_QUERY),
    (EVENTS.replace("1", "0.001") + "TargetInstance ISA 'Msvm_ComputerSystem'", INVALID_QUERY),
    (EVENTS.replace("1", "-5") + "TargetInstance ISA 'Msvm_ComputerSystem'", INVALID_QUERY),
    (EVENTS.replace(" WHERE ", ""), TOO_BROAD),
    (EVENTS + "NOT TargetInstance ISA 'Msvm_ComputerSystem'", TOO_BROAD),
    (EVENTS + "TargetInstance ISA 'Msvm_ComputerSystem' OR TargetInstance.Name = 'a'", TOO_BROAD),
    (EVENTS + "TargetInstance.Name = \"TargetInstance ISA 'Msvm_ComputerSystem'\"", TOO_BROAD),
    (EVENTS + "PreviousInstance ISA 'Msvm_ComputerSystem'", TOO_BROAD),
    (EVENTS + "TargetInstance ISA 'Msvm_Nothing'", INVALID_CLASS),
    (EVENTS + "TargetInstance ISA 'Win32_OperatingSystem'", INVALID_CLASS),
    (EVENTS + "TargetInstance ISA 'CIM_System' OR TargetInstance ISA 'CIM_Job'", INVALID_QUERY),
    (OF_SYSTEMS + "PreviousInstance ISA 'Msvm_Nothing'", INVALID_CLASS),
    (OF_SYSTEMS + "TargetInstance.Nothing = 1", INVALID_QUERY),
    (OF_SYSTEMS + "TargetInstance.EnabledState = 'on'", INVALID_QUERY),
    (OF_SYSTEMS + "TargetInstance.EnabledState != PreviousInstance.Nothing", INVALID_QUERY),
    (OF_SYSTEMS + "Nothing.EnabledState = 2", INVALID_QUERY),
    (OF_SYSTEMS + "EnabledState = 2", INVALID_QUERY),
    (OF_SYSTEMS + "TargetInstance IS NULL", INVALID_QUERY),
    (OF_SYSTEMS + "TIME_CREATED > 0", INVALID_QUERY),
    (OF_SYSTEMS + "TargetInstance.EnabledState = 2 GROUP WITHIN 5", INVALID_QUERY),
    ((OF_SYSTEMS + "PreviousInstance.EnabledState = 2").replace("Modification", "Creation"),
     INVALID_QUERY),
    ((OF_SYSTEMS + "PreviousInstance.EnabledState = 2").replace("Modification", "Operation"),
     INVALID_QUERY)])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyMI's watcher
def test_event_queries_that_are_refused(connection, refused, query, hresult):
    refused(hresult, connection.watch_for, query)


# Which events arrive.

@pytest.fixture
def heard(fabric):
    """heard(query): a list to which the names of the instances of its events are added."""
    repository = fabric.host("HV1").repository

    def subscribe(query):
        names = []
        repository.subscribe("root/virtualization/v2", query, lambda instance, before: names.append(
            instance["ElementName"]))
        return names
    return subscribe


def about(event, condition="", of_class="Msvm_ComputerSystem"):
    return "SELECT * FROM __Instance%sEvent WITHIN 1 WHERE TargetInstance ISA '%s'%s" % (
        event, of_class, " AND " + condition if condition else "")


def test_only_events_that_fit_arrive(fabric, heard, vmutils, connection, tmp_path):
    made, removed = heard(about("Creation")), heard(about("Deletion"))
    changed, all_three = heard(about("Modification")), heard(about("Operation"))
    named = heard(about("Creation", "TargetInstance.ElementName LIKE 'b%'"))
    settings = heard(about("Creation", of_class="Msvm_VirtualSystemSettingData"))
    parents = heard(about("Creation", of_class="CIM_ComputerSystem"))
    started = heard(about("Modification", "TargetInstance.EnabledState != "
                          "PreviousInstance.EnabledState AND TargetInstance.EnabledState = '2'"))
    for name in ("a", "b"):
        vmutils.create_vm(name, False, GENERATION_2, str(tmp_path / name), [])
    assert made == parents == all_three == ["a", "b"]
    assert named == ["b"]
    assert {"a", "b"} <= set(settings)
    assert changed == removed == []
    for state in (RUNNING, OFF):
        connection.Msvm_ComputerSystem(ElementName="a")[0].RequestStateChange(RequestedState=state)
    assert changed and set(changed) == {"a"} and started == ["a"]
    vmutils.destroy_vm("b")
    assert removed == ["b"] and made == ["a", "b"]
    assert all_three == ["a", "b", *changed, "b"]


def test_an_instance_in_the_place_of_another_is_a_change(fabric, heard):
    repository, before = fabric.host("HV1").repository, []
    repository.subscribe("root/virtualization/v2", about("Modification"),
                         lambda instance, previous: before.append(previous["EnabledState"]))
    made = heard(about("Creation"))
    for state in (OFF, OFF, RUNNING):
        repository.add("root/virtualization/v2", "Msvm_ComputerSystem", Name="x", ElementName="x",
                       CreationClassName="Msvm_ComputerSystem", EnabledState=state)
    assert (made, before) == (["x"], [OFF])


def test_events_of_a_namespace_stay_in_it(fabric):
    """Both namespaces have a CIM_LogicalElement, and the events of one are not the other's."""
    repository = fabric.host("HV1").repository
    query = event_query.EventQuery(
        about("Modification", of_class="CIM_LogicalElement"),
        lambda name: repository.find_class("root/virtualization/v2", name))
    for namespace, class_name, fits in (
            ("root/virtualization/v2", "Msvm_ComputerSystem", True),
            ("root/mscluster", "MSCluster_Resource", False)):
        cls = schema.class_of("10.0.17763", namespace, class_name)
        instance = cim.Instance(cls, "HV1", {"Name": "a"})
        assert "CIM_LogicalElement" in cls.lineage
        assert query.fits(event_query.MODIFICATION, instance, instance) is fits


@pytest.mark.parametrize("fields, has_previous", [
    ("*", True), ("TargetInstance", False), ("TargetInstance.Name", False),
    ("EnabledState, TargetInstance", False), ("TargetInstance, PreviousInstance", True)])
def test_what_an_event_holds(connection, system, fields, has_previous):
    watcher = connection.watch_for(about("Modification").replace("*", fields))
    system.RequestStateChange(RequestedState=RUNNING)
    event = watcher(1000)
    assert event.ElementName == "machine"
    assert ("previous" in vars(event)) is has_previous


def test_an_event_without_its_instance_is_lost(connection, system, wmi, capsys):
    watcher = connection.watch_for(about("Modification").replace("*", "PreviousInstance"))
    system.RequestStateChange(RequestedState=RUNNING)
    with pytest.raises(wmi.x_wmi_timed_out):
        watcher(1)
    assert "TargetInstance" in capsys.readouterr().err  # as PyErr_Print prints


def test_os_wins_power_state_listener(vmutils, system):
    from os_win import constants
    heard = []

    class Enough(BaseException):
        pass

    def hear(*event):
        heard.append(event)
        raise Enough
    for filtered, state in ((None, RUNNING), ([OFF], OFF)):
        listen = vmutils.get_vm_power_state_change_listener(
            event_timeout=1000, filtered_states=filtered, get_handler=True)
        system.RequestStateChange(RequestedState=state)
        with pytest.raises(Enough):
            listen(hear)
    assert heard[-1] == ("machine", constants.HYPERV_VM_STATE_DISABLED)
    assert heard[0][0] == "machine"
