"""Sphinx's configuration: ``tools/run-tests docs``."""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "doc" / "ext")]

project = "nova-hyperv-vtpm"
copyright = "2026, the nova-hyperv-vtpm authors"

extensions = [
    "openstackdocstheme",
    "oslo_config.sphinxconfiggen",
    "oslo_config.sphinxext",
    "reference_tables",
    "sequence_drawing",
]
exclude_patterns = []
html_theme = "openstackdocs"
if (REPOSITORY / ".git").exists():
    extensions.append("reno.sphinxext")
else:
    # A source archive: reno and OpenStack's theme ask git.
    exclude_patterns.append("releasenotes.rst")
    extensions.remove("openstackdocstheme")
    html_theme = "alabaster"

openstackdocs_auto_name = False
openstackdocs_auto_version = False
# None of OpenStack's own repositories: no links to its bug tracker and editor.
openstackdocs_repo_name = ""
openstackdocs_use_storyboard = False
version = release = "0.1.0"

pygments_style = "native"
# Quotation marks and dashes of commands stay as they are.
smartquotes = False

config_generator_config_file = [
    (str(REPOSITORY / "etc" / "oslo-config-generator.conf"), "_static/nova-vtpm")]
