"""RabbitMQ as an ordinary process with ports and folders of its own, never the system's service."""
import pathlib
import socket


def server_program():
    """RabbitMQ's own start script, or None where it is not installed.

    Debian's /usr/sbin/rabbitmq-server changes to the user of the system's service; this does not.
    """
    found = sorted(pathlib.Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))
    return found[-1] if found else None


def start(settings, processes):
    """Start epmd and RabbitMQ; ``is_ready`` says when they answer."""
    folder = settings.state / "rabbitmq"
    etc = settings.etc / "rabbitmq"
    etc.mkdir()
    distribution = settings.ports["rabbitmq-distribution"]
    (etc / "rabbitmq.conf").write_text("\n".join([
        "listeners.tcp.default = 127.0.0.1:%d" % settings.ports["rabbitmq"],
        "distribution.listener.interface = 127.0.0.1",
        "distribution.listener.port_range.min = %d" % distribution,
        "distribution.listener.port_range.max = %d" % distribution,
        "default_user = nova",
        "default_pass = %s" % settings.passwords["rabbitmq"],
        "log.file.level = info",
        ""]))
    (etc / "rabbitmq.conf").chmod(0o600)
    (etc / "enabled_plugins").write_text("[].\n")
    environment = {
        "RABBITMQ_NODENAME": "cloud@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_LOG_BASE": str(settings.log),
        "RABBITMQ_CONFIG_FILE": str(etc / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(etc / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(settings.ports["rabbitmq"]),
        "RABBITMQ_DIST_PORT": str(distribution),
        # One scheduler that sleeps when idle: the machine is busy with the services.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(settings.ports["epmd"]),
    }
    # Its own epmd, there before Erlang looks for one: it would start one that outlives it.
    processes.start("epmd", ["epmd"], environment)
    processes.wait_until("epmd", lambda: _connects(settings.ports["epmd"]))
    processes.start("rabbitmq", [server_program()], environment)


def is_ready(settings):
    """Whether RabbitMQ answers to the greeting of its protocol."""
    try:
        with socket.create_connection(("127.0.0.1", settings.ports["rabbitmq"]), 2) as connection:
            connection.settimeout(5)
            connection.sendall(b"AMQP\0\0\x09\x01")
            return bool(connection.recv(1))
    except OSError:
        return False


def _connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False
    return True
