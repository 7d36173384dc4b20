"""What a command says where a package is not installed that it needs."""

from __future__ import annotations

ON_A_CONTROLLER = "Run this on a controller, with the Python that Nova runs in"
ON_A_COMPUTE_HOST = "Run this on a Hyper-V host, with the Python that nova-compute runs in"


def clause(exc: ModuleNotFoundError, remedy: str) -> str:
    """A clause without a full stop.

    :param remedy: what to do: one of the above, or how to install it.
    """
    return "the Python package of %s is missing. %s" % (
        (exc.name or "something").partition(".")[0], remedy)


def install(extra: str) -> str:
    """The remedy: install an extra of this project, which is on no index."""
    return ("Install it with the project's wheel: pip install "
            "'nova_hyperv_vtpm-VERSION-py3-none-any.whl[%s]'" % extra)
