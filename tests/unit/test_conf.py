"""Options: each with help, and in the sample file that oslo-config-generator makes."""

import io
import pathlib

import pytest
from keystoneauth1 import loading
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
    # keystoneauth registers these itself, when it knows which kind of credentials is used.
    of_credentials = {option.dest for kind in ("password", "v3applicationcredential")
                      for option in loading.get_auth_plugin_conf_options(kind)}
    assert len({option.name for option in options}) == len(options)
    for option in options:
        assert option.help, option.name
        assert option.dest in of_credentials or option.dest in config[module.SECTION]


def test_defaults():
    config = cfg.ConfigOpts()
    compute_conf.register_opts(config)
    config([])
    section = config.vtpm_compute
    assert section.fabric_guardian is None
    assert section.auth == "user"
    assert section.max_parallel_requests == 6
    assert section.fetch_timeout == 120
    assert section.timeout == 30
    assert section.connect_retries == section.status_code_retries == 2
    assert section.valid_interfaces == ["internal", "public"]
    assert section.service_type == "key-manager"


@pytest.mark.parametrize(("name", "good", "bad"), [
    ("max_key_bytes", [1024, 20000], [0, -1, 1023, 2 ** 30]),
    ("max_parallel_requests", [1, 6], [0, -1, 65]),
    ("fetch_timeout", [1, 3600], [0, -1, 3601]),
    ("timeout", [1, 600], [0, -1]),
    ("connect_retries", [0, 5], [-1]),
    ("status_code_retries", [0, 5], [-1]),
    ("auth", ["user", "service", "SERVICE"], ["", "nova", "both"]),
])
def test_bounds(name, good, bad):
    config = cfg.ConfigOpts()
    compute_conf.register_opts(config)
    config([])
    for value in good:
        config.set_override(name, value, "vtpm_compute")
    for value in bad:
        with pytest.raises(ValueError):
            config.set_override(name, value, "vtpm_compute")


def test_options_are_read_from_a_file(tmp_path):
    (tmp_path / "nova.conf").write_text(
        "[vtpm_compute]\nauth = service\nauth_type = password\nmax_parallel_requests = 2\n")
    config = cfg.ConfigOpts()
    compute_conf.register_opts(config)
    config(["--config-file", str(tmp_path / "nova.conf")])
    section = config.vtpm_compute
    assert (section.auth, section.auth_type, section.max_parallel_requests) == (
        "service", "password", 2)


def test_options_of_keystoneauth_without_effect(tmp_path):
    """They are no options here, and what stands in a file changes nothing."""
    names = ("version", "min_version", "max_version", "collect_timing", "retriable_status_codes")
    ((_, options),) = compute_conf.list_opts()
    assert not {option.dest for option in options} & set(names)
    (tmp_path / "nova.conf").write_text(
        "[vtpm_compute]\n" + "".join("%s = 1\n" % name for name in names))
    config = cfg.ConfigOpts()
    compute_conf.register_opts(config)
    config(["--config-file", str(tmp_path / "nova.conf")])
    session = loading.load_session_from_conf_options(config, compute_conf.SECTION)
    adapter = loading.load_adapter_from_conf_options(
        config, compute_conf.SECTION, session=session)
    assert (adapter.version, adapter.min_version, adapter.max_version) == (None, None, None)
    assert not session._collect_timing
    assert getattr(adapter, "retriable_status_codes", None) is None


def test_sample_file():
    config = cfg.ConfigOpts()
    generator.register_cli_opts(config)
    config(["--config-file", str(REPOSITORY / "etc/oslo-config-generator.conf")])
    sample = io.StringIO()
    generator.generate(config, sample)
    text = sample.getvalue()
    for line in ("[vtpm_scheduling]", "[vtpm_compute]", "#require_fabric_aggregate = true",
                 "#require_guarded_trait = true",
                 "#fabric_guardian = <None>", "#timeout = 30", "#auth = user",
                 "#max_parallel_requests = 6", "#auth_type = <None>", "#username = <None>",
                 "#application_credential_secret = <None>"):
        assert line in text
    for line in ("#collect_timing", "#retriable_status_codes"):
        assert line not in text
