"""What goes wrong in calls to Windows, as errors of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from os_win import exceptions as os_win_exceptions

from vtpm_compute import errors

# What a call through PyMI raises: the provider's refusal, a failed job, a wrong type, an unknown
# property, an answer of another shape.
_WMI_ERRORS = (os_win_exceptions.x_wmi, os_win_exceptions.OSWinException, TypeError,
               AttributeError, ValueError)

Result = TypeVar("Result")


def translated(problem: str, error: type[errors.VtpmError],
               call: Callable[[], Result]) -> Result:
    """Call it; what goes wrong is raised as one error with Windows' own words.

    :param problem: what could not be done: the beginning of the message.
    :param error: the class of the error. One of it that ``call`` raises gets the beginning too.
    """
    try:
        return call()
    except (error, *_WMI_ERRORS) as exc:
        raise error("%s: %s" % (problem, _words(exc))) from exc


def _words(exc: Exception) -> str:
    if isinstance(exc, os_win_exceptions.x_wmi):
        # PyMI's str() of it says the same three times.
        return str(exc.info).strip() or "WMI error 0x%08X" % (
            getattr(exc.com_error, "hresult", 0) & 0xFFFFFFFF)
    return str(exc)
