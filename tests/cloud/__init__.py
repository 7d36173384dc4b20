"""A small real OpenStack on this machine, for the end-to-end tests and the demonstration."""
from tests.cloud.client import Client, Unexpected
from tests.cloud.cloud import Cloud
from tests.cloud.plain_cloud import CloudFailure, PlainCloud
from tests.cloud.settings import Companion, ComputeHost

__all__ = ["Client", "Cloud", "CloudFailure", "Companion", "ComputeHost", "PlainCloud",
           "Unexpected"]
