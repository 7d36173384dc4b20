"""Scheduling of servers with a virtual TPM to guarded Hyper-V hosts (nova-scheduler, nova-api)."""
