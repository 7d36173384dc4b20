"""XML that a stranger wrote: bounded bytes in, a tree of a known shape out.

No document type (so no entities), no network, no huge tree; size, elements and attributes are
bounded before the XML parser sees them, for it compares the attributes of an element pair by pair.
The shape is checked as strictly as a schema says: every element and attribute is known, in its
order, as often as it may be.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Mapping

from lxml import etree

from vtpm_scheduling import policy

# Six secrets of Barbican's 20,000 bytes hold some thirty wrappings of RSA-2048. A wrapping has
# about 30 tags and 10 quotation marks.
MAX_BYTES = 1024 * 1024
MAX_REPEATED = 64
_MAX_TAGS = 10_000
_MAX_QUOTES = 4_000
NAME_LENGTH = 40

_UNSIGNED_INT = re.compile("0*[0-9]{1,10}")
_UTF_8_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_DECLARATION = re.compile(r"<\?xml\s[^>]*\?>")
_ENCODING = re.compile(r"""\sencoding\s*=\s*["']([^"']*)["']""")
# Any schema allows these two on any element (XML Schema Part 1, 2.6.3).
_SCHEMA_LOCATIONS = {"{http://www.w3.org/2001/XMLSchema-instance}" + name
                     for name in ("schemaLocation", "noNamespaceSchemaLocation")}
_SYNTAX_ERRORS = {
    etree.ErrorTypes.ERR_DOCUMENT_END: "something follows after the end of its XML",
    etree.ErrorTypes.ERR_TAG_NOT_FINISHED: "its XML ends too early: a piece is missing",
}


class MalformedError(Exception):
    """Bytes that are not what they should be; ``str()`` of it is a clause that says why."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What an element holds.

    :ivar children: names in order; "?" one or none, "*" any number, "+" one or more. Without a
        namespace they are of the schema's. The last may be "*" alone: anything may follow.
    :ivar attributes: that it must have.
    :ivar optional_attributes: that it may have; "*": any.
    """

    children: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    optional_attributes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Schema:
    """The elements of a document, each of which has one type wherever it stands.

    :ivar namespace: of them all.
    :ivar shapes: by name, of those that hold elements.
    :ivar leaves: names of those that hold text.
    :ivar open: names of those that may hold anything.
    :ivar plurals: what more than :data:`MAX_REPEATED` of a name are called.
    """

    namespace: str
    shapes: Mapping[str, Shape]
    leaves: frozenset[str]
    open: frozenset[str]
    plurals: Mapping[str, str]

    def tag(self, name: str) -> str:
        """A name as lxml writes it."""
        return name if name.startswith("{") else "{%s}%s" % (self.namespace, name)


def decode(document: bytes) -> str:
    """The text of a document in UTF-8, or in UTF-16 with its mark.

    The document itself says what it is encoded in; a stranger's word would choose the decoder.

    :raises MalformedError: when it is neither.
    """
    encoding = "utf-16" if document[:2] in UTF_16_MARKS else "utf-8-sig"
    try:
        return document.decode(encoding)
    except UnicodeDecodeError:
        raise MalformedError("it is not XML in UTF-8") from None


def declared_encoding(text: str) -> str | None:
    """What the XML declaration at the beginning of a document says; None: nothing."""
    declaration = _DECLARATION.match(text)
    encoding = _ENCODING.search(declaration.group()) if declaration else None
    return encoding.group(1) if encoding else None


def without_declaration(text: str) -> str:
    """A document without its XML declaration: one in UTF-8 needs none (XML 1.0, 4.3.3)."""
    found = _DECLARATION.match(text)
    return text[found.end():] if found else text


def without_mark(document: bytes) -> bytes:
    """A document without UTF-8's byte-order mark."""
    return document[len(_UTF_8_MARK):] if document.startswith(_UTF_8_MARK) else document


def parse(text: str, kind: str) -> etree._Element:
    """The root element of a document.

    :param kind: what it should be, for the clause of an error.
    :raises MalformedError: when it is no XML, or what such a document never has is in it.
    """
    if "<!DOCTYPE" in text:
        raise MalformedError("it has a document type, which no %s has" % kind)
    if text.count("<") > _MAX_TAGS or text.count('"') + text.count("'") > _MAX_QUOTES:
        raise MalformedError("it has more elements or attributes than any %s" % kind)
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False,
        huge_tree=False, remove_comments=True)
    try:
        return etree.fromstring(text.encode("utf-8"), parser)
    except etree.XMLSyntaxError as exc:
        # Not its own words: they quote the document.
        raise MalformedError(_SYNTAX_ERRORS.get(exc.code, "it is not XML")) from None


def check_shape(element: etree._Element, path: str, schema: Schema) -> None:
    """Check an element and all within it.

    :param path: where it stands, for the clause of an error.
    :raises MalformedError: when anything is not as the schema says.
    """
    name = etree.QName(element).localname
    if element.tag != schema.tag(name) or name in schema.open:
        return
    shape = schema.shapes.get(name, Shape(()))
    _check_attributes(element, path, shape)
    if name in schema.leaves:
        if len(element):
            raise MalformedError("%s holds more than text" % path)
        return
    if (element.text or "").strip() or any((child.tail or "").strip() for child in element):
        raise MalformedError("%s holds text, where only elements belong" % path)
    _check_children(element, path, shape, schema)


def _check_attributes(element: etree._Element, path: str, shape: Shape) -> None:
    for attribute in element.keys():
        if attribute not in (*shape.attributes, *shape.optional_attributes) \
                and attribute not in _SCHEMA_LOCATIONS and "*" not in shape.optional_attributes:
            raise MalformedError("%s has an unknown attribute, %s" % (
                path, policy.quote(etree.QName(attribute).localname, NAME_LENGTH)))
    for attribute in shape.attributes:
        if element.get(attribute) is None:
            raise MalformedError("%s lacks its attribute %s" % (path, attribute))


def _check_children(element: etree._Element, path: str, shape: Shape, schema: Schema) -> None:
    children = list(element)
    for expected in shape.children:
        if expected == "*":
            return
        name, often = expected.rstrip("?*+"), expected[-1:]
        count = 0
        while children and children[0].tag == schema.tag(name) and (often in "*+" or not count):
            count += 1
            check_shape(children.pop(0), "%s/%s" % (path, etree.QName(name).localname) + (
                "[%d]" % count if often in "*+" else ""), schema)
        if not count and often not in "?*":
            raise MalformedError("%s lacks %s%s" % (path, etree.QName(name).localname, (
                ": in its place is %s" % shown(children[0])) if children else ""))
        if count > MAX_REPEATED:
            raise MalformedError("it has more than %d %s" % (
                MAX_REPEATED, schema.plurals[name]))
    if children:
        raise MalformedError("%s holds %s, which does not belong there" % (
            path, shown(children[0])))


def canonical(element: etree._Element) -> bytes:
    """Exclusive canonical XML 1.0 without comments ([MS-KPS] 2.2.2.8), in UTF-8.

    :raises MalformedError: when a name in it has no canonical form.
    """
    try:
        result: bytes = etree.tostring(element, method="c14n", exclusive=True, with_comments=False)
    except etree.LxmlError:
        raise MalformedError("a name of its XML has no canonical form") from None
    return result


def octets(element: etree._Element) -> bytes:
    """What an element holds in base64.

    :raises MalformedError: when that is nothing, or not base64.
    """
    try:
        found = base64.b64decode("".join((element.text or "").split()), validate=True)
    except ValueError:
        found = b""
    if not found:
        raise MalformedError("%s in it is empty, or is not base64" % (
            etree.QName(element).localname))
    return found


def number(text: str | None, what: str) -> int:
    """An unsigned number of 32 bits.

    :param what: which one it is, for the clause of an error.
    :raises MalformedError: when it is none.
    """
    stripped = (text or "").strip()
    if not _UNSIGNED_INT.fullmatch(stripped) or int(stripped.lstrip("0") or "0") >= 1 << 32:
        raise MalformedError("%s is not a number of 32 bits" % what)
    return int(stripped.lstrip("0") or "0")


def shown(element: etree._Element) -> str:
    """The name of an element, for people."""
    if not isinstance(element.tag, str):
        return "a processing instruction"
    return policy.quote(etree.QName(element).localname, NAME_LENGTH)
