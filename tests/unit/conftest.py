"""What several unit tests need."""

import pytest

from tests.unit import guarded_host


@pytest.fixture(scope="session")
def guarded_fabric():
    return guarded_host.make_fabric()


@pytest.fixture
def host(guarded_fabric, tmp_path):
    """A guarded host, on which nothing may be left."""
    made = guarded_host.GuardedHost(guarded_fabric, str(tmp_path / "scratch"))
    yield made
    made.assert_nothing_left()
    made.assert_no_handle_left()
