"""What Nova's functional fixtures lack for native threads.

nova-scheduler runs in them since 32. Until 34 the fixtures, and until 33 nova-compute, which they
put into the scheduler's process, know only eventlet's; in 34 their lock of the databases leaves
gaps, and now and then a write fails with "database is locked".
"""

import contextlib
import copy
import threading

import fixtures
import futurist
from nova import monkey_patch, version
from nova.compute import provider_tree
from nova.tests.fixtures import notifications
from nova.tests.fixtures import nova as nova_fixtures
from oslo_db.sqlalchemy import enginefacade


def complete():
    """Complete the fixtures where Nova runs in native threads; do nothing elsewhere."""
    release = int(version.version_string().split(".")[0])
    # An older one always has eventlet's.
    if release < 32 or monkey_patch.is_patched():
        return
    _let_transactions_wait_for_each_other()
    if release >= 34:
        # With a second lock inside or outside of ours, two threads could wait for each other.
        nova_fixtures.DatabaseWriteLock = fixtures.Fixture
        return
    # It looks for the test that a green thread belongs to.
    notifications.FakeVersionedNotifier._get_sender_test_case_id = (
        lambda notifier: notifier.test_case_id)
    if release == 32:
        provider_tree.ProviderTree.__deepcopy__ = _copy_without_lock
        # nova-compute asks for eventlet's, and Nova for what they lack.
        futurist.GreenThreadPoolExecutor = futurist.ThreadPoolExecutor


def _let_transactions_wait_for_each_other():
    # All threads share the only connection of a database in memory; one in a file (34) refuses to
    # write what changed since it was read.
    scope = enginefacade._TransactionContextManager._transaction_scope
    lock = threading.RLock()

    @contextlib.contextmanager
    def scope_in_turn(manager, context):
        with lock, scope(manager, context) as resource:
            yield resource

    enginefacade._TransactionContextManager._transaction_scope = scope_in_turn


def _copy_without_lock(tree, memo):
    # The lock of a native thread cannot be copied. It is one by its name: copies share it.
    copied = copy.copy(tree)
    for name, value in vars(tree).items():
        if name != "lock":
            setattr(copied, name, copy.deepcopy(value, memo))
    return copied
