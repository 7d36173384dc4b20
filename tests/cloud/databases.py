"""The databases: migrated once, kept for later starts."""
import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import shutil
import sqlite3
import sys
import tempfile

NOVAS = ("nova_api", "nova_cell0", "nova_cell1")

# What decides how migrated databases look. FORMAT counts up when this module changes them.
PACKAGES = ("nova", "keystone", "barbican", "glance", "openstack-placement", "SQLAlchemy",
            "alembic", "oslo.db")
FORMAT = "1"


def prepare(settings, processes, kept):
    """Put migrated databases in place, from the folder ``kept`` if it has them.

    What is kept holds tables, and no users, endpoints, ports or passwords: each start makes those
    anew. Return whether the migrations had to run.
    """
    names = _names(settings)
    saved = kept / _key(settings)
    is_new = not saved.is_dir()
    if is_new:
        _migrate(settings, processes)
        _save(settings, saved)
    else:
        for name in names:
            shutil.copy(saved / settings.database_file(name).name, settings.database_file(name))
    for name in names:
        # Before any service opens them: readers and the writer then do not wait for each other.
        with _opened(settings.database_file(name)) as database:
            database.execute("PRAGMA journal_mode=WAL")
    if settings.hosts:
        _write_cells(settings)
    return is_new


def _names(settings):
    return [*settings.apis, *(NOVAS if settings.hosts else ())]


def _key(settings):
    versions = ["%s %s" % (name, settings.version(name)) for name in PACKAGES]
    text = "\n".join([FORMAT, "%d.%d" % sys.version_info[:2], *_names(settings), *versions])
    return "databases-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _migrate(settings, processes):
    programs = settings.programs
    nova = [programs / "nova-manage", "--config-file", settings.etc / "nova/nova.conf"]
    cell = ["--database_connection", settings.database_url("nova_cell1"),
            "--transport-url", "none://to-be-written/"]
    of_apis = {
        "keystone": [programs / "keystone-manage", "--config-file",
                     settings.etc / "keystone/keystone.conf", "db_sync"],
        "glance": [programs / "glance-manage", "--config-file",
                   settings.etc / "glance/glance-api.conf", "db_sync"],
        "barbican": [programs / "barbican-db-manage", "--dburl",
                     settings.database_url("barbican"), "upgrade"],
        "placement": [programs / "placement-manage", "--config-file",
                      settings.etc / "placement/placement.conf", "db", "sync"],
    }
    of_nova = [
        [*nova, "api_db", "sync"],
        [*nova, "cell_v2", "map_cell0",
         "--database_connection", settings.database_url("nova_cell0")],
        [*nova, "cell_v2", "create_cell", "--name", "cell1", *cell],
        [*nova, "db", "sync"],
    ]
    chains = [of_nova] if settings.hosts else []
    chains += [[of_apis[api]] for api in settings.apis]

    def run(chain):
        for command in chain:
            words = [word for word in command if not str(word).startswith("-")]
            processes.run("migrate-%s" % words[0].name.split("-")[0], command)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
        futures = [executor.submit(run, chain) for chain in chains]
        try:
            for future in futures:
                future.result()
        except BaseException:  # the rest would otherwise be waited for, after a Ctrl-C too
            executor.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise


def _save(settings, saved):
    saved.parent.mkdir(parents=True, exist_ok=True)
    # Complete or not there: another cloud may look for it now, or this one be interrupted.
    with tempfile.TemporaryDirectory(dir=saved.parent) as scratch:
        for name in _names(settings):
            path = settings.database_file(name)
            with _opened(path) as database, _opened(pathlib.Path(scratch, path.name)) as copy:
                database.backup(copy)  # with what is still in the write-ahead log
        try:
            os.rename(scratch, saved)
        except OSError:  # another cloud was faster
            return
        os.mkdir(scratch)  # for the context manager to remove


def _write_cells(settings):
    """Tell Nova where its cells are: the kept databases come from another cloud."""
    with _opened(settings.database_file("nova_api")) as database, database:
        for name, transport in (("cell0", "none:///"), ("cell1", settings.transport_url)):
            changed = database.execute(
                "UPDATE cell_mappings SET database_connection = ?, transport_url = ?"
                " WHERE name = ?",
                (settings.database_url("nova_" + name), transport, name)).rowcount
            if changed != 1:
                raise RuntimeError("The kept databases have no %s." % name)


@contextlib.contextmanager
def _opened(path):
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
        yield database
