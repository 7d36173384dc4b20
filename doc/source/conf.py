"""Sphinx's configuration: ``tools/run-tests docs``."""

import pathlib
import sys

from docutils import nodes
from docutils.parsers.rst import Directive

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
html_theme = "openstackdocs"
if (REPOSITORY / ".git").exists():
    extensions.append("reno.sphinxext")
else:
    # A source archive: reno and OpenStack's theme ask git.
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



class NotesWithoutGit(Directive):
    """In the place of reno's directive."""

    optional_arguments, final_argument_whitespace = 1, True

    def run(self):
        """One sentence."""
        return [nodes.paragraph("", "They are in releasenotes/notes.")]


def setup(app):
    """Let the page of the release notes be built without reno."""
    if "reno.sphinxext" not in extensions:
        app.add_directive("release-notes", NotesWithoutGit)


config_generator_config_file = [
    (str(REPOSITORY / "etc" / "oslo-config-generator.conf"), "_static/nova-vtpm")]
