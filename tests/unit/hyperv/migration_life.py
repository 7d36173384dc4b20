"""A program: os-win on one host of a fabric process moves a VM to another one, while it runs.

``migration_life.py REPOSITORY SOCKET HOST VM DESTINATION native|eventlet``; prints one line of
JSON.
"""
import json
import sys

repository, socket_path, host, name, destination, threads = sys.argv[1:]
sys.path.insert(0, repository)
if threads == "eventlet":
    import eventlet
    eventlet.monkey_patch()

from tests.hyperv import windows  # noqa: E402

windows.run_as(host, socket_path)

from os_win import utilsfactory  # noqa: E402

before = utilsfactory.get_vmutils().list_instances()
utilsfactory.get_livemigrationutils().live_migrate_vm(name, destination)
print(json.dumps({"before": before, "after": utilsfactory.get_vmutils().list_instances()}))
