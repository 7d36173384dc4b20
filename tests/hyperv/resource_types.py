"""ResourceSubType of the resources a VM has.

Source: Microsoft Learn, "Msvm_ResourceAllocationSettingData class"; os-win, ``vmutils.py``.
"""
SCSI_CONTROLLER = "Microsoft:Hyper-V:Synthetic SCSI Controller"
IDE_CONTROLLER = "Microsoft:Hyper-V:Emulated IDE Controller"
DISK_DRIVE = "Microsoft:Hyper-V:Synthetic Disk Drive"
DVD_DRIVE = "Microsoft:Hyper-V:Synthetic DVD Drive"
PHYSICAL_DISK = "Microsoft:Hyper-V:Physical Disk Drive"
HARD_DISK = "Microsoft:Hyper-V:Virtual Hard Disk"
DVD_DISK = "Microsoft:Hyper-V:Virtual CD/DVD Disk"
SERIAL_PORT = "Microsoft:Hyper-V:Serial Port"
ETHERNET_PORT = "Microsoft:Hyper-V:Synthetic Ethernet Port"
