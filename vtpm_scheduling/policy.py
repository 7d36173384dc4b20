"""What an instance asks for, what a host offers, and whether the two fit.

The one place where the product decides. nova-scheduler's filter, nova-compute's driver and the
commands all ask here, so that they cannot differ. Standard library only: no Nova, no oslo, no I/O.

Whether an instance gets a vTPM is read from the image property ``os_vtpm`` and the flavor extra
spec ``os:vtpm``::

    image \\ flavor | unset   disabled  optional  required
    ---------------+--------------------------------------
    unset          | no      no        no        vTPM
    disabled       | no      no        no        refused
    optional       | no      no        no        vTPM
    required       | vTPM    refused   vTPM      vTPM

``os_shielded_vm`` and ``os:shielded_vm`` follow the same table and imply a vTPM.

Nothing here raises for what a user wrote: a refusal is a value (:class:`Refusal`,
:class:`Misfit`), because the caller has to count, log or translate it.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

# How Nova names an image's properties in an instance's system metadata.
_SYSTEM_METADATA_PREFIX = "image_"

IMAGE_VTPM = "os_vtpm"
IMAGE_KEYS = "os_vtpm_keys"
IMAGE_SHIELDED = "os_shielded_vm"
IMAGE_SECURE_BOOT = "os_secure_boot"
IMAGE_MACHINE_TYPE = "hw_machine_type"
# compute-hyperv's own property: the Barbican container with a provisioning data file.
IMAGE_PDK = "img_pdk_reference"
IMAGE_OS_TYPE = "os_type"
# The names that Nova takes for one thing: Glance's documented one and its own.
IMAGE_HYPERVISOR_TYPES = ("hypervisor_type", "img_hv_type")
IMAGE_ARCHITECTURES = ("architecture", "hw_architecture")

FLAVOR_VTPM = "os:vtpm"
FLAVOR_SHIELDED = "os:shielded_vm"
FLAVOR_SECURE_BOOT = "os:secure_boot"

DISABLED, OPTIONAL, REQUIRED = "disabled", "optional", "required"
CHOICES = (DISABLED, OPTIONAL, REQUIRED)

GENERATION_2 = "hyperv-gen2"
HYPERV = "hyperv"
# Generation 2 virtual machines run 64-bit guests only (Microsoft Learn, "Should I create a
# generation 1 or 2 virtual machine in Hyper-V?"). Nova accepts "amd64" for "x86_64".
ARCHITECTURES = ("x86_64", "amd64")

# The blueprint's limit and Nova's: instance system metadata holds 255 characters, and six UUIDs
# are 221.
MAX_KEYS = 6
# Nova cuts longer values without a word, so a value of just this length is taken for a cut one.
NOVA_VALUE_LENGTH = 255

# Nova's integer for Windows Server 2016, the first version with virtual TPMs: 10.0 is 10000.
MIN_HYPERVISOR_VERSION = 10000

AGGREGATE_FABRIC = "hgs_fabric"
# The trait of hosts that placement is asked for; hosts report it and take it back.
TRAIT_GUARDED_HOST = "CUSTOM_HYPERV_GUARDED_HOST"

# The mark in an instance's system metadata that it has a vTPM, written by vtpm_compute before the
# virtual machine first starts. Without Nova's "image_" prefix, so that a rebuild keeps it apart
# from the image's properties.
MARK_VTPM = "hyperv_vtpm"
MARK_FABRIC = "hyperv_vtpm_fabric"
# The image of which this project's driver built a server, with a vTPM or without; empty for one
# that boots from a volume. It is not there while a server is built or rebuilt, nor when that
# failed. Without Nova's prefix for an image's properties, which a rebuild replaces.
MARK_BUILT_FROM = "hyperv_built_from"

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_BARE_UUID = re.compile(_UUID, re.IGNORECASE)
_SECRET_URL = re.compile(
    r"https?://[^/?#@\s]+(?:/[^?#@\s]*)?/secrets/(" + _UUID + r")/?", re.IGNORECASE)
# What a message quotes of a value: enough to recognise it. Nova cuts a fault at 255 characters.
_QUOTED = 44
# What compute-hyperv's own flow takes (os_win.constants.VTPM_SUPPORTED_OS).
_PDK_OS_TYPE = "windows"
# How many kinds of reason a tenant reads, and of attestation in one of them: more would be cut in
# the middle.
_KINDS_SHOWN = 3
_ATTESTATIONS_SHOWN = 2


class RefusalCode(str, enum.Enum):
    """Why a request is refused whatever the hosts are."""

    INVALID_VALUE = "invalid_value"
    CONTRADICTION = "contradiction"
    SHIELDED_WITHOUT_VTPM = "shielded_without_vtpm"
    KEYS_WITHOUT_VTPM = "keys_without_vtpm"
    KEYS_AND_PDK = "keys_and_pdk"
    PDK_WITHOUT_IMAGE = "pdk_without_image"
    PDK_WITHOUT_SECURE_BOOT = "pdk_without_secure_boot"
    SECURE_BOOT_WITHOUT_OS_TYPE = "secure_boot_without_os_type"
    KEYS_CUT = "keys_cut"
    KEYS_TOO_MANY = "keys_too_many"
    KEY_EMPTY = "key_empty"
    KEY_MALFORMED = "key_malformed"
    KEY_REPEATED = "key_repeated"
    NOT_GENERATION_2 = "not_generation_2"
    SHIELDED_WITHOUT_SECURE_BOOT = "shielded_without_secure_boot"
    SHIELDED_WITHOUT_KEYS = "shielded_without_keys"
    OTHER_HYPERVISOR = "other_hypervisor"
    OTHER_ARCHITECTURE = "other_architecture"
    VTPM_NOT_ADDED = "vtpm_not_added"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A request that no host could ever satisfy.

    :ivar code: what kind of refusal, for tests, counters and documentation.
    :ivar sentence: for the user: names the property, its value and what to change. Short enough
        for Nova's fault (255 characters with Nova's own words before it).
    """

    code: RefusalCode
    sentence: str


@dataclasses.dataclass(frozen=True)
class KeyReference:
    """One entry of ``os_vtpm_keys``.

    :ivar text: as the user wrote it, without blanks around it.
    :ivar secret_id: the secret's UUID in lower case; two references with one id are one secret.
    """

    text: str
    secret_id: str


@dataclasses.dataclass(frozen=True)
class VtpmRequest:
    """What an instance gets once the policy has accepted it.

    :ivar vtpm: whether it gets a vTPM at all. The other fields mean nothing when it does not.
    :ivar shielded: whether the virtual machine is to be shielded.
    :ivar secure_boot: whether Secure Boot was asked for.
    :ivar keys: the secrets that hold its keys, in the order given; empty: keys are made here.
    :ivar uses_pdk: whether compute-hyperv's own flow (a provisioning data file) makes the vTPM.
    :ivar asked_by: the property and value that asked, as ``name=value``, for messages.
    """

    vtpm: bool
    shielded: bool = False
    secure_boot: bool = False
    keys: tuple[KeyReference, ...] = ()
    uses_pdk: bool = False
    asked_by: str = ""


NO_VTPM = VtpmRequest(vtpm=False)
# An instance that has a vTPM keeps it on every move, whatever its new flavor says.
EXISTING_VTPM = VtpmRequest(vtpm=True, asked_by="the server's existing vTPM")


def quote(value: str, length: int = _QUOTED) -> str:
    """A value as a message or a log shows it: printable, and at most so many characters."""
    shown = "".join(c if c.isprintable() else "?" for c in value[:length + 1])
    return shown if len(shown) <= length else shown[:length] + "..."


def check_choice(kind: str, name: str, value: str) -> Refusal | None:
    """Whether a value of one of the properties is one of :data:`CHOICES`.

    :param kind: 'Image property' or 'Flavor extra spec', for the message.
    """
    if value in CHOICES:
        return None
    return Refusal(RefusalCode.INVALID_VALUE, "%s %s=%s is not valid: use one of %s." % (
        kind, name, quote(value), ", ".join(CHOICES)))


def _choose(image_name: str, image_value: str | None,
            flavor_name: str, flavor_value: str | None) -> str | Refusal:
    """The table of the module's docstring for one pair of properties.

    :returns: '' for no, the ``name=value`` that asked for yes, or the refusal.
    """
    for kind, name, value in (("Image property", image_name, image_value),
                              ("Flavor extra spec", flavor_name, flavor_value)):
        refusal = check_choice(kind, name, value) if value is not None else None
        if refusal is not None:
            return refusal
    if {image_value, flavor_value} == {REQUIRED, DISABLED}:
        return Refusal(RefusalCode.CONTRADICTION, (
            "Flavor extra spec %s=%s contradicts image property %s=%s: change one of the two."
            % (flavor_name, flavor_value, image_name, image_value)))
    if flavor_value == REQUIRED:
        return "flavor extra spec %s=%s" % (flavor_name, REQUIRED)
    if image_value == REQUIRED:
        return "image property %s=%s" % (image_name, REQUIRED)
    return ""


def parse_keys(value: str) -> tuple[KeyReference, ...] | Refusal:
    """Read ``os_vtpm_keys``.

    :param value: references to Barbican secrets, separated by commas: UUIDs, or references as
        Barbican prints them (``https://…/v1/secrets/UUID``).
    :returns: one to six references in the order given, or the refusal.
    """
    if len(value.encode("utf-8", "replace")) >= NOVA_VALUE_LENGTH:
        return Refusal(RefusalCode.KEYS_CUT, (
            "Image property %s=%s is too long: Nova keeps fewer than %d characters. Give UUIDs "
            "instead of full references."
            % (IMAGE_KEYS, quote(value), NOVA_VALUE_LENGTH)))
    entries = [entry.strip() for entry in value.split(",")]
    if len(entries) > MAX_KEYS:
        return Refusal(RefusalCode.KEYS_TOO_MANY, (
            "Image property %s=%s names %d secrets: give at most %d." % (
                IMAGE_KEYS, quote(value), len(entries), MAX_KEYS)))
    keys: list[KeyReference] = []
    for position, entry in enumerate(entries, 1):
        if not entry:
            return Refusal(RefusalCode.KEY_EMPTY, (
                "Image property %s=%s: entry %d of %d is empty. Give the references of Barbican "
                "secrets, separated by commas, or leave the property out."
                % (IMAGE_KEYS, quote(value), position, len(entries))))
        match = _SECRET_URL.fullmatch(entry)
        if match is None and _BARE_UUID.fullmatch(entry) is None:
            return Refusal(RefusalCode.KEY_MALFORMED, (
                "Image property %s: %s is not the reference of a Barbican secret: give its UUID "
                "or its full reference, which ends in /secrets/UUID."
                % (IMAGE_KEYS, quote(entry))))
        key = KeyReference(entry, (match.group(1) if match else entry).lower())
        if any(other.secret_id == key.secret_id for other in keys):
            return Refusal(RefusalCode.KEY_REPEATED, (
                "Image property %s names secret %s twice: name each once."
                % (IMAGE_KEYS, key.secret_id)))
        keys.append(key)
    return tuple(keys)


def decide_existing(extra_specs: Mapping[str, str],
                    shielded: bool | None = None) -> VtpmRequest | Refusal:
    """What a server that has a vTPM asks for on a move.

    Its image is not asked: a refused rebuild leaves the properties of an image that the server
    does not run.

    :param extra_specs: of its flavor, on a resize of the new one.
    :param shielded: whether it is shielded, which no move changes; None where that is not known.
    """
    value = extra_specs.get(FLAVOR_VTPM)
    refusal = check_choice("Flavor extra spec", FLAVOR_VTPM, value) if value is not None else None
    if refusal is None and value == DISABLED:
        refusal = Refusal(RefusalCode.CONTRADICTION, (
            "Flavor extra spec %s=%s contradicts the vTPM that the server has: choose another "
            "flavor." % (FLAVOR_VTPM, DISABLED)))
    wrong = {True: DISABLED, False: REQUIRED}.get(shielded) if shielded is not None else None
    if refusal is None and wrong is not None and extra_specs.get(FLAVOR_SHIELDED) == wrong:
        refusal = Refusal(RefusalCode.CONTRADICTION, (
            "Flavor extra spec %s=%s contradicts the server, which is %s: choose another flavor."
            % (FLAVOR_SHIELDED, wrong, "shielded" if shielded else "not shielded")))
    return refusal or EXISTING_VTPM


def decide_unmarked(image_properties: Mapping[str, str], old_extra_specs: Mapping[str, str],
                    new_extra_specs: Mapping[str, str]) -> VtpmRequest | Refusal:
    """What a server without the mark of a vTPM asks for on a move: no resize adds a vTPM.

    :param image_properties: of the server's image.
    :param old_extra_specs: of the flavor that it was made with.
    :param new_extra_specs: of the flavor that it moves with.
    """
    request = decide(image_properties, new_extra_specs)
    if isinstance(request, Refusal) or not request.vtpm:
        return request
    before = decide(image_properties, old_extra_specs)
    if isinstance(before, VtpmRequest) and not before.vtpm:
        return _not_added(request.asked_by)
    return request


def decide_without_vtpm(old_extra_specs: Mapping[str, str],
                        new_extra_specs: Mapping[str, str]) -> VtpmRequest | Refusal:
    """What a server that has no vTPM, by :func:`is_built_without_vtpm`, asks for on a move.

    :param old_extra_specs: of the flavor that it was made with.
    :param new_extra_specs: of the flavor that it moves with.
    :returns: no vTPM, whatever its image's properties say; a refusal where the new flavor's are not
        valid or ask for one.
    """
    for name in (FLAVOR_VTPM, FLAVOR_SHIELDED):
        asked_by = _choose("", None, name, new_extra_specs.get(name))
        if isinstance(asked_by, Refusal):
            return asked_by
        if asked_by and old_extra_specs.get(name) != REQUIRED:
            return _not_added(asked_by)
    return NO_VTPM


def _not_added(asked_by: str) -> Refusal:
    return Refusal(RefusalCode.VTPM_NOT_ADDED, (
        "The server has no vTPM, and a resize does not add one (%s): choose another flavor, or "
        "make a new server." % asked_by))


def decide(image_properties: Mapping[str, str],
           extra_specs: Mapping[str, str]) -> VtpmRequest | Refusal:
    """What an image and a flavor ask for together.

    :param image_properties: all properties of the image, by name, as the user set them (also
        those that Nova does not know).
    :param extra_specs: the flavor's extra specs.
    :returns: the request, or why it is refused before anything else happens.
    """
    vtpm = _choose(IMAGE_VTPM, image_properties.get(IMAGE_VTPM),
                   FLAVOR_VTPM, extra_specs.get(FLAVOR_VTPM))
    if isinstance(vtpm, Refusal):
        return vtpm
    shielded = _choose(IMAGE_SHIELDED, image_properties.get(IMAGE_SHIELDED),
                       FLAVOR_SHIELDED, extra_specs.get(FLAVOR_SHIELDED))
    if isinstance(shielded, Refusal):
        return shielded
    if shielded and not vtpm:
        for kind, name, value in (
                ("image property", IMAGE_VTPM, image_properties.get(IMAGE_VTPM)),
                ("flavor extra spec", FLAVOR_VTPM, extra_specs.get(FLAVOR_VTPM))):
            if value == DISABLED:
                return Refusal(RefusalCode.SHIELDED_WITHOUT_VTPM, (
                    "A shielded VM (%s) needs a vTPM, but %s %s=%s: change one of the two."
                    % (shielded, kind, name, value)))
    asked_by = shielded or vtpm
    if not asked_by:
        if IMAGE_KEYS in image_properties:
            return Refusal(RefusalCode.KEYS_WITHOUT_VTPM, (
                "Image property %s=%s is set, but neither the image nor the flavor requires a "
                "vTPM: set %s=%s on the image, or remove the keys."
                % (IMAGE_KEYS, quote(image_properties[IMAGE_KEYS]), IMAGE_VTPM, REQUIRED)))
        return NO_VTPM
    return _decide_vtpm(image_properties, extra_specs, bool(shielded), asked_by)


def _decide_vtpm(image_properties: Mapping[str, str], extra_specs: Mapping[str, str],
                 shielded: bool, asked_by: str) -> VtpmRequest | Refusal:
    """The conditions of a request that does get a vTPM."""
    keys: tuple[KeyReference, ...] = ()
    uses_pdk = IMAGE_PDK in image_properties
    if IMAGE_KEYS in image_properties:
        if uses_pdk:
            return Refusal(RefusalCode.KEYS_AND_PDK, (
                "Image properties %s=%s and %s exclude each other: both give the key protector. "
                "Remove one." % (IMAGE_KEYS, quote(image_properties[IMAGE_KEYS]), IMAGE_PDK)))
        parsed = parse_keys(image_properties[IMAGE_KEYS])
        if isinstance(parsed, Refusal):
            return parsed
        keys = parsed
    machine_type = image_properties.get(IMAGE_MACHINE_TYPE)
    if machine_type != GENERATION_2:
        return Refusal(RefusalCode.NOT_GENERATION_2, (
            "A vTPM (%s) needs a Generation 2 VM, but image property %s %s: set it to %s." % (
                asked_by, IMAGE_MACHINE_TYPE,
                "is not set" if machine_type is None else "is %s" % quote(machine_type),
                GENERATION_2)))
    needed = IMAGE_SHIELDED if shielded else IMAGE_VTPM
    if uses_pdk and image_properties.get(needed) != REQUIRED:
        # compute-hyperv's flow reads the image only: it would silently make less than was asked.
        return Refusal(RefusalCode.PDK_WITHOUT_IMAGE, (
            "Image property %s serves only what the image itself requires, not %s: set image "
            "property %s=%s." % (IMAGE_PDK, asked_by, needed, REQUIRED)))
    for name in IMAGE_HYPERVISOR_TYPES:
        value = image_properties.get(name, HYPERV)
        if value.lower() != HYPERV:
            return Refusal(RefusalCode.OTHER_HYPERVISOR, (
                "A vTPM (%s) needs Hyper-V, but image property %s=%s: set it to %s or remove it."
                % (asked_by, name, quote(value), HYPERV)))
    for name in IMAGE_ARCHITECTURES:
        value = image_properties.get(name, ARCHITECTURES[0])
        if value.lower() not in ARCHITECTURES:
            return Refusal(RefusalCode.OTHER_ARCHITECTURE, (
                "A vTPM (%s) needs a 64-bit VM, but image property %s=%s: set it to %s or remove "
                "it." % (asked_by, name, quote(value), ARCHITECTURES[0])))
    secure_boot = _choose(IMAGE_SECURE_BOOT, image_properties.get(IMAGE_SECURE_BOOT),
                          FLAVOR_SECURE_BOOT, extra_specs.get(FLAVOR_SECURE_BOOT))
    if isinstance(secure_boot, Refusal):
        return secure_boot
    os_type = image_properties.get(IMAGE_OS_TYPE)
    if shielded and not secure_boot:
        return Refusal(RefusalCode.SHIELDED_WITHOUT_SECURE_BOOT, (
            "A shielded VM (%s) needs Secure Boot, but %s: set image property %s=%s." % (
                asked_by, _secure_boot_as_set(image_properties, extra_specs), IMAGE_SECURE_BOOT,
                REQUIRED)))
    if uses_pdk and not (secure_boot and os_type == _PDK_OS_TYPE):
        return Refusal(RefusalCode.PDK_WITHOUT_SECURE_BOOT, (
            "Image property %s needs %s=%s and %s=%s, but %s and %s." % (
                IMAGE_PDK, IMAGE_SECURE_BOOT, REQUIRED, IMAGE_OS_TYPE, _PDK_OS_TYPE,
                _secure_boot_as_set(image_properties, extra_specs),
                _as_set(IMAGE_OS_TYPE, os_type))))
    if secure_boot and not os_type:
        return Refusal(RefusalCode.SECURE_BOOT_WITHOUT_OS_TYPE, (
            "Secure Boot (%s) needs to know the guest, but image property %s: set it to windows "
            "or linux." % (secure_boot, _as_set(IMAGE_OS_TYPE, os_type))))
    if shielded and not keys and not uses_pdk:
        return Refusal(RefusalCode.SHIELDED_WITHOUT_KEYS, (
            "A shielded VM (%s) needs its owner's key protector, but image property %s is not "
            "set: store the protector in Barbican and name it there." % (asked_by, IMAGE_KEYS)))
    return VtpmRequest(vtpm=True, shielded=shielded, secure_boot=bool(secure_boot), keys=keys,
                       uses_pdk=uses_pdk, asked_by=asked_by)


def image_properties_of(system_metadata: Mapping[str, str]) -> dict[str, str]:
    """The image's properties, by name, in an instance's system metadata.

    Also those that Nova does not know; values are cut at 255 characters. Only keys with Nova's
    prefix are properties: Nova's own helper returns others too.
    """
    return {key[len(_SYSTEM_METADATA_PREFIX):]: value for key, value in system_metadata.items()
            if key.startswith(_SYSTEM_METADATA_PREFIX)}


def is_built_without_vtpm(system_metadata: Mapping[str, str], image_ref: str | None) -> bool:
    """Whether this project's driver built an instance, of the image it has now, without a vTPM.

    False where that is not known. Its image's properties do not tell: they are those of another
    image after a rebuild that nova-scheduler refused, which nobody takes back.

    :param image_ref: the instance's image. Of one that boots from a volume it tells nothing: Nova
        has none, and after such a rebuild that of the volume.
    """
    built_from = system_metadata.get(MARK_BUILT_FROM)
    return (built_from is not None and built_from in {"", image_ref}
            and MARK_VTPM not in system_metadata)


def _as_set(name: str, value: str | None) -> str:
    return "%s is not set" % name if value is None else "%s=%s" % (name, quote(value))


def _secure_boot_as_set(image_properties: Mapping[str, str],
                        extra_specs: Mapping[str, str]) -> str:
    if FLAVOR_SECURE_BOOT in extra_specs:
        return _as_set(FLAVOR_SECURE_BOOT, extra_specs[FLAVOR_SECURE_BOOT])
    return _as_set(IMAGE_SECURE_BOOT, image_properties.get(IMAGE_SECURE_BOOT))


# --- hosts ------------------------------------------------------------------------------------

class Attestation(enum.IntEnum):
    """MSFT_HgsClientConfiguration.AttestationStatus (Microsoft's class reference)."""

    NOT_CONFIGURED = 0
    NOT_ATTEMPTED = 1
    PASSED = 100
    PASSED_CERTIFICATE_EXPIRED = 200
    RETRIABLE_ERROR = 300
    HOST_NOT_AUTHORISED = 301
    TPM_ERROR = 302
    INSECURE_CONFIGURATION = 303


# Keys of ComputeNode.stats. Nova hands them to the scheduler as strings. All that :func:`misfit`
# looks at is in one of them, so that hosts are told apart by comparing one text. The time of
# reading, which differs on each host, is in another.
STAT_REPORT = "hyperv_vtpm_report"
STAT_READ_AT = "hyperv_attestation_read_at"

REPORT_VERSION = 1


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


@dataclasses.dataclass(frozen=True)
class HostReport:
    """What a compute host says of itself; made by vtpm_compute, read by vtpm_scheduling.

    Only the vTPM driver makes one, and it runs on Hyper-V only: a host with a report has the
    hypervisor type 'hyperv', and the version that the report gives.

    :ivar guarded: whether its attestation is passed and valid now.
    :ivar hypervisor_version: Nova's integer, major * 1000 + minor.
    :ivar attestation_status: see :class:`Attestation`; None where the host does not know.
    :ivar read_at: when that was read: UTC, ISO 8601, seconds.
    :ivar fabric_thumbprint: SHA-256 thumbprint of the encryption certificate of the fabric's
        guardian, lower-case hexadecimal; None while the host has no such guardian.
    :ivar version: version of this report's form.
    """

    guarded: bool
    hypervisor_version: int
    attestation_status: int | None = None
    read_at: str | None = None
    fabric_thumbprint: str | None = None
    version: int = REPORT_VERSION

    def to_stats(self) -> dict[str, str]:
        """The report as entries of ``get_available_resource()['stats']``.

        The text is ``name=value`` with blanks between, as in ``version=1 guarded=True
        hypervisor=10000 attestation=100 fabric=0a1b…``; what is not known is left out.
        """
        values = {"version": self.version, "guarded": self.guarded,
                  "hypervisor": self.hypervisor_version, "attestation": self.attestation_status,
                  "fabric": self.fabric_thumbprint}
        stats = {STAT_REPORT: " ".join(
            "%s=%s" % (name, value) for name, value in values.items() if value is not None)}
        if self.read_at is not None:
            stats[STAT_READ_AT] = self.read_at
        return stats

    @classmethod
    def from_stats(cls, stats: Mapping[str, object]) -> HostReport | None:
        """Read the report back, what this version knows of it; None where none can be read."""
        text, read_at = stats.get(STAT_REPORT), stats.get(STAT_READ_AT)
        values = dict(part.split("=", 1) for part in str(text or "").split() if "=" in part)
        version = _integer(values.get("version"))
        hypervisor_version = _integer(values.get("hypervisor"))
        if version is None or version < 1 or hypervisor_version is None:
            return None
        return cls(guarded=values.get("guarded") == "True", hypervisor_version=hypervisor_version,
                   attestation_status=_integer(values.get("attestation")),
                   read_at=None if read_at is None else str(read_at),
                   fabric_thumbprint=values.get("fabric") or None, version=version)


@dataclasses.dataclass(frozen=True)
class HostFacts:
    """A host as the decision sees it.

    :ivar hypervisor_type: as Nova reports it, e.g. 'hyperv'.
    :ivar hypervisor_version: Nova's integer, major * 1000 + minor.
    :ivar report: what the vTPM driver on it says; None where that driver does not run.
    :ivar fabric_labels: the values of ``hgs_fabric`` on the aggregates it belongs to.
    """

    hypervisor_type: str | None
    hypervisor_version: int | None
    report: HostReport | None = None
    fabric_labels: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Home:
    """The fabric that an instance with a vTPM belongs to; None where that is not known.

    :ivar fabric_thumbprint: from the instance's mark. Where it is known, it decides.
    :ivar fabric_label: of the host where it runs.
    """

    fabric_thumbprint: str | None = None
    fabric_label: str | None = None


def home_by_host(fabric_labels: frozenset[str], thumbprint: str | None,
                 require_fabric_aggregate: bool) -> Home | None:
    """The fabric of an instance without a mark: that of the host where it runs, or ran.

    A label is the operator's word; where the label's hosts differ, the guardian tells.

    :param fabric_labels: see :class:`HostFacts`.
    :param thumbprint: of the host's guardian, as it reported it; None where that is not known.
    :param require_fabric_aggregate: see :func:`misfit`.
    :returns: None where any will do; an empty one where the host's labels do not tell.
    """
    if not fabric_labels and not require_fabric_aggregate:
        # One fabric, and no aggregates for it: there is no other to keep away from.
        return Home(thumbprint) if thumbprint else None
    if len(fabric_labels) != 1:
        return Home()
    (label,) = fabric_labels
    return Home(thumbprint, label)


class MisfitCode(str, enum.Enum):
    """Why a host cannot run an instance with a vTPM, in the order in which it is asked."""

    OTHER_HYPERVISOR = "other_hypervisor"
    TOO_OLD = "too_old"
    NO_REPORT = "no_report"
    NOT_GUARDED = "not_guarded"
    NO_FABRIC_GUARDIAN = "no_fabric_guardian"
    NO_FABRIC = "no_fabric"
    SEVERAL_FABRICS = "several_fabrics"
    MIXED_FABRIC = "mixed_fabric"
    OTHER_FABRIC = "other_fabric"


# What a tenant reads: the kind of reason. Names and numbers of hosts are the operator's.
_FOR_TENANTS = {
    MisfitCode.OTHER_HYPERVISOR: "hosts do not run Hyper-V",
    MisfitCode.TOO_OLD: "hosts run a Hyper-V older than 10.0",
    MisfitCode.NO_REPORT: "hosts do not offer vTPMs",
    MisfitCode.NOT_GUARDED: "hosts are not guarded at present",
    MisfitCode.NO_FABRIC_GUARDIAN: "hosts lack their fabric's guardian",
    MisfitCode.NO_FABRIC: "hosts belong to no fabric",
    MisfitCode.SEVERAL_FABRICS: "hosts belong to more than one fabric",
    MisfitCode.MIXED_FABRIC: "hosts' fabric mixes guardians",
    MisfitCode.OTHER_FABRIC: "hosts belong to another fabric than the server",
}

_ATTESTATION_MEANING = {
    Attestation.NOT_CONFIGURED: "no attestation server is configured",
    Attestation.NOT_ATTEMPTED: "attestation was not attempted yet",
    Attestation.PASSED: "attestation passed",
    Attestation.PASSED_CERTIFICATE_EXPIRED: "attestation passed, but its certificate has expired",
    Attestation.RETRIABLE_ERROR: "attestation failed with an error that will be retried",
    Attestation.HOST_NOT_AUTHORISED: "the host is not authorised by the attestation server",
    Attestation.TPM_ERROR: "attestation failed with a TPM error",
    Attestation.INSECURE_CONFIGURATION: "attestation refused an insecure host configuration",
}

# The same for a tenant and in totals, where it is short. A host that passed and is not guarded,
# and one that knows no status, have no kind.
_ATTESTATION_KINDS: Mapping[int | None, str] = {
    Attestation.NOT_CONFIGURED: "attestation not configured",
    Attestation.NOT_ATTEMPTED: "not attested yet",
    Attestation.PASSED_CERTIFICATE_EXPIRED: "attestation expired",
    Attestation.RETRIABLE_ERROR: "attestation is retried",
    Attestation.HOST_NOT_AUTHORISED: "not authorised",
    Attestation.TPM_ERROR: "TPM error",
    Attestation.INSECURE_CONFIGURATION: "insecure configuration",
}


def for_tenants(code: MisfitCode) -> str:
    """A kind of reason in a tenant's words, without names and numbers of hosts."""
    return _FOR_TENANTS[code]


def attestation_meaning(status: int | None) -> str:
    """A status of :class:`Attestation` in words, for logs and commands."""
    if status is None:
        return "no attestation status is known"
    try:
        return "%s (%d)" % (_ATTESTATION_MEANING[Attestation(status)], status)
    except ValueError:
        return "attestation status %d" % status


@dataclasses.dataclass(frozen=True)
class Misfit:
    """Why one host does not fit.

    :ivar code: the first rule that failed.
    :ivar sentence: for the operator's log; says nothing of which host it is.
    :ivar attestation: what kind of attestation failed, in a few words; '' where that is not it.
    """

    code: MisfitCode
    sentence: str
    attestation: str = ""

    @property
    def total_name(self) -> str:
        """What totals count it under."""
        return self.code.value + (" (%s)" % self.attestation if self.attestation else "")


def misfit(host: HostFacts, home: Home | None = None, require_fabric_aggregate: bool = True,
           mixed: Mapping[str, Iterable[str]] = MappingProxyType({})) -> Misfit | None:
    """Why a host cannot run an instance that gets a vTPM.

    :param host: the host.
    :param home: for an instance that already has a vTPM, the fabric it belongs to.
    :param require_fabric_aggregate: whether the host must be in an aggregate with ``hgs_fabric``;
        an operator who has one fabric and no aggregates turns it off.
    :param mixed: the fabrics that mix guardians, from :func:`mixed_fabrics`.
    :returns: the first reason, in the order of :class:`MisfitCode`; None when the host fits.
    """
    if not is_hyperv(host.hypervisor_type):
        return Misfit(MisfitCode.OTHER_HYPERVISOR,
                      "hypervisor type is %s, not %s" % (host.hypervisor_type, HYPERV))
    version = host.hypervisor_version or 0
    if version < MIN_HYPERVISOR_VERSION:
        return Misfit(MisfitCode.TOO_OLD, "Hyper-V version %d.%d is older than 10.0"
                      % divmod(version, 1000))
    report = host.report
    if report is None:
        return Misfit(MisfitCode.NO_REPORT, "it reports no vTPM support: the vTPM driver does not "
                                            "run there")
    if not report.guarded:
        status = report.attestation_status
        return Misfit(
            MisfitCode.NOT_GUARDED, "it is not guarded: %s" % attestation_meaning(status),
            _ATTESTATION_KINDS.get(status, ""))
    if not report.fabric_thumbprint:
        return Misfit(MisfitCode.NO_FABRIC_GUARDIAN,
                      "its guardian store does not hold the fabric's guardian")
    return _misfit_of_fabric(host, report, home, require_fabric_aggregate, mixed)


def _misfit_of_fabric(host: HostFacts, report: HostReport, home: Home | None,
                      require_fabric_aggregate: bool,
                      mixed: Mapping[str, Iterable[str]]) -> Misfit | None:
    labels = ", ".join(sorted(host.fabric_labels))
    if len(host.fabric_labels) > 1:
        return Misfit(MisfitCode.SEVERAL_FABRICS, "its aggregates carry %s=%s: a host belongs to "
                      "one fabric" % (AGGREGATE_FABRIC, labels))
    if require_fabric_aggregate and not host.fabric_labels:
        return Misfit(MisfitCode.NO_FABRIC, "none of its aggregates carries %s" % AGGREGATE_FABRIC)
    if labels in mixed:
        return Misfit(MisfitCode.MIXED_FABRIC, mixed_sentence(labels, mixed[labels]))
    return _misfit_of_home(host, report, home)


def is_hyperv(hypervisor_type: str | None) -> bool:
    """Whether a hypervisor type, as nova-compute reports it, is Hyper-V's."""
    return (hypervisor_type or "").lower() == HYPERV


def mixed_fabrics(hosts: Iterable[HostFacts]) -> dict[str, tuple[str, ...]]:
    """The fabrics whose hosts do not all have one guardian.

    A label is the operator's word, the thumbprint is what the host holds. A host with several
    labels is left out: it is refused anyway, and says nothing of either fabric.

    :returns: by label, the thumbprints, in order.
    """
    found: dict[str, set[str]] = {}
    for host in hosts:
        if host.report is not None and host.report.fabric_thumbprint \
                and len(host.fabric_labels) == 1:
            (label,) = host.fabric_labels
            found.setdefault(label, set()).add(host.report.fabric_thumbprint)
    return {label: tuple(sorted(thumbprints)) for label, thumbprints in found.items()
            if len(thumbprints) > 1}


def mixed_sentence(label: str, thumbprints: Iterable[str]) -> str:
    """What is wrong with a fabric that mixes guardians, for the operator."""
    return "the hosts in aggregates with %s=%s have different guardians: %s" % (
        AGGREGATE_FABRIC, label, ", ".join(thumbprints))


def _misfit_of_home(host: HostFacts, report: HostReport, home: Home | None) -> Misfit | None:
    if home is None:
        return None
    if home.fabric_thumbprint:
        if home.fabric_thumbprint != report.fabric_thumbprint:
            return Misfit(MisfitCode.OTHER_FABRIC, (
                "its fabric's guardian is %s, the instance's vTPM belongs to %s"
                % (report.fabric_thumbprint, home.fabric_thumbprint)))
    elif home.fabric_label is None:
        return Misfit(MisfitCode.OTHER_FABRIC, "the fabric of the instance's vTPM is not known")
    if home.fabric_label is not None and host.fabric_labels - {home.fabric_label}:
        return Misfit(MisfitCode.OTHER_FABRIC, "its fabric is %s, the instance runs in %s" % (
            ", ".join(sorted(host.fabric_labels)), home.fabric_label))
    return None


def no_host_sentence(request: VtpmRequest, misfits: Iterable[Misfit]) -> str:
    """What a tenant reads when no host fits.

    :param request: what was asked for.
    :param misfits: the reasons of the hosts that were looked at.
    :returns: one sentence with each kind of reason once; the rule asked last, which is the
        nearest to a fit, comes first, and the farthest are left out.
    """
    attestations: dict[MisfitCode, set[str]] = {}
    for reason in misfits:
        attestations.setdefault(reason.code, set()).update(filter(None, [reason.attestation]))
    kinds = []
    for code in [code for code in reversed(MisfitCode) if code in attestations][:_KINDS_SHOWN]:
        shown = sorted(attestations[code])
        kinds.append(for_tenants(code) + (
            " (%s%s)" % (", ".join(shown[:_ATTESTATIONS_SHOWN]),
                         ", ..." if shown[_ATTESTATIONS_SHOWN:] else "") if shown else ""))
    return "No host fits the vTPM (%s): %s." % (request.asked_by, "; ".join(kinds))
