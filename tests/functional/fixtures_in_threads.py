"""What Nova's functional fixtures lack for native threads until Nova 34.

nova-scheduler runs in them since 32. The fixtures, and until 33 nova-compute, which they put into
the scheduler's process, know only eventlet's.
"""

import contextlib
import copy
import threading

from nova import monkey_patch, version
from nova.compute import provider_tree
from nova.tests.fixtures import notifications
from oslo_db.sqlalchemy import enginefacade


def complete():
    """Complete the fixtures of Nova 32 and 33 where it runs in native threads, no others."""
    release = int(version.version_string().split(".")[0])
    # An older one always has eventlet's.
    if release not in (32, 33) or monkey_patch.is_patched():
        return
    # It looks for the test that a green thread belongs to.
    notifications.FakeVersionedNotifier._get_sender_test_case_id = (
        lambda notifier: notifier.test_case_id)
    _let_transactions_wait_for_each_other()
    if release == 32:
        provider_tree.ProviderTree.__deepcopy__ = _copy_without_lock


def _let_transactions_wait_for_each_other():
    # All threads share the only connection of a database in memory.
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
