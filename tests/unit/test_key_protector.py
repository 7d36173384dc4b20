"""Reading key protectors: what is one, whose it is, and what is none."""

import base64

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.hyperv import certificates, damaged_protectors, guardian
from tests.hyperv import key_protector as simulated
from vtpm_compute import errors, key_protector


@pytest.fixture(scope="module")
def owner():
    return guardian.Guardian.generate("Contoso")


@pytest.fixture(scope="module")
def fabric():
    return guardian.Guardian.generate("Fabric")


@pytest.fixture(scope="module")
def protector(owner, fabric):
    return simulated.make_protector(owner, [fabric])


def parse(*pieces):
    return key_protector.parse(pieces, "os_vtpm_keys")


def invalid(*pieces):
    with pytest.raises(errors.KeyProtectorError) as caught:
        parse(*pieces)
    assert "os_vtpm_keys" in str(caught.value)
    return str(caught.value)


def test_whole(protector, owner, fabric):
    read = parse(protector)
    assert read.raw == protector
    assert [(found.is_owner, found.thumbprint) for found in read.guardians] == [
        (True, owner.thumbprint), (False, fabric.thumbprint)]
    assert ["Contoso" in found.name for found in read.guardians] == [True, False]


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
    read.require_guardian(fabric.thumbprint, "os_vtpm_keys")
    read.require_guardian(owner.thumbprint, "os_vtpm_keys")
    with pytest.raises(errors.KeyProtectorError,
                       match="of os_vtpm_keys does not name this fabric's guardian"):
        read.require_guardian("00" * 32, "os_vtpm_keys")


def test_it_does_not_show_itself(protector):
    assert base64.b64encode(protector)[:40].decode() not in repr(parse(protector))
    assert repr(protector)[2:40] not in repr(parse(protector))


def test_missing_piece(protector):
    assert "a piece is missing" in invalid(protector[:-100])


def test_trailing_bytes(protector):
    assert "3 bytes follow" in invalid(protector, b"\n\n\n")


def test_pieces_in_the_wrong_order(protector):
    assert "not in order" in invalid(protector[2000:], protector[:2000])


@pytest.mark.parametrize(("data", "words"), [
    (b"x" * 10, "not XML"), (b"\0\0\0\4", "not XML"), (b"\0\0\0\5x", "not XML"),
    (b"", "not XML"), (b"\0", "a piece is missing"), (b"<a/>", "another kind"),
    (b"<Protector/>", "another kind"),
    (b'<Protector xmlns="http://schemas.microsoft.com/kps/2014/07"/>', "no guardians"),
    (b'<!DOCTYPE x [<!ENTITY e "f">]><x>&e;</x>', "document type"),
    (b"x" * (1024 * 1024 + 1), "1 MiB")])
def test_what_is_none(data, words):
    assert words in invalid(data)


def test_entities_are_not_expanded():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">%s]><x>&k;</x>' % b"".join(
        b'<!ENTITY %c "%s">' % (name, b"&%c;" % (name - 1) * 10) for name in range(98, 108))
    invalid(bomb)


def test_files_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("TOPSECRET")
    message = invalid(b'<!DOCTYPE x [<!ENTITY e SYSTEM "file://%s">]><x>&e;</x>'
                      % str(secret).encode())
    assert "TOPSECRET" not in message


def wrapping(body):
    return (b'<Protector xmlns="http://schemas.microsoft.com/kps/2014/07"><Wrappings><Wrapping>'
            b"%s</Wrapping></Wrappings></Protector>" % body)


@pytest.mark.parametrize("body", [
    b"", b"<Id>1</Id>", b"<Id>1</Id><EncryptionCertificate>AA==</EncryptionCertificate>",
    b'<Id>1</Id><SigningCertificateSignature ParentWrappingId="1"/>'])
def test_a_wrapping_without_its_parts(body):
    assert "lacks a part" in invalid(wrapping(body))


@pytest.mark.parametrize("certificate", [b"AA==", b"?", b"A", b"\xc3\xa9"])
def test_a_certificate_that_is_none(certificate):
    assert "certificate of wrapping 1" in invalid(wrapping(
        b'<Id>1</Id><SigningCertificateSignature ParentWrappingId="1"/>'
        b"<EncryptionCertificate>%s</EncryptionCertificate>" % certificate))


def test_names_that_forge_a_log(fabric):
    evil = guardian.Guardian.generate("A\nERROR B")
    read = parse(simulated.make_protector(evil, [fabric]))
    assert all(one.name.isprintable() and len(one.name) <= 83 for one in read.guardians)


def test_a_name_that_does_not_decode(protector, owner):
    damaged = owner.encryption_certificate.replace(b"Contoso", b"Conto\xff\xfe")
    document = protector[4:].replace(base64.b64encode(owner.encryption_certificate),
                                     base64.b64encode(damaged))
    assert document != protector[4:]
    assert "certificate of wrapping 1" in invalid(document)


@pytest.mark.parametrize(("raw", "unset"), [
    ((0, 0, 0, 4), True), ((), True), (b"\0\0\0\4", True), ((0, 0, 0, 5, 1), False)])
def test_unset(raw, unset):
    assert key_protector.is_unset(raw) is unset


@hypothesis.given(st.binary(max_size=200))
def test_any_bytes_get_our_error(data):
    with pytest.raises(errors.KeyProtectorError):
        parse(data)


@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None)
@hypothesis.given(st.data())
def test_damaged_protectors_get_our_error_or_an_answer(protector, data):
    position = data.draw(st.integers(0, len(protector) - 1))
    length = data.draw(st.integers(0, 50))
    damaged = (protector[:position] + data.draw(st.binary(max_size=50))
               + protector[position + length:])
    try:
        parse(damaged)
    except errors.KeyProtectorError:
        pass


@pytest.fixture(scope="module")
def damaged(owner, fabric):
    return damaged_protectors.damaged(owner, fabric)


def test_a_damaged_one_is_read_or_refused_and_nothing_else(damaged):
    """Signatures are Windows' business; what is not whole or not XML of that kind is ours."""
    refused = set()
    for what, raw in damaged.items():
        try:
            assert parse(raw).raw == raw, what
        except errors.KeyProtectorError:
            refused.add(what)
    assert refused == {
        "empty", "its length alone", "cut at the end", "cut in the middle", "a byte too many",
        "length of another", "first part lost", "parts swapped", "no wrappings", "an entity",
        "a document type", "another namespace", "another root element", "no XML"}


def test_algorithms_are_not_looked_at(damaged, owner, fabric):
    """No public document says which ones Windows names."""
    unknown = [raw for what, raw in damaged.items() if what.startswith("unknown")]
    assert len(unknown) == 4
    for raw in unknown:
        parse(raw).require_guardian(fabric.thumbprint, "os_vtpm_keys")


def test_six_guardians_of_4096_bits():
    first = guardian.Guardian.generate("first", key_bits=4096)
    others = [guardian.Guardian.of_certificates(name, *(
        (certificates.make_certificate(name, key, usage), key) for usage, key in (
            (certificates.SIGNING, first.signing_key),
            (certificates.ENCRYPTION, first.encryption_key)))) for name in "bcdef"]
    read = parse(simulated.make_protector(first, others))
    assert [found.thumbprint for found in read.guardians] == [
        one.thumbprint for one in (first, *others)]
