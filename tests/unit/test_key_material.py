"""What the secrets of a server hold, and which mixtures of them are refused."""

import base64

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.hyperv import certificates, guardian
from tests.hyperv import key_protector as simulated
from vtpm_compute import errors, key_material, key_protector, owner_pfx

SOURCE = "os_vtpm_keys"


@pytest.fixture(scope="module")
def contoso():
    return guardian.Guardian.generate("Contoso")


@pytest.fixture(scope="module")
def elsewhere():
    return guardian.Guardian.generate("Elsewhere")


@pytest.fixture(scope="module")
def protector(contoso, elsewhere):
    return simulated.make_protector(contoso, [elsewhere])


@pytest.fixture(scope="module")
def metadata(elsewhere):
    return elsewhere.metadata()


@pytest.fixture(scope="module")
def signing(contoso):
    return certificates.make_pfx(contoso.signing_certificate, contoso.signing_key, "")


@pytest.fixture(scope="module")
def encryption(contoso):
    return certificates.make_pfx(contoso.encryption_certificate, contoso.encryption_key, "")


def read(*secrets, allow_owner_keys=True, shielded=False):
    return key_material.read(secrets, SOURCE, allow_owner_keys, shielded)


def invalid(*secrets, **how):
    with pytest.raises(errors.KeyProtectorError) as caught:
        read(*secrets, **how)
    message = str(caught.value)
    frame = caught.value.__traceback__
    while frame is not None:
        assert not any(isinstance(value, (owner_pfx.Owner, owner_pfx.OwnerCertificate))
                       for value in frame.tb_frame.f_locals.values())
        frame = frame.tb_next
    assert SOURCE in message and message.isprintable()
    return message


def refused(*secrets, **how):
    """The message of a mixture that is refused: short enough for a fault."""
    message = invalid(*secrets, **how)
    assert len(message) <= errors.MOST_CHARACTERS
    return message


class TestProtector:
    """As before, with and without the permission, shielded or not."""

    @pytest.mark.parametrize("allow_owner_keys", [True, False])
    @pytest.mark.parametrize("shielded", [True, False])
    def test_whole_and_in_pieces(self, protector, allow_owner_keys, shielded):
        how = {"allow_owner_keys": allow_owner_keys, "shielded": shielded}
        for secrets in ([protector], [protector[4:]], [protector[:3000], protector[3000:]],
                        [protector[:9], protector[9:5000], protector[5000:]]):
            found = read(*secrets, **how)
            assert isinstance(found, key_protector.KeyProtector) and found.raw == protector

    @pytest.mark.parametrize(("secrets", "words"), [
        ([b""], "it is empty"), ([b"", b""], "two of its 2 pieces are the same"),
        ([b"x"], "it is not XML"), ([b"<a/>"], "another kind of XML"),
        ([b"-----BEGIN PKCS12-----\nMII"], "it is not XML"),
        ([b'<!DOCTYPE x [<!ENTITY e "f">]><Metadata>&e;</Metadata>'], "document type"),
        ([bytes(10_000_000)], "larger than 1 MiB")])
    def test_what_is_none(self, secrets, words):
        message = invalid(*secrets)
        assert message.startswith("What os_vtpm_keys holds is not a key protector: ")
        assert words in message

    def test_text_in_base64(self, protector, metadata, signing):
        assert "text in base64" in invalid(base64.b64encode(protector))
        assert "text in base64" in invalid(base64.b64encode(metadata))
        assert "it is not XML" in invalid(base64.b64encode(signing))

    def test_pieces_out_of_order(self, protector):
        assert "its pieces are not in order" in invalid(protector[3000:], protector[:3000])


class TestIngredients:
    """What a protector is to be made of."""

    def test_guardians(self, contoso, elsewhere, metadata):
        for allow_owner_keys in (True, False):
            found = read(metadata, contoso.metadata(), allow_owner_keys=allow_owner_keys)
            assert found.owner is None
            assert [one.thumbprint for one in found.guardians] == [
                elsewhere.thumbprint, contoso.thumbprint]
            assert [one.raw for one in found.guardians] == [metadata, contoso.metadata()]

    def test_with_a_comment_at_its_end(self, contoso, elsewhere, metadata):
        found = read(metadata + b"\n<!-- of the second site -->\n", contoso.metadata())
        assert [one.thumbprint for one in found.guardians] == [
            elsewhere.thumbprint, contoso.thumbprint]

    def test_in_utf_16(self, elsewhere, metadata):
        (found,) = read(metadata.decode().split("?>", 1)[1].encode("utf-16")).guardians
        assert found.thumbprint == elsewhere.thumbprint

    def test_owner(self, contoso, signing, encryption):
        found = read(signing, encryption)
        assert found.guardians == ()
        assert found.owner.signing.der == contoso.signing_certificate
        assert found.owner.encryption.der == contoso.encryption_certificate

    def test_owner_and_guardians_in_any_order(self, contoso, elsewhere, metadata, signing,
                                              encryption):
        for secrets in ([metadata, signing, encryption], [encryption, metadata, signing]):
            found = read(*secrets)
            assert found.owner.encryption.thumbprint == contoso.thumbprint
            assert [one.thumbprint for one in found.guardians] == [elsewhere.thumbprint]

    def test_nothing_secret_is_shown(self, contoso, metadata, signing, encryption):
        shown = repr(read(metadata, signing, encryption))
        assert "PrivateKey" not in shown and str(
            contoso.signing_key.private_numbers().p) not in shown
        assert base64.b64encode(contoso.signing_certificate)[:40].decode() not in shown


class TestRefusals:
    """Each has its own message, which says what to do."""

    def test_private_keys_where_they_are_not_taken(self, metadata, signing, encryption):
        for position, secrets in ((1, [signing, encryption]), (2, [metadata, encryption])):
            message = refused(*secrets, allow_owner_keys=False)
            assert message == (
                "Secret %d of os_vtpm_keys is a PFX file: this cloud takes no private keys. Make "
                "the key protector yourself (New-HgsKeyProtector), and store its RawData."
                % position)

    def test_a_pfx_that_is_not_opened_where_it_is_not_taken(self, signing):
        assert "takes no private keys" in refused(signing[:50], allow_owner_keys=False)

    @pytest.mark.parametrize("allow_owner_keys", [True, False])
    def test_shielded(self, metadata, signing, encryption, allow_owner_keys):
        for secrets, what in (([metadata], "guardian metadata"), ([signing, encryption], "a PFX f"),
                              ([b"x", metadata], "guardian metadata")):
            message = refused(*secrets, shielded=True, allow_owner_keys=allow_owner_keys)
            assert "A shielded server needs a key protector that its owner made" in message
            assert "is %s" % what in message

    def test_a_protector_beside_others(self, protector, metadata, signing):
        for secrets, words in (
                ([protector, metadata], "Secret 1 of os_vtpm_keys is (part of) a key protector, "
                                        "and secret 2 is guardian metadata"),
                ([metadata, protector[:3000], protector[3000:]], "and secret 1 is guardian meta"),
                ([protector[3000:], signing], "and secret 2 is a PFX file"),
                ([signing, protector[4:]], "Secret 2 of os_vtpm_keys is (part of)")):
            message = refused(*secrets)
            assert words in message and "they exclude each other" in message

    def test_metadata_that_was_cut(self, metadata):
        for secrets, position in (([metadata[:2500], metadata[2500:]], 1),
                                  ([metadata[2500:], metadata[:2500]], 2),
                                  ([metadata[:2500]], 1), ([metadata[:-1]], 1),
                                  ([metadata[:99], metadata[99:2000], metadata[2000:]], 1)):
            assert refused(*secrets) == (
                "Secret %d of os_vtpm_keys is guardian metadata that was cut. Store each document "
                "whole in one secret." % position)

    def test_a_pfx_that_was_cut(self, signing):
        assert "What secret 2 of os_vtpm_keys holds is neither guardian metadata, nor an owner's " \
            "PFX file, nor whole." in refused(signing[:900], signing[900:])
        assert "it is not whole" in refused(signing[:900])

    def test_something_unknown_beside_metadata(self, metadata):
        for other in (b"x", b"", base64.b64encode(metadata), b"<a/>"):
            message = refused(metadata, other, allow_owner_keys=False)
            assert message.startswith("What secret 2 of os_vtpm_keys holds is neither guardian "
                                      "metadata, nor whole.")

    def test_a_guardian_twice(self, contoso, elsewhere, metadata):
        marked = b"\xef\xbb\xbf" + metadata
        for second in (metadata, marked, elsewhere.metadata()):
            assert "Secrets 1 and 3 of os_vtpm_keys are metadata of the same guardian" in refused(
                metadata, contoso.metadata(), second)

    @pytest.mark.parametrize(("made", "words"), [
        (0, "expired on 1980-01-0"), (4_000_000_000, "is not valid before 2096-10-0")])
    def test_a_guardian_of_another_time(self, metadata, made, words):
        """Windows is never told that expired ones are allowed."""
        other = guardian.Guardian.generate("of another time", now=lambda: made)
        message = refused(metadata, other.metadata())
        assert message.startswith("The guardian of secret 2 of os_vtpm_keys cannot be granted: "
                                  "its signing certificate " + words)
        assert message.endswith("Store metadata with certificates that are valid now, or leave it "
                                "out.")

    def test_a_guardian_with_one_certificate_of_another_time(self, metadata, elsewhere):
        old = guardian.Guardian.generate("old", now=lambda: 0)
        halfway = guardian.Guardian.of_certificates(
            "halfway", (elsewhere.signing_certificate, elsewhere.signing_key),
            (old.encryption_certificate, old.encryption_key))
        assert "its encryption certificate expired on " in refused(halfway.metadata(), metadata)

    def test_the_owner_as_a_guardian(self, contoso, metadata, signing, encryption):
        assert "Secret 2 of os_vtpm_keys is metadata of the owner" in refused(
            metadata, contoso.metadata(), signing, encryption)

    def test_more_than_one_owner(self, metadata, elsewhere, signing, encryption):
        other = certificates.make_pfx(elsewhere.signing_certificate, elsewhere.signing_key, "")
        assert "Secrets 1, 3, 4 of os_vtpm_keys are PFX files of more than one owner" in refused(
            signing, metadata, encryption, other)
        assert "may encrypt (KeyUsage)" in refused(signing, other)

    def test_one_certificate_of_the_owner(self, metadata, signing):
        for secrets in ([signing], [signing, signing], [metadata, signing]):
            assert "An owner needs two certificates" in refused(*secrets)

    def test_which_secret_is_wrong(self, contoso, metadata):
        wrong = contoso.metadata().replace(b"<Version>1", b"<Version>x")
        assert invalid(metadata, wrong).startswith(
            "What secret 2 of os_vtpm_keys holds is not guardian metadata: the Version of ")

    def test_a_password(self, contoso, signing):
        locked = certificates.make_pfx(
            contoso.encryption_certificate, contoso.encryption_key, "secret")
        assert "PFX file 2 of os_vtpm_keys cannot be used: it has a password" in refused(
            signing, locked)


def _pieces(data, count):
    size = -(-len(data) // count)
    return [data[start:start + size] for start in range(0, len(data), size)]


@pytest.fixture(scope="module")
def cupboard(contoso, elsewhere, protector, metadata, signing, encryption):
    """What may come in a secret, and its kind."""
    return [
        *(("protector", piece) for count in (1, 2, 3) for piece in _pieces(protector, count)),
        ("metadata", metadata), ("metadata", contoso.metadata()),
        ("metadata", guardian.Guardian.generate("third").metadata()),
        ("signing", signing), ("encryption", encryption),
        *(("part", piece) for piece in _pieces(metadata, 2) + _pieces(signing, 2)),
        ("part", metadata.replace(b"Version", b"version", 1)),
        ("part", b""), ("part", b"x"), ("part", base64.b64encode(protector))]


@hypothesis.settings(max_examples=300)
@hypothesis.given(data=st.data(), allow_owner_keys=st.booleans(), shielded=st.booleans())
def test_any_mixture(cupboard, protector, contoso, data, allow_owner_keys, shielded):
    """What is taken is one protector, or whole documents of different people; never another."""
    drawn = data.draw(st.lists(st.sampled_from(range(len(cupboard))), min_size=1, max_size=6))
    kinds, secrets = zip(*(cupboard[number] for number in drawn))
    try:
        found = key_material.read(secrets, SOURCE, allow_owner_keys, shielded)
    except errors.KeyProtectorError as fault:
        assert SOURCE in str(fault) and str(fault).isprintable()
        return
    if isinstance(found, key_protector.KeyProtector):
        assert b"".join(secrets) == found.raw == protector
        return
    assert not shielded and set(kinds) <= {"metadata", "signing", "encryption"}
    assert len(set(secrets)) == len(secrets)
    assert len(found.guardians) == kinds.count("metadata")
    assert (found.owner is not None) == ("signing" in kinds) == ("encryption" in kinds)
    if found.owner is not None:
        assert allow_owner_keys
        assert contoso.thumbprint not in [one.thumbprint for one in found.guardians]


@hypothesis.settings(max_examples=25)
@hypothesis.given(st.permutations(range(4)), st.sets(st.integers(0, 3), min_size=1))
def test_every_sound_mixture_is_taken(cupboard, order, chosen):
    """Metadata, and both files of an owner or none, in any order."""
    sound = [secret for kind, secret in cupboard if kind in ("metadata", "signing", "encryption")]
    _, owners, *_ = sound
    sound = [secret for secret in sound if secret is not owners]
    secrets = [sound[number] for number in order if number in chosen or (
        number >= 2 and chosen & {2, 3})]
    found = key_material.read(secrets, SOURCE, True, False)
    assert len(found.guardians) == len(chosen & {0, 1})
    assert (found.owner is not None) == bool(chosen & {2, 3})


@hypothesis.given(st.lists(st.binary(max_size=60), min_size=1, max_size=6),
                  st.booleans(), st.booleans())
def test_any_bytes_get_our_error(secrets, allow_owner_keys, shielded):
    with pytest.raises(errors.KeyProtectorError):
        key_material.read(secrets, SOURCE, allow_owner_keys, shielded)


def test_wrong_signatures_may_be_warnings(contoso, elsewhere, protector, metadata):
    """Of either kind: for a Windows that signs in a form that is not known here."""
    def forged(document, before):
        parts = document.partition(before)
        start = parts[2].index(b"<SignatureValue>") + len(b"<SignatureValue>")
        other = base64.b64encode(guardian.sign(contoso.encryption_key, b"something else"))
        return parts[0] + parts[1] + parts[2][:start] + other + parts[2][start + len(other):]

    for good, before in ((metadata, b"<EncryptionCertificateSignature"),
                         (protector, b"<GuardianSignature")):
        bad = forged(good, before)
        assert "was not made with its key" in invalid(bad)
        found = key_material.read([bad], SOURCE, False, False, refuse_wrong_signatures=False)
        warnings = (found.guardians[0] if isinstance(found, key_material.Ingredients)
                    else found).warnings
        assert len(warnings) == 1 and warnings[0].endswith("WRONG (was not made with its key)")
