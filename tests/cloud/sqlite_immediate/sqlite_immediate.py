"""The SQLAlchemy dialect ``sqlite+immediate://``: one SQLite file for many OpenStack processes.

oslo.db begins its transactions deferred. Two of them that read first and write later cannot both
get the write lock, and SQLite fails one at once with "database is locked", whatever the time-out.
Here a transaction takes the write lock when it begins, and waits for it.

One case would wait for itself: a thread that opens a second transaction on the same file while
its first is still open. The second then stays deferred.
"""
import sqlite3
import threading

from sqlalchemy.dialects.sqlite import pysqlite

# path of the database file -> the connection on which this thread last took the write lock
_writers = threading.local()

LOCK_SECONDS = 60


class _Connection(sqlite3.Connection):
    """A connection that knows the file it is open on."""

    path = None


def _is_open(connection):
    try:
        return connection is not None and connection.in_transaction
    except sqlite3.ProgrammingError:  # closed meanwhile, or another thread's
        return False


class ImmediateDialect(pysqlite.SQLiteDialect_pysqlite):
    """pysqlite with BEGIN IMMEDIATE, the write-ahead log, and no waiting for the disk."""

    driver = "immediate"
    supports_statement_cache = True

    def connect(self, *args, **options):
        options.setdefault("timeout", LOCK_SECONDS)
        options["check_same_thread"] = False
        options["factory"] = _Connection
        connection = super().connect(*args, **options)
        connection.path = args[0]
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")  # a test's data need not survive a power cut
        return connection

    def do_execute(self, cursor, statement, parameters, context=None):
        if statement != "BEGIN":
            cursor.execute(statement, parameters)
            return
        writers = _writers.__dict__
        path = cursor.connection.path
        if _is_open(writers.get(path)):
            cursor.execute(statement, parameters)
        else:
            cursor.execute("BEGIN IMMEDIATE", parameters)
            writers[path] = cursor.connection
