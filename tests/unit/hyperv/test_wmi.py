"""What the simulated WMI refuses and answers; the tables and lists that must agree."""
import pathlib
import re

import pytest

from tests.hyperv import assumptions, cim, schema, windows, wql
from tests.hyperv.fabric import Fabric

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
V2 = "//./root/virtualization/v2"
TABLE = schema.parse("root/test", """
class Thing
  key Name
  string Name Text
  uint16 Number
  uint8[] Bytes
  boolean Flag
""")


def thing(**values):
    return cim.Instance(TABLE["thing"], "HV1", values)


@pytest.fixture(scope="module")
def wmi():
    windows.install(Fabric({"fabrics": ["east"], "hosts": [
        {"name": "HV1", "fabric": "east"}, {"name": "HV-OLD", "version": "6.3.9600"}]}), "HV1")
    import wmi
    return wmi


@pytest.mark.parametrize("condition, expected", [
    ("Name = 'a'", True), ("Name = 'A'", True), ("Name <> 'a'", False), ("Number = 7", True),
    ("Number = '7'", True), ("Number = 07", True), ("Number > 7", False), ("Number >= 7", True),
    ("Flag = True", True),
    ("Name LIKE '%\\\\Default'", False), ("Name LIKE '_'", True), ("Name LIKE '[a-c]'", True),
    ("Name = 'b' OR Name = 'a' AND Number = 7", True),
    ("(Name = 'b' OR Name = 'a') AND Number = 8", False), ("NOT Name = 'b'", True),
    ("Flag IS NULL", False), ("Name IS NOT NULL", True), ("Text LIKE '%'", False),
    ("Text IS NULL", True), ("Name LIKE '[^b]'", True),
    ("__RELPATH = 'Thing.Name=\"a\"'", True), ("__SERVER = 'HV1'", True),
    ("__NAMESPACE = 'root\\\\test'", True), ("__CLASS = 'Thing'", True),
    ("__PATH = '\\\\\\\\HV1\\\\root\\\\test:Thing.Name=\"a\"'", True)])
def test_conditions(condition, expected):
    query = wql.Query("SELECT * FROM Thing WHERE " + condition)
    assert query.matches(thing(Name="a", Number=7, Flag=True)) is expected


@pytest.mark.parametrize("text", [
    "SELECT", "SELECT * Thing", "SELECT * FROM Thing WHERE",
    "SELECT * FROM Thing WHERE (Name = 'a'", "SELECT * FROM Thing WHERE Name ~ 'a'",
    "SELECT *, Name FROM Thing", "SELECT * FROM Thing WHERE Name LIKE '[z-a]'",
    "SELECT * FROM Thing WHERE Name = 'a' Number"])
def test_bad_queries(text):
    with pytest.raises(cim.Error) as caught:
        wql.Query(text)
    assert caught.value.args[0]["mi_result"] == cim.RESULTS["INVALID_QUERY"][0]


@pytest.mark.parametrize("values, error", [
    ({"Number": True}, cim.Error), ({"Number": 70000}, cim.Error), ({"Number": 1.5}, TypeError),
    ({"Flag": "true"}, TypeError), ({"Bytes": 1}, TypeError), ({"Bytes": [True]}, SystemError),
    ({"Nothing": 1}, cim.Error)])
def test_wrong_values(values, error):
    with pytest.raises(error):
        thing(**values)


def test_values_as_pymi_keeps_them():
    assert thing(Bytes=(255, "7"))["bytes"] == (255, 7)
    assert thing(Name=b"a")["Name"] == "b'a'"


def test_what_pymi_refuses(wmi):
    connection = wmi.WMI(V2)
    with pytest.raises(wmi.x_wmi):
        wmi.WMI("//./root/nothing")
    with pytest.raises(wmi.x_wmi):
        connection.Msvm_Nothing()
    service = connection.Msvm_SecurityService()[0]
    with pytest.raises(AttributeError):
        service.Nothing  # noqa: B018
    with pytest.raises(wmi.x_wmi):
        service.SetKeyProtector(Protector=[1])
    with pytest.raises(wmi.x_wmi):
        service.SetKeyProtector(SecuritySettingData="not XML", KeyProtector=[1])
    assert str(service.SetKeyProtector).endswith("(KeyProtector, SecuritySettingData)>")


def test_the_host_refuses_unknown_parameters():
    """Asked without PyMI, which refuses them before they reach the host."""
    host = Fabric({"hosts": [{"name": "HV1"}]}).host("HV1")
    service = host.repository.instances(
        "root/virtualization/v2", "Msvm_VirtualSystemManagementService")[0]
    parameters = cim.Instance(None)
    parameters.add_element("SystemSettings", cim.CimType("string"), "")
    parameters.add_element("Nothing", cim.CimType("string"), "")
    with pytest.raises(cim.Error, match="has no parameter Nothing") as caught:
        host.repository.invoke(service, "DefineSystem", parameters)
    assert caught.value.args[0]["mi_result"] == cim.RESULTS["INVALID_METHOD_PARAMETERS"][0]
    assert not host.repository.calls.entries()


def test_an_old_host_has_no_security(wmi):
    with pytest.raises(wmi.x_wmi):
        wmi.WMI("//HV-OLD/root/virtualization/v2").Msvm_SecurityService()
    with pytest.raises(wmi.x_wmi):
        wmi.WMI("//HV-OLD/Root/Microsoft/Windows/Hgs")


def test_every_assumption_is_listed_and_used():
    code = "".join(path.read_text() for path in (REPOSITORY / "tests" / "hyperv").glob("*.py")
                   if path.name != "assumptions.py")
    used = set(re.findall(r"\[assumption ([\w-]+)\]", code))
    assert used == {entry.id for entry in assumptions.ASSUMPTIONS}
