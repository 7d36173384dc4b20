"""Feeds damaged key protectors to the parser, and counts what comes out.

Each input is a sound protector (of several kinds), or what its tests refuse, changed at random:
bytes, ranges, XML elements and attributes, certificates, lengths, pieces. Anything that comes out
other than a protector or a KeyProtectorError is a failure: the input is written to a file, and the
exit code is 1. The same seed gives the same changes, not the same keys.

    python -m tests.fuzz.fuzz_key_protector --count 100000 --seed 7
"""
import argparse
import base64
import collections
import copy
import pathlib
import random
import re
import resource
import sys
import tempfile
import time
from typing import NamedTuple

from lxml import etree

from tests.hyperv import damaged_protectors, guardian
from tests.hyperv import key_protector as simulated
from vtpm_compute import errors, key_protector

_PREFIX = 4
_INTERESTING = [
    b"<!DOCTYPE x>", b"<!ENTITY e 'x'>", b"&e;", b"&#0;", b"&#xD800;", b"<![CDATA[", b"]]>",
    b"<!--", b"-->", b"<?x y?>", b"<?xml version='1.1' encoding='utf-16'?>", b"\0", b"\xff\xfe",
    b"\xef\xbb\xbf", b"xmlns:a='b'", b"xmlns=''", b"xml:space='preserve'", b"</Wrapping>",
    b"<Wrapping>", b"<Id>1</Id>", b"<Parameters>", b"</Parameters>", b"<Parameters/>",
    b"4294967295", b"4294967296", b"-1", b"1e9", b"99999999999999999999", b"=",
    b"\xf0\x9f\x92\xa9", b"\xed\xa0\x80", b"rsa-sha512", b"rsa-sha384",
    b"http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1", b"<" * 50, b'"' * 50]
# Beginnings of values in certificates: too long, empty, of other years, of other alphabets.
_DER = [
    b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x02\x01\x00", b"\x05\x00", b"\x03\x00",
    b"\x06\x00", b"\x17\x0d991301000000Z", b"\x18\x0f00000101000000Z", b"\x0c\x00", b"\x1e\x01A",
    b"\x01\x01\xff"]
_NOT_OURS = (KeyboardInterrupt, SystemExit, GeneratorExit)


def seeds():
    """Sound and refused protectors, as bytes."""
    owner, other = guardian.Guardian.generate("owner"), guardian.Guardian.generate("other")
    sound = [simulated.make_protector(owner, [other]), simulated.make_protector(owner, [], 3)]
    sound += [simulated.make_protector(owner, [other], algorithms=simulated.Algorithms(
        signature=uri)) for uri in (guardian.RSA_SHA512, guardian.RSA_PSS_SHA256, "urn:unknown")]
    laid_out = etree.tostring(etree.fromstring(sound[0][_PREFIX:]), pretty_print=True)
    return [*sound, laid_out, sound[0][_PREFIX:], owner.metadata(),
            *damaged_protectors.damaged(owner, other).values()]


class Mutator:
    """Makes inputs.

    :param originals: bytes to start from; the first five are sound
    :param seed: of the random numbers
    """

    def __init__(self, originals, seed):
        self._originals = originals
        self._random = random.Random(seed)
        self._changes = [self._bits, self._remove, self._repeat, self._insert, self._splice,
                         self._elements, self._attribute, self._certificate, self._value,
                         self._number]

    def pieces(self):
        """The next input: a list of bytes."""
        chance = self._random
        data = chance.choice(self._originals[:5] if chance.random() < .8 else self._originals)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            data = chance.choice(self._changes)(data)
        if chance.random() < .8 and data[:2] == b"\0\0":
            # With the right length, so that what is behind it is looked at.
            data = len(data).to_bytes(_PREFIX, "big") + data[_PREFIX:]
        pieces = [data]
        if chance.random() < .1:
            cut = chance.randrange(len(data) + 1)
            pieces = [data[:cut], data[cut:]]
            if chance.random() < .2:
                chance.shuffle(pieces)
        return pieces

    def _range(self, data, longest=200):
        start = self._random.randrange(len(data) + 1)
        return start, min(len(data), start + self._random.randrange(longest))

    def _bits(self, data):
        changed = bytearray(data)
        for _ in range(self._random.choice((1, 2, 10))):
            if changed:
                changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _remove(self, data):
        start, end = self._range(data)
        return data[:start] + data[end:]

    def _repeat(self, data):
        start, end = self._range(data)
        return data[:end] + data[start:end] * self._random.choice((1, 2, 30)) + data[end:]

    def _insert(self, data):
        start = self._random.randrange(len(data) + 1)
        return data[:start] + self._random.choice(_INTERESTING) + data[start:]

    def _splice(self, data):
        other = self._random.choice(self._originals)
        start, end = self._range(other, 3000)
        place, upto = self._range(data, 3000)
        return data[:place] + other[start:end] + data[upto:]

    def _elements(self, data):
        """Remove, repeat, move or swap elements."""
        found = self._parsed(data)
        if found is None:
            return self._bits(data)
        root, prefix = found
        elements = [element for element in root.iter("*") if element is not root]
        if len(elements) < 2:
            return data
        one, other = self._random.sample(elements, 2)
        action = self._random.randrange(4)
        if action == 0:
            one.getparent().remove(one)
        elif action == 1:
            one.addnext(copy.deepcopy(one))
        elif action == 2:
            other.append(copy.deepcopy(one))
        else:
            one.text, other.text = other.text, one.text
        return prefix + etree.tostring(root, encoding="utf-8", xml_declaration=True)

    def _attribute(self, data):
        found = self._parsed(data)
        if found is None:
            return self._insert(data)
        root, prefix = found
        element = self._random.choice(list(root.iter("*")))
        name = self._random.choice(
            ["Algorithm", "ParentWrappingId", "WrappingId", "MaxOfflineUnwraps", "x"])
        if self._random.random() < .2:
            element.attrib.clear()
        else:
            element.set(name, self._random.choice(
                ["1", "2", "3", "", "x" * 100, "-1", guardian.RSA_SHA256, guardian.RSA_PSS_SHA256]))
        return prefix + etree.tostring(root, encoding="utf-8", xml_declaration=True)

    def _certificate(self, data):
        """Damage a certificate or a signature within its base64."""
        places = list(re.finditer(rb">([A-Za-z0-9+/]{100,}={0,2})<", data))
        if not places:
            return self._bits(data)
        place = self._random.choice(places)
        try:
            inner = base64.b64decode(place.group(1))
        except ValueError:
            return self._bits(data)
        start, end = self._range(inner, 20)
        choice = self._random.randrange(4)
        if choice == 0:
            inner = self._bits(inner)
        elif choice == 1:
            inner = inner[:start] + inner[end:]
        elif choice == 2:
            inner = inner[:start] + self._random.choice(_DER) + inner[end:]
        else:
            inner = inner[:start] + self._random.randbytes(end - start) + inner[end:]
        return data[:place.start(1)] + base64.b64encode(inner) + data[place.end(1):]

    def _value(self, data):
        places = list(re.finditer(rb">([^<>]*)<", data))
        if not places:
            return data
        place = self._random.choice(places)
        return data[:place.start(1)] + self._random.choice(_INTERESTING) + data[place.end(1):]

    def _number(self, data):
        places = list(re.finditer(rb"[>\"]([0-9]+)[<\"]", data))
        if not places:
            return data
        place = self._random.choice(places)
        return data[:place.start(1)] + self._random.choice(
            (b"1", b"2", b"3", b"0", b"01", b" 2 ", b"4294967296", b"")) + data[place.end(1):]

    def _parsed(self, data):
        prefix, document = (data[:_PREFIX], data[_PREFIX:]) if data[:1] == b"\0" else (b"", data)
        try:
            return etree.fromstring(document, etree.XMLParser(resolve_entities=False)), prefix
        except (etree.XMLSyntaxError, ValueError):
            return None


class Failure(NamedTuple):
    """An input from which something else came out."""

    pieces: list
    fault: BaseException


class Result(NamedTuple):
    """What a run found.

    :ivar outcomes: a Counter of messages, their numbers and names left out
    :ivar slowest: (seconds of processor time, pieces)
    :ivar failure: the first :class:`Failure`, which ends the run; or None
    """

    count: int
    outcomes: collections.Counter
    slowest: tuple
    failure: object


def run(seed, count=None, seconds=None, say=lambda text: None):
    """Feed inputs to the parser until so many, so much time, or a failure.

    :param say: told how far it is, every 20,000 inputs
    """
    mutator = Mutator(seeds(), seed)
    outcomes = collections.Counter()
    slowest = 0, []
    began = time.monotonic()
    done = 0
    while (count is None or done < count) and (
            seconds is None or time.monotonic() - began < seconds):
        pieces = mutator.pieces()
        started = time.process_time()  # What else the machine does is not the parser's doing.
        try:
            outcome = _outcome(pieces)
        except _NOT_OURS:
            raise
        except BaseException as fault:  # noqa: BLE001 - a panic of Rust is no Exception
            return Result(done + 1, outcomes, slowest, Failure(pieces, fault))
        slowest = max(slowest, (time.process_time() - started, pieces), key=lambda one: one[0])
        outcomes[outcome] += 1
        done += 1
        if not done % 20_000:
            say("%d inputs, %.0f s, %d outcomes, slowest %.3f s, %d MiB" % (
                done, time.monotonic() - began, len(outcomes), slowest[0], peak_memory()))
    return Result(done, outcomes, slowest, None)


def _outcome(pieces):
    try:
        protector = key_protector.parse(pieces, "fuzz")
    except errors.KeyProtectorError as exc:
        message = re.sub(r"\((?:its namespace is )?[^()]*\)", "(...)", str(exc))
        message = re.sub(r"Protector/\S+", "...", message)
        message = re.sub(r"(algorithm|attribute,?|place is|holds) [^,.:]*", r"\1 ...", message)
        return re.sub(r"[0-9]+", "N", message)
    protector.summary()
    list(protector.lines())
    return "taken: " + ", ".join(sorted({one.verdict.value for one in protector.all_signatures}))


def peak_memory():
    """Of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main():
    """Run it; 1 when something else came out."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.fuzz_key_protector",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, help="number of inputs")
    parser.add_argument("--minutes", type=float, help="how long")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--keep", default=tempfile.gettempdir(), metavar="DIR",
                        help="where the input that failed, and the slowest, are written")
    arguments = parser.parse_args()
    if arguments.count is None and arguments.minutes is None:
        parser.error("say --count, --minutes or both")
    print("seed %d" % arguments.seed)
    began = time.monotonic()
    result = run(arguments.seed, arguments.count, arguments.minutes and arguments.minutes * 60,
                 lambda text: print(text, flush=True))
    for outcome, count in result.outcomes.most_common():
        print("%8d  %s" % (count, outcome))
    print("%d inputs in %.0f s, %d distinct outcomes, slowest %.3f s, peak memory %d MiB" % (
        result.count, time.monotonic() - began, len(result.outcomes), result.slowest[0],
        peak_memory()))
    _write(arguments.keep, "slowest", result.slowest[1])
    if result.failure is not None:
        place = _write(arguments.keep, "failure", result.failure.pieces)
        print("FAILED: %r; the input is in %s" % (result.failure.fault, place))
        return 1
    return 0


def _write(folder, what, pieces):
    place = pathlib.Path(folder, "fuzz-key-protector-%s" % what)
    place.write_bytes(b"".join(pieces))
    return place


if __name__ == "__main__":
    sys.exit(main())
