"""What a host is made of: root/cimv2 and the host's own processors, memory and NUMA node.

Source: Microsoft Learn, "Win32_OperatingSystem", "Win32_Processor", "Msvm_NumaNode",
"Msvm_HostedDependency" (its Antecedent is the node, its Dependent a processor or the memory).
"""
CIMV2, V2 = "root/cimv2", "root/virtualization/v2"

_X86_64 = 9
_CENTRAL_PROCESSOR = 3


def add(repository, windows_version, processors, memory_mb):
    """Store the host's own instances.

    :param processors: how many logical processors it has
    :param memory_mb: its memory; all of it free
    """
    name = repository.computer_name
    repository.add(
        CIMV2, "Win32_OperatingSystem", Name="Microsoft Windows Server", CSName=name,
        Version=windows_version, BuildNumber=windows_version.split(".")[2],
        TotalVisibleMemorySize=memory_mb * 1024, FreePhysicalMemory=memory_mb * 1024)
    repository.add(CIMV2, "Win32_ComputerSystem", Name=name, Model="Virtual Machine",
                   Manufacturer="Microsoft Corporation", TotalPhysicalMemory=memory_mb << 20)
    repository.add(
        CIMV2, "Win32_Processor", DeviceID="CPU0", Architecture=_X86_64, MaxClockSpeed=2400,
        Manufacturer="GenuineIntel", Name="Simulated Processor", NumberOfCores=processors,
        NumberOfLogicalProcessors=processors, ProcessorType=_CENTRAL_PROCESSOR)
    repository.provide(CIMV2, "Win32_OperatingSystem", {"Win32Shutdown": _shut_down})
    _add_numa_node(repository, processors, memory_mb)


def _shut_down(operating_system, Flags=None, Reserved=None):  # noqa: N803
    return 0


def _add_numa_node(repository, processors, memory_mb):
    node = repository.add(
        V2, "Msvm_NumaNode", CreationClassName="Msvm_NumaNode",
        NodeID="Microsoft:PhysicalNode\\0", SystemCreationClassName="Msvm_ComputerSystem",
        SystemName=repository.computer_name, NumberOfLogicalProcessors=processors,
        NumberOfProcessorCores=processors, CurrentlyConsumableMemoryBlocks=memory_mb)
    devices = [("Msvm_Memory", "Microsoft:PhysicalMemory\\0", {"NumberOfBlocks": memory_mb,
                                                             "BlockSize": 1 << 20})]
    devices += [("Msvm_Processor", "Microsoft:PhysicalProcessor\\0\\%d" % number, {})
                for number in range(processors)]
    for class_name, device_id, values in devices:
        device = repository.add(
            V2, class_name, CreationClassName=class_name, DeviceID=device_id,
            SystemCreationClassName="Msvm_ComputerSystem",
            SystemName=repository.computer_name, **values)
        repository.add(V2, "Msvm_HostedDependency", Antecedent=node.reference(),
                       Dependent=device.reference())
