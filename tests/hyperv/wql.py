"""The WMI query language, as far as os-win and PyMI use it.

``SELECT fields FROM class [WITHIN seconds] [WHERE condition]``; conditions with ``=``, ``<>``,
``!=``, ``<``, ``<=``, ``>``, ``>=``, LIKE, ISA, IS [NOT] NULL, AND, OR, NOT and parentheses, on
properties, ``__PATH``, ``__CLASS`` and the members of an event (``TargetInstance.EnabledState``).

Source: Microsoft Learn, "WQL (SQL for WMI)" and "LIKE Operator".
"""
import functools
import operator
import re

from tests.hyperv import cim

_TOKEN = re.compile(r"""\s*(?:
    (?P<string>'(?:\\.|''|[^'\\])*'|"(?:\\.|[^"\\])*")
    |(?P<symbol><>|!=|<=|>=|=|<|>|\(|\)|,)
    |(?P<word>[\w.*-]+))""", re.VERBOSE)

# A number or a boolean; every other literal is in quotation marks.
_LITERAL = re.compile(r"[+-]?\d+(\.\d+)?|true|false", re.IGNORECASE)

_SYSTEM_PROPERTIES = ("__path", "__class", "__this", "__relpath", "__server", "__namespace")

_ORDERED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class Query:
    """A parsed query.

    :param text: the query
    :raises cim.Error: INVALID_QUERY
    """

    def __init__(self, text):
        self._text = text
        self._tokens = _tokens(text)
        self._compared = []  # (name, the literal it is compared with, or None)
        self._expect("select")
        self.fields = self._parse_fields()
        self._expect("from")
        self.class_name = self._take("word")
        if self._accept("within"):
            self._take("word")
        self._matches = self._parse_or() if self._accept("where") else None
        if self._tokens:
            raise self._invalid()

    def matches(self, instance, previous=None):
        """Whether an instance, or an event about it, fulfils the condition.

        :param previous: for an event: the instance as it was before
        :raises cim.Error: NO_SUCH_PROPERTY
        """
        return self._matches is None or self._matches(_Row(instance, previous))

    def target_class(self):
        """For a query about events: the class after ISA, or None."""
        found = re.search(r"TargetInstance\s+ISA\s+['\"](\w+)['\"]", self._text, re.IGNORECASE)
        return found.group(1) if found else None

    def check(self, cls):
        """Refuse names that the class has not, and literals that are not of a property's type.

        :param cls: the :class:`tests.hyperv.cim.Class` after FROM
        :raises cim.Error: INVALID_QUERY
        """
        for name in self.fields:
            self._check_name(cls, name, None)
        for name, literal in self._compared:
            self._check_name(cls, name, literal)

    def check_event(self, cls):
        """The same for the members of an event's instance, whose class this is."""
        for name, literal in self._compared:
            first, _, name = name.partition(".")
            if first.lower() not in ("targetinstance", "previousinstance"):
                raise self._invalid()
            if name:
                self._check_name(cls, name, literal)

    def _check_name(self, cls, name, literal):
        if name.lower() in _SYSTEM_PROPERTIES:
            return
        cim_type = next((cim_type for declared, cim_type in cls.properties.items()
                         if declared.lower() == name.lower()), None)
        if cim_type is None:
            raise self._invalid()
        if literal is not None and cim_type.kind not in ("string", "datetime", "reference"):
            try:
                if cim_type.is_array or literal.lower() not in ("true", "false"):
                    cim_type.convert(int(literal))
                elif cim_type.kind != "boolean":
                    raise self._invalid()
            except (ValueError, TypeError, cim.Error):
                raise self._invalid() from None

    def _invalid(self):
        return cim.error("INVALID_QUERY", "Invalid query: " + self._text)

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
        return [] if fields == ["*"] else fields

    def _parse_or(self):
        terms = [self._parse_and()]
        while self._accept("or"):
            terms.append(self._parse_and())
        return terms[0] if len(terms) == 1 else lambda row: any(term(row) for term in terms)

    def _parse_and(self):
        terms = [self._parse_not()]
        while self._accept("and"):
            terms.append(self._parse_not())
        return terms[0] if len(terms) == 1 else lambda row: all(term(row) for term in terms)

    def _parse_not(self):
        if self._accept("not"):
            term = self._parse_not()
            return lambda row: not term(row)
        if self._accept("("):
            term = self._parse_or()
            self._expect(")")
            return term
        return self._parse_comparison()

    def _parse_comparison(self):
        name = self._take("word")
        comparison = self._take("word", "symbol").lower()
        self._compared.append((name, None))
        if comparison == "is":
            wanted = not self._accept("not")
            self._expect("null")
            return lambda row: (row.value(name) is None) == wanted
        if comparison == "isa":
            wanted = self._take("string")
            return lambda row: row.instance_named(name).is_a(wanted)
        if comparison == "like":
            pattern = _like(self._take("string"))
            return lambda row: bool(pattern.match(_text(row.value(name))))
        kind = self._tokens[0][0] if self._tokens else None
        other = self._take("string", "word")
        if kind == "word" and "." in other and not other[0].isdigit():
            self._compared.append((other, None))
            return self._comparison(name, comparison, lambda row: row.value(other))
        if kind == "word" and other.lower() == "null":
            return self._comparison(name, comparison, lambda row: None)
        if kind == "word" and not _LITERAL.fullmatch(other):
            raise self._invalid()
        self._compared[-1] = name, other
        return self._comparison(name, comparison, lambda row: other)

    def _comparison(self, name, comparison, other):
        if comparison == "=":
            return lambda row: _equal(row.value(name), other(row))
        if comparison in ("<>", "!="):
            return lambda row: not _equal(row.value(name), other(row))
        if comparison not in _ORDERED:
            raise self._invalid()
        compare = _ORDERED[comparison]
        return lambda row: _ordered(row.value(name), other(row), compare)


class _Row:
    """What the names in a condition refer to."""

    def __init__(self, instance, previous):
        self._instance, self._previous = instance, previous

    def instance_named(self, name):
        if name.lower() == "targetinstance":
            return self._instance
        if name.lower() == "previousinstance" and self._previous is not None:
            return self._previous
        if name.lower() == "__this":
            return self._instance
        raise cim.error("NO_SUCH_PROPERTY", name)

    def value(self, name):
        instance = self._instance
        if "." in name:
            first, _, name = name.partition(".")
            instance = self.instance_named(first)
        if name.upper() == "__PATH":
            return instance.get_path()
        if name.upper() == "__CLASS":
            return instance.get_class_name()
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


def _text(value):
    return "" if value is None else str(value)


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
    return str(have).lower() == str(want).lower()
