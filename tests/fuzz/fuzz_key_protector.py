"""Feeds damaged key protectors, guardian metadata, PFX files and mixtures of them to their readers.

Each input is a sound one (of several kinds), or what its tests refuse, changed at random: bytes,
ranges, XML elements and attributes, certificates, lengths, pieces; PFX files also with the checksum
of what was changed, so that it is opened. What comes out is counted. Anything other than a value or
a KeyProtectorError is a failure: the input is written to a file, and the exit code is 1. The same
seed gives the same changes, not the same keys.

    python -m tests.fuzz.fuzz_key_protector --count 100000 --seed 7
    python -m tests.fuzz.fuzz_key_protector --count 100000 --target pfx
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

from tests.hyperv import certificates, damaged_protectors, guardian, odd_pfx
from tests.hyperv import key_protector as simulated
from vtpm_compute import errors, guardian_metadata, key_material, key_protector, owner_pfx

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


def seeds(owner, other):
    """Sound and refused protectors of two guardians, as bytes."""
    sound = [simulated.make_protector(owner, [other]), simulated.make_protector(owner, [], 3)]
    sound += [simulated.make_protector(owner, [other], algorithms=simulated.Algorithms(
        signature=uri)) for uri in (guardian.RSA_SHA512, guardian.RSA_PSS_SHA256, "urn:unknown")]
    laid_out = etree.tostring(etree.fromstring(sound[0][_PREFIX:]), pretty_print=True)
    return [*sound, laid_out, sound[0][_PREFIX:], owner.metadata(),
            *damaged_protectors.damaged(owner, other).values()]


def metadata_seeds(owner, other):
    """Sound metadata of two guardians, and what is none, as bytes."""
    first, second = owner.metadata(), other.metadata()
    certificate = b"<Certificate>%s</Certificate>" % base64.b64encode(owner.signing_certificate)
    others = b"<OtherSigningCertificates>%s</OtherSigningCertificates></GuardianInformation>" % (
        certificate * 3)
    return [first, etree.tostring(etree.fromstring(second), pretty_print=True),
            first.replace(b"</GuardianInformation>", others),
            second.replace(b"#rsa-sha256", b"#rsa-sha255"),
            second.split(b"?>", 1)[1].decode().encode("utf-16"),
            simulated.make_protector(owner, [other])]


class Mutator:
    """Makes inputs.

    :param originals: bytes to start from; the first five are sound
    :param chance: where the random numbers come from
    """

    def __init__(self, originals, chance):
        self._originals = originals
        self._random = chance
        self._changes = [self._bits, self._remove, self._repeat, self._insert, self._splice,
                         self._elements, self._attribute, self._certificate, self._value,
                         self._number, self._as_text]

    def changed(self):
        """One of the originals, changed."""
        chance = self._random
        data = chance.choice(self._originals[:5] if chance.random() < .8 else self._originals)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            data = chance.choice(self._changes)(data)
        return data

    def pieces(self):
        """A key protector: a list of bytes."""
        chance, data = self._random, self.changed()
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

    def _as_text(self, data):
        """In a form that people store by mistake, or next to nothing of it."""
        chance = self._random
        form = chance.choice((base64.b64encode, base64.encodebytes, bytes.hex, repr))
        text = form(data[:chance.choice((1, 60, 5000, len(data)))])
        text = text.encode() if isinstance(text, str) else text
        for _ in range(chance.choice((0, 0, 1, 5))):
            place = chance.randrange(min(len(text), 80) + 1)
            text = text[:place] + chance.choice((b" ", b"\n", b"=", b"\t" * 70)) + text[place:]
        return text

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


class PfxMutator(Mutator):
    """Makes PFX files.

    :param owner: whose they are: a guardian with its private keys
    """

    def __init__(self, owner, chance):
        self._pairs = [(owner.signing_certificate, owner.signing_key),
                       (owner.encryption_certificate, owner.encryption_key)]
        originals = [certificates.make_pfx(*pair, "") for pair in self._pairs]
        originals += [odd_pfx.pfx(odd_pfx.contents(
            odd_pfx.key_bag(key), odd_pfx.certificate_bag(certificate)))
            for certificate, key in self._pairs]
        originals.append(certificates.make_pfx(*self._pairs[0], "", [self._pairs[1][0]]))
        originals.append(certificates.make_pfx(*self._pairs[0], "password"))
        super().__init__(originals, chance)
        self._changes = [self._bits, self._remove, self._repeat, self._splice, self._number_of_der]

    def pieces(self):
        """One or two files."""
        chance = self._random
        files = [chance.choice((self.changed, self._put_together))()
                 for _ in range(chance.choice((1, 1, 2)))]
        if len(files) == 1 and chance.random() < .7:
            # Of a certificate that signs, and one that encrypts, neither is enough.
            files.insert(chance.randrange(len(files) + 1), chance.choice(self._originals[:2]))
        return files

    def _number_of_der(self, data):
        """Replace a number, in place."""
        places = [place.start() for place in re.finditer(rb"\x02[\x01-\x04]", data)]
        place = self._random.choice(places or [0])
        size = data[place + 1] if places else 0
        return data[:place + 2] + self._random.choice((b"\xff", b"\x7f", b"\0")) * size \
            + data[place + 2 + size:]

    def _put_together(self):
        """A file with the right checksum over parts that are not right."""
        chance = self._random
        certificate, key = chance.choice(self._pairs)
        if chance.random() < .05:
            certificate, _ = chance.choice(self._pairs)
        number = chance.choice((0, 1, -1, 2000, 2000, 20_000, 1 << 31, 1 << 80))
        mac_number = chance.choice((1, 1, 1, 1, 1, 1000, 1 << 40))
        if chance.random() < .01:
            number, mac_number = chance.choice(((1_000_000, 0), (300_000, 400_000), (1, 999_999)))
        algorithm = chance.choice((odd_pfx.pbe, odd_pfx.pbes2))(number)
        key_bag = odd_pfx.key_bag(key)
        odd_bags = [
            self._damaged_der(key_bag),
            odd_pfx.shrouded_key_bag(algorithm, bytes(chance.choice((8, 1200, 2560)))),
            odd_pfx.certificate_bag(self._damaged_der(certificate)),
            odd_pfx.bag(chance.choice((odd_pfx.CRL_BAG, odd_pfx.SECRET_BAG, odd_pfx.SAFE_BAG)),
                        odd_pfx.sequence(odd_pfx.octets(b"x")))]
        bags = [key_bag, odd_pfx.certificate_bag(certificate),
                *chance.sample(odd_bags, chance.choice((0, 0, 1, 1, 2)))]
        if chance.random() < .5:
            del bags[chance.randrange(2)]
        chance.shuffle(bags)
        contents = [odd_pfx.contents(*bags)]
        if chance.random() < .2:
            contents.append(odd_pfx.encrypted_contents(algorithm, bytes(
                chance.choice((8, 800, 17_000)))))
        mac = odd_pfx.mac_data(
            odd_pfx.sequence(*contents), chance.choice((b"", b"\0\0")),
            iterations=mac_number,
            digest=chance.choice((odd_pfx.SHA1,) * 9 + (odd_pfx.PBMAC1,)))
        return odd_pfx.pfx(*contents, mac=mac)

    def _damaged_der(self, data):
        start, end = self._range(data, 20)
        return self._random.choice([
            self._bits(data), data[:start] + self._random.choice(_DER) + data[end:],
            data[:start] + data[end:]])


class MixtureMutator:
    """Makes the secrets of a server.

    :param makers: functions that give a list of bytes, of each kind
    :param sound: bytes of each kind
    """

    def __init__(self, makers, sound, chance):
        self._makers, self._sound, self._random = makers, sound, chance

    def pieces(self):
        """Up to six secrets."""
        chance = self._random
        secrets = chance.sample(self._sound, chance.choice((0, 1, 2, 3)))
        for _ in range(chance.choice((0, 1, 1, 2) if secrets else (1, 2))):
            secrets[chance.randrange(len(secrets) + 1):0] = chance.choice(self._makers)()
        return secrets[:6]


class Targets:
    """What is fuzzed, by name: how inputs are made, and what reads them.

    :param seed: of the random numbers
    """

    NAMES = ("protector", "metadata", "pfx", "mixture")

    def __init__(self, seed):
        self._random = random.Random(seed)
        owner, other = guardian.Guardian.generate("owner"), guardian.Guardian.generate("other")
        self._protectors = Mutator(seeds(owner, other), self._random)
        self._metadata = Mutator(metadata_seeds(owner, other), self._random)
        self._pfx = PfxMutator(owner, self._random)
        self._mixtures = MixtureMutator(
            [self._protectors.pieces, self._one_metadata, self._pfx.pieces],
            [simulated.make_protector(owner, [other]), owner.metadata(), other.metadata(),
             *(certificates.make_pfx(*pair, "") for pair in (
                 (owner.signing_certificate, owner.signing_key),
                 (owner.encryption_certificate, owner.encryption_key)))], self._random)

    def next(self, names):
        """The next input of one of these targets: (name, list of bytes)."""
        name = self._random.choice(names)
        return name, {"protector": self._protectors.pieces, "metadata": self._one_metadata,
                      "pfx": self._pfx.pieces, "mixture": self._mixtures.pieces}[name]()

    def _one_metadata(self):
        return [self._metadata.changed()]


def read(name, pieces):
    """Let a target read an input, and show it all that people see of what comes out.

    :returns: which kinds of values came out, for people
    """
    if name == "protector":
        return _shown(key_protector.parse(pieces, "fuzz"))
    if name == "metadata":
        guardian_metadata.is_metadata(pieces[0])
        guardian_metadata.is_cut(pieces[0])
        return _shown(guardian_metadata.parse(pieces[0], "fuzz"))
    if name == "pfx":
        return _shown(owner_pfx.read(pieces, "fuzz"))
    for allow_owner_keys, shielded in ((False, False), (True, True)):
        try:
            key_material.read(pieces, "fuzz", allow_owner_keys, shielded)
        except errors.KeyProtectorError:
            pass
    return _shown(key_material.read(pieces, "fuzz", True, False))


def _shown(value):
    str(value)
    repr(value)
    if isinstance(value, key_protector.KeyProtector):
        value.summary()
        list(value.lines())
        return "a protector, " + ", ".join(
            sorted({one.verdict.value for one in value.all_signatures}))
    if isinstance(value, guardian_metadata.GuardianMetadata):
        list(value.lines())
        return "metadata, " + ", ".join(sorted({one.verdict.value for one in value.signatures}))
    if isinstance(value, key_material.Ingredients):
        return "%d guardians%s" % (len(value.guardians), " and an owner" if value.owner else "")
    return "an owner"


class Failure(NamedTuple):
    """An input from which something else came out."""

    pieces: list
    fault: BaseException
    target: str


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


def run(seed, count=None, seconds=None, say=lambda text: None, targets=Targets.NAMES):
    """Feed inputs to the readers until so many, so much time, or a failure.

    :param targets: names of what is fuzzed
    :param say: told how far it is, every 20,000 inputs
    """
    inputs = Targets(seed)
    outcomes = collections.Counter()
    slowest = 0, []
    began = time.monotonic()
    done = 0
    while (count is None or done < count) and (
            seconds is None or time.monotonic() - began < seconds):
        target, pieces = inputs.next(targets)
        started = time.process_time()  # What else the machine does is not the reader's doing.
        try:
            outcome = _outcome(target, pieces)
        except _NOT_OURS:
            raise
        except BaseException as fault:  # noqa: BLE001 - a panic of Rust is no Exception
            return Result(done + 1, outcomes, slowest, Failure(pieces, fault, target))
        slowest = max(slowest, (time.process_time() - started, pieces), key=lambda one: one[0])
        outcomes[outcome] += 1
        done += 1
        if not done % 20_000:
            say("%d inputs, %.0f s, %d outcomes, slowest %.3f s, %d MiB" % (
                done, time.monotonic() - began, len(outcomes), slowest[0], peak_memory()))
    return Result(done, outcomes, slowest, None)


def _outcome(target, pieces):
    try:
        return "%s: taken: %s" % (target, re.sub("[0-9]+", "N", read(target, pieces)))
    except errors.KeyProtectorError as exc:
        message = re.sub(r"\((?:its namespace is )?[^()]*\)", "(...)", str(exc))
        message = re.sub(r"(?:Protector|Metadata)/\S+", "...", message)
        message = re.sub(r"(algorithm|attribute,?|place is|holds) [^,.:]*", r"\1 ...", message)
        return "%s: %s" % (target, re.sub(r"[0-9]+", "N", message))


def peak_memory():
    """Of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main():
    """Run it; 1 when something else came out."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.fuzz_key_protector",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, help="number of inputs")
    parser.add_argument("--minutes", type=float, help="how long")
    parser.add_argument("--target", action="append", choices=Targets.NAMES,
                        help="what is fuzzed; can be repeated; all where it is not given")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--keep", default=tempfile.gettempdir(), metavar="DIR",
                        help="where the input that failed, and the slowest, are written")
    arguments = parser.parse_args()
    if arguments.count is None and arguments.minutes is None:
        parser.error("say --count, --minutes or both")
    print("seed %d" % arguments.seed)
    began = time.monotonic()
    result = run(arguments.seed, arguments.count, arguments.minutes and arguments.minutes * 60,
                 lambda text: print(text, flush=True), arguments.target or Targets.NAMES)
    for outcome, count in result.outcomes.most_common():
        print("%8d  %s" % (count, outcome))
    print("%d inputs in %.0f s, %d distinct outcomes, slowest %.3f s, peak memory %d MiB" % (
        result.count, time.monotonic() - began, len(result.outcomes), result.slowest[0],
        peak_memory()))
    _write(arguments.keep, "slowest", result.slowest[1])
    if result.failure is not None:
        place = _write(arguments.keep, "failure", result.failure.pieces)
        print("FAILED: %r; the input for %s is in %s" % (
            result.failure.fault, result.failure.target, place))
        return 1
    return 0


def _write(folder, what, pieces):
    place = pathlib.Path(folder, "fuzz-key-protector-%s" % what)
    place.write_bytes(b"".join(pieces))
    for position, piece in enumerate(pieces if len(pieces) > 1 else [], 1):
        pathlib.Path("%s-%d" % (place, position)).write_bytes(piece)
    return place


if __name__ == "__main__":
    sys.exit(main())
