"""Reading guardian metadata: who it is, what of it was verified, and what is none."""

import base64
import datetime
import string

import hypothesis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import strategies as st
from lxml import etree

from tests.hyperv import guardian
from vtpm_compute import errors, guardian_metadata
from vtpm_compute.key_protector_signatures import Verdict

SOURCE = "secret 1 of os_vtpm_keys"
KPS = "http://schemas.microsoft.com/kps/2014/07"
# [MS-KPS] 6.4 and 6.5, by hand: the simulated host is not asked what they say.
TEMPLATE = string.Template("""\
<?xml version="1.0" encoding="utf-8"?>
<Metadata xmlns="http://schemas.microsoft.com/kps/2014/07" Version="1" ID="_1">
  <GuardianInformation>
    <Version>1</Version>
    <EncryptionCertificate>$encryption</EncryptionCertificate>
    <SigningCertificate>$signing</SigningCertificate>
    <EncryptionCertificateSignature Algorithm="$algorithm">
      <SignatureValue>$encryption_signature</SignatureValue>
    </EncryptionCertificateSignature>
    <SigningCertificateSelfSignature Algorithm="$algorithm">
      <SignatureValue>$self_signature</SignatureValue>
    </SigningCertificateSelfSignature>
  </GuardianInformation>
  <ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo/></ds:Signature>
</Metadata>
""")


@pytest.fixture(scope="module")
def contoso():
    return guardian.Guardian.generate("Contoso")


@pytest.fixture(scope="module")
def document(contoso):
    return make_document(contoso)


def make_document(whose, algorithm=guardian.RSA_SHA256, form=lambda certificate: certificate):
    signed = [guardian.sign(whose.signing_key, form(certificate), algorithm) for certificate in (
        whose.encryption_certificate, whose.signing_certificate)]
    return TEMPLATE.substitute(
        encryption=guardian.encoded(whose.encryption_certificate),
        signing=guardian.encoded(whose.signing_certificate), algorithm=algorithm,
        encryption_signature=guardian.encoded(signed[0]),
        self_signature=guardian.encoded(signed[1])).encode()


def parse(document, now=None):
    return guardian_metadata.parse(document, SOURCE, now)


def invalid(document):
    with pytest.raises(errors.KeyProtectorError) as caught:
        parse(document)
    message = str(caught.value)
    assert SOURCE in message and message.isprintable() and len(message) <= errors.MOST_CHARACTERS
    # What to do.
    assert message.endswith((
        "Store the whole file.",
        "Export it again.", "Name a guardian with another certificate."))
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    return message


def verdicts(read):
    return [one.verdict for one in read.signatures]


def test_whole(contoso, document):
    read = parse(document)
    assert read.raw == document
    assert read.name == "Shielded VM Encryption Certificate (Contoso)"
    assert read.thumbprint == contoso.thumbprint and read.key_bits == 2048
    assert read.not_before.tzinfo is datetime.timezone.utc
    assert read.not_after - read.not_before > datetime.timedelta(3652)
    assert verdicts(read) == [Verdict.VERIFIED, Verdict.VERIFIED, Verdict.NOT_VERIFIED]
    assert read.warnings == () and read.out_of_time is None
    assert str(read) == "%s (%s...)" % (read.name, contoso.thumbprint[:16])


def test_what_the_simulated_host_exports(contoso):
    read = parse(contoso.metadata())
    assert read.thumbprint == contoso.thumbprint
    assert verdicts(read) == [Verdict.VERIFIED, Verdict.VERIFIED, Verdict.NOT_VERIFIED]


def test_lines(contoso, document):
    read = parse(document)
    assert list(read.lines()) == [
        "Guardian metadata of %d bytes: Shielded VM Encryption Certificate (Contoso)" % (
            len(document)),
        "  encryption certificate: SHA-256 " + contoso.thumbprint,
        "  RSA of 2048 bits, valid from %s to %s" % (
            read.not_before.date(), read.not_after.date()),
        "  its signature over its encryption certificate: verified",
        "  its signature over its signing certificate: verified",
        "  the XML signature of the document: not verified (it is left to Windows)"]


@pytest.mark.parametrize(("years", "words"), [(11, "expired on "), (-1, "is not valid before ")])
def test_certificates_of_another_time(document, years, words):
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(366 * years)
    read = parse(document, now)
    assert len(read.warnings) == 2 and all(words in one for one in read.warnings)
    assert read.warnings[0].startswith("the signing certificate of guardian Shielded VM ")
    assert read.out_of_time.startswith("its signing certificate " + words)
    assert ["Warning: " + one for one in read.warnings] == list(read.lines())[-2:]


class TestEncoding:
    """What is handed on is what was read, for every reader of XML."""

    def test_mark_of_utf_8_is_left_out(self, document):
        assert parse(b"\xef\xbb\xbf" + document).raw == document

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-8"])
    def test_utf_16_becomes_utf_8(self, contoso, document, encoding):
        """Windows PowerShell's ``>`` writes it, whatever the declaration says."""
        text = document.decode().replace("utf-8", encoding)
        read = parse(text.encode("utf-16"))
        assert read.raw == document.split(b"?>", 1)[1]
        assert etree.fromstring(read.raw).tag == "{%s}Metadata" % KPS
        assert parse(read.raw).thumbprint == contoso.thumbprint

    @pytest.mark.parametrize("declared", [b"utf-7", b"utf-16", b"iso-8859-1", b""])
    def test_a_declaration_that_lies(self, document, declared):
        changed = document.replace(b'encoding="utf-8"', b"encoding = '%s'" % declared)
        assert "says that it is in another encoding" in invalid(changed)

    @pytest.mark.parametrize("declaration", [
        b"", b'<?xml version="1.0"?>', b"<?xml version='1.0' encoding = 'UTF-8' ?>\n"])
    def test_other_declarations(self, contoso, document, declaration):
        changed = declaration + document.split(b"?>\n", 1)[1]
        assert parse(changed).raw == changed

    @pytest.mark.parametrize("data", [
        b"\xff\xfe<\0\xd8\xd8", b"<Metadata>\xff", b"\xff\xfe\0\0<\0\0\0", b"\xfe\xff<"])
    def test_neither(self, data):
        assert "not XML in UTF-8" in invalid(data) or "it is not XML" in invalid(data)


class TestSignatures:
    """Verified, not verified, wrong."""

    @pytest.mark.parametrize("uri", [
        guardian.RSA_SHA256, guardian.RSA_SHA512, guardian.RSA_PSS_SHA256])
    def test_known_algorithms(self, contoso, uri):
        assert verdicts(parse(make_document(contoso, uri)))[:2] == [Verdict.VERIFIED] * 2

    def test_an_unknown_algorithm(self, contoso):
        read = parse(make_document(contoso, "urn:unknown"))
        assert verdicts(read) == [Verdict.NOT_VERIFIED] * 3
        assert "urn:unknown, is not known here" in read.signatures[0].reason

    def test_base64_may_be_what_is_signed(self, contoso):
        assert verdicts(parse(make_document(contoso, form=base64.b64encode)))[:2] == [
            Verdict.VERIFIED] * 2

    def test_an_unknown_form(self, contoso):
        read = parse(make_document(contoso, form=lambda certificate: certificate[::-1]))
        assert verdicts(read)[:2] == [Verdict.NOT_VERIFIED] * 2

    @pytest.mark.parametrize(("number", "words"), [
        (0, "its signature over its encryption certificate was not made with its key"),
        (1, "its signature over its signing certificate was not made with its key")])
    def test_of_a_stranger(self, contoso, document, number, words):
        """Whoever can write to the key manager cannot put their key under another's name."""
        parts = document.split(b"<SignatureValue>")
        forged = guardian.encoded(guardian.sign(
            guardian.Guardian.generate("stranger").signing_key,
            (contoso.encryption_certificate, contoso.signing_certificate)[number])).encode()
        parts[number + 1] = forged + parts[number + 1][len(forged):]
        assert words in invalid(b"<SignatureValue>".join(parts))

    def test_another_encryption_certificate(self, contoso, document):
        stranger = guardian.Guardian.generate("stranger")
        changed = document.replace(guardian.encoded(contoso.encryption_certificate).encode(),
                                   guardian.encoded(stranger.encryption_certificate).encode())
        # The right key signed something that is not this certificate.
        assert verdicts(parse(changed))[0] is Verdict.NOT_VERIFIED

    def test_of_another_length(self, document):
        changed = document.replace(b"<SignatureValue>", b"<SignatureValue>AAAA", 1)
        assert "has 259 bytes, not the 256 of its key" in invalid(changed)


class TestStructure:
    """Each element and attribute in its place, and no other; [MS-KPS] 6.4."""

    @pytest.mark.parametrize(("old", "new", "words"), [
        (b' Version="1"', b"", "Metadata lacks its attribute Version"),
        (b' Version="1"', b' Version="1.0"', "the Version of Metadata is not a number"),
        (b"<Version>1</Version>", b"", "Metadata/GuardianInformation lacks Version: in its place "
                                       "is EncryptionCertificate"),
        (b"<Version>1<", b"<Version>-1<", "the Version of GuardianInformation is not a number"),
        (b"<Version>1<", b"<Version><x/>1<", "GuardianInformation/Version holds more than text"),
        (b"<GuardianInformation>", b'<GuardianInformation Version="1">',
         "GuardianInformation has an unknown attribute, Version"),
        (b"<GuardianInformation>", b"<GuardianInformation>TOPSECRET", "holds text, where only"),
        (b"</GuardianInformation>", b"<More/></GuardianInformation>",
         "GuardianInformation holds More, which does not belong there"),
        (b"</GuardianInformation>", b"</GuardianInformation><GuardianInformation/>",
         "Metadata lacks Signature: in its place is GuardianInformation"),
        (b"<GuardianInformation>", b"<?TOPSECRET x?><GuardianInformation>",
         "Metadata lacks GuardianInformation: in its place is a processing instruction"),
        (b"ds:Signature", b"ds:Signaturf", "Metadata lacks Signature: in its place is Signaturf"),
        (b"xmldsig#", b"xmldsig", "Metadata lacks Signature: in its place is Signature"),
        (b"EncryptionCertificate>", b"EncryptionCertificat>", "lacks EncryptionCertificate"),
        (b"<EncryptionCertificate>", b"<EncryptionCertificate xmlns=''>", "lacks Encryption"),
        (b"<SignatureValue>", b"<x/><SignatureValue>", "lacks SignatureValue: in its place is x"),
        (b" Algorithm=", b" x=", "has an unknown attribute, x"),
        (b"kps/2014/07", b"kps/2015/07", "another kind of XML (Metadata), or of an unknown ver"),
        (b"<Metadata ", b"<Metadata xmlns:q='relative' ", "no canonical form")])
    def test_one_change(self, document, old, new, words):
        assert old in document
        message = invalid(document.replace(old, new))
        assert words in message and "TOPSECRET" not in message

    def test_what_the_schema_leaves_open(self, contoso, document):
        changed = document.replace(
            b' ID="_1"', b' xmlns:o="urn:o" o:Any="1" More="2"').replace(
            b"</Metadata>", b"<More><o xmlns='urn:o'/>text</More><b xmlns='urn:b'/></Metadata>")
        assert parse(changed).thumbprint == contoso.thumbprint

    def test_other_signing_certificates(self, contoso, document):
        def with_others(*certificates):
            others = b"".join(b"<Certificate>%s</Certificate>" % base64.b64encode(one)
                              for one in certificates)
            return document.replace(
                b"</GuardianInformation>",
                b"<OtherSigningCertificates>%s</OtherSigningCertificates></GuardianInformation>"
                % others)

        signing = contoso.signing_certificate
        for count in (0, 1, 64):
            assert parse(with_others(*[signing] * count)).thumbprint == contoso.thumbprint
        assert "more than 64 other signing certificates" in invalid(with_others(*[signing] * 65))
        assert "its other signing certificate 2 cannot be read" in invalid(
            with_others(signing, b"garbage"))


class TestCertificates:
    """Of keys that are too short, too long, of another kind; garbage; with names that deceive."""

    @staticmethod
    def _replaced(contoso, document, certificate):
        encoded = base64.b64encode(contoso.encryption_certificate)
        assert encoded in document
        return document.replace(encoded, base64.b64encode(certificate))

    @staticmethod
    def _certificate(contoso, key, name="odd", extension=None):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(
            subject, subject, key, 1, datetime.datetime(2020, 1, 1), datetime.datetime(2040, 1, 1))
        if extension:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), extension), False)
        return builder.sign(contoso.signing_key, hashes.SHA256()).public_bytes(
            serialization.Encoding.DER)

    @pytest.mark.parametrize(("bits", "exponent", "words"), [
        (512, 65537, "the RSA key of its encryption certificate has 512 bits, and needs 2048"),
        (16385, 65537, "certificate is too long"), (4096, (1 << 64) + 1, "is too long")])
    def test_rsa(self, contoso, document, bits, exponent, words):
        key = rsa.RSAPublicNumbers(exponent, (1 << bits) - 159).public_key()
        message = invalid(self._replaced(contoso, document, self._certificate(contoso, key)))
        assert words in message and "Name a guardian with another" in message

    def test_not_rsa(self, contoso, document):
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        assert "the key of its encryption certificate is not RSA" in invalid(
            self._replaced(contoso, document, self._certificate(contoso, key)))

    @pytest.mark.parametrize("make", [
        lambda der: b"\x30\x80" * 50_000, lambda der: der + b"\0", lambda der: der[:-1],
        lambda der: b"-----BEGIN CERTIFICATE-----", lambda der: der.replace(b"Con", b"\xff\xfeC")])
    def test_garbage(self, contoso, document, make):
        message = invalid(self._replaced(contoso, document, make(contoso.encryption_certificate)))
        assert "its encryption certificate cannot be read" in message

    def test_nested(self, contoso, document):
        key, inner = contoso.encryption_key.public_key(), None
        for _ in range(50):
            inner = self._certificate(contoso, key, extension=inner)
        assert parse(self._replaced(contoso, document, inner)).name == "odd"

    def test_a_name_that_forges_a_log(self, contoso, document):
        certificate = self._certificate(
            contoso, contoso.encryption_key.public_key(), "A\nERROR B \u202e" + "x" * 50)
        read = parse(self._replaced(contoso, document, certificate))
        assert read.name.startswith("A?ERROR B ?xx")
        assert all(line.isprintable() and len(line) < 160 for line in read.lines())


_BOMB = b'<!DOCTYPE Metadata [<!ENTITY b "aaaaaaaaaa">%s]><Metadata>&k;</Metadata>' % b"".join(
    b'<!ENTITY %c "%s">' % (name, b"&%c;" % (name - 1) * 10) for name in range(99, 108))

# What is made of a sound document, and what is said of it.
HOSTILE = {
    "empty": (lambda document: b"", "it is empty"),
    "cut": (lambda document: document[:-13], "ends too early"),
    "cut within a tag": (lambda document: document[:-100], "it is not XML"),
    "first part lost": (lambda document: document[2000:], "it is not XML"),
    "something behind it": (lambda document: document + b"x", "something follows after the end"),
    "something before it": (lambda document: b"\n" + document, "it is not XML"),
    "two of them": (lambda document: document + document, "it is not XML"),
    "another root": (lambda document: b"<Protector xmlns='%s'/>" % KPS.encode(),
                     "another kind of XML (Protector)"),
    "base64": (base64.b64encode, "it is not XML"),
    "entity bomb": (lambda document: _BOMB, "document type"),
    "entity bomb in utf-16": (lambda document: _BOMB.decode().encode("utf-16"), "document type"),
    "a file as an entity": (
        lambda document: b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        "document type"),
    "an unknown entity": (lambda document: document.replace(b"<Version>1", b"<Version>&e;"),
                          "not XML"),
    "a surrogate": (lambda document: document.replace(b"<Version>1", b"<Version>&#xD800;"),
                    "not XML"),
    "10 MB": (lambda document: document + b" " * 10_000_000, "1 MiB"),
    "10 MB of zeros": (lambda document: bytes(10_000_000), "1 MiB"),
    "pairs of attributes": (lambda document: b"<Metadata %s/>" % b" ".join(
        b'a%d=""' % number for number in range(100_000)), "more elements or attributes"),
    "many elements": (lambda document: document.replace(
        b"</Metadata>", b"<a/>" * 100_000 + b"</Metadata>"), "more elements or attributes"),
    "too deep": (lambda document: document.replace(
        b"</Metadata>", b"<a>" * 4000 + b"</a>" * 4000 + b"</Metadata>"), "not XML"),
    "a huge number": (lambda document: document.replace(
        b"<Version>1", b"<Version>" + b"9" * 900_000), "is not a number"),
    "a huge signature": (lambda document: document.replace(
        b"<SignatureValue>", b"<SignatureValue>" + b"AAAA" * 200_000, 1), "not the 256 of its"),
    "a huge certificate": (lambda document: document.replace(
        b"<SigningCertificate>", b"<SigningCertificate>MIID" + b"AAAA" * 200_000, 1),
        "its signing certificate cannot be read"),
    "a huge namespace": (lambda document: document.replace(
        KPS.encode(), KPS.encode() + b"x" * 900_000), "of an unknown version"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile(document, what):
    make, words = HOSTILE[what]
    assert words in invalid(make(document))


class TestLooksLike:
    """The cheap look."""

    @pytest.mark.parametrize("beginning", [
        b"<Metadata ", b"<Metadata>", b"<Metadata/>", b"\xef\xbb\xbf<Metadata\n", b"<k:Metadata ",
        b" \n<?xml version='1.0'?><!-- <x> -->\n<!-- a --><Metadata ",
        "<?xml version='1.0'?><Metadata ".encode("utf-16")])
    def test_metadata(self, beginning):
        assert guardian_metadata.is_metadata(beginning)

    @pytest.mark.parametrize("beginning", [
        b"", b"<", b"<Metadat>", b"<MetadataX ", b"x<Metadata>", b"<!-- <Metadata > -->",
        b"<!-- <Metadata ", b"<? <Metadata ", b"<x><Metadata>", b"\0\0\0\5<Metadata>",
        b"\xff\xfe", b"\xff\xfe<", b"<!DOCTYPE x><Metadata>"])
    def test_not(self, beginning):
        assert not guardian_metadata.is_metadata(beginning)

    @hypothesis.given(st.lists(st.sampled_from([
        b"<?", b"?>", b"<!--", b"-->", b" ", b"<", b"Metadata", b">", b"\xff\xfe", b"\0", b"x"])))
    def test_any_bytes(self, parts):
        assert guardian_metadata.is_metadata(b"".join(parts)) in (True, False)

    def test_what_is_cut(self, document):
        for whole in (document, document.rstrip(), document.decode().encode("utf-16"),
                      document.replace(b"</Metadata>", b"</Metadata  >\n")):
            assert not guardian_metadata.is_cut(whole)
        for end in (1, 2, 10, 12, 100, 2000):
            assert guardian_metadata.is_cut(document.rstrip()[:-end])

    @pytest.mark.parametrize("comments", [
        b"<!-- of Contoso -->", b"<!-- <a/> -->\n", b" <!-- a --> <!----> \n",
        b"<!--%s-->" % (b"x" * 5000), b"<!---->\n" * 5000], ids=len)
    def test_comments_at_the_end(self, contoso, document, comments):
        for whole in (document + comments, (document + comments).decode().encode("utf-16")):
            assert not guardian_metadata.is_cut(whole)
        assert parse(document + comments).thumbprint == contoso.thumbprint

    @pytest.mark.parametrize("end", [
        b"<!-- </Metadata> -->", b"-->", b"<!--", b"<!-- a --><!-- b"])
    def test_what_is_cut_at_a_comment(self, document, end):
        assert guardian_metadata.is_cut(document.rstrip()[:-2] + end)


@hypothesis.given(st.binary(max_size=200))
def test_any_bytes_get_our_error(data):
    invalid(data)


@hypothesis.given(data=st.data())
def test_a_sound_document_with_bytes_changed(document, data):
    """It is taken as it is, or refused in our words."""
    changed = bytearray(document)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(document) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = parse(bytes(changed))
    except errors.KeyProtectorError:
        return
    assert read.raw == bytes(changed)
    list(read.lines())
