"""What stands in nova.conf's sections of this project and means nothing (any more)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import loading
from oslo_config import cfg

from vtpm_compute import conf

# Options of earlier releases, as (section, name): what to do instead. There was no release yet
# whose options are gone.
GONE: Mapping[tuple[str, str], str] = MappingProxyType({})

# oslo.config's message, up to the value.
_BAD_VALUE = re.compile(r"Value for option (?P<option>\S+) from "
                        r"(?:LocationInfo\(.*?detail='(?P<file>[^']*)'\))?")
# Errors whose text names files and options only.
_WITHOUT_VALUES = (cfg.ConfigFilesNotFoundError, cfg.ConfigFilesPermissionDeniedError,
                   cfg.RequiredOptError, OSError)


def problem(exc: Exception) -> str:
    """What is wrong with nova.conf, without its text: oslo.config quotes lines and values.

    Such a line may hold a password, or a value that was to be another option's.

    :param exc: what oslo.config raised.
    """
    if isinstance(exc, cfg.ConfigFileParseError):
        line = re.search(r":(\d+),", exc.msg)
        return "nova.conf cannot be used: %s cannot be read%s: a line is no option" % (
            exc.config_file, " from line %s on" % line.group(1) if line else "")
    if isinstance(exc, cfg.ConfigSourceValueError):
        found = _BAD_VALUE.match(exc.msg)
        if found is not None:
            return "nova.conf cannot be used: the value of option %s%s is not valid" % (
                found.group("option"),
                " in %s" % found.group("file") if found.group("file") else "")
    if isinstance(exc, cfg.NoSuchOptError):
        # The name is what follows $ in a value.
        return ("nova.conf cannot be used: a value refers to an option that there is not: write "
                "$$ for a plain $")
    if isinstance(exc, _WITHOUT_VALUES):
        return "nova.conf cannot be used: %s" % str(exc).rstrip(".")
    return "nova.conf cannot be used: %s" % type(exc).__name__


def strange(files: Iterable[str], section: str, options: Sequence[cfg.Opt],
            gone: Mapping[tuple[str, str], str] = GONE) -> list[str]:
    """What is set in a section of some files and is no option of it.

    :param files: that were read without an error.
    :param options: those of the section.
    :returns: sentences; each names the file and what to do.
    """
    known = {name for option in options for name in (
        option.dest, option.name, *(old.name for old in option.deprecated_opts))}
    found = []
    for file in files:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(file, sections).parse()
        for name in sections.get(section, {}):
            if name.replace("-", "_") not in {one.replace("-", "_") for one in known if one}:
                found.append("%s in [%s] of %s %s" % (
                    name, section, file, gone.get(
                        (section, name), "is not an option: correct or remove it")))
    return found


def of_compute(auth_type: str | None) -> list[cfg.Opt]:
    """The options of ``[vtpm_compute]``, with those of its kind of credentials."""
    ((_, options),) = conf.list_opts()
    if auth_type:
        try:
            return [*options, *loading.get_auth_plugin_conf_options(auth_type)]
        except ksa_exceptions.ClientException:
            # nova-compute says that there is no such kind.
            return options
    return options
