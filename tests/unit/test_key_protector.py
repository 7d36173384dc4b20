"""Reading key protectors: what is one, whose it is, what of it was verified, and what is none."""

import base64
import datetime
import os
import subprocess
import sys

import hypothesis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import strategies as st
from lxml import etree

from tests.hyperv import certificates, damaged_protectors, guardian
from tests.hyperv import key_protector as simulated
from vtpm_compute import errors, key_protector, untrusted_xml
from vtpm_compute.key_protector_signatures import Verdict

SOURCE = "os_vtpm_keys"
NAMESPACE = b"http://schemas.microsoft.com/kps/2014/07"
BEGIN = b'<Protector xmlns="' + NAMESPACE + b'">'
WRAPPINGS = BEGIN + b"<Wrappings><Wrapping>%s</Wrapping></Wrappings></Protector>"


@pytest.fixture(scope="module")
def owner():
    return guardian.Guardian.generate("Contoso")


@pytest.fixture(scope="module")
def fabric():
    return guardian.Guardian.generate("Fabric")


@pytest.fixture(scope="module")
def protector(owner, fabric):
    return simulated.make_protector(owner, [fabric])


@pytest.fixture(scope="module")
def document(protector):
    """Its XML."""
    return protector[4:]


@pytest.fixture(scope="module")
def damaged(owner, fabric):
    return damaged_protectors.damaged(owner, fabric)


def parse(*pieces, now=None):
    return key_protector.parse(pieces, SOURCE, now)


def invalid(*pieces):
    with pytest.raises(errors.KeyProtectorError) as caught:
        parse(*pieces)
    message = str(caught.value)
    assert SOURCE in message and message.isprintable() and len(message) <= errors.MOST_CHARACTERS
    # What to do.
    assert "Store the bytes" in message or "export it again" in message or "Make a new" in message
    return message


@pytest.mark.parametrize("data", [
    b" " * 100, b"\n" * 64 + b"A", b"A " * 40, b"A" * 63 + b"=", b"A" * 64 + b"==", b"=" * 64,
    b"AB=" + b"C" * 70, b"\t \r\n" * 5000, b"A\n" * 5000])
def test_what_looks_like_base64(data):
    invalid(data)


# What stands at the beginning and the end of much white space.
ALMOST_BASE64 = ((b"A", b"!"), (b"A" * 64 + b"=", b"!"), (b"A" * 64 + b"= =", b"!"),
                 (b"A" * 64, b"===!"))


def refuse_almost_base64():
    for beginning, end in ALMOST_BASE64:
        room = untrusted_xml.MAX_BYTES - len(beginning) - len(end)
        assert "it is not XML" in invalid(beginning + b" " * room + end)


def test_what_is_almost_base64_does_not_hold_its_reader():
    """The largest that is read would take hours, if it were tried in every division."""
    program = "from tests.unit import test_key_protector as t; t.refuse_almost_base64()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def verdicts(read):
    return [one.verdict for one in read.all_signatures]


def test_whole(protector, owner, fabric):
    read = parse(protector)
    assert read.raw == protector
    assert [(found.is_owner, found.thumbprint) for found in read.guardians] == [
        (True, owner.thumbprint), (False, fabric.thumbprint)]
    assert read.owner is read.guardians[0]
    assert ["Contoso" in found.name for found in read.guardians] == [True, False]
    assert [(found.wrapping_id, found.key_bits) for found in read.guardians] == [
        (1, 2048), (2, 2048)]
    assert verdicts(read) == [Verdict.VERIFIED] * 5 + [Verdict.NEEDS_SECRETS]
    assert read.warnings == () and read.max_offline_unwraps == 0


@pytest.mark.parametrize("count", [2, 3, 6])
def test_pieces(protector, count):
    size = -(-len(protector) // count)
    pieces = [protector[start:start + size] for start in range(0, len(protector), size)]
    assert len(pieces) == count
    assert parse(*pieces).raw == protector


def test_length_is_added_where_it_is_missing(protector):
    assert parse(protector[4:]).raw == protector


def test_only_a_named_guardian_can_unwrap(protector, owner, fabric):
    read = parse(protector)
    read.require_guardian(fabric.thumbprint, SOURCE)
    read.require_guardian(owner.thumbprint, SOURCE)
    with pytest.raises(errors.KeyProtectorError,
                       match="of os_vtpm_keys does not name this fabric's guardian"):
        read.require_guardian("00" * 32, SOURCE)


def test_it_does_not_show_itself(protector):
    assert base64.b64encode(protector)[:40].decode() not in repr(parse(protector))
    assert repr(protector)[2:40] not in repr(parse(protector))


class TestReport:
    """What the operator's command, the documentation and the log say."""

    def test_lines(self, owner, fabric):
        read = parse(simulated.make_protector(owner, [fabric], 3))
        begin, end = read.owner.not_before.date(), read.owner.not_after.date()
        assert list(read.lines()) == [
            "Key protector of %d bytes, MaxOfflineUnwraps 3" % len(read.raw),
            "Owner, wrapping 1: Shielded VM Encryption Certificate (Contoso)",
            "  encryption certificate: SHA-256 " + owner.thumbprint,
            "  RSA of 2048 bits, valid from %s to %s" % (begin, end),
            "  the signature of wrapping 1 over the signing certificate of wrapping 1: verified",
            "  the signature of wrapping 1 over its encryption certificate: verified",
            "Guardian, wrapping 2: Shielded VM Encryption Certificate (Fabric)",
            "  encryption certificate: SHA-256 " + fabric.thumbprint,
            "  RSA of 2048 bits, valid from %s to %s" % (begin, end),
            "  the signature of wrapping 1 over the signing certificate of wrapping 2: verified",
            "  the signature of wrapping 2 over its encryption certificate: verified",
            "All wrappings",
            "  the signature of wrapping 1 over all wrappings: verified",
            "  the signature of the transport key over all wrappings: cannot be checked without a "
            "guardian's private key"]

    def test_summary(self, owner, protector):
        summary = parse(protector).summary()
        assert "\n" not in summary
        assert summary.startswith("%d bytes, guardians: Shielded VM Encryption Certificate "
                                  "(Contoso), the owner (%s...), " % (
                                      len(protector), owner.thumbprint[:16]))
        assert "; 5 of 6 signatures verified; the signature of the transport key " in summary

    @pytest.mark.parametrize(("years", "words"), [
        (11, "expired on "), (-1, "is not valid before ")])
    def test_certificates_of_another_time(self, protector, years, words):
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(366 * years)
        read = parse(protector, now=now)
        assert len(read.warnings) == 4 and all(words in one for one in read.warnings)
        assert "the signing certificate of wrapping 1, " in read.warnings[0]
        assert ["Warning: " + one for one in read.warnings] == list(read.lines())[-4:]
        assert verdicts(read)[:5] == [Verdict.VERIFIED] * 5

    def test_a_guardian_twice(self, owner, fabric):
        wrappings = [simulated.Wrapping.of_guardian(member, identifier, "1", owner.signing_key)
                     for member, identifier in ((owner, "1"), (fabric, "2"), (fabric, "3"))]
        read = parse(simulated.assemble(wrappings, os.urandom(32), owner.signing_key, "1"))
        assert read.warnings == ("a guardian is named twice",)


class TestSignatures:
    """Verified, not verified, wrong."""

    @pytest.mark.parametrize("uri", [
        guardian.RSA_SHA256, guardian.RSA_SHA512, guardian.RSA_PSS_SHA256])
    def test_known_algorithms(self, owner, fabric, uri):
        read = parse(simulated.make_protector(
            owner, [fabric], algorithms=simulated.Algorithms(signature=uri)))
        assert verdicts(read) == [Verdict.VERIFIED] * 5 + [Verdict.NEEDS_SECRETS]

    def test_an_unknown_algorithm_is_not_verified_and_not_wrong(self, damaged, fabric):
        """No public document says which ones Windows names."""
        unknown = {what: parse(raw) for what, raw in damaged.items()
                   if what.startswith("unknown")}
        assert len(unknown) == 4
        for read in unknown.values():
            read.require_guardian(fabric.thumbprint, SOURCE)
        (not_verified,) = {one for one in unknown["unknown signature algorithm"].all_signatures
                           if one.verdict is Verdict.NOT_VERIFIED
                           and "all wrappings" in one.what}
        assert not_verified.reason == "its algorithm, %s, is not known here" % (
            damaged_protectors.UNKNOWN_ALGORITHM)
        assert str(not_verified) in unknown["unknown signature algorithm"].summary()

    def test_parameters_make_an_algorithm_unknown(self, document):
        value = document.rindex(b"<SignatureValue>")
        with_parameters = (document[:value] + b"<Parameters><a xmlns='urn:x'/></Parameters>"
                           + document[value:])
        (signature,) = [one for one in parse(with_parameters).all_signatures
                        if one.verdict is Verdict.NOT_VERIFIED]
        assert "has parameters that are not known here" in signature.reason
        empty = document[:value] + b"<Parameters/>" + document[value:]
        assert verdicts(parse(empty))[:5] == [Verdict.VERIFIED] * 5

    @pytest.mark.parametrize("form", ["base64", "element"])
    def test_forms_of_a_certificate_that_the_document_leaves_open(self, owner, fabric, form):
        def signed(key, certificate, name):
            text = base64.b64encode(certificate)
            return guardian.sign(key, text if form == "base64" else b'<%s xmlns="%s">%s</%s>' % (
                name, NAMESPACE, text, name))

        read = parse(self._signed_with(owner, fabric, signed))
        assert verdicts(read) == [Verdict.VERIFIED] * 5 + [Verdict.NEEDS_SECRETS]

    def test_the_right_key_over_something_unknown(self, owner, fabric):
        """It may be a form of the certificate that no document tells."""
        def signed(key, certificate, name):
            return guardian.sign(key, certificate[::-1])

        read = parse(self._signed_with(owner, fabric, signed))
        assert verdicts(read) == [Verdict.NOT_VERIFIED] * 4 + [
            Verdict.VERIFIED, Verdict.NEEDS_SECRETS]
        assert "not over the certificate in a form" in read.all_signatures[0].reason

    @staticmethod
    def _signed_with(owner, fabric, signed):
        wrappings = []
        for member, number in ((owner, "1"), (fabric, "2")):
            wrapping = simulated.Wrapping.of_guardian(member, number, "1", owner.signing_key)
            wrapping.signing_signature = signed(
                owner.signing_key, member.signing_certificate, b"SigningCertificate")
            wrapping.encryption_signature = signed(
                member.signing_key, member.encryption_certificate, b"EncryptionCertificate")
            wrappings.append(wrapping)
        return simulated.assemble(wrappings, os.urandom(32), owner.signing_key, "1")

    def test_white_space_that_came_later(self, document):
        laid_out = etree.tostring(etree.fromstring(document), pretty_print=True)
        assert laid_out.count(b"\n") > 20
        assert verdicts(parse(laid_out))[:5] == [Verdict.VERIFIED] * 5

    def test_white_space_that_was_signed(self, owner, document):
        root = etree.fromstring(etree.tostring(etree.fromstring(document), pretty_print=True))
        value = root.find("{*}GuardianSignature/{*}Signature/{*}SignatureValue")
        value.text = guardian.encoded(guardian.sign(owner.signing_key, etree.tostring(
            root[0], method="c14n", exclusive=True)))
        read = parse(etree.tostring(root))
        assert verdicts(read)[:5] == [Verdict.VERIFIED] * 5

    def test_another_prefix_for_the_namespace(self, owner, document):
        """As an implementation might write it that signs what it wrote."""
        changed = document.replace(b"xmlns=", b"xmlns:k=").replace(b"<", b"<k:").replace(
            b"<k:/", b"</k:").replace(b"<k:?", b"<?")
        root = etree.fromstring(changed)
        value = root.find("{*}GuardianSignature/{*}Signature/{*}SignatureValue")
        value.text = guardian.encoded(guardian.sign(owner.signing_key, etree.tostring(
            root[0], method="c14n", exclusive=True)))
        assert verdicts(parse(etree.tostring(root)))[:5] == [Verdict.VERIFIED] * 5

    def test_wrappings_that_were_changed_after_signing(self, document):
        cipher = document.index(b"<CipherValue>") + 20
        changed = document[:cipher] + (b"A" if document[cipher:cipher + 1] != b"A" else b"B") \
            + document[cipher + 1:]
        assert "wrapping 1 over all wrappings is over something else" in invalid(changed)


# What of the corpus of damaged protectors cannot be told without a guardian's private key.
TAKEN = {
    "wrong TransportKeySignature", "a transport key of another protector",
    "unknown signature algorithm", "unknown key encryption algorithm",
    "unknown key derivation algorithm", "unknown mac algorithm"}


@pytest.mark.parametrize(("what", "words"), [
    ("empty", "it is empty"),
    ("its length alone", "a piece is missing"),
    ("cut at the end", "a piece is missing"),
    ("cut in the middle", "a piece is missing"),
    ("a byte too many", "1 bytes follow after its end"),
    ("length of another", "a piece is missing"),
    ("first part lost", "its beginning is not there"),
    ("parts swapped", "its beginning is not there"),
    ("wrong SigningCertificateSignature",
     "wrapping 1 over the signing certificate of wrapping 2 was not made with its key"),
    ("wrong EncryptionCertificateSignature",
     "wrapping 2 over its encryption certificate was not made with its key"),
    ("wrong GuardianSignature", "wrapping 1 over all wrappings was not made with its key"),
    ("two owners", "it has 2 owners, wrappings 1 and 2"),
    ("no owner", "it has no owner"),
    ("a cycle of parents beside the owner", "wrapping 2 is an ancestor of itself"),
    ("duplicate ids", "two of its wrappings have the same id"),
    ("an unknown parent", "wrapping 2 has wrapping 9 for its parent, which is not there"),
    ("an id that is no number", "the Id of a wrapping is not a number of 32 bits"),
    ("a negative id", "the Id of a wrapping is not a number of 32 bits"),
    ("an id over 32 bits", "the Id of a wrapping is not a number of 32 bits"),
    ("no wrappings", "Protector/Wrappings lacks Wrapping"),
    ("signed in by a stranger",
     "wrapping 1 over the signing certificate of wrapping 2 was not made with its key"),
    ("a wrapping of another protector",
     "wrapping 1 over the signing certificate of wrapping 2 was not made with its key"),
    ("swapped ids", "was not made with its key"),
    ("an entity", "document type"),
    ("a document type", "document type"),
    ("another namespace", "a Protector of an unknown version"),
    ("another root element", "guardian metadata"),
    ("MaxOfflineUnwraps that is no number", "MaxOfflineUnwraps is not a number"),
    ("no XML", "it is not XML")])
def test_damaged_and_forged(damaged, what, words):
    assert words in invalid(damaged[what])


def test_what_only_windows_can_tell_is_taken(damaged):
    taken = set()
    for what, raw in damaged.items():
        try:
            assert parse(raw).raw == raw
            taken.add(what)
        except errors.KeyProtectorError:
            pass
    assert taken == TAKEN


class TestPieces:
    """What several secrets can get wrong."""

    def test_missing_at_the_end(self, protector, document):
        assert "a piece is missing" in invalid(protector[:-100])
        assert "a piece is missing" in invalid(document[:-100])

    def test_missing_at_the_beginning(self, protector):
        assert "the first piece is missing" in invalid(protector[2000:])

    def test_trailing_bytes(self, protector, document):
        assert "3 bytes follow" in invalid(protector, b"\n\n\n")
        assert "something follows after the end" in invalid(document, b"x")

    def test_wrong_order(self, protector):
        assert "not in order" in invalid(protector[2000:], protector[:2000])
        assert "not XML" in invalid(protector[:9], protector[4000:], protector[9:4000])

    def test_the_same_twice(self, protector):
        assert "two of its 3 pieces are the same" in invalid(
            protector[:4000], protector[4000:], protector[4000:])

    def test_of_two_protectors(self, owner, fabric, protector):
        other = simulated.make_protector(owner, [fabric])
        cut = protector.index(b"<TransportKeySignature>")
        assert len(other) == len(protector) and other[cut:cut + 9] == protector[cut:cut + 9]
        assert "over all wrappings is over something else" in invalid(protector[:cut], other[cut:])


def _pfx(owner):
    return certificates.make_pfx(owner.signing_certificate, owner.signing_key, "secret")


@pytest.mark.parametrize(("data", "words"), [
    (b"x" * 10, "it is not XML"), (b"\0\0\0\4", "a virtual machine without a key protector"),
    (b"\0\0\0\5x", "it is not XML"), (b"", "it is empty"), (b"\0", "a piece is missing"),
    (b"<a/>", "another kind of XML (a)"), (b"<Protector/>", "unknown version"),
    (BEGIN + b"</Protector>", "Protector lacks Wrappings"),
    (b"\xff\xfe<\0\xd8\xd8", "not XML in UTF-8"), (b"<\xff/>", "not XML in UTF-8"),
    (b'<!DOCTYPE x [<!ENTITY e "f">]><x>&e;</x>', "document type")])
def test_what_is_none(data, words):
    assert words in invalid(data)


def test_what_is_something_else(owner, protector):
    assert "it is guardian metadata" in invalid(owner.metadata())
    assert "it is a PFX file, which holds a private key" in invalid(_pfx(owner))
    assert "text in base64" in invalid(base64.b64encode(protector))
    assert "text in base64" in invalid(base64.encodebytes(protector[4:]))
    unpadded = base64.b64encode(protector).rstrip(b"=")
    for padding in (b"", b"=", b"==\n", b"=\n \n", b"=\n="):
        assert "text in base64" in invalid(unpadded + padding)


def test_utf_16_is_read_as_well(document):
    """Microsoft's examples are as long as UTF-8 would be; no document names the encoding."""
    text = document.decode().split("?>", 1)[1]
    read = parse(text.encode("utf-16"))
    assert verdicts(read)[:5] == [Verdict.VERIFIED] * 5


def test_the_document_does_not_choose_its_encoding(document):
    changed = document.replace(b"encoding='utf-8'", b"encoding='utf-7'")
    assert changed != document
    assert verdicts(parse(changed))[:5] == [Verdict.VERIFIED] * 5


class TestStructure:
    """Each element and attribute in its place, and no other."""

    @pytest.mark.parametrize(("body", "words"), [
        (b"", "Protector/Wrappings/Wrapping[1] lacks Id"),
        (b"<Id>1</Id>", "Wrapping[1] lacks SigningCertificate"),
        (b"<EncryptionCertificate/>", "lacks Id: in its place is EncryptionCertificate"),
        (b"<Id>1<a/></Id>", "Wrapping[1]/Id holds more than text"),
        (b"<Id x='1'>1</Id>", "Wrapping[1]/Id has an unknown attribute, x"),
        (b"TOPSECRET<Id>1</Id>", "Wrapping[1] holds text, where only elements belong"),
        (b"<?TOPSECRET x?><Id>1</Id>", "lacks Id: in its place is a processing instruction"),
        (b"<Id xmlns=''>1</Id>", "lacks Id: in its place is Id"),
        (b"<%s/>" % (b"x" * 500), "in its place is xxxxx")])
    def test_wrapping(self, body, words):
        message = invalid(WRAPPINGS % body)
        assert words in message and "TOPSECRET" not in message

    @pytest.mark.parametrize(("old", "new", "words"), [
        (b"</Wrappings>", b"</Wrappings><Wrappings/>", "Protector lacks TransportKeySignature"),
        (b"</Protector>", b"<x/></Protector>", "Protector holds x, which does not belong there"),
        (b' WrappingId="1"', b"", "Protector/GuardianSignature lacks its attribute WrappingId"),
        (b' WrappingId="1"', b' WrappingId="7"', "signed by wrapping 7, which it does not have"),
        (b' WrappingId="1"', b' WrappingId="2"', "was not made with its key"),
        (b' ParentWrappingId="1"', b' ParentWrappingId=""', "ParentWrappingId of wrapping 1"),
        (b"<CipherValue>", b"<CipherValue>?", "CipherValue in it is empty, or is not base64"),
        (b"<SignatureValue>", b"<SignatureValue>AAAA", "has 259 bytes, not the 256 of its"),
        (b"<Id>2", b"<Id>01", "two of its wrappings have the same id"),
        (b"<SigningCertificate>", b"<SigningCertificate>AAAA", "signing certificate of wrapping 1 "
                                                               "cannot be read"),
        (b"<EncryptionCertificate>", b"<EncryptionCertificate>\xc3\xa9", "is not base64"),
        (b"<Wrappings>", b"<Wrappings xmlns:q='relative'>", "no canonical form")])
    def test_whole(self, document, old, new, words):
        assert old in document
        assert words in invalid(document.replace(old, new, 1))

    def test_comments_and_schema_locations_say_nothing(self, document):
        read = parse(document.replace(b"<Id>2", b"<Id><!-- x -->2").replace(
            b"<Protector ", b'<Protector xmlns:i="http://www.w3.org/2001/XMLSchema-instance" '
                            b'i:schemaLocation="a b" '))
        assert verdicts(read)[:5] == [Verdict.VERIFIED] * 5

    def test_defaults(self, document):
        assert parse(document.replace(b' MaxOfflineUnwraps="0"', b"")).max_offline_unwraps == 0


class TestCertificates:
    """Of keys that are too short, too long, of another kind; nested; with names that deceive."""

    @staticmethod
    def _protector(owner, fabric, certificate):
        """Signed properly, with a guardian's encryption certificate replaced."""
        odd = guardian.Guardian.of_certificates(
            "odd", (fabric.signing_certificate, fabric.signing_key), (certificate, None))
        wrappings = [simulated.Wrapping.of_guardian(member, number, "1", owner.signing_key)
                     for member, number in ((owner, "1"), (odd, "2"))]
        wrappings[1].encrypted_key = b"x" * 256
        return simulated.assemble(wrappings, os.urandom(32), owner.signing_key, "1")

    @staticmethod
    def _certificate(owner, public_key, name="odd", extension=None):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(
            subject, subject, public_key, 1, datetime.datetime(2020, 1, 1),
            datetime.datetime(2040, 1, 1))
        if extension:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), extension), False)
        return builder.sign(owner.signing_key, hashes.SHA256()).public_bytes(
            serialization.Encoding.DER)

    @pytest.mark.parametrize(("bits", "exponent", "words"), [
        (512, 65537, "the RSA key of the encryption certificate of wrapping 2 has 512 bits, and "
                     "needs 2048"),
        (2047, 65537, "has 2047 bits"), (16385, 65537, "wrapping 2 is too long"),
        (4096, (1 << 64) + 1, "wrapping 2 is too long")])
    def test_rsa(self, owner, fabric, bits, exponent, words):
        key = rsa.RSAPublicNumbers(exponent, (1 << bits) - 159).public_key()
        assert words in invalid(self._protector(
            owner, fabric, self._certificate(owner, key)))

    def test_rsa_of_16384_bits_is_slow_but_right(self, owner, fabric):
        key = rsa.RSAPublicNumbers(65537, (1 << 16384) - 159).public_key()
        read = parse(self._protector(owner, fabric, self._certificate(owner, key)))
        assert read.guardians[1].key_bits == 16384

    def test_not_rsa(self, owner, fabric):
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        assert "wrapping 2 is not RSA" in invalid(self._protector(
            owner, fabric, self._certificate(owner, key)))

    def test_nested(self, owner, fabric):
        """A certificate in an extension of a certificate, and so on; then sequences without end."""
        key, inner = fabric.encryption_key.public_key(), None
        for _ in range(50):
            inner = self._certificate(owner, key, extension=inner)
        assert verdicts(parse(self._protector(owner, fabric, inner)))[:5] == [Verdict.VERIFIED] * 5
        deep = b"\x30\x80" * 50_000
        assert "wrapping 2 cannot be read" in invalid(self._protector(owner, fabric, deep))

    def test_trailing_bytes(self, owner, fabric):
        assert "wrapping 2 cannot be read" in invalid(self._protector(
            owner, fabric, fabric.encryption_certificate + b"\0"))

    def test_a_name_of_an_unknown_type(self, document, owner):
        """The library's error for it is none of its documented ones."""
        certificate = owner.encryption_certificate
        name = certificate.index(b"\x0c", certificate.rindex(b"\x06\x03\x55\x04\x03"))
        changed = certificate[:name] + b"\xec" + certificate[name + 1:]
        assert "certificate of wrapping 1 cannot be read" in invalid(document.replace(
            base64.b64encode(certificate), base64.b64encode(changed)))

    def test_a_name_that_forges_a_log(self, owner, fabric):
        certificate = self._certificate(
            owner, fabric.encryption_key.public_key(), "A\nERROR B \u202e" + "x" * 50)
        read = parse(self._protector(owner, fabric, certificate))
        assert read.guardians[1].name.startswith("A?ERROR B ?xx")
        assert all(line.isprintable() and len(line) < 160 for line in read.lines())

    def test_a_name_that_does_not_decode(self, document, owner):
        changed = owner.encryption_certificate.replace(b"Contoso", b"Conto\xff\xfe")
        assert changed != owner.encryption_certificate
        assert "certificate of wrapping 1 cannot be read" in invalid(document.replace(
            base64.b64encode(owner.encryption_certificate), base64.b64encode(changed)))


def _parameters(content):
    def make(document):
        return document.replace(
            b"<CipherValue>", b"<Parameters>" + content + b"</Parameters><CipherValue>", 1)
    return make


def _wrappings(count):
    def make(document):
        start, end = document.index(b"<Wrapping>"), document.index(b"</Wrapping>") + 11
        return document[:start] + b"".join(
            document[start:end].replace(b"<Id>1", b"<Id>%d" % number)
            for number in range(1, count + 1)) + document[end:]
    return make


_BOMB = b'<!DOCTYPE x [<!ENTITY b "aaaaaaaaaa">%s]><x>&k;</x>' % b"".join(
    b'<!ENTITY %c "%s">' % (name, b"&%c;" % (name - 1) * 10) for name in range(99, 108))

# What is made of a sound document, and what is said of it.
HOSTILE = {
    "entity bomb": (lambda document: _BOMB, "document type"),
    "entity bomb in utf-16": (lambda document: _BOMB.decode().encode("utf-16"), "document type"),
    "a file as an entity": (lambda document: b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/pass'
                            b'wd">]><x>&e;</x>', "document type"),
    "a network address": (lambda document: b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x"><x/>',
                          "document type"),
    "10 MB": (lambda document: document + b" " * 10_000_000, "1 MiB"),
    "10 MB of zeros": (lambda document: bytes(10_000_000), "1 MiB"),
    "pairs of attributes": (lambda document: b"<Protector %s/>" % b" ".join(
        b'a%d=""' % number for number in range(100_000)), "more elements or attributes"),
    "pairs of attributes, other quotes": (lambda document: b"<Protector %s/>" % b" ".join(
        b"a%d=''" % number for number in range(100_000)), "more elements or attributes"),
    "many elements": (_parameters(b"<a/>" * 200_000), "more elements or attributes"),
    "many namespaces": (_parameters(b"<a xmlns='u:a' %s>%s</a>" % (
        b" ".join(b"xmlns:n%d='u:%d'" % (number, number) for number in range(1900)),
        b"".join(b"<n%d:a/>" % number for number in range(1900)))), "over something else"),
    "deep": (_parameters(b"<a xmlns='u:a'>" * 200 + b"</a>" * 200), "over something else"),
    "too deep": (_parameters(b"<a>" * 4000 + b"</a>" * 4000), "not XML"),
    "a huge attribute": (lambda document: document.replace(
        b"Algorithm=", b"x='%s' Algorithm=" % (b"x" * 900_000), 1), "unknown attribute, x"),
    "a huge algorithm": (lambda document: document.replace(
        b'Algorithm="', b'Algorithm="' + b"x" * 900_000, 1), "over something else"),
    "a huge name": (lambda document: b"<%s/>" % (b"x" * 45_000), "another kind of XML"),
    "a huge namespace": (lambda document: document.replace(
        NAMESPACE, NAMESPACE + b"x" * 900_000), "unknown version"),
    "huge base64": (lambda document: document.replace(
        b"<SignatureValue>", b"<SignatureValue>" + b"AAAA" * 230_000, 1), "not the 256 of its"),
    "a huge certificate": (lambda document: document.replace(
        b"<SigningCertificate>", b"<SigningCertificate>MIID" + b"AAAA" * 230_000, 1),
        "cannot be read"),
    "a huge cipher": (lambda document: document.replace(
        b"<CipherValue>", b"<CipherValue>" + b"AAAA" * 230_000, 1), "over something else"),
    "white space in base64": (lambda document: document.replace(
        b"<SignatureValue>", b"<SignatureValue>" + b" " * 900_000, 1), "over something else"),
    "a number of many digits": (lambda document: document.replace(
        b"<Id>1", b"<Id>" + b"9" * 900_000, 1), "is not a number"),
    "a number of many zeros": (lambda document: document.replace(
        b"<Id>1", b"<Id>" + b"0" * 900_000 + b"1", 1), "over something else"),
    "a hundred wrappings": (_wrappings(100), "more than 64 wrappings"),
    "thousands of wrappings": (
        lambda document: BEGIN + b"<Wrappings>%s</Wrappings></Protector>" % (
            b"<Wrapping/>" * 5000), "Wrapping[1] lacks Id"),
    "tens of thousands of wrappings": (
        lambda document: BEGIN + b"<Wrappings>" + b"<Wrapping/>" * 50_000, "more elements"),
    "a surrogate": (lambda document: document.replace(b"<Id>1", b"<Id>&#xD800;", 1), "not XML"),
    "a NUL": (lambda document: document.replace(b"<Id>1", b"<Id>&#0;", 1), "not XML"),
    "an unknown entity": (lambda document: document.replace(b"<Id>1", b"<Id>&e;", 1), "not XML"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile(document, what):
    make, words = HOSTILE[what]
    assert words in invalid(make(document))


def test_the_largest_number_of_wrappings(owner, fabric):
    wrappings = [simulated.Wrapping.of_guardian(member, str(number), "1", owner.signing_key)
                 for number, member in enumerate([owner] + [fabric] * 63, 1)]
    read = parse(simulated.assemble(wrappings, os.urandom(32), owner.signing_key, "1"))
    assert len(read.guardians) == 64 and verdicts(read)[:-1] == [Verdict.VERIFIED] * 129


def test_six_guardians_of_4096_bits():
    first = guardian.Guardian.generate("first", key_bits=4096)
    others = [guardian.Guardian.of_certificates(name, *(
        (certificates.make_certificate(name, key, usage), key) for usage, key in (
            (certificates.SIGNING, first.signing_key),
            (certificates.ENCRYPTION, first.encryption_key)))) for name in "bcdef"]
    read = parse(simulated.make_protector(first, others))
    assert [found.thumbprint for found in read.guardians] == [
        one.thumbprint for one in (first, *others)]


def test_files_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("TOPSECRET")
    message = invalid(b'<!DOCTYPE x [<!ENTITY e SYSTEM "file://%s">]><x>&e;</x>'
                      % str(secret).encode())
    assert "TOPSECRET" not in message


@pytest.mark.parametrize(("raw", "unset"), [
    ((0, 0, 0, 4), True), ((), True), (b"\0\0\0\4", True), ((0, 0, 0, 5, 1), False)])
def test_unset(raw, unset):
    assert key_protector.is_unset(raw) is unset


@hypothesis.given(st.binary(max_size=200))
def test_any_bytes_get_our_error(data):
    with pytest.raises(errors.KeyProtectorError):
        parse(data)
