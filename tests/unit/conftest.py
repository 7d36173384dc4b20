"""What several unit tests need."""

import hypothesis
import pytest

from tests.unit import guarded_host

# A machine that does other things too is no failure.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("unhurried")


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
