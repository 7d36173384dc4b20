"""Validators of the flavor keys, for nova-api (entry point ``nova.api.extra_spec_validators``).

Nova owns the extra-spec namespace ``os``: without these, nova-api refuses every ``os:vtpm`` from
microversion 2.86 on. Older microversions validate nothing; there the filter meets bad values.
"""

from __future__ import annotations

from nova import exception
from nova.api.validation.extra_specs import base

from vtpm_scheduling import policy


class ChoiceValidator(base.ExtraSpecValidator):
    """Nova's validator, whose message also names the key: a request may set several."""

    def validate(self, name: str, value: str) -> None:
        """Check one key.

        :raises nova.exception.ValidationError: HTTP 400, for a value that is none of the choices.
        """
        refusal = policy.check_choice("Flavor extra spec", name, value)
        if refusal is not None:
            raise exception.ValidationError(refusal.sentence)
        super().validate(name, value)


def register() -> list[base.ExtraSpecValidator]:
    """The validators, as Nova's loader asks for them."""
    return [
        ChoiceValidator(
            name=name, description=description,
            value={"type": str, "description": description, "enum": list(policy.CHOICES)})
        for name, description in (
            (policy.FLAVOR_VTPM,
             "Whether the server gets a virtual TPM. Hyper-V only."),
            (policy.FLAVOR_SHIELDED,
             "Whether the server is a shielded VM, which implies a virtual TPM. Hyper-V only."),
        )
    ]
