"""What one cloud consists of: folders, ports, users and their passwords."""
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import secrets
import sys
import typing

from tests.cloud import ports as port_blocks

REGION = "RegionOne"
SERVICE_PROJECT = "service"
# The plain APIs: those that programs/wsgi_service.py runs.
APIS = ("keystone", "barbican", "placement", "glance")


@dataclasses.dataclass(frozen=True)
class User:
    """A user of the cloud, in one project."""

    project: str
    roles: tuple


USERS = {
    "admin": User("admin", ("admin",)),
    "alice": User("demo", ("member", "reader", "creator")),
    "bob": User("other", ("member", "reader", "creator")),
    # Of alice's project: reads what is not private to alice.
    "carol": User("demo", ("member", "reader")),
    # Of alice's project too, with the role that was enough before Barbican's new defaults.
    "dave": User("demo", ("creator",)),
    "nova": User(SERVICE_PROJECT, ("admin", "service")),
    "barbican": User(SERVICE_PROJECT, ("admin", "service")),
    "glance": User(SERVICE_PROJECT, ("admin", "service")),
    "placement": User(SERVICE_PROJECT, ("admin", "service")),
}


@dataclasses.dataclass
class ComputeHost:
    """One nova-compute: its name in Nova, its environment, its options.

    ``conf`` is {section: {option: value}}; a list is an option that is given several times.
    ``prefix`` is the environment whose nova-compute runs; None: that of the cloud.
    """

    name: str
    environment: dict = dataclasses.field(default_factory=dict)
    conf: dict = dataclasses.field(default_factory=dict)
    prefix: pathlib.Path | None = None


@dataclasses.dataclass
class Companion:
    """A program that is started before Nova and stopped with the cloud.

    ``is_ready`` is called until it says yes.
    """

    name: str
    command: list
    is_ready: typing.Callable[[], bool]


@dataclasses.dataclass
class Settings:
    """Where one cloud lives and how its parts reach each other."""

    state: pathlib.Path
    ports: port_blocks.PortBlock
    passwords: dict
    # Of apis, those that run; without hosts there is no Nova.
    apis: tuple = APIS
    hosts: list = dataclasses.field(default_factory=list)
    one_process: bool = False
    # The environment whose programs run.
    prefix: pathlib.Path = pathlib.Path(sys.prefix)
    debug: bool = True
    token_seconds: int = 3600

    FOLDERS: typing.ClassVar = (
        "etc", "log", "db", "home", "images", "image-staging", "image-tasks", "locks",
        "nova", "fernet", "credential", "rabbitmq", "hosts")

    @classmethod
    def with_new_passwords(cls, **values):
        """Settings with a password of its own for every user and for RabbitMQ."""
        names = [*USERS, "rabbitmq"]
        return cls(passwords={name: secrets.token_hex(12) for name in names}, **values)

    @property
    def etc(self):
        """The folder of the configuration files."""
        return self.state / "etc"

    @property
    def log(self):
        """The folder of the log files."""
        return self.state / "log"

    @property
    def programs(self):
        """The folder of the programs that run."""
        return self.prefix / "bin"

    def version(self, package):
        """The version of a package in the environment whose programs run; None: it is not there."""
        folders = [str(path) for path in self.prefix.glob("lib/python3*/site-packages")]
        found = list(importlib.metadata.distributions(name=package, path=folders))
        return found[0].version if found else None

    @property
    def auth_url(self):
        """Keystone's URL, with its version."""
        return self.url("keystone") + "/v3"

    def url(self, service):
        """The URL of a service without a path."""
        return "http://127.0.0.1:%d" % self.ports[service]

    @property
    def transport_url(self):
        """Where Nova's services meet: RabbitMQ, or inside the one process."""
        if self.one_process:
            return "fake://"
        return "rabbit://nova:%s@127.0.0.1:%d/" % (
            self.passwords["rabbitmq"], self.ports["rabbitmq"])

    def database_file(self, name):
        """The SQLite file of a database."""
        return self.state / "db" / (name + ".sqlite")

    def database_url(self, name):
        """The URL of a database.

        Nova's are shared by many processes (see sqlite_immediate); the others by one thread each.
        """
        if name.startswith("nova"):
            return "sqlite+immediate:///%s" % self.database_file(name)
        return "sqlite:///%s?timeout=60" % self.database_file(name)

    def endpoints(self):
        """The service catalog: {service type: URL}."""
        types = {"barbican": "key-manager", "placement": "placement", "glance": "image"}
        urls = {types[api]: self.url(api) for api in self.apis if api in types}
        return dict(urls, compute=self.url("nova-api") + "/v2.1") if self.hosts else urls

    def save(self):
        """Keep what a later process needs to use or stop this cloud; it holds the passwords."""
        record = {"base_port": self.ports.base, "passwords": self.passwords,
                  "hosts": [host.name for host in self.hosts], "one_process": self.one_process}
        path = record_of(self.state)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(record, file, indent=1)

    @classmethod
    def load(cls, state):
        """The settings of the cloud that was started last in a state folder.

        :raises FileNotFoundError: there was none
        """
        state = pathlib.Path(state).resolve()
        record = json.loads(record_of(state).read_text())
        return cls(state=state, ports=port_blocks.PortBlock(record["base_port"]),
                   passwords=record["passwords"], one_process=record["one_process"],
                   hosts=[ComputeHost(name) for name in record["hosts"]])


def record_of(state):
    """The file that makes a folder a cloud's state folder."""
    return pathlib.Path(state) / "cloud.json"
