"""What WMI and PyMI refuse, seen through PyMI; os-win makes the machines.

The answers of PyMI's C++ are those of ``PyMI/Utils.cpp`` (Py2MI), ``PyMI/Instance.cpp`` and
``MI/MIValue.cpp`` of PyMI 1.0.9.
"""
import datetime
import importlib

import hypothesis
import pytest
from hypothesis import strategies

from tests.hyperv import cim, schema, windows
from tests.hyperv.fabric import Fabric

V2 = "//./root/virtualization/v2"
GENERATION_2 = 2
NO_HRESULT = 0  # the client's own library refuses
INVALID_PARAMETERS, NOT_FOUND = 0x8004102F, 0x80041002


@pytest.fixture(scope="module")
def fabric():
    return Fabric({"fabrics": ["east"], "hosts": [
        {"name": "HV1", "fabric": "east"}, {"name": "HV2", "fabric": "east"}]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("machines")


@pytest.fixture
def wmi(fabric):
    windows.install(fabric, "HV1")
    return importlib.import_module("wmi")


@pytest.fixture
def connection(wmi):
    return wmi.WMI(V2)


@pytest.fixture
def vmutils(wmi):
    return importlib.import_module("os_win.utilsfactory").get_vmutils()


@pytest.fixture
def name(vmutils, folder):
    """The name of a machine that is off."""
    vmutils.create_vm("machine", False, GENERATION_2, str(folder), ["note"])
    yield "machine"
    vmutils.destroy_vm("machine")


@pytest.fixture
def system(connection, name):
    return connection.Msvm_ComputerSystem(ElementName=name)[0]


@pytest.fixture
def settings(connection, name):
    return connection.Msvm_VirtualSystemSettingData(ElementName=name)[0]


@pytest.fixture
def service(connection):
    return connection.Msvm_VirtualSystemManagementService()[0]


@pytest.fixture
def refused(wmi):
    """refused(hresult): a context in which WMI refuses with this code; left out: with any."""
    def context(hresult=None):
        return _Refused(wmi.x_wmi, hresult)
    return context


class _Refused:
    def __init__(self, error, hresult):
        self._raises, self._hresult = pytest.raises(error), hresult

    def __enter__(self):
        self._caught = self._raises.__enter__()
        return self._caught

    def __exit__(self, *exception):
        done = self._raises.__exit__(*exception)
        if done and self._hresult is not None:
            assert self._caught.value.com_error.hresult & 0xFFFFFFFF == self._hresult
        return done


def test_names_that_there_are_not(wmi, connection, system, refused):
    with refused(0x8004100E):
        wmi.WMI("//./root/nothing")
    with refused(0x80041010):
        connection.Msvm_Nothing()
    with refused(0x80041010):
        connection.query("SELECT * FROM Msvm_Nothing")
    with pytest.raises(AttributeError):
        system.Nothing  # noqa: B018
    with refused(NO_HRESULT):
        system.Nothing = 1
    with refused(NO_HRESULT):
        system.RequestStateChange(Nothing=2)
    with refused():
        wmi.WMI("//NOBODY/root/virtualization/v2")


@pytest.mark.parametrize("query", [
    "SELECT Nothing FROM Msvm_ComputerSystem", "SELECT * FROM Msvm_ComputerSystem WHERE Nothing=1",
    "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState='off'",
    "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState=70000",
    "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState=True",
    "SELECT * FROM Msvm_ComputerSystem WHERE ElementName=machine",
    "SELECT * FROM Msvm_ComputerSystem WHERE ElementName ~ 'a'",
    "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState LIKE '2'",
    "SELECT * FROM Msvm_ComputerSystem WHERE OperationalStatus = 2",
    "SELECT * FROM Msvm_ComputerSystem WHERE StatusDescriptions = 'OK'",
    "SELECT * FROM Msvm_ComputerSystem WITHIN 2",
    "SELECT * FROM Msvm_VirtualSystemSettingData WHERE SecureBootEnabled > false",
    "SELECT * FROM Msvm_ComputerSystem WHERE", "UPDATE Msvm_ComputerSystem SET EnabledState=2"])
def test_queries(connection, refused, query):
    """Refused although no instance is looked at: this host has no machine."""
    with refused(0x80041017):
        connection.query(query)


def test_paths_that_pymi_does_not_make(connection, refused):
    """Keys of associations are references; their instances are found, and have no path."""
    association = connection.Msvm_HostedDependency()[0]
    with refused(NO_HRESULT) as caught:
        association.path_()
    assert "Unsupported key type" in str(caught.value)
    assert repr(association).startswith("<wmi._Instance")
    feature = cim.Instance(schema.class_of("10.0.17763", "root/cimv2", "Win32_ServerFeature"),
                           "HV1", {"ID": 20})
    feature.is_client_side = True
    assert feature.get_path() == "\\\\HV1\\root\\cimv2:Win32_ServerFeature.ID=20"
    keyless = cim.Instance(schema.parse("root/test", "class A\n  string B\n")["a"], "HV1")
    keyless.is_client_side = True
    with pytest.raises(cim.Error, match="without key elements"):
        keyless.get_path()


def test_names_in_any_case(connection, system):
    assert system.elementname == "machine"
    assert connection.query("select ELEMENTNAME from msvm_computersystem where enabledSTATE=3")
    assert system.requestStateCHANGE(requestedstate=2)[1] == 4096
    assert system.RequestStateChange(REQUESTEDSTATE=3)[1] == 4096


def test_positions_are_those_of_the_sorted_names(system, refused):
    assert str(system.RequestStateChange).endswith("(RequestedState, TimeoutPeriod)>")
    with refused(NO_HRESULT):
        system.RequestStateChange(2, None, 3)


NOT_A_NUMBER = (1.0, b"1", {}, object(), "one", [1], datetime.timedelta(1))


@pytest.mark.parametrize("prop, wrong", [
    *(("Weight", value) for value in NOT_A_NUMBER),
    *(("DynamicMemoryEnabled", value) for value in (1.0, b"1", [True], {})),
    *(("ElementName", value) for value in (["a"], ("a",), [])),
    *(("HostResource", value) for value in (1, object(), 1.5)),
    *(("InstallDate", value) for value in (
        datetime.datetime(2020, 1, 1), 1, "20200101000000.000000+000", b"x"))])
def test_types_that_pymi_does_not_convert(connection, prop, wrong):
    memory = {"InstallDate": connection.Msvm_ComputerSystem}.get(
        prop, connection.Msvm_MemorySettingData).new()
    with pytest.raises(TypeError):
        setattr(memory, prop, wrong)


@pytest.mark.parametrize("prop, wrong", [
    ("Weight", True), ("Weight", -1), ("Weight", 1 << 32), ("ElementName", True),
    ("HostResource", [None])])
def test_values_that_mi_refuses(connection, refused, prop, wrong):
    memory = connection.Msvm_MemorySettingData.new()
    with refused(NO_HRESULT):
        setattr(memory, prop, wrong)


def test_values_that_end_the_process(connection):
    memory = connection.Msvm_MemorySettingData.new()
    with pytest.raises(SystemError):
        memory.HostResource = ["a", True]


def test_values_that_pymi_converts(connection):
    memory = connection.Msvm_MemorySettingData.new()
    for prop, given, kept in (
            ("Weight", "7", 7), ("DynamicMemoryEnabled", "yes", True),
            ("DynamicMemoryEnabled", "no", False), ("DynamicMemoryEnabled", 2, True),
            ("ElementName", 7, "7"), ("ElementName", b"a", "b'a'"), ("ElementName", 1.5, "1.5"),
            ("HostResource", "ab", ("a", "b")), ("HostResource", ["a", 1], ("a", "1")),
            ("Weight", None, None)):
        setattr(memory, prop, given)
        assert getattr(memory, prop) == kept


def test_datetimes_are_pythons(connection, system, fabric):
    job = connection.Msvm_ConcreteJob(InstanceID=system.RequestStateChange(
        RequestedState=2)[0].split('"')[1])[0]
    assert isinstance(job.StartTime, datetime.datetime)
    assert isinstance(job.ElapsedTime, datetime.timedelta)
    with pytest.raises(TypeError):
        system.RequestStateChange(RequestedState=3, TimeoutPeriod="00000000000001.000000:000")
    system.RequestStateChange(RequestedState=3)


def test_parameters_that_are_missing(service, system, settings, refused):
    for call in (service.DestroySystem, service.AddResourceSettings,
                 service.ModifyResourceSettings, service.RemoveResourceSettings,
                 service.ModifySystemSettings, service.DefineSystem,
                 service.RealizePlannedSystem, service.ImportSystemDefinition,
                 service.ExportSystemDefinition, system.RequestStateChange):
        with refused(INVALID_PARAMETERS):
            call()
    with refused(INVALID_PARAMETERS):
        service.DestroySystem(AffectedSystem=None)
    with refused(INVALID_PARAMETERS):
        service.AddResourceSettings(AffectedConfiguration=settings.path_(), ResourceSettings=None)


def test_methods_of_instances_are_none_of_the_class(connection, refused):
    with refused(INVALID_PARAMETERS):
        connection.Msvm_ComputerSystem.RequestStateChange(RequestedState=2)
    with refused(INVALID_PARAMETERS):
        connection.Msvm_SecurityService.GetKeyProtector(SecuritySettingData="")


def test_references(wmi, connection, service, system, settings, refused):
    with refused(NOT_FOUND):
        service.DestroySystem(AffectedSystem=system.path_().replace(system.Name, "nobody"))
    with refused(INVALID_PARAMETERS):
        service.DestroySystem(AffectedSystem=settings.path_())
    with refused(INVALID_PARAMETERS):
        service.DestroySystem(AffectedSystem=service.path_())
    with pytest.raises(AttributeError):  # PyMI's own: no text, or a path without keys
        service.DestroySystem(AffectedSystem=7)
    with pytest.raises(AttributeError):
        service.DestroySystem(AffectedSystem=system.path_().split(".")[0])
    assert connection.Msvm_ComputerSystem(ElementName="machine")


def test_a_reference_to_another_host(fabric, service, system, refused):
    """Refused also where that host has a machine with the same identifier, as while it moves."""
    other = fabric.host("HV2").repository
    twin = other.add("root/virtualization/v2", "Msvm_ComputerSystem", Name=system.Name,
                     CreationClassName=system.CreationClassName)
    with refused(NOT_FOUND):
        service.DestroySystem(AffectedSystem=twin.get_path())
    other.remove(twin)
    assert [machine["name"] for machine in fabric.virtual_machines("HV1")] == ["machine"]


def test_embedded_instances(connection, service, settings, refused):
    good = settings.GetText_(1)
    processor = connection.Msvm_ProcessorSettingData.new().GetText_(1)
    for text in ("", "no XML", good[:-5], good.replace("Msvm_VirtualSystem", "Msvm_No"), processor,
                 good.replace('NAME="ElementName"', 'NAME="Nothing"'),
                 good.replace(">TRUE<", ">maybe<").replace(">FALSE<", ">maybe<"),
                 good.replace('NAME="ElementName"', 'NAME="UserSnapshotType"'),
                 good.replace("<INSTANCE", "<CLASS").replace("</INSTANCE", "</CLASS"),
                 good.replace('NAME="ElementName" TYPE="string"',
                              'NAME="ElementName" TYPE="uint16"'),
                 good.replace('NAME="ElementName" TYPE="string"', 'NAME="ElementName"'),
                 good.replace('NAME="ElementName"', 'NAME="Notes"'),
                 good.replace("</INSTANCE>", '<PROPERTY NAME="ElementName" TYPE="string"><VALUE>b'
                              "</VALUE></PROPERTY></INSTANCE>")):
        assert text != good
        with refused():
            service.ModifySystemSettings(SystemSettings=text)
    with pytest.raises(TypeError):
        service.ModifySystemSettings(SystemSettings=[good])
    assert service.ModifySystemSettings(SystemSettings=good)[-1] in (0, 4096)


def test_stored_instances_change_by_methods_alone(connection, system, settings, refused):
    system.ElementName = "other"
    with refused(0x8004100C):
        system.put()
    with refused(0x8004100C):
        system.Delete_()
    with refused(0x8004100C):
        connection.Msvm_ComputerSystem.new().put()
    assert connection.Msvm_ComputerSystem(ElementName="machine")
    settings.InstanceID = "Microsoft:nobody"
    with refused(NOT_FOUND):
        connection.Msvm_VirtualSystemManagementService()[0].ModifySystemSettings(
            SystemSettings=settings.GetText_(1))


def test_associators(connection, system, settings, refused):
    assert [found.InstanceID for found in system.associators(
        wmi_result_class="Msvm_VirtualSystemSettingData",
        wmi_association_class="Msvm_SettingsDefineState")] in ([], [settings.InstanceID])
    assert system.associators(wmi_result_class="Msvm_Processor") == []
    with refused(0x80041010):
        system.associators(wmi_result_class="Msvm_Nothing")
    with refused(0x80041010):
        system.associators(wmi_association_class="Win32_OperatingSystem")


def test_what_has_no_provider_is_refused(connection, service, refused):
    with refused(0x8004102D) as caught:
        service.GenerateWwpn(NumberOfWwpns=1)
    assert "is not simulated" in str(caught.value)


WRONG = strategies.recursive(
    strategies.one_of(
        strategies.none(), strategies.integers(), strategies.floats(), strategies.text(max_size=20),
        strategies.binary(max_size=8), strategies.just(object()),
        strategies.sampled_from(["\\\\HV1\\root\\virtualization\\v2:Msvm_ComputerSystem.Name=\"x\"",
                                 "<INSTANCE CLASSNAME='Msvm_VirtualSystemSettingData'/>",
                                 "<INSTANCE CLASSNAME='Msvm_Nothing'/>"])),
    lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=3),
        strategies.dictionaries(strategies.text(max_size=3), inner, max_size=2)), max_leaves=4)


def methods_with_providers(fabric):
    """Every method of the tables that has a provider and takes something, by an instance or class.

    :returns: [(namespace, class name, method, in-parameters, whether it is static)]
    """
    repository, found = fabric.host("HV1").repository, []
    for namespace, classes in schema.load_namespaces("10.0.17763").items():
        for cls in classes.values():
            for method, parameters in cls.methods.items():
                try:
                    repository._provider(cls, method)
                except cim.Error:
                    continue
                taken = [p for p in parameters if p.direction == "in"]
                is_static = method in cls.static_methods
                if taken and (is_static or repository.instances(namespace, cls.name)):
                    found.append((namespace, cls.name, method, taken, is_static))
    return found


# Nothing that they are given is wrong: a flag, a reason, a name.
ANY_VALUE_WILL_DO = {"Win32Shutdown", "KillJob", "InitiateShutdown", "InitiateReboot",
                     "NewByGenerateCertificates"}


@hypothesis.settings(max_examples=400, deadline=None, suppress_health_check=list(
    hypothesis.HealthCheck), derandomize=True, database=None)
@hypothesis.given(data=strategies.data())
def test_random_arguments_never_succeed(fabric, wmi, data):
    """Each method, with arguments that are wrong together: never success, never another error."""
    methods = methods_with_providers(fabric)
    assert len(methods) > 30
    namespace, class_name, method, parameters, is_static = data.draw(strategies.sampled_from(
        [entry for entry in methods if entry[2] not in ANY_VALUE_WILL_DO]))
    connection = wmi.WMI("//./" + namespace)
    target = getattr(connection, class_name)
    target = target if is_static else target()[0]
    given = data.draw(strategies.fixed_dictionaries(
        {}, optional={p.name: WRONG for p in parameters}))
    # An empty array asks for nothing; nothing is done for it.
    hypothesis.assume(not any(value in ([], {}, "", b"") for value in given.values()))
    try:
        answer = getattr(target, method)(**given)
    except (wmi.x_wmi, TypeError, AttributeError):
        return
    except SystemError as error:  # where PyMI would be gone
        assert "ends the process" in str(error)
        return
    assert isinstance(answer[-1], int) and answer[-1] not in (0, 4096), (method, given, answer)


def test_every_method_that_takes_something_is_tried(fabric):
    names = {entry[2] for entry in methods_with_providers(fabric)}
    assert {"DefineSystem", "SetKeyProtector", "NewByGuardians", "RequestStateChange"} <= names
    assert len(names) > 20
