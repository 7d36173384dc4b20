"""``.. sequence::``: who says what to whom, in order, as a drawing in SVG.

Without a program beside Python, so that it is drawn wherever the pages are built. The content is
one line for each step; ``!`` before a text is a refusal::

    .. sequence:: What it shows

       tenant -> nova-api: boots a server
       nova-scheduler: decides
       nova-scheduler -> tenant: ! no host fits
"""

from __future__ import annotations

import re
import textwrap
from xml.sax import saxutils

_COLUMN, _LEFT, _TOP, _LINE, _GAP = 190, 100, 58, 16, 16
_CHARACTERS = 25
_REFUSED, _INK, _LANE = "#b00020", "#20303f", "#9aa7b4"
_STEP = re.compile(r"([^:>]+?)(?:\s*->\s*([^:>]+?))?\s*:\s*(!?)\s*(.+)")


def parse(lines):
    """The steps: (from, to or None, whether it is a refusal, text).

    :raises ValueError: a line is none
    """
    steps = []
    for line in lines:
        found = _STEP.fullmatch(line.strip())
        if found is None:
            raise ValueError("no step: %r (FROM -> TO: TEXT)" % line)
        source, target, refusal, text = found.groups()
        steps.append((source.strip(), target and target.strip(), bool(refusal), text))
    return steps


def draw(title, steps):
    """The drawing, as SVG that stands in HTML."""
    lanes = list(dict.fromkeys(
        name for source, target, _, _ in steps for name in (source, target) if name))
    x = {name: _LEFT + _COLUMN * number for number, name in enumerate(lanes)}
    body, y = [], _TOP
    for source, target, refusal, text in steps:
        color = _REFUSED if refusal else _INK
        span = abs(x[source] - x[target]) // _COLUMN if target else 1
        words = textwrap.wrap(text, _CHARACTERS * max(span, 1))
        middle = (x[source] + x[target]) / 2 if target else x[source]
        if not target:
            body.append('<rect x="%d" y="%d" width="%d" height="%d" rx="4" fill="#fff" '
                        'stroke="%s"/>' % (x[source] - _COLUMN // 2 + 6, y - 2, _COLUMN - 12,
                                           len(words) * _LINE + 8, color))
        for number, line in enumerate(words):
            body.append('<text x="%d" y="%d" fill="%s" text-anchor="middle" stroke="#fff" '
                        'stroke-width="4" paint-order="stroke">%s</text>' % (
                            middle, y + 13 + number * _LINE, color, saxutils.escape(line)))
        y += len(words) * _LINE + 8
        if target:
            toward = 1 if x[target] > x[source] else -1
            body.append('<path d="M%d %d H%d m%d -4 l%d 4 l%d 4" fill="none" stroke="%s" '
                        'stroke-width="1.5"/>' % (
                            x[source], y, x[target], -7 * toward, 7 * toward, -7 * toward, color))
        y += _GAP
    width, height = 2 * _LEFT + _COLUMN * (len(lanes) - 1), y + 6
    heads = "".join(
        '<path d="M%d 40 V%d" stroke="%s" stroke-dasharray="4 4"/>'
        '<rect x="%d" y="8" width="%d" height="30" rx="4" fill="%s"/>'
        '<text x="%d" y="28" fill="#fff" text-anchor="middle">%s</text>' % (
            x[name], height, _LANE, x[name] - 82, 164, _INK, x[name], saxutils.escape(name))
        for name in lanes)
    described = "; ".join("%s%s: %s" % (source, " to " + target if target else "", text)
                          for source, target, _, text in steps)
    return ('<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 %d %d" '
            'style="max-width: %dpx; width: 100%%; font: 13px sans-serif">'
            '<title>%s</title><desc>%s</desc><rect width="100%%" height="100%%" fill="#fff"/>'
            '%s%s</svg>' % (width, height, width, saxutils.escape(title),
                            saxutils.escape(described), heads, "".join(body)))


def setup(app):
    """Give Sphinx the directive."""
    from docutils import nodes
    from docutils.parsers import rst

    class Sequence(rst.Directive):
        """``.. sequence:: TITLE``."""

        has_content = True
        required_arguments = 1
        final_argument_whitespace = True

        def run(self):
            try:
                steps = parse([line for line in self.content if line.strip()])
            except ValueError as exc:
                raise self.error(str(exc)) from exc
            return [nodes.raw("", draw(self.arguments[0], steps), format="html")]

    app.add_directive("sequence", Sequence)
    return {"version": "1", "parallel_read_safe": True}
