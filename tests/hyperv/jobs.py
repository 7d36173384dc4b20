"""Msvm_ConcreteJob: the jobs that methods start, finished or failed.

Source: Microsoft Learn, "Msvm_ConcreteJob class" (JobState, ErrorCode) and the return values of
the methods ("Method Parameters Checked - Job Started (4096)").
"""
import uuid

V2 = "root/virtualization/v2"

COMPLETED, STARTED, FAILED = 0, 4096, 32768
INVALID_PARAMETER, INVALID_STATE = 32773, 32775

_STATE_COMPLETED, _STATE_EXCEPTION = 7, 10

# Methods that answer with a job; the others answer 0 at once [assumption which-are-jobs].
_ASYNCHRONOUS = {
    "DefineSystem", "DestroySystem", "RequestStateChange", "SetKeyProtector",
    "ModifySecuritySettings", "ImportSystemDefinition", "RealizePlannedSystem",
    "ExportSystemDefinition", "RestoreLastKnownGoodKeyProtector", "MigrateVirtualSystemToHost",
    "CheckVirtualSystemIsMigratable"}


class JobFailure(Exception):
    """A method's job ends in an exception; providers raise it.

    :param description: Windows' words, in ErrorDescription
    :param code: ErrorCode; a uint16, so an HRESULT is in the words only [assumption job-codes]
    """

    def __init__(self, description, code=FAILED):
        super().__init__(description)
        self.description, self.code = description, code


class Jobs:
    """Makes the jobs of one host.

    :param repository: where they are stored
    """

    def __init__(self, repository):
        self._repository = repository
        repository.provide(V2, "CIM_ConcreteJob", {"RequestStateChange": self._request_change})
        repository.provide(V2, "Msvm_ConcreteJob", {"GetErrorEx": self._errors})

    def done(self, method, affected=None, **out):
        """The out-parameters of a method that succeeded.

        :param affected: the instance the job is about
        """
        if method not in _ASYNCHRONOUS:
            return dict(out, ReturnValue=COMPLETED)
        return dict(out, ReturnValue=STARTED, Job=self._job(method, affected, _STATE_COMPLETED))

    def failed(self, method, failure, affected=None):
        """The out-parameters of a method whose job fails with a :class:`JobFailure`."""
        return {"ReturnValue": STARTED, "Job": self._job(
            method, affected, _STATE_EXCEPTION, ErrorCode=failure.code,
            ErrorDescription=failure.description,
            ErrorSummaryDescription=failure.description)}

    def _job(self, method, affected, state, **values):
        defaults = {
            "ElementName": method, "Name": method, "Description": method, "JobState": state,
            "ErrorCode": 0, "PercentComplete": 100, "Cancellable": False, "JobType": 0,
            "JobStatus": "OK" if state == _STATE_COMPLETED else "Error",
            "DeleteOnCompletion": False, "OperationalStatus": [2]}
        job = self._repository.add(V2, "Msvm_ConcreteJob", InstanceID=str(uuid.uuid4()).upper(),
                                   **{**defaults, **values})
        if affected is not None:
            self._repository.add(V2, "Msvm_AffectedJobElement",
                                 AffectedElement=affected.reference(),
                                 AffectingElement=job.reference())
        return job.reference()

    def _request_change(self, job, RequestedState=None, TimeoutPeriod=None):  # noqa: N803
        return INVALID_STATE  # every job is finished

    def _errors(self, job):
        text = job["ErrorDescription"]
        return {"ReturnValue": 0, "Errors": [text] if text else []}
