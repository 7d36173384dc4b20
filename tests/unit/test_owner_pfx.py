"""Reading an owner's PFX files: whose they are, which one signs, and what is refused unopened."""

import base64
import datetime
import re

import hypothesis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import strategies as st

from tests.hyperv import certificates, guardian, odd_pfx, rsa_keys
from vtpm_compute import errors, owner_pfx

SOURCE = "os_vtpm_keys"
PASSWORD = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def contoso():
    return guardian.Guardian.generate("Contoso")


@pytest.fixture(scope="module")
def key():
    return rsa_keys.new_key()


@pytest.fixture(scope="module")
def certificate(key):
    """Without KeyUsage: for both."""
    return make_certificate(key)


@pytest.fixture(scope="module")
def signing(contoso):
    return certificates.make_pfx(contoso.signing_certificate, contoso.signing_key, "")


@pytest.fixture(scope="module")
def encryption(contoso):
    return certificates.make_pfx(contoso.encryption_certificate, contoso.encryption_key, "")


def make_certificate(key, name="both", public_key=None, signs=None, **usages):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        subject, subject, public_key or key.public_key(), 1, datetime.datetime(2020, 1, 1),
        datetime.datetime(2040, 1, 1))
    if usages:
        builder = builder.add_extension(x509.KeyUsage(**dict(dict.fromkeys((
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
            "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False),
            **usages)), critical=True)
    return builder.sign(signs or key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def read(*files, now=None):
    return owner_pfx.read(files, SOURCE, now)


def invalid(*files, now=None):
    with pytest.raises(errors.KeyProtectorError) as caught:
        read(*files, now=now)
    message = str(caught.value)
    assert SOURCE in message and message.isprintable() and len(message) <= errors.MOST_CHARACTERS
    check_chain(caught.value)
    return message


def check_chain(fault):
    """Nothing else hangs on it: no exception of a library, no frame in which a file was opened."""
    assert fault.__cause__ is None and fault.__context__ is None
    frame = fault.__traceback__
    while frame is not None:
        assert not any(isinstance(value, (pkcs12.PKCS12KeyAndCertificates, rsa.RSAPrivateKey,
                                          owner_pfx.OwnerCertificate))
                       for value in frame.tb_frame.f_locals.values()
                       if frame.tb_frame.f_code.co_filename == owner_pfx.__file__)
        frame = frame.tb_next


class TestOwner:
    """Whose they are."""

    @pytest.mark.parametrize("order", [1, -1])
    def test_key_usage_tells_which_is_which(self, contoso, signing, encryption, order):
        owner = read(*(signing, encryption)[::order])
        assert owner.signing.der == contoso.signing_certificate
        assert owner.encryption.der == contoso.encryption_certificate
        assert (owner.signing.may_sign, owner.signing.may_encrypt) == (True, False)
        assert (owner.encryption.may_sign, owner.encryption.may_encrypt) == (False, True)
        assert owner.encryption.thumbprint == contoso.thumbprint
        assert owner.signing.name == "Shielded VM Signing Certificate (Contoso)"
        assert str(owner) == "Shielded VM Encryption Certificate (Contoso) (%s...)" % (
            contoso.thumbprint[:16])

    def test_one_for_both(self, key, certificate):
        """Its private key would be brought to Windows twice, and found there once."""
        file = certificates.make_pfx(certificate, key, "")
        again = good(key, certificate)
        assert file != again
        for files in ([file], [file, file], [file, again]):
            assert invalid(*files) == (
                "An owner needs two certificates, to sign and to encrypt, and os_vtpm_keys has "
                "one. Store two (New-HgsGuardian -GenerateCertificates makes them), or a finished "
                "key protector.")

    def test_two_for_both_are_in_order(self, key, certificate, contoso):
        other = make_certificate(contoso.signing_key, "other")
        files = [certificates.make_pfx(certificate, key, ""),
                 certificates.make_pfx(other, contoso.signing_key, "")]
        owner = read(*files)
        assert (owner.signing.name, owner.encryption.name) == ("both", "other")
        owner = read(*reversed(files))
        assert (owner.signing.name, owner.encryption.name) == ("other", "both")

    @pytest.mark.parametrize("usages", [{"key_encipherment": True}, {"data_encipherment": True}])
    def test_one_for_both_beside_one_that_encrypts(self, key, certificate, contoso, usages):
        other = make_certificate(contoso.signing_key, "other", **usages)
        files = [certificates.make_pfx(certificate, key, ""),
                 certificates.make_pfx(other, contoso.signing_key, "")]
        for given in (files, files[::-1]):
            assert read(*given).signing.name == "both"
            assert read(*given).encryption.name == "other"

    def test_it_does_not_show_itself(self, contoso, signing, encryption):
        owner = read(signing, encryption)
        assert "PrivateKey" not in repr(owner) and "der" not in repr(owner)
        assert str(contoso.signing_key.private_numbers().p) not in repr(owner)

    @pytest.mark.parametrize("which", ["signing", "encryption"])
    def test_one_is_not_enough(self, request, which):
        assert "An owner needs two certificates" in invalid(request.getfixturevalue(which))

    def test_two_of_a_kind(self, key, contoso, signing):
        other = certificates.make_certificate("other", key, certificates.SIGNING)
        message = invalid(signing, certificates.make_pfx(other, key, ""))
        assert "No certificate in the PFX files of os_vtpm_keys may encrypt" in message

    def test_for_neither(self, key, encryption):
        other = certificates.make_certificate("other", key, certificates.AUTHORITY)
        assert "may sign" in invalid(encryption, certificates.make_pfx(other, key, ""))

    def test_how_many(self, signing, encryption):
        assert "has 3 PFX files: an owner has two" in invalid(
            signing, encryption, signing)
        assert "has 0 PFX files" in invalid()

    def test_the_file_is_named(self, signing, encryption):
        assert invalid(signing, encryption[:-1]).startswith(
            "PFX file 2 of os_vtpm_keys cannot be used: it is not whole. ")
        assert invalid(signing[:-1], encryption).startswith("PFX file 1 of os_vtpm_keys")
        assert invalid(signing[:-1]).startswith("The PFX file of os_vtpm_keys")

    @pytest.mark.parametrize(("years", "words"), [
        (11, "its certificate expired on 20"), (-1, "its certificate is not valid before 20")])
    def test_certificates_of_another_time(self, signing, encryption, years, words):
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(366 * years)
        assert words in invalid(signing, encryption, now=now)

    def test_further_certificates_are_left_out(self, key, certificate, contoso, encryption):
        owner = read(certificates.make_pfx(
            certificate, key, "", [contoso.signing_certificate, contoso.encryption_certificate]),
            encryption)
        assert owner.signing.der == certificate
        for file in owner.pfx_files(PASSWORD):
            assert pkcs12.load_pkcs12(file, PASSWORD.encode()).additional_certs == []


class TestFilesForWindows:
    """What is handed on."""

    def test_what_is_in_them(self, contoso, signing, encryption):
        files = read(signing, encryption).pfx_files(PASSWORD)
        for file, key, certificate in zip(
                files, (contoso.signing_key, contoso.encryption_key),
                (contoso.signing_certificate, contoso.encryption_certificate)):
            opened = pkcs12.load_pkcs12(file, PASSWORD.encode())
            assert opened.key.private_numbers() == key.private_numbers()
            assert opened.cert.certificate.public_bytes(serialization.Encoding.DER) == certificate
            with pytest.raises(ValueError, match="password"):
                pkcs12.load_pkcs12(file, b"")

    def test_their_form(self, signing, encryption):
        """Windows Server 2016 knows PKCS #12's triple DES and SHA-1, and no PBES2."""
        for file in read(signing, encryption).pfx_files(PASSWORD):
            assert file.count(bytes.fromhex(odd_pfx.PBE_TRIPLE_DES)) == 2
            assert bytes.fromhex(odd_pfx.PBES2) not in file
            # The checksum's algorithm stands near the end.
            assert file.rindex(bytes.fromhex(odd_pfx.SHA1)) > len(file) - 60


def good(key, certificate, **more):
    return odd_pfx.pfx(odd_pfx.contents(
        odd_pfx.key_bag(key), odd_pfx.certificate_bag(certificate)), **more)


class TestContents:
    """One certificate with its private key, RSA, without a password."""

    @pytest.mark.parametrize("password", [odd_pfx.NULL_PASSWORD, odd_pfx.EMPTY_PASSWORD])
    def test_no_password_and_an_empty_one(self, key, certificate, encryption, password):
        bags = odd_pfx.contents(odd_pfx.key_bag(key), odd_pfx.certificate_bag(certificate))
        mac = odd_pfx.mac_data(odd_pfx.sequence(bags), password, 7)
        assert read(odd_pfx.pfx(bags, mac=mac), encryption).signing.der == certificate

    def test_a_password(self, contoso):
        message = invalid(certificates.make_pfx(
            contoso.signing_certificate, contoso.signing_key, "secret"))
        assert message == (
            "The PFX file of os_vtpm_keys cannot be used: it has a password, or is damaged. Store "
            "it without a password: the key manager protects it.")

    def test_a_wrong_checksum(self, key, certificate):
        file = good(key, certificate)
        place = file.index(certificate) + 20
        assert "or is damaged" in invalid(file[:place] + bytes([file[place] ^ 1])
                                          + file[place + 1:])

    def test_no_checksum(self, key, certificate):
        assert "it has no checksum" in invalid(good(key, certificate, mac=b""))

    def test_several_keys(self, key, certificate, contoso):
        first, second = (odd_pfx.key_bag(one) for one in (key, contoso.signing_key))
        bag = odd_pfx.certificate_bag(certificate)
        for file in (odd_pfx.pfx(odd_pfx.contents(first, second, bag)),
                     odd_pfx.pfx(odd_pfx.contents(first, bag), odd_pfx.contents(second)),
                     odd_pfx.pfx(odd_pfx.contents(first, bag), odd_pfx.contents(
                         odd_pfx.shrouded_key_bag(odd_pfx.pbe(1))))):
            assert "it holds 2 private keys, and needs one" in invalid(file)

    def test_no_key(self, certificate):
        assert "it holds no private key, and needs one" in invalid(
            odd_pfx.pfx(odd_pfx.contents(odd_pfx.certificate_bag(certificate))))
        assert "it holds no private key, and needs one" in invalid(odd_pfx.pfx())

    def test_no_certificate(self, key):
        assert "it holds no certificate" in invalid(odd_pfx.pfx(odd_pfx.contents(
            odd_pfx.key_bag(key))))

    def test_the_certificate_of_another_key(self, key, contoso):
        bag = odd_pfx.certificate_bag(contoso.signing_certificate)
        assert "none of its certificates is its private key's" in invalid(
            odd_pfx.pfx(odd_pfx.contents(odd_pfx.key_bag(key), bag)))
        # With identifiers that say it is.
        which = odd_pfx.attributes(b"1")
        assert "none of its certificates is its private key's" in invalid(odd_pfx.pfx(
            odd_pfx.contents(odd_pfx.key_bag(key, which), odd_pfx.certificate_bag(
                contoso.signing_certificate, which))))

    def test_rsa_of_512_bits(self, contoso):
        key = rsa.generate_private_key(65537, 512)
        assert "the RSA key of its certificate has 512 bits, and needs 2048" in invalid(
            good(key, make_certificate(key)))

    def test_rsa_of_4096_bits(self, encryption):
        key = rsa.generate_private_key(65537, 4096)
        file = certificates.make_pfx(make_certificate(key), key, "")
        assert read(file, encryption).signing.private_key.key_size == 4096

    def test_not_rsa(self):
        key = ec.generate_private_key(ec.SECP256R1())
        assert "the key of its certificate is not RSA" in invalid(
            good(key, make_certificate(key)))

    def test_a_certificate_that_is_none(self, key):
        assert "or is damaged" in invalid(good(key, b"\x30\x03\x02\x01\x01"))

    def test_key_usage_that_is_none(self, key):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odd")])
        certificate = x509.CertificateBuilder(
            subject, subject, key.public_key(), 1, datetime.datetime(2020, 1, 1),
            datetime.datetime(2040, 1, 1)).add_extension(x509.UnrecognizedExtension(
                x509.ObjectIdentifier("2.5.29.15"), b"garbage"), True).sign(key, hashes.SHA256())
        assert "the extensions of its certificate cannot be read" in invalid(
            good(key, certificate.public_bytes(serialization.Encoding.DER)))

    @pytest.mark.parametrize("make", [
        base64.b64encode, lambda file: b"-----BEGIN PKCS12-----\n" + base64.encodebytes(file),
        lambda file: b"", lambda file: b"\x30", lambda file: b"\x30\x82", lambda file: file + b"\0",
        lambda file: file * 2, lambda file: file[:40], lambda file: file[1:]])
    def test_other_bytes(self, signing, make):
        assert "The PFX file of os_vtpm_keys cannot be used: it " in invalid(make(signing))

    def test_size(self, key, certificate):
        assert "larger than 64 KiB" in invalid(good(key, certificate) + bytes(64 * 1024))
        assert "larger than 64 KiB" in invalid(bytes(10_000_000))


PARTS = {"key": odd_pfx.shrouded_key_bag, "certificates": odd_pfx.encrypted_contents}


class TestCost:
    """What is refused before the library sees it: a test of these that opens them takes hours."""

    class Opened(Exception):
        """The library was asked to open a file."""

    @pytest.fixture(autouse=True)
    def _nothing_is_opened(self, monkeypatch):
        def load_pkcs12(data, password):
            raise self.Opened

        monkeypatch.setattr(pkcs12, "load_pkcs12", load_pkcs12)

    @staticmethod
    def _with(key, certificate, algorithm, part):
        if part == "key":
            return odd_pfx.pfx(odd_pfx.contents(odd_pfx.shrouded_key_bag(algorithm)))
        return odd_pfx.pfx(
            odd_pfx.encrypted_contents(algorithm), odd_pfx.contents(odd_pfx.key_bag(key)))

    @pytest.mark.parametrize("part", ["key", "certificates"])
    @pytest.mark.parametrize("algorithm", [odd_pfx.pbe, odd_pfx.pbes2])
    @pytest.mark.parametrize("iterations", [1_000_001, (1 << 31) - 1, 1 << 62, 1 << 4000])
    def test_of_one_part(self, key, certificate, part, algorithm, iterations):
        file = self._with(key, certificate, algorithm(iterations), part)
        assert "it asks for more than 1000000 repetitions" in invalid(file)

    @pytest.mark.parametrize("iterations", [1_000_001, (1 << 31) - 1, 1 << 62])
    def test_of_the_checksum(self, key, certificate, iterations):
        file = good(key, certificate, mac=odd_pfx.mac_data(b"", iterations=iterations))
        assert "it asks for more than 1000000 repetitions" in invalid(file)

    def test_of_all_together(self, key):
        bags = [odd_pfx.encrypted_contents(odd_pfx.pbes2(300_000)),
                odd_pfx.encrypted_contents(odd_pfx.pbe(300_000)),
                odd_pfx.contents(odd_pfx.shrouded_key_bag(odd_pfx.pbe(300_000)))]
        file = odd_pfx.pfx(*bags, mac=odd_pfx.mac_data(b"", iterations=100_001))
        assert "it asks for more than 1000000 repetitions" in invalid(file)
        file = odd_pfx.pfx(*bags, mac=odd_pfx.mac_data(b"", iterations=100_000))
        with pytest.raises(self.Opened):
            read(file)

    @pytest.mark.parametrize("part", ["key", "certificates"])
    @pytest.mark.parametrize("algorithm", [
        odd_pfx.pbes2(1, odd_pfx.SCRYPT), odd_pfx.pbe(1, odd_pfx.SCRYPT),
        odd_pfx.pbe(1, odd_pfx.PBKDF2)])
    def test_of_a_kind_that_is_not_known(self, key, certificate, part, algorithm):
        assert "encrypted in a way that is not read here" in invalid(
            self._with(key, certificate, algorithm, part))

    @pytest.mark.parametrize("part", ["key", "certificates"])
    def test_that_is_negative(self, key, certificate, part):
        assert "it is damaged, or not in the form" in invalid(
            self._with(key, certificate, odd_pfx.pbe(-1), part))

    def test_of_a_checksum_that_is_not_known(self, key, certificate):
        for digest in (odd_pfx.PBMAC1, odd_pfx.MD5):
            assert "checksum (MAC) is of a kind that is not read here" in invalid(good(
                key, certificate, mac=odd_pfx.mac_data(b"", digest=digest)))

    def test_of_a_long_key(self):
        for make in (lambda: odd_pfx.shrouded_key_bag(odd_pfx.pbe(1), bytes(2561)),
                     lambda: odd_pfx.bag(odd_pfx.KEY_BAG, odd_pfx.sequence(bytes(2561)))):
            assert "longer than RSA of 4096 bits" in invalid(
                odd_pfx.pfx(odd_pfx.contents(make())))

    def test_of_what_is_hidden(self, key):
        file = odd_pfx.pfx(odd_pfx.encrypted_contents(odd_pfx.pbe(1), bytes(8192)),
                           odd_pfx.encrypted_contents(odd_pfx.pbe(1), bytes(8193)),
                           odd_pfx.contents(odd_pfx.key_bag(key)))
        assert "it holds too many certificates" in invalid(file)

    def test_what_is_not_in_der(self, key, certificate):
        file = good(key, certificate)
        endless = b"\x30\x80" + file[4:] + b"\0\0"
        long_form = b"\x30\x83\0" + file[2:]
        assert owner_pfx.is_pfx(endless) and owner_pfx.is_pfx(long_form)
        long_number = odd_pfx.sequence(b"\2\x81\1\3", file[file.index(b"\2\1\3") + 3:])
        for changed in (endless, long_form, long_number):
            assert "not in the form that Windows and OpenSSL write" in invalid(changed)

    @pytest.mark.parametrize(("make", "words"), [
        (lambda bags: odd_pfx.pfx(bags, kind=odd_pfx.SIGNED_DATA), "it is signed with a certif"),
        (lambda bags: odd_pfx.pfx(bags, odd_pfx.sequence(
            odd_pfx.object_(odd_pfx.ENVELOPED_DATA), odd_pfx.explicit(odd_pfx.sequence()))),
         "a part of it is encrypted with a certificate"),
        (lambda bags: odd_pfx.pfx(bags, odd_pfx.contents(odd_pfx.bag(
            odd_pfx.SAFE_BAG, odd_pfx.sequence()))), "not in the form"),
        (lambda bags: odd_pfx.pfx(bags, odd_pfx.contents(odd_pfx.bag(
            odd_pfx.SECRET_BAG, b""))), "not in the form"),
        (lambda bags: odd_pfx.pfx(bags, mac=odd_pfx.mac_data(b"") * 2), "not in the form"),
        (lambda bags: odd_pfx.pfx(bags, odd_pfx.octets(b"")), "not in the form"),
        (lambda bags: odd_pfx.pfx(bags) + b"\0", "not in the form")])
    def test_other_structures(self, key, certificate, make, words):
        bags = odd_pfx.contents(odd_pfx.key_bag(key), odd_pfx.certificate_bag(certificate))
        assert words in invalid(make(bags))

    @pytest.mark.parametrize("contents", [
        odd_pfx.sequence(odd_pfx.object_(odd_pfx.DATA), odd_pfx.explicit(
            odd_pfx.octets(odd_pfx.sequence()), odd_pfx.null())),
        odd_pfx.sequence(odd_pfx.object_(odd_pfx.DATA), odd_pfx.explicit(
            odd_pfx.octets(odd_pfx.sequence())), odd_pfx.null()),
        odd_pfx.sequence(odd_pfx.object_(odd_pfx.DATA), odd_pfx.explicit(
            odd_pfx.octets(odd_pfx.sequence() + odd_pfx.null()))),
        odd_pfx.contents(odd_pfx.bag(
            odd_pfx.CERTIFICATE_BAG, odd_pfx.sequence() + odd_pfx.null())),
        odd_pfx.contents(odd_pfx.bag(
            odd_pfx.CERTIFICATE_BAG, odd_pfx.sequence(), odd_pfx.attributes(b"1"),
            odd_pfx.null())),
        odd_pfx.contents(odd_pfx.bag(odd_pfx.SHROUDED_KEY_BAG, odd_pfx.sequence(
            odd_pfx.pbe(1), odd_pfx.octets(b"x"), odd_pfx.null()))),
        odd_pfx.encrypted_contents(odd_pfx.sequence(
            odd_pfx.object_(odd_pfx.PBE_TRIPLE_DES),
            odd_pfx.sequence(odd_pfx.octets(b"x"), odd_pfx.number(1)), odd_pfx.null())),
        *(odd_pfx.sequence(odd_pfx.object_(odd_pfx.ENCRYPTED_DATA), odd_pfx.explicit(
            odd_pfx.sequence(odd_pfx.number(0), odd_pfx.sequence(
                odd_pfx.object_(odd_pfx.DATA), odd_pfx.pbe(1), odd_pfx.der(0x80, b"x"), *first),
                *second), *third), *fourth)
          for first, second, third, fourth in [
              [[odd_pfx.null()] if number == place else [] for number in range(4)]
              for place in range(4)])])
    def test_one_element_more(self, key, certificate, contents):
        """What is not looked at here, the library might look at."""
        bags = odd_pfx.contents(odd_pfx.key_bag(key), odd_pfx.certificate_bag(certificate))
        assert "not in the form" in invalid(odd_pfx.pfx(bags, contents))

    def test_one_element_more_in_the_checksum(self, key, certificate):
        mac = odd_pfx.mac_data(b"", iterations=7)
        assert mac[1] < 0x80
        assert "not in the form" in invalid(good(key, certificate, mac=odd_pfx.sequence(
            mac[2:], odd_pfx.null())))

    def test_every_beginning(self, key, certificate):
        file = good(key, certificate)
        for end in range(len(file)):
            invalid(file[:end])


class TestLooksLike:
    """The cheap look."""

    def test_pfx(self, signing, key, certificate):
        assert owner_pfx.is_pfx(signing) and owner_pfx.is_pfx(signing[:20])
        assert owner_pfx.is_pfx(good(key, certificate))

    @pytest.mark.parametrize("data", [
        b"", b"\x30", b"<Metadata>", b"\0\0\0\5<", b"\x30\x82\1\2\2\1\2", b"\x30\x82\1\2\3\1\3"])
    def test_not(self, data):
        assert not owner_pfx.is_pfx(data)


@hypothesis.given(st.binary(max_size=200))
def test_any_bytes_get_our_error(data):
    invalid(data)


@hypothesis.given(data=st.data())
def test_a_sound_file_with_bytes_changed(signing, data):
    changed = bytearray(signing)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(signing) - 1))] = data.draw(st.integers(0, 255))
    if bytes(changed) != signing:
        message = invalid(bytes(changed))
        assert not re.search("[A-Za-z0-9+/]{40}", message)


@hypothesis.given(data=st.data())
def test_a_certificate_with_bytes_changed(key, certificate, encryption, data):
    """With the right checksum, so that all of it is looked at."""
    changed = bytearray(certificate)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(certificate) - 1))] = data.draw(st.integers(0, 255))
    file = good(key, bytes(changed))
    try:
        owner = read(file, encryption)
    except errors.KeyProtectorError as fault:
        check_chain(fault)
    else:
        assert owner.signing.private_key.public_key().public_numbers() == \
            key.public_key().public_numbers()
