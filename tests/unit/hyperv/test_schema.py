"""The class tables: against os-win's own source, the drivers' and a real host's classes."""
import ast
import importlib.util
import json
import pathlib
import re
import warnings

import pytest

from tests.hyperv import cim, schema

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
WINDOWS = "10.0.17763"
CLASS_NAME = re.compile(r"\b(?:Msvm|Win32|MSFT|MSCluster|Msps|CIM)_[A-Za-z0-9]+\b", re.IGNORECASE)

# What drives Hyper-V; paths inside of the installed packages.
SOURCES = {
    "os_win": ("_utils.py", "utils/baseutils.py", "utils/hostutils.py", "utils/hostutils10.py",
               "utils/jobutils.py", "utils/compute/[!_]*.py", "utils/metrics/*.py",
               "utils/network/networkutils.py", "utils/storage/diskutils.py",
               "utils/storage/smbutils.py"),
    "compute_hyperv": ("driver.py", "nova/**/*.py"),
    "nova": ("virt/hyperv/*.py",),
}

# Classes of the sources that no table declares: why not.
LEFT_OUT = {
    "CIM_STATE_ENABLED": "no class: a constant", "CIM_STATE_DISABLED": "no class: a constant",
    "CIM_STATE_OTHER": "no class: a constant", "CIM_STATE_UNKNOWN": "no class: a constant",
    "Msvm_Physical3dGraphicsProcessor": "RemoteFX, which Microsoft removed in 2021",
    "Msvm_Synth3dVideoPool": "RemoteFX",
    "Msvm_SyntheticDisplayControllerSettingData": "RemoteFX",
    "Msvm_Synthetic3DDisplayControllerSettingData": "RemoteFX",
}

# Capitalised attributes that are no member of a WMI class.
NOT_WMI = {
    "GetText_", "Class", "RelPath", "Delete_",  # PyMI's
    # classes of Python, structures and functions of DLLs
    "BigEndianStructure", "Structure", "GetDiskFreeSpaceExW", "PageLength", "PageCode",
    "IdentifierLength", "CodeSet", "ProtocolIdentifier", "Piv", "IdentifierType", "Association",
    "GetTickCount64", "IsProcessorFeaturePresent", "Mi", "Ki", "Queue", "Empty", "FilterFlags",
    "MigrationUtils", "ClusGroupTypeVirtualMachine",
    # RemoteFX
    "AvailableVideoMemory", "DirectXVersion", "DriverVersion", "IsGpuCapable", "IsSlatCapable",
    "TotalVideoMemory", "MaximumMonitors", "MaximumScreenResolution",
}


def tables():
    """{class name in lower case: class} of every namespace."""
    return {name: cls for classes in schema.load_namespaces(WINDOWS).values()
            for name, cls in classes.items()}


def sources():
    """(name, syntax tree) of every module of :data:`SOURCES` that is installed, and of ours."""
    for package, patterns in SOURCES.items():
        spec = importlib.util.find_spec(package)
        if spec is None:
            continue
        folder = pathlib.Path(spec.origin).parent
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                yield "%s/%s" % (package, path.relative_to(folder)), _parse(path)
    for path in sorted((REPOSITORY / "vtpm_compute").glob("*.py")):
        yield "vtpm_compute/" + path.name, _parse(path)


def _parse(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # os-win's own escapes
        return ast.parse(path.read_text(encoding="utf-8"))


def nodes(kind):
    for module, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield module, node


def names_of_classes():
    """{name: module} of each class that the sources name, as an attribute or in a text."""
    found = {}
    for module, node in nodes((ast.Attribute, ast.Constant)):
        text = node.attr if isinstance(node, ast.Attribute) else node.value
        if isinstance(text, str) and "Copyright" not in text:
            for name in CLASS_NAME.findall(text):
                found.setdefault(name, module)
    return found


def test_every_class_that_the_drivers_name_is_declared():
    found = names_of_classes()
    assert len(found) > 50
    declared = tables()
    missing = {name: module for name, module in found.items()
               if name.lower() not in declared and name not in LEFT_OUT
               and name != "Msvm_SnapshotOfVirtualSystem"}
    assert not missing, missing
    assert not {name for name in LEFT_OUT if name.lower() in declared}, "declared by now"
    print("not declared:", *("%s: %s" % entry for entry in sorted(LEFT_OUT.items())), sep="\n  ")


def test_every_member_that_os_win_uses_is_declared():
    known = {member.lower() for cls in tables().values()
             for member in (*cls.properties, *cls.methods)}
    missing = {}
    for module, node in nodes(ast.Attribute):
        name = node.attr
        if (module.startswith("os_win/utils/") and re.match("[A-Z][a-z]", name)
                and not CLASS_NAME.fullmatch(name) and name.lower() not in known
                and name not in NOT_WMI and not _is_of_a_module(node.value)):
            missing.setdefault(name, module)
    assert not missing, missing


def _is_of_a_module(node):
    return isinstance(node, ast.Name) and node.id in (
        "exceptions", "os_win_exc", "ctypes", "wintypes", "baseutils", "constants", "threading",
        "win32utils", "pathutils", "jobutils", "_clusapi_utils", "clusapi_def", "etree",
        "ElementTree", "w_lib", "hostutils", "vmutils", "networkutils", "kernel32")


def test_every_keyword_that_os_win_gives_is_declared():
    """Keywords of calls: parameters of a method of that name, or properties in a query."""
    classes, checked = tables(), 0
    for module, call in nodes(ast.Call):
        if not isinstance(call.func, ast.Attribute) or not call.keywords:
            continue
        given = {keyword.arg for keyword in call.keywords if keyword.arg}
        given -= {"operation_options", "raw_wql"}
        name = call.func.attr.lower()
        if name in classes:
            offers = [set(classes[name].properties)]
        else:
            offers = [{p.name for p in parameters if p.direction == "in"}
                      for cls in classes.values() for method, parameters in cls.methods.items()
                      if method == call.func.attr]
        if offers:
            checked += 1
            assert any(given <= offer for offer in offers), "%s:%d %s" % (
                module, call.lineno, call.func.attr)
    assert checked > 40


def recorded():
    for folder in REPOSITORY.parents:
        path = folder / "shared" / "facts" / "hyperv-schema.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
    reason = "no shared/facts/hyperv-schema.json above %s to compare with" % REPOSITORY
    print(reason)
    pytest.skip(reason)


def same_type(ours, theirs):
    """Whether a declared type is the recorded one.

    The record has a class's name both for references and for embedded instances, and "string" for
    datetimes (Microsoft Learn has them in the same classes, and the DMTF in their CIM_ ones).
    """
    kind, _, class_name = ours.text.partition(":")
    if class_name:
        return kind in ("ref", "instance") and class_name == theirs
    return ours.text == theirs or (ours.text, theirs) == ("datetime", "string")


# [in, out] parameters, which the record leaves out. Source: Microsoft Learn, "CreateSnapshot method
# of the CIM_VirtualSystemSnapshotService class"; os-win unpacks ResultingSnapshot.
IN_OUT = {("CreateSnapshot", "ResultingSnapshot")}


def test_the_tables_agree_with_a_real_host():
    ours = schema.load_namespaces(WINDOWS)
    for namespace, classes in recorded().items():
        assert {name.lower() for name in classes} <= set(ours[namespace])
        for name, shape in classes.items():
            cls = ours[namespace][name.lower()]
            assert cls.name == name
            assert (cls.lineage[1:] or (None,))[0] == shape["parent"], name
            inherited = {} if shape["parent"] is None else (
                ours[namespace][shape["parent"].lower()].properties)
            own = {p for p in cls.properties if p not in inherited}
            # Keys and references may be declared again.
            assert own <= set(shape["props"]) <= set(cls.properties), name
            for prop, theirs in shape["props"].items():
                assert same_type(cls.properties[prop], theirs), "%s.%s" % (name, prop)
            assert set(shape["methods"]) <= set(cls.methods)
            for method, parameters in shape["methods"].items():
                have = [p for p in cls.methods[method] if (method, p.name) not in IN_OUT]
                assert ([p[:2] for p in parameters]
                        == [[p.direction, p.name] for p in have]), "%s.%s" % (name, method)
                for (_, parameter, theirs), mine in zip(parameters, have):
                    assert same_type(mine.type, theirs), "%s.%s" % (method, parameter)
            methods_above = set() if shape["parent"] is None else set(
                ours[namespace][shape["parent"].lower()].methods)
            assert set(cls.methods) - methods_above <= set(shape["methods"]), name


@pytest.mark.parametrize("version", ["6.3.9600", "10.0.14393", WINDOWS, "10.0.20348"])
def test_the_tables_hold_together(version):
    """Keys are properties, references and embedded instances are of classes that there are."""
    for classes in schema.load_namespaces(version).values():
        names = set(classes)
        for cls in classes.values():
            assert set(cls.keys) <= set(cls.properties), cls.name
            types = list(cls.properties.values()) + [
                p.type for parameters in cls.methods.values() for p in parameters]
            assert {t.kind for t in types} <= set(cim.TYPE_NAMES)
            for cim_type in types:
                if cim_type.of and cim_type.of.lower() not in names:
                    assert cim_type.of in UNDECLARED, cim_type.of


@pytest.mark.parametrize("text", [
    "class A\n  string B\nclass a\n  string C\n", "class A\n  string B C\n  uint8 b\n",
    "class A\n  method Do()\n  method do(in string X)\n", "class A\n  string Do\n  method Do()\n",
    "class A\n  method Do(of string X)\n", "class A\n  method Do\n"])
def test_tables_that_are_wrong(text):
    with pytest.raises(ValueError):
        schema.parse("root/test", text)


# Classes that declared members speak of and no driver meets.
UNDECLARED = {
    "Msvm_CompatibilityVector", "Msvm_SystemComponentSettingData",
    "Msvm_VirtualSystemMigrationNetworkSettingData"}
