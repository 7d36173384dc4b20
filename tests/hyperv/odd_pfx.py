"""PFX files as no program writes them: put together by hand, so that any part can be odd.

Source: [RFC 7292] 4 and appendix B; [RFC 8018] appendix A. Those that programs write are made by
:func:`tests.hyperv.certificates.make_pfx`.
"""
import hashlib
import hmac

from cryptography.hazmat.primitives import serialization

SALT = b"saltsalt"
# "No password" is two different passwords: none, and an empty one with its end.
NULL_PASSWORD, EMPTY_PASSWORD = b"", b"\0\0"
_INTEGER, _OCTETS, _NULL, _OBJECT, _SEQUENCE, _SET = 2, 4, 5, 6, 0x30, 0x31
_RSADSI = "2a864886f70d01"
DATA, SIGNED_DATA, ENVELOPED_DATA, ENCRYPTED_DATA = (
    _RSADSI + "07" + number for number in ("01", "02", "03", "06"))
KEY_BAG, SHROUDED_KEY_BAG, CERTIFICATE_BAG, CRL_BAG, SECRET_BAG, SAFE_BAG = (
    _RSADSI + "0c0a01%02x" % number for number in range(1, 7))
PBE_TRIPLE_DES, PBES2, PBKDF2, AES_256 = (
    _RSADSI + "0c0103", _RSADSI + "050d", _RSADSI + "050c", "60864801650304012a")
SHA1, SHA256, MD5, PBMAC1, SCRYPT = (
    "2b0e03021a", "608648016503040201", "2a864886f70d0205", _RSADSI + "050e", "2b06010401da47040b")
_X509 = _RSADSI + "091601"


def der(tag, *parts):
    """An element of DER."""
    contents = b"".join(parts)
    length = len(contents)
    if length < 0x80:
        return bytes([tag, length]) + contents
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 + size]) + length.to_bytes(size, "big") + contents


def number(value):
    return der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def object_(dotless):
    return der(_OBJECT, bytes.fromhex(dotless))


def sequence(*parts):
    return der(_SEQUENCE, *parts)


def octets(data):
    return der(_OCTETS, data)


def explicit(*parts):
    return der(0xA0, *parts)


def null():
    return der(_NULL)


def pbe(iterations, kind=PBE_TRIPLE_DES):
    """PKCS #12's own way to encrypt with a password."""
    return sequence(object_(kind), sequence(octets(SALT), number(iterations)))


def pbes2(iterations, derivation=PBKDF2):
    return sequence(object_(PBES2), sequence(
        sequence(object_(derivation), sequence(octets(SALT), number(iterations))),
        sequence(object_(AES_256), octets(bytes(16)))))


def bag(kind, value, *attributes):
    return sequence(object_(kind), explicit(value), *attributes)


def attributes(identifier):
    """What says which key is which certificate's (localKeyId)."""
    return der(_SET, sequence(object_(_RSADSI + "0915"), der(_SET, octets(identifier))))


def key_bag(key, *more):
    return bag(KEY_BAG, key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption()), *more)


def shrouded_key_bag(algorithm, encrypted=bytes(1200)):
    """Its contents are no key: nobody is to come so far."""
    return bag(SHROUDED_KEY_BAG, sequence(algorithm, octets(encrypted)))


def certificate_bag(certificate, *more):
    return bag(CERTIFICATE_BAG, sequence(object_(_X509), explicit(octets(certificate))), *more)


def contents(*bags):
    """Bags that are not encrypted."""
    return sequence(object_(DATA), explicit(octets(sequence(*bags))))


def encrypted_contents(algorithm, encrypted=bytes(800)):
    return sequence(object_(ENCRYPTED_DATA), explicit(sequence(number(0), sequence(
        object_(DATA), algorithm, der(0x80, encrypted)))))


def pfx(*all_contents, mac=None, kind=DATA, version=3):
    """A PFX file.

    :param all_contents: of :func:`contents` and :func:`encrypted_contents`
    :param mac: what :func:`mac_data` gives; None: the right one; b"": none
    """
    safe = sequence(*all_contents)
    return sequence(number(version), sequence(object_(kind), explicit(octets(safe))),
                    mac_data(safe) if mac is None else mac)


def mac_data(safe, password=EMPTY_PASSWORD, iterations=1, digest=SHA1):
    """The checksum of what is in the file.

    :param iterations: how many it says there are; so many are made where they are few
    """
    key = _mac_key(password, min(iterations, 1000))
    value = hmac.new(key, safe, hashlib.sha1).digest()
    return sequence(sequence(sequence(object_(digest), null()), octets(value)), octets(SALT),
                    *([number(iterations)] if iterations != 1 else []))


def _mac_key(password, iterations):
    block = hashlib.sha1().block_size
    key = b"\3" * block + b"".join(
        (part * block)[:block * -(-len(part) // block)] for part in (SALT, password))
    for _ in range(iterations):
        key = hashlib.sha1(key).digest()
    return key
