"""Faults on demand: the Nth call of a method fails."""
import fnmatch

from tests.hyperv.jobs import JobFailure


class Faults:
    """The faults waiting on one host; called by the repository before each method.

    :param job_factory: makes the failed jobs
    """

    def __init__(self, job_factory):
        self._jobs, self._waiting = job_factory, []

    def add(self, pattern, nth=1, return_value=None, job_error=None, times=1):
        """Let calls fail.

        :param pattern: ``Class.Method``, with * and ? as in file names
        :param nth: the first call that fails, counted from now
        :param return_value: what the method returns, its work undone; or
        :param job_error: (ErrorDescription, ErrorCode) of the job it starts, its work undone
        :param times: how many calls fail in a row
        """
        if (return_value is None) == (job_error is None):
            raise ValueError("one of return_value and job_error is needed")
        self._waiting.append({"pattern": pattern, "skip": nth - 1, "times": times,
                              "return_value": return_value, "job_error": job_error})

    def clear(self):
        self._waiting.clear()

    def __call__(self, class_name, method):
        """The out-parameters of the failure, or None: the call goes through."""
        for fault in list(self._waiting):
            if not fnmatch.fnmatchcase("%s.%s" % (class_name, method), fault["pattern"]):
                continue
            if fault["skip"]:
                fault["skip"] -= 1
                continue
            fault["times"] -= 1
            if not fault["times"]:
                self._waiting.remove(fault)
            if fault["job_error"]:
                return self._jobs.failed(method, JobFailure(*fault["job_error"]))
            return {"ReturnValue": fault["return_value"]}
        return None
