"""Msvm_ConcreteJob: the jobs that methods start, from their start to their removal.

A method's job is finished when the method returns, unless a test asked for a delay
(:mod:`tests.hyperv.faults`): then its work is done when its time has come on the host's clock.
Nothing runs in the background: :meth:`Jobs.catch_up`, called before each access to the host, does
what is due.

Source: Microsoft Learn, "Msvm_ConcreteJob class" (JobState, JobType, ErrorCode,
TimeBeforeRemoval), its methods RequestStateChange and GetErrorEx, "Msvm_Error class", and the
return values of the methods ("Method Parameters Checked - Job Started (4096)").
"""
import collections
import datetime
import re
import uuid

from tests.hyperv import cim, mi

V2 = "root/virtualization/v2"

COMPLETED, STARTED, FAILED = 0, 4096, 32768
INVALID_PARAMETER, IN_USE, INVALID_STATE = 32773, 32774, 32775

STARTING, RUNNING, DONE, TERMINATED, KILLED, EXCEPTION = 3, 4, 7, 8, 9, 10

# Methods that answer with a job; the others answer 0 at once [assumption which-are-jobs].
_ASYNCHRONOUS = {
    "DefineSystem", "DestroySystem", "RequestStateChange", "SetKeyProtector",
    "SetSecurityPolicy", "ModifySecuritySettings", "ImportSystemDefinition", "RealizePlannedSystem",
    "ExportSystemDefinition", "RestoreLastKnownGoodKeyProtector", "MigrateVirtualSystemToHost",
    "CheckVirtualSystemIsMigratable", "CreateSnapshot", "DestroySnapshot", "DestroySnapshotTree",
    "ApplySnapshot"}

# Seconds that a finished job stays (TimeBeforeRemoval, five minutes).
KEPT_FOR = 300
_TIME_BEFORE_REMOVAL = "00000000000500.000000:000"

# JobType of a method's job; 0 (unknown) where the document names none.
_JOB_TYPES = {
    "DefineSystem": 1, "ModifySystemSettings": 2, "SetKeyProtector": 2, "SetSecurityPolicy": 2,
    "ModifySecuritySettings": 2, "RestoreLastKnownGoodKeyProtector": 2, "DestroySystem": 3,
    "AddResourceSettings": 30, "ModifyResourceSettings": 31, "RemoveResourceSettings": 32,
    "ImportSystemDefinition": 61, "ExportSystemDefinition": 62, "CreateSnapshot": 70,
    "ApplySnapshot": 71, "DestroySnapshot": 72}

# What the documented return values are called; the words of a job whose work ends in one.
_MEANINGS = {
    1: "Not Supported", 2: "Failed", 3: "Timed out", 4: "Invalid parameter", 5: "Invalid state",
    6: "Incompatible parameters", 32768: "Failed", 32769: "Access Denied",
    32770: "Not Supported", 32771: "Status is unknown", 32772: "Timeout",
    32773: "Invalid parameter", 32774: "System is in use",
    32775: "Invalid state for this operation", 32776: "Incorrect data type",
    32777: "System is not available", 32778: "Out of memory"}

# Msvm_ConcreteJob.RequestStateChange: requested states, and return values of its own.
_REQUESTS = {4: TERMINATED, 5: KILLED}
_NOT_SUPPORTED, _INVALID_REQUEST, _INVALID_TRANSITION, _NO_TIMEOUT = 1, 5, 4097, 4098
CANCELLED = "The operation was canceled."  # [assumption job-cancelled]

_GUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_EPOCH_FORMAT = "%Y%m%d%H%M%S.%f+000"


class JobFailure(Exception):
    """A method's job ends in an exception; providers raise it.

    :param description: Windows' words, in ErrorDescription
    :param code: ErrorCode; a uint16, so an HRESULT is in the words only [assumption job-codes]
    """

    def __init__(self, description, code=FAILED):
        super().__init__(description)
        self.description, self.code = description, code


class _Running:
    """A job whose work is still to do.

    :param method: its name
    :param instance: the Msvm_ConcreteJob
    :param machines: the GUIDs of the VMs it is about
    :param work: does it, and gives the out-parameters
    :param begun: the clock's time
    :param seconds: how long it runs
    :param failure: the :class:`JobFailure` it ends with, or None
    :param undone: whether it fails before its work, not after it
    :param release: called before the work, or when the job is stopped
    """

    def __init__(self, method, instance, machines, work, begun, seconds, failure, undone, release):
        self.method, self.instance, self.machines, self.work = method, instance, machines, work
        self.begun, self.seconds, self.due = begun, seconds, begun + seconds
        self.failure, self.undone, self.release = failure, undone, release


class Jobs:
    """Makes the jobs of one host.

    :param repository: where they are stored; its clock is theirs
    """

    def __init__(self, repository):
        self._repository, self._clock = repository, repository.clock
        self._checks = {}
        self._running = []
        self._finished = collections.deque()
        self._current = None  # the _Running whose work is being done
        self._moving, self._watchers = set(), []
        repository.provide(V2, "CIM_ConcreteJob", {
            "RequestStateChange": self._request_change, "GetError": self._error})
        repository.provide(V2, "Msvm_ConcreteJob", {"GetErrorEx": self._errors})

    # For providers.

    def done(self, method, *affected, **out):
        """The out-parameters of a method that succeeded.

        :param affected: the instances the job is about; what is in ``out`` is associated too
        """
        if self._current is None and method not in _ASYNCHRONOUS:
            return dict(out, ReturnValue=COMPLETED)
        job = self._job(method)
        self._associate(job, [*affected, *_instances(out)])
        if self._current is not None and self._current.failure is not None:
            self._fail(job, self._current.failure)
        else:
            self._end(job, DONE, PercentComplete=100)
        return dict(out, ReturnValue=STARTED, Job=job.reference())

    def failed(self, method, failure, *affected):
        """The out-parameters of a method whose job fails with a :class:`JobFailure`."""
        job = self._job(method)
        self._associate(job, affected)
        self._fail(job, failure)
        return {"ReturnValue": STARTED, "Job": job.reference()}

    def check_first(self, class_name, methods):
        """Register what is checked when a method is called whose job runs later.

        :param class_name: that the methods are provided for
        :param methods: {method: (check, begin)}. Both get what the method gets. ``check`` gives
            the return value of a refusal, or None; ``begin``, which may be None, is called once
            the job has started and gives a function that takes back what it did.
        """
        for method, functions in methods.items():
            self._checks[class_name, method] = functions

    # For whoever starts them later.

    def machines_in(self, target, values):
        """The GUIDs of this host's VMs that a call is about, as a set.

        A snapshot stands for the VM that has it.

        :param target: the instance whose method it is, or a class
        :param values: its in-parameters; references, and texts of embedded instances
        """
        texts = [_path(target)]
        for value in values.values():
            texts += [_path(item) for item in (value if isinstance(value, tuple) else (value,))]
        found = {guid.upper() for text in texts for guid in _GUID.findall(text)}
        return {self._machine(guid) for guid in found} - {None}

    def systems_in(self, target, values):
        """The computer systems of :meth:`machines_in`."""
        return [self._system(guid) for guid in self.machines_in(target, values)]

    @property
    def are_running(self):
        """Whether there is any job whose work is still to do, or a move by a cluster."""
        return bool(self._running or self._moving)

    def is_busy(self, machines):
        """Whether a job of one of these VMs runs, or a cluster moves one."""
        return bool(self._moving & machines) or self.runs_one_of(machines)

    def runs_one_of(self, machines):
        """Whether a job of one of these VMs runs."""
        return any(running.machines & machines for running in self._running)

    # For the host's failover cluster.

    def watch(self, function):
        """Call a function with the GUIDs of the VMs of each job that begins or ends."""
        self._watchers.append(function)

    def begin_move(self, machine):
        """A cluster begins to move a VM: that counts as a job of it."""
        self._moving.add(machine)

    def end_move(self, machine):
        self._moving.discard(machine)

    def kill(self, machine):
        """Kill the jobs of a VM, also those that are not cancellable."""
        for running in [running for running in self._running if machine in running.machines]:
            self._stop(running, KILLED)

    def start(self, target, method, values, work, seconds, failure=None, undone=True,
              cancellable=True):
        """Start a job whose work is done later.

        :param target: the instance whose method it is
        :param values: the in-parameters
        :param work: does it, and gives the out-parameters
        :param seconds: on the clock
        :param failure: the :class:`JobFailure` it ends with, or None
        :param undone: whether it fails before its work, not after it
        :param cancellable: whether it can be stopped
        :returns: the out-parameters: 4096 and the job, or the refusal
        :raises cim.Error: parameters that WMI refuses
        """
        check, begin = self._check_of(target, method)
        refusal = check(target, **values)
        if refusal is not None:
            return {"ReturnValue": refusal}
        machines = self.machines_in(target, values)
        job = self._new(method, JobState=STARTING, JobStatus="Job is starting",
                        PercentComplete=0, Cancellable=cancellable)
        self._associate(job, self.systems_in(target, values))
        release = begin(target, **values) if begin else lambda: None
        self._running.append(_Running(
            method, job, machines, work, self._clock.now(), seconds, failure, undone, release))
        self._tell(machines)
        return {"ReturnValue": STARTED, "Job": job.reference()}

    def catch_up(self):
        """Do the work that is due, move the progress of the rest, remove what is old."""
        now = self._clock.now()
        for running in sorted(self._running, key=lambda job: job.due):
            if running.due <= now:
                self._finish(running)
            else:
                part = (now - running.begun) / running.seconds
                self._change(running.instance, JobState=RUNNING, JobStatus="Job is running",
                             PercentComplete=min(int(part * 100), 99),
                             ElapsedTime=_interval(now - running.begun))
        while self._finished and self._finished[0][0] + KEPT_FOR <= now:
            self._remove(self._finished.popleft()[1])

    def lose_running(self):
        """Forget all jobs: the host goes down, and the work of those that run is not done.

        Also of those that have ended [assumption jobs-and-power].
        """
        for running in self._running:
            running.release()
            self._remove(running.instance)
        for _, job in self._finished:
            self._remove(job)
        self._finished.clear()
        lost = {machine for running in self._running for machine in running.machines}
        self._running.clear()
        self._moving.clear()
        self._tell(lost)

    # The course of a job.

    def _finish(self, running):
        self._running.remove(running)
        running.release()
        self._current = running
        try:
            if running.failure is not None and running.undone:
                raise running.failure
            result = running.work()
            result = result if isinstance(result, dict) else {"ReturnValue": result}
            code = result.pop("ReturnValue", COMPLETED)
            if code not in (COMPLETED, STARTED):
                raise JobFailure(_MEANINGS.get(code, "Failed"), code)
            if running.instance["JobState"] in (STARTING, RUNNING):
                self.done(running.method, **result)
        except JobFailure as failure:
            self.failed(running.method, failure)
        except cim.Error as fault:
            self.failed(running.method, JobFailure(fault.args[0]["message"]))
        except OSError as fault:
            self.failed(running.method, JobFailure(str(fault)))
        finally:
            self._current = None
        self._tell(running.machines)

    def _stop(self, running, state):
        self._running.remove(running)
        running.release()
        self._end(running.instance, state, ErrorCode=FAILED, ErrorDescription=CANCELLED,
                  ErrorSummaryDescription=CANCELLED)
        self._tell(running.machines)

    def _tell(self, machines):
        for function in self._watchers:
            function(machines)

    def _job(self, method):
        return self._new(method) if self._current is None else self._current.instance

    def _new(self, method, **values):
        now = self._time()
        defaults = {
            "ElementName": method, "Name": method, "Caption": method, "Description": method,
            "JobType": _JOB_TYPES.get(method, 0), "ErrorCode": 0, "Cancellable": False,
            # OperationalStatus is documented as always OK [assumption job-status].
            "OperationalStatus": [2], "StatusDescriptions": ["OK"], "HealthState": 5,
            "DeleteOnCompletion": False, "TimeBeforeRemoval": _TIME_BEFORE_REMOVAL,
            "TimeSubmitted": now, "StartTime": now, "ElapsedTime": _interval(0),
            "TimeOfLastStateChange": now, "JobRunTimes": 1}
        return self._repository.add(V2, "Msvm_ConcreteJob", InstanceID=str(uuid.uuid4()).upper(),
                                    **{**defaults, **values})

    def _fail(self, job, failure):
        self._end(job, EXCEPTION, ErrorCode=failure.code, ErrorDescription=failure.description,
                  ErrorSummaryDescription=failure.description)

    def _end(self, job, state, **values):
        elapsed = 0 if self._current is None else self._clock.now() - self._current.begun
        self._change(job, JobState=state, JobStatus="OK" if state == DONE else "Error",
                     Cancellable=False, ElapsedTime=_interval(elapsed), **values)
        self._finished.append((self._clock.now(), job))

    def _change(self, job, **values):
        before = job.clone()
        for name, value in values.items():
            job[name] = value
        if before["JobState"] != job["JobState"]:
            job["TimeOfLastStateChange"] = self._time()
        self._repository.changed(job, before)

    def _remove(self, job):
        for association in self._repository.instances(V2, "Msvm_AffectedJobElement"):
            if association["AffectingElement"].key() == job.key():
                self._repository.remove(association)
        self._repository.remove(job)

    def _associate(self, job, affected):
        for instance in affected:
            if instance is not None:
                self._repository.add(V2, "Msvm_AffectedJobElement",
                                     AffectedElement=instance.reference(),
                                     AffectingElement=job.reference())

    def _system(self, guid):
        found = self._repository.instances(V2, "CIM_ComputerSystem", Name=guid)
        return found[0] if found else None

    def _machine(self, guid):
        """The GUID of the VM that it is, or whose snapshot it is; None: neither."""
        if self._system(guid) is not None:
            return guid
        found = self._repository.instances(
            V2, "Msvm_VirtualSystemSettingData", InstanceID="Microsoft:" + guid)
        return found[0]["VirtualSystemIdentifier"] if found else None

    def _check_of(self, target, method):
        for name in getattr(target, "cls", target).lineage:
            if (name, method) in self._checks:
                return self._checks[name, method]
        return self._check_references, None

    def _check_references(self, target, **values):
        """What can be checked of any method: that what it is given exists."""
        for value in values.values():
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, cim.Instance):
                    self._repository.stored(item)
                elif isinstance(item, str) and item.startswith("<INSTANCE"):
                    self._repository.embedded(V2, item, "CIM_ManagedElement")

    def _time(self):
        return self._clock.utc().strftime(_EPOCH_FORMAT)

    # Its methods.

    def _request_change(self, job, RequestedState=None, TimeoutPeriod=None):  # noqa: N803
        if TimeoutPeriod is not None:
            return _NO_TIMEOUT
        if RequestedState not in (2, 3, 4, 5, 6):
            return _INVALID_REQUEST
        if RequestedState not in _REQUESTS:
            return _NOT_SUPPORTED
        found = [running for running in self._running
                 if running.instance["InstanceID"] == job["InstanceID"]]
        if not found:
            return _INVALID_TRANSITION
        if not job["Cancellable"]:
            return _NOT_SUPPORTED  # [assumption job-cancelled]
        self._stop(found[0], _REQUESTS[RequestedState])
        return COMPLETED

    def _errors(self, job):
        text = self._error_text(job)
        return {"ReturnValue": COMPLETED, "Errors": [text] if text else None}

    def _error(self, job):
        return {"ReturnValue": COMPLETED, "Error": self._error_text(job)}

    def _error_text(self, job):
        """The job's Msvm_Error as CIM-XML, or None: it has none."""
        if job["JobState"] not in (TERMINATED, KILLED, EXCEPTION):
            return None
        error = self._repository.new(
            V2, "Msvm_Error", Message=job["ErrorDescription"], MessageID=str(job["ErrorCode"]),
            ErrorSource=job.get_path(), ErrorSourceFormat=2, OwningEntity="Microsoft",
            # CIM_ERR_FAILED
            CIMStatusCode=1, CIMStatusCodeDescription=job["ErrorDescription"])
        return mi.Serializer().serialize_instance(error)


def _instances(out):
    """The instances among out-parameters."""
    values = [item for value in out.values()
              for item in (value if isinstance(value, (list, tuple)) else (value,))]
    return [value for value in values if isinstance(value, cim.Instance) and value.get_path()]


def _path(value):
    if isinstance(value, (cim.Instance, cim.Class)):
        return value.get_path()
    return value if isinstance(value, str) else ""


def _interval(seconds):
    """An interval in CIM's form: days, hours, minutes, seconds, microseconds."""
    length = datetime.timedelta(seconds=seconds)
    minutes, second = divmod(length.seconds, 60)
    hours, minute = divmod(minutes, 60)
    return "%08d%02d%02d%02d.%06d:000" % (
        length.days, hours, minute, second, length.microseconds)
