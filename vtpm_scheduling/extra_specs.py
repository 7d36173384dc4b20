"""Validators of the flavor keys, for nova-api (entry point ``nova.api.extra_spec_validators``).

Nova owns the extra-spec namespace ``os``: without these, nova-api refuses every ``os:vtpm`` from
microversion 2.86 on. Older microversions validate nothing; there the filter meets bad values.
"""

from __future__ import annotations

from nova.api.validation.extra_specs import base

from vtpm_scheduling import policy


def register() -> list[base.ExtraSpecValidator]:
    """The validators, as Nova's loader asks for them."""
    return [
        base.ExtraSpecValidator(
            name=name, description=description,
            value={"type": str, "description": description, "enum": list(policy.CHOICES)})
        for name, description in (
            (policy.FLAVOR_VTPM,
             "Whether the server gets a virtual TPM. Hyper-V only."),
            (policy.FLAVOR_SHIELDED,
             "Whether the server is a shielded VM, which implies a virtual TPM. Hyper-V only."),
        )
    ]
