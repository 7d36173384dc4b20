"""Options: each with help, and in the sample file that oslo-config-generator makes."""

import io
import pathlib

import pytest
from oslo_config import cfg, generator

from vtpm_compute import conf as compute_conf
from vtpm_scheduling import conf as scheduling_conf

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("module", [compute_conf, scheduling_conf])
def test_options(module):
    config = cfg.ConfigOpts()
    module.register_opts(config)
    module.register_opts(config)
    config([])
    ((group, options),) = module.list_opts()
    assert group.name == module.SECTION
    assert group.help
    for option in options:
        assert option.help, option.name
        getattr(config[module.SECTION], option.dest)


def test_defaults():
    config = cfg.ConfigOpts()
    compute_conf.register_opts(config)
    config([])
    section = config.vtpm_compute
    assert section.fabric_guardian is None
    assert section.timeout == 30
    assert section.connect_retries == section.status_code_retries == 2
    assert section.valid_interfaces == ["internal", "public"]
    assert section.service_type == "key-manager"


def test_bounds():
    config = cfg.ConfigOpts()
    compute_conf.register_opts(config)
    config([])
    for value in (0, -1, 2 ** 30):
        with pytest.raises(ValueError, match="max_key_bytes|Should be"):
            config.set_override("max_key_bytes", value, "vtpm_compute")


def test_sample_file():
    config = cfg.ConfigOpts()
    generator.register_cli_opts(config)
    config(["--config-file", str(REPOSITORY / "etc/oslo-config-generator.conf")])
    sample = io.StringIO()
    generator.generate(config, sample)
    text = sample.getvalue()
    for line in ("[vtpm_scheduling]", "[vtpm_compute]", "#require_fabric_aggregate = true",
                 "#fabric_guardian = <None>", "#timeout = 30"):
        assert line in text
