"""The WMI query language, as far as os-win and PyMI use it.

``SELECT fields FROM class [WHERE condition]``; conditions with ``=``, ``<>``, ``!=``, ``<``,
``<=``, ``>``, ``>=``, LIKE, IS [NOT] NULL, AND, OR, NOT and parentheses, on properties and on the
system properties ``__PATH``, ``__RELPATH``, ``__CLASS``, ``__SERVER`` and ``__NAMESPACE``. All else
is refused, also what Windows takes and nobody here needs: ASSOCIATORS OF, REFERENCES OF, schema
queries. Queries about events: :mod:`tests.hyperv.event_query`.

Source: Microsoft Learn, "WQL (SQL for WMI)", "SELECT Statement for Data Queries", "WHERE Clause",
"LIKE Operator".
"""
import functools
import operator
import re
from typing import NamedTuple

from tests.hyperv import cim

_TOKEN = re.compile(r"""\s*(?:
    (?P<string>'(?:\\.|''|[^'\\])*'|"(?:\\.|[^"\\])*")
    |(?P<symbol><>|!=|<=|>=|=|<|>|\(|\)|,)
    |(?P<word>[\w.*-]+))""", re.VERBOSE)

# A number or a boolean; every other literal is in quotation marks.
_LITERAL = re.compile(r"[+-]?\d+(\.\d+)?|true|false", re.IGNORECASE)

_SYSTEM_PROPERTIES = {
    "__path": lambda instance: instance.get_path(),
    "__relpath": lambda instance: instance.get_path().partition(":")[2],
    "__class": lambda instance: instance.get_class_name(),
    "__server": lambda instance: instance.server,
    "__namespace": lambda instance: instance.get_namespace().replace("/", "\\")}

_ORDERED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class Comparison(NamedTuple):
    """A comparison of a condition.

    :ivar name: of what is compared
    :ivar operator: in lower case
    :ivar literal: (token kind, text) that it is compared with, or None
    :ivar other: the name that it is compared with, or None
    """

    name: str
    operator: str
    literal: tuple = None
    other: str = None


class _Term(NamedTuple):
    """A part of a condition.

    :ivar test: a function of a :class:`_Row`
    :ivar classes: the names of the classes of which the event's TargetInstance is where the test
        holds; None where the test does not say
    """

    test: object
    classes: frozenset = None


class Statement:
    """A parsed SELECT statement.

    :param text: the statement
    :ivar fields: the names that are selected; empty for ``*``
    :ivar class_name: after FROM
    :ivar interval: the text after WITHIN, or None
    :ivar comparisons: the :class:`Comparison` of its condition
    :raises cim.Error: INVALID_QUERY
    """

    def __init__(self, text):
        self._text = text
        self._tokens = _tokens(text)
        self.comparisons = []
        self._expect("select")
        self.fields = self._parse_fields()
        self._expect("from")
        self.class_name = self._take("word")
        self.interval = self._take("word") if self._accept("within") else None
        self._condition = self._parse_or() if self._accept("where") else None
        if self._tokens:
            raise self._invalid()

    def matches(self, instance, previous=None):
        """Whether an instance, or an event about it, fulfils the condition.

        :param previous: for an event: the instance as it was before
        """
        return self._condition is None or self._condition.test(_Row(instance, previous))

    def _check_name(self, cls, name):
        """:returns: the :class:`cim.CimType` of a property; None: a system property"""
        if name.lower() in _SYSTEM_PROPERTIES:
            return None
        for declared, cim_type in cls.properties.items():
            if declared.lower() == name.lower():
                return cim_type
        raise self._invalid("%s has no %s" % (cls.name, name))

    def _check_comparison(self, cls, name, comparison):
        """Refuse a name that the class has not, and what it cannot be compared with."""
        cim_type = self._check_name(cls, name) or cim.CimType("string")
        if cim_type.is_array:
            raise self._invalid("%s is an array" % name)
        if comparison.operator == "like" and cim_type.kind != "string":
            raise self._invalid("LIKE is for texts, and %s is a %s" % (name, cim_type))
        if comparison.operator in _ORDERED and cim_type.kind in ("boolean", "reference"):
            raise self._invalid("%s has no order" % name)
        if comparison.literal and not _fits(cim_type, *comparison.literal):
            raise self._invalid("%s is a %s" % (name, cim_type))

    def _invalid(self, reason=None):
        return cim.error("INVALID_QUERY", "Invalid query: %s%s" % (
            self._text, " (%s)" % reason if reason else ""))

    def _accept(self, word):
        if self._tokens and self._tokens[0][0] != "string" and self._tokens[0][1].lower() == word:
            self._tokens.pop(0)
            return True
        return False

    def _expect(self, word):
        if not self._accept(word):
            raise self._invalid()

    def _take(self, *kinds):
        if not self._tokens or self._tokens[0][0] not in kinds:
            raise self._invalid()
        return self._tokens.pop(0)[1]

    def _parse_fields(self):
        fields = [self._take("word")]
        while self._accept(","):
            fields.append(self._take("word"))
        if "*" in fields and len(fields) > 1:
            raise self._invalid()
        return [] if fields == ["*"] else fields

    def _parse_or(self):
        terms = [self._parse_and()]
        while self._accept("or"):
            terms.append(self._parse_and())
        if len(terms) == 1:
            return terms[0]
        classes = None
        if all(term.classes for term in terms):
            classes = frozenset().union(*(term.classes for term in terms))
        return _Term(lambda row: any(term.test(row) for term in terms), classes)

    def _parse_and(self):
        terms = [self._parse_not()]
        while self._accept("and"):
            terms.append(self._parse_not())
        if len(terms) == 1:
            return terms[0]
        classes = frozenset().union(*(term.classes or () for term in terms))
        return _Term(lambda row: all(term.test(row) for term in terms), classes or None)

    def _parse_not(self):
        if self._accept("not"):
            negated = self._parse_not()
            return _Term(lambda row: not negated.test(row))
        if self._accept("("):
            term = self._parse_or()
            self._expect(")")
            return term
        return self._parse_comparison()

    def _parse_comparison(self):
        name = self._take("word")
        comparison = self._take("word", "symbol").lower()
        if comparison == "is":
            wanted = not self._accept("not")
            self._expect("null")
            self.comparisons.append(Comparison(name, comparison))
            return _Term(lambda row: (row.value(name) is None) == wanted)
        if comparison == "isa":
            wanted = self._take("string")
            self.comparisons.append(Comparison(name, comparison, ("string", wanted)))
            return _Term(lambda row: row.instance_named(name).is_a(wanted),
                         frozenset([wanted]) if name.lower() == "targetinstance" else None)
        if comparison == "like":
            pattern = self._pattern(self._take("string"))
            self.comparisons.append(Comparison(name, comparison))
            return _Term(lambda row: _is_like(pattern, row.value(name)))
        kind = self._tokens[0][0] if self._tokens else None
        other = self._take("string", "word")
        if kind == "word" and "." in other and not other[0].isdigit():
            self.comparisons.append(Comparison(name, comparison, other=other))
            return self._comparison(name, comparison, lambda row: row.value(other))
        if kind == "word" and other.lower() == "null":
            self.comparisons.append(Comparison(name, comparison))
            return self._comparison(name, comparison, lambda row: None)
        if kind == "word" and not _LITERAL.fullmatch(other):
            raise self._invalid()
        self.comparisons.append(Comparison(name, comparison, (kind, other)))
        return self._comparison(name, comparison, lambda row: other)

    def _pattern(self, text):
        try:
            return _like(text)
        except re.error:
            raise self._invalid("no pattern: %s" % text) from None

    def _comparison(self, name, comparison, other):
        if comparison == "=":
            return _Term(lambda row: _equal(row.value(name), other(row)))
        if comparison in ("<>", "!="):
            return _Term(lambda row: not _equal(row.value(name), other(row)))
        if comparison not in _ORDERED:
            raise self._invalid()
        compare = _ORDERED[comparison]
        return _Term(lambda row: _ordered(row.value(name), other(row), compare))


class Query(Statement):
    """A query about instances."""

    def check(self, cls):
        """Refuse names that the class has not, and what its properties are not compared with.

        Only texts are LIKE one and no array is compared; numbers, texts and datetimes have an
        order; a literal is one of the property's type [assumption wql-comparisons].

        :param cls: the :class:`tests.hyperv.cim.Class` after FROM
        :raises cim.Error: INVALID_QUERY
        """
        if self.interval is not None:
            raise self._invalid("WITHIN is for events")
        for name in self.fields:
            self._check_name(cls, name)
        for comparison in self.comparisons:
            if comparison.operator == "isa" or comparison.other:
                raise self._invalid("%s of an instance is no object" % comparison.name)
            self._check_comparison(cls, comparison.name, comparison)

    def selected(self, instance):
        """A copy of an instance that holds what is selected, and its keys.

        os-win asks for the path of such an instance, which PyMI makes of the keys
        (hostutils.py, _get_numa_memory_info); of what else was not selected there is null
        [assumption not-selected].
        """
        return instance.projected(self.fields) if self.fields else instance.clone()


class _Row:
    """What the names in a condition refer to."""

    def __init__(self, instance, previous):
        self._instance, self._previous = instance, previous

    def instance_named(self, name):
        if name.lower() == "targetinstance":
            return self._instance
        if name.lower() == "previousinstance" and self._previous is not None:
            return self._previous
        raise cim.error("NO_SUCH_PROPERTY", name)

    def value(self, name):
        instance = self._instance
        if "." in name:
            first, _, name = name.partition(".")
            instance = self.instance_named(first)
        if name.lower() in _SYSTEM_PROPERTIES:
            return _SYSTEM_PROPERTIES[name.lower()](instance)
        value = instance[name]
        return value.get_path() if isinstance(value, cim.Instance) else value


def _tokens(text):
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if not match:
            raise cim.error("INVALID_QUERY", "Invalid query: " + text)
        position = match.end()
        value = match.group(match.lastgroup)
        if match.lastgroup == "string":
            value = re.sub(r"\\(.)", r"\1", value[1:-1].replace("''", "'"))
        tokens.append((match.lastgroup, value))
    return tokens


@functools.lru_cache(maxsize=256)
def _like(pattern):
    expression, position = "", 0
    while position < len(pattern):
        character = pattern[position]
        closing = pattern.find("]", position)
        if character == "[" and closing > position:
            expression += pattern[position:closing + 1].replace("\\", "\\\\")
            position = closing
        else:
            expression += {"%": ".*", "_": "."}.get(character) or re.escape(character)
        position += 1
    return re.compile(expression + r"\Z", re.IGNORECASE | re.DOTALL)


def _is_like(pattern, value):
    return value is not None and bool(pattern.match(str(value)))


def _fits(cim_type, kind, text):
    """Whether a literal is one of a type: of a token of this kind, "string" or "word"."""
    if cim_type.kind == "boolean" and text.lower() in ("true", "false"):
        return True
    try:
        if cim_type.kind in ("string", "reference"):
            return kind == "string"
        if cim_type.kind == "datetime":
            return kind == "string" and bool(cim_type.convert(text))
        cim_type.convert(int(text))
    except (ValueError, TypeError, cim.Error):
        return False
    return True


def _ordered(have, want, compare):
    if have is None or want is None:
        return False
    if isinstance(have, str):
        return compare(have.lower(), str(want).lower())
    return compare(float(have), float(want))


def _equal(have, want):
    if have is None or want is None:
        return have is want
    if isinstance(have, bool):
        return have == (str(want).lower() in ("true", "1"))
    if isinstance(have, int):
        return have == int(want)
    return str(have).lower() == str(want).lower()
