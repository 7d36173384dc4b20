"""Faults and delays on demand: the Nth call of a method fails, or its job takes time."""
import fnmatch

from tests.hyperv import cim, jobs

# Methods that change nothing work while a job of the VM runs.
READING = ("Get", "Check", "Validate", "Format", "Test", "Diagnose")
# These have return values of their own; 5 is their invalid state.
_REFUSALS = {"RequestStateChange": jobs.INVALID_STATE, "ModifySecuritySettings": 5,
             "CreateSnapshot": 5, "DestroySnapshot": 5, "ApplySnapshot": 5}


class Faults:
    """The faults and delays waiting on one host; the repository calls methods through it.

    :param job_factory: the host's :class:`tests.hyperv.jobs.Jobs`
    """

    def __init__(self, job_factory):
        self._jobs, self._waiting = job_factory, []

    def add(self, pattern, nth=1, return_value=None, job_error=None, times=1, delay=0,
            point="before", cancellable=True):
        """Let calls fail.

        :param pattern: ``Class.Method`` or ``library.Function``, with * and ? as in file names
        :param nth: the first call that fails, counted from now
        :param return_value: what the method returns, or GetLastError tells of the function; or
        :param job_error: (ErrorDescription, ErrorCode) of the job it starts
        :param times: how many calls fail in a row; None: all
        :param delay: seconds on the clock that the job runs before it fails
        :param point: "before" its work, which stays undone, or "after" it, which is done
        :param cancellable: whether a job that runs can be stopped
        """
        if (return_value is None) == (job_error is None):
            raise ValueError("one of return_value and job_error is needed")
        if delay and job_error is None:
            raise ValueError("only a job can have a delay")
        if point not in ("before", "after"):
            raise ValueError("the point is before or after")
        self._waiting.append({
            "pattern": pattern, "skip": nth - 1, "times": times, "return_value": return_value,
            "job_error": job_error, "delay": delay, "point": point, "cancellable": cancellable})

    def add_delay(self, pattern, seconds, nth=1, times=1, cancellable=True):
        """Let the jobs of calls run for some time on the clock; their work is done at the end.

        A method that cannot start a job is not delayed. A delayed method answers 4096, and its
        other out-parameters are null; os-win needs those of AddResourceSettings for drives.

        :param pattern: ``Class.Method``, with * and ? as in file names
        :param nth: the first call that is delayed, counted from now
        :param times: how many calls in a row; None: all
        :param cancellable: whether the job can be stopped
        """
        self._waiting.append({
            "pattern": pattern, "skip": nth - 1, "times": times, "return_value": None,
            "job_error": None, "delay": seconds, "point": "after", "cancellable": cancellable})

    def clear(self):
        self._waiting.clear()

    def __call__(self, target, method, values, work):
        """Call a method.

        :param target: an instance, or the class of a static method
        :param method: its declared name
        :param values: the in-parameters
        :param work: calls the provider
        :returns: its out-parameters, or the return value alone
        """
        cls = getattr(target, "cls", target)
        if self._is_refused(target, method, values):
            return _REFUSALS.get(method, jobs.IN_USE)
        rule = self._next("%s.%s" % (cls.name, method))
        if rule is None:
            return self._run(target, method, values, work)
        failure = jobs.JobFailure(*rule["job_error"]) if rule["job_error"] else None
        if rule["delay"] and _starts_jobs(cls, method):
            return self._run(target, method, values, lambda: self._jobs.start(
                target, method, values, work, rule["delay"], failure,
                rule["point"] == "before", rule["cancellable"]))
        if rule["point"] == "after":
            result = self._run(target, method, values, work)
            code = result if isinstance(result, int) else (result or {}).get("ReturnValue", 0)
            if code not in (jobs.COMPLETED, jobs.STARTED):
                return result
            if failure is None and rule["return_value"] is None:
                return result
        if failure is not None:
            return self._failed(target, method, values, failure)
        return rule["return_value"]

    def run(self, name, work, error):
        """Call a function of a library.

        :param name: ``library.Function``
        :param work: does it
        :param error: makes the exception of the return_value of a fault
        """
        rule = self._next(name)
        if rule is None:
            return work()
        if rule["return_value"] is None:
            raise ValueError("a function of a library has no job: " + name)
        if rule["point"] == "after":
            work()
        raise error(rule["return_value"])

    def _is_refused(self, target, method, values):
        """Whether a running job of the VM forbids the call [assumption one-job-a-machine]."""
        if method.startswith(READING) or not hasattr(target, "cls"):
            return False
        if target.is_a("Msvm_ConcreteJob") or not self._jobs.are_running:
            return False
        return self._jobs.is_busy(self._jobs.machines_in(target, values))

    def _run(self, target, method, values, work):
        try:
            return work()
        except jobs.JobFailure as failure:
            return self._failed(target, method, values, failure)
        except OSError as fault:
            # A file of the VM cannot be read or written.
            if not _starts_jobs(getattr(target, "cls", target), method):
                raise cim.error("FAILED", str(fault)) from None
            return self._failed(target, method, values, jobs.JobFailure(str(fault)))

    def _failed(self, target, method, values, failure):
        return self._jobs.failed(method, failure, *self._jobs.systems_in(target, values))

    def _next(self, name):
        """The rule for this call, counted down; None: there is none."""
        for rule in list(self._waiting):
            if not fnmatch.fnmatchcase(name, rule["pattern"]):
                continue
            if rule["skip"]:
                rule["skip"] -= 1
                continue
            if rule["times"] is not None:
                rule["times"] -= 1
                if not rule["times"]:
                    self._waiting.remove(rule)
            return rule
        return None


def _starts_jobs(cls, method):
    return any(parameter.name == "Job" for parameter in cls.find_method(method)[1])
