"""Errors of the failover cluster: Windows' system error codes.

Source: Microsoft Learn, "System Error Codes"; [MS-CMRP] names those of each call.
"""

CODES = {
    "INVALID_HANDLE": 6, "INVALID_PARAMETER": 87, "MORE_DATA": 234, "WAIT_TIMEOUT": 258,
    "NO_MORE_ITEMS": 259, "IO_PENDING": 997, "INTERNAL_ERROR": 1359,
    "RPC_SERVER_UNAVAILABLE": 1722, "ENDPOINT_NOT_REGISTERED": 1753,
    "HOST_NODE_NOT_AVAILABLE": 5005, "RESOURCE_NOT_FOUND": 5007, "OBJECT_ALREADY_EXISTS": 5010,
    "GROUP_NOT_AVAILABLE": 5012, "GROUP_NOT_FOUND": 5013, "INVALID_STATE": 5023,
    "RESOURCE_FAILED": 5038, "CLUSTER_NODE_NOT_FOUND": 5042, "GROUP_MOVING": 5908,
    "GROUP_QUEUED": 5959, "RESOURCE_LOCKED_STATUS": 5960}

_WIN32_FACILITY = 0x80070000


class ClusterError(Exception):
    """A call of the cluster fails.

    :param name: of a code in :data:`CODES`
    :param reason: what happened, for the reader of a traceback
    """

    def __init__(self, name, reason=""):
        super().__init__(name, reason)
        self.name, self.code, self.reason = name, CODES[name], reason

    @property
    def hresult(self):
        return _WIN32_FACILITY | self.code
