"""Key protectors that are wrong in one way each, for tests of whoever reads them.

What is wrong in the structure is signed properly: a reader that only checks signatures takes it.
"""
import base64
import os

from lxml import etree

from tests.hyperv import key_protector
from tests.hyperv.guardian import NAMESPACE, Guardian, encoded
from tests.hyperv.key_protector import Algorithms, Wrapping

UNKNOWN_ALGORITHM = "urn:example:no-such-algorithm"


def damaged(owner, guardian):
    """{what is wrong: bytes with their length prefix}

    :param owner: a guardian with private keys
    :param guardian: a further guardian; its public parts are enough
    """
    sound = key_protector.make_protector(owner, [guardian])
    stranger = Guardian.generate("stranger")
    return {
        **_cut(sound), **_wrong_signatures(sound), **_unknown_algorithms(owner, guardian),
        **_wrong_ids(owner, guardian, stranger), **_foreign(sound, owner, guardian, stranger),
        **_not_a_protector(sound)}


def _cut(sound):
    return {
        "empty": b"", "its length alone": sound[:4], "cut at the end": sound[:-1],
        "cut in the middle": sound[:len(sound) // 2], "a byte too many": sound + b"\n",
        "length of another": (len(sound) + 1).to_bytes(4, "big") + sound[4:],
        "first part lost": sound[4096:], "parts swapped": sound[4096:] + sound[:4096]}


def _wrong_signatures(sound):
    """Each signature of the document replaced by one of the right length."""
    variants = {}
    for element in ("SigningCertificateSignature", "EncryptionCertificateSignature",
                    "TransportKeySignature", "GuardianSignature"):
        root = etree.fromstring(sound[4:])
        # The last one: a guardian's, where there are several.
        value = root.findall(".//{%s}%s" % (NAMESPACE, element))[-1].find(
            ".//{%s}SignatureValue" % NAMESPACE)
        value.text = encoded(os.urandom(len(base64.b64decode(value.text))))
        variants["wrong " + element] = key_protector.with_prefix(
            etree.tostring(root, encoding="utf-8", xml_declaration=True))
    return variants


def _unknown_algorithms(owner, guardian):
    return {"unknown %s algorithm" % field.replace("_", " "): key_protector.make_protector(
        owner, [guardian], algorithms=Algorithms(**{field: UNKNOWN_ALGORITHM}))
        for field in Algorithms._fields}


def _wrong_ids(owner, guardian, stranger):
    def protector(*members):
        """Of (guardian, id, parent, signing key of the parent)."""
        wrappings = [Wrapping.of_guardian(*member) for member in members]
        return key_protector.assemble(
            wrappings, os.urandom(32), owner.signing_key, wrappings[0].identifier)

    first = owner, "1", "1", owner.signing_key
    other = stranger.signing_key
    return {
        "two owners": protector(first, (stranger, "2", "2", other)),
        "no owner": protector((owner, "1", "2", other), (stranger, "2", "1", owner.signing_key)),
        "a cycle of parents beside the owner": protector(
            first, (stranger, "2", "3", other), (stranger, "3", "2", other)),
        "duplicate ids": protector(first, (guardian, "2", "1", owner.signing_key),
                                   (stranger, "2", "1", owner.signing_key)),
        "an unknown parent": protector(first, (guardian, "2", "9", owner.signing_key)),
        "an id that is no number": protector(first, (guardian, "x", "1", owner.signing_key)),
        "a negative id": protector(first, (guardian, "-2", "1", owner.signing_key)),
        "an id over 32 bits": protector(first, (guardian, str(1 << 32), "1", owner.signing_key)),
        "no wrappings": key_protector.assemble([], os.urandom(32), owner.signing_key, "1"),
        "signed in by a stranger": protector(first, (guardian, "2", "1", other))}


def _foreign(sound, owner, guardian, stranger):
    """Wrappings of one protector in another."""
    another = key_protector.make_protector(stranger, [guardian])
    wrappings = [key_protector.read(sound)[0], key_protector.read(another)[1]]
    swapped = key_protector.read(sound)
    swapped[0].identifier, swapped[1].identifier = swapped[1].identifier, swapped[0].identifier
    keys = key_protector.read(sound)
    keys[1].encrypted_key = key_protector.read(another)[1].encrypted_key
    return {
        "a wrapping of another protector": key_protector.assemble(
            wrappings, os.urandom(32), owner.signing_key, "1"),
        "swapped ids": key_protector.assemble(
            swapped, os.urandom(32), owner.signing_key, swapped[0].identifier),
        "a transport key of another protector": key_protector.assemble(
            keys, os.urandom(32), owner.signing_key, "1")}


def _not_a_protector(sound):
    text = sound[4:].decode("utf-8")
    entity = text.replace("?>\n", '?>\n<!DOCTYPE p [<!ENTITY e "1">]>', 1).replace(
        "<Id>1</Id>", "<Id>&e;</Id>")
    doctype = text.replace("?>\n", "?>\n<!DOCTYPE Protector>", 1)
    names = text.replace(NAMESPACE, NAMESPACE + "x")
    element = text.replace("<Protector ", "<Metadata ").replace("</Protector>", "</Metadata>")
    number = text.replace('MaxOfflineUnwraps="0"', 'MaxOfflineUnwraps="often"')
    return {what: key_protector.with_prefix(document.encode("utf-8")) for what, document in (
        ("an entity", entity), ("a document type", doctype), ("another namespace", names),
        ("another root element", element),
        ("MaxOfflineUnwraps that is no number", number), ("no XML", "protector"))}
