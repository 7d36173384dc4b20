"""``python -m tests.cloud up|down|status|env``: the cloud by hand."""
import argparse
import os
import shlex
import sys

from tests.cloud import cloud, processes, settings

DEFAULT_STATE = cloud.KEPT.parent / "default"


def up(arguments):
    """Start a cloud and leave it running."""
    if settings.record_of(arguments.state).exists() and _processes(arguments.state).running():
        return "A cloud runs in %s already; 'down' stops it." % arguments.state
    hosts = [settings.ComputeHost("compute%d" % (number + 1)) for number in range(arguments.hosts)]
    options = {}
    if arguments.fake:
        options = {"compute_driver": "fake.FakeDriver",
                   "available_filters": ["nova.scheduler.filters.all_filters"],
                   "enabled_filters": ["ComputeFilter", "ImagePropertiesFilter"]}
    started = cloud.Cloud(arguments.state, base_port=arguments.base_port, compute_hosts=hosts,
                          one_process=True if arguments.one_process else None, **options)
    try:
        started.start()
    except cloud.CloudFailure as failure:
        return str(failure)
    started.leave_running()
    print("Logs: %s\nFor the openstack client: eval \"$(%s -m tests.cloud env --state %s)\""
          % (started.log_dir, sys.executable, shlex.quote(str(arguments.state))))
    return None


def down(arguments):
    """Stop the cloud, whoever started it."""
    _processes(arguments.state).stop()


def status(arguments):
    """List the processes of the cloud."""
    running = _processes(arguments.state).running()
    for pid in running:
        print("%8d %5d MB  %s" % (pid, processes.memory([pid]), processes.command_of(pid)[:120]))
    print("%d processes, %d MB" % (len(running), processes.memory(running)))
    return None if running else "No cloud runs in %s." % arguments.state


def env(arguments):
    """Print exports for the openstack client."""
    config = settings.Settings.load(arguments.state)
    for name, value in cloud.openstack_environment(config, arguments.user).items():
        print("export %s=%s" % (name, shlex.quote(value)))


def _processes(state):
    return processes.Processes(os.path.realpath(state), state, {})


def main():
    """Do what the command line says; the exit code tells whether it worked."""
    parser = argparse.ArgumentParser(prog="python -m tests.cloud", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for function in (up, down, status, env):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("--state", default=str(DEFAULT_STATE), metavar="DIR")
        if function is up:
            command.add_argument("--base-port", type=int)
            command.add_argument("--hosts", type=int, default=3, help="how many nova-computes")
            command.add_argument("--fake", action="store_true",
                                 help="Nova's fake driver and no filter of this project")
            command.add_argument("--one-process", action="store_true",
                                 help="all of Nova in one process, as without RabbitMQ")
        if function is env:
            command.add_argument("--user", default="alice")
    arguments = parser.parse_args()
    try:
        failure = arguments.function(arguments)
    except FileNotFoundError:
        failure = "No cloud was started in %s." % arguments.state
    except KeyboardInterrupt:
        failure = "interrupted"
    sys.exit(failure)


if __name__ == "__main__":
    main()
