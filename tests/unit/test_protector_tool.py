"""The tenant's tool, against a Keystone and a key manager that store."""

import base64
import contextlib
import io
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys

import hypothesis
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import strategies as st

from tests import stub_secret_store
from tests.e2e import secrets_in_logs
from tests.hyperv import certificates, guardian
from tests.hyperv import key_protector as simulated
from vtpm_compute import errors, key_material, key_protector
from vtpm_compute.cmd import (
    files,
    interruption,
    login,
    pieces,
    protector,
    secret_store,
    upload,
)
from vtpm_scheduling import policy

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NOBODYS = "00000000-1111-2222-3333-444444444444"


@pytest.fixture(scope="module")
def owner():
    return guardian.Guardian.generate("Contoso")


@pytest.fixture(scope="module")
def fabric():
    return guardian.Guardian.generate("Fabric")


@pytest.fixture(scope="module")
def small(owner, fabric):
    """A key protector of one piece."""
    return simulated.make_protector(owner, [fabric])


@pytest.fixture(scope="module")
def large(owner, fabric):
    """A key protector of three pieces."""
    others = [guardian.Guardian.generate("Other%d" % number) for number in range(6)]
    return simulated.make_protector(owner, [fabric, *others])


@pytest.fixture
def key_manager():
    with stub_secret_store.running() as server:
        yield server


class Tool:
    """Runs the tool in this process, as a tenant whose files are in a folder of their own."""

    def __init__(self, folder, capsys):
        self.folder, self._capsys = folder, capsys

    def file(self, data, name="protector.bin"):
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def run(self, *arguments):
        """(exit code, standard output, standard error)"""
        self._capsys.readouterr()
        try:
            code = protector.main(arguments)
        except SystemExit as exc:
            code = exc.code
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def done(self, *arguments):
        code, out, err = self.run(*arguments)
        assert code == 0, err
        return out, err

    def error(self, *arguments, code=1):
        """The one line that says why it was not done."""
        found, out, err = self.run(*arguments)
        assert found == code and out == "", (found, out, err)
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert line == err.splitlines()[-1]
        return line[len("error: "):]

    def usage(self, *arguments):
        code, out, err = self.run(*arguments)
        assert code == 2 and out == ""
        return " ".join(err.split())


@pytest.fixture
def tool(tmp_path, monkeypatch, capsys):
    """The tool, without credentials."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    return Tool(tmp_path, capsys)


@pytest.fixture
def tenant(tool, key_manager, monkeypatch):
    """The tool of somebody who may log in, and does not wait between attempts."""
    for name, value in key_manager.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return tool


@contextlib.contextmanager
def standard_input(monkeypatch, data):
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        yield


class TestPieces:

    @hypothesis.given(st.binary(min_size=1, max_size=300), st.integers(1, 300))
    def test_whole_in_as_few_as_can_be(self, data, most):
        needed = -(-len(data) // most)
        if needed > policy.MAX_KEYS:
            with pytest.raises(errors.UnusableFileError, match="Give --piece-bytes"):
                pieces.cut(data, most, "it")
            return
        cut = pieces.cut(data, most, "it")
        assert b"".join(cut) == data
        assert all(0 < len(piece) <= most for piece in cut)
        assert len(cut) == needed

    def test_too_large_for_any(self):
        assert len(pieces.cut(bytes(6 * 20000), 20000, "it")) == 6
        with pytest.raises(errors.UnusableFileError, match="it has 120001 bytes: that is 7 pieces "
                           "of 20000 bytes, and os_vtpm_keys takes 6. Make a key protector with "
                           "fewer guardians"):
            pieces.cut(bytes(6 * 20000 + 1), 20000, "it")

    def test_what_is_advised_is_enough(self):
        with pytest.raises(errors.UnusableFileError) as caught:
            pieces.cut(bytes(90001), 15000, "it")
        advised = int(re.search("--piece-bytes ([0-9]+)", str(caught.value)).group(1))
        assert len(pieces.cut(bytes(90001), advised, "it")) == 6


class TestShow:

    def test_whole(self, tool, small):
        out, err = tool.done("show", tool.file(small))
        assert out.splitlines() == list(key_protector.parse([small], "it").lines())
        assert err == ""

    def test_pieces_in_order(self, tool, large):
        names = [tool.file(piece, "piece%d" % number)
                 for number, piece in enumerate(pieces.cut(large, 9000, "it"))]
        assert len(names) == 4
        assert tool.done("show", *names)[0].startswith("Key protector of %d bytes" % len(large))
        assert "its pieces are not in order" in tool.error("show", *reversed(names))

    def test_standard_input(self, tool, small, monkeypatch):
        with standard_input(monkeypatch, small):
            assert tool.done("show", "-")[0].startswith("Key protector of")
        assert "can be read once only" in tool.error("show", "-", "-")

    def test_names_the_guardian(self, tool, small, fabric, owner):
        path = tool.file(small)
        windows = ":".join(re.findall("..", fabric.thumbprint.upper()))
        for wanted in (fabric.thumbprint, windows, tool.file(fabric.metadata(), "metadata.xml")):
            out, _ = tool.done("show", path, "--guardian", wanted)
            assert out.splitlines()[-1] == (
                "The guardian that was asked for can unwrap it: wrapping 2, Shielded VM "
                "Encryption Certificate (Fabric)")

    def test_does_not_name_the_guardian(self, tool, small):
        stranger = guardian.Guardian.generate("Stranger")
        path = tool.file(small)
        for wanted in (stranger.thumbprint, tool.file(stranger.metadata(), "metadata.xml")):
            code, out, err = tool.run("show", path, "--guardian", wanted)
            assert code == 1 and out.startswith("Key protector of") and "can unwrap" not in out
            assert re.match("error: .* does not name .*%s.*Grant-Hgs" % stranger.thumbprint[:16],
                            err)

    def test_wrong_guardians(self, tool, small, fabric):
        path = tool.file(small)
        sha1 = certificates.thumbprint(fabric.encryption_certificate)
        assert "is a SHA-1 thumbprint" in tool.error("show", path, "--guardian", sha1)
        assert "abc does not exist" in tool.error("show", path, "--guardian", "abc")
        assert "is not guardian metadata, nor" in tool.error("show", path, "--guardian", path)

    def test_json(self, tool, small, fabric, owner):
        path = tool.file(small)
        out, _ = tool.done("show", path, "--json")
        found = json.loads(out)
        assert found["kind"] == "key_protector" and found["bytes"] == len(small)
        assert [(one["thumbprint"], one["is_owner"]) for one in found["guardians"]] == [
            (owner.thumbprint, True), (fabric.thumbprint, False)]
        assert [one["verdict"] for one in found["signatures"]] == ["verified", "needs_secrets"]
        assert found["warnings"] == [] and "asked_for" not in found
        for wanted, code in ((fabric.thumbprint, 0), ("ab" * 32, 1)):
            found, out, _ = tool.run("show", path, "--json", "--guardian", wanted)
            assert found == code
            assert json.loads(out)["asked_for"] == {
                "thumbprint": wanted, "can_unwrap": code == 0}

    def test_guardian_metadata(self, tool, small, fabric):
        path = tool.file(fabric.metadata(), "metadata.xml")
        assert fabric.thumbprint in tool.done("show", path)[0]
        found = json.loads(tool.done("show", path, "--json")[0])
        assert found["kind"] == "guardian_metadata" and found["thumbprint"] == fabric.thumbprint
        assert [one["verdict"] for one in found["signatures"]] == [
            "verified", "verified", "not_verified"]
        assert "show it alone" in tool.error("show", tool.file(small), path)
        assert "leave it out" in tool.error("show", path, "--guardian", fabric.thumbprint)

    @pytest.mark.parametrize("command", [["show"], ["store"], ["split", "--output-dir", "out"]])
    def test_files_that_are_none(self, tool, small, command):
        def error(path):
            return tool.error(*command, path)

        assert "nothing does not exist." in error("nothing")
        assert error(tool.file(b"", "empty")).endswith(
            "empty is empty: name a file that holds a key protector.")
        assert "is a directory" in error(str(tool.folder))
        assert "is larger than 1 MiB" in error(tool.file(bytes(1024 * 1024 + 1), "big"))
        assert "a?b does not exist" in error("a\nb")
        assert "cannot be read: its name is not valid" in error("a\0b")
        assert "broken holds is not a key protector: it should have" in error(
            tool.file(small[:-1], "broken"))
        assert "is text in base64" in error(tool.file(base64.b64encode(small), "text"))
        assert not pathlib.Path("out").exists()

    def test_a_file_that_may_not_be_read(self, tool, small, monkeypatch):
        # Root may read anything; Windows refuses with the same error.
        path = tool.file(small)

        def refuse(*_):
            raise PermissionError(13, "Permission denied")
        monkeypatch.setattr("builtins.open", refuse)
        assert tool.error("show", path).endswith("protector.bin may not be read by you.")

    @pytest.mark.parametrize("command", ["show", "store"])
    def test_a_private_key(self, tool, owner, command):
        pfx = certificates.make_pfx(owner.signing_certificate, owner.signing_key, "")
        message = tool.error(command, tool.file(pfx, "owner.pfx"))
        assert "PFX" in message and "private key" in message
        plain = owner.signing_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption())
        tool.error(command, tool.file(plain, "owner.pem"))


class TestSplit:

    def test_into_files(self, tool, large):
        out, err = tool.done("split", tool.file(large), "--output-dir", "new/folder")
        names = out.splitlines()
        assert [os.path.basename(name) for name in names] == [
            "protector.bin.%d-of-3" % number for number in (1, 2, 3)]
        cut = [pathlib.Path(name).read_bytes() for name in names]
        assert b"".join(cut) == large and max(map(len, cut)) <= 15000
        assert {os.stat(name).st_mode & 0o777 for name in names} == {0o600}
        assert tool.done("show", *names)[0].startswith("Key protector of")

    def test_overwrites_nothing(self, tool, large):
        second = pathlib.Path("protector.bin.2-of-3")
        second.write_bytes(b"mine")
        assert "protector.bin.2-of-3 is there already" in tool.error(
            "split", tool.file(large), "--output-dir", ".")
        assert second.read_bytes() == b"mine"
        assert not pathlib.Path("protector.bin.1-of-3").exists()

    def test_where_nothing_can_be_written(self, tool, large):
        path = tool.file(large)
        assert "protector.bin is a file: name a folder." in tool.error(
            "split", path, "--output-dir", path)
        assert "pieces cannot be written to %s/below: Not a directory." % path in tool.error(
            "split", path, "--output-dir", path + "/below")

    def test_more_than_six(self, tool, large):
        assert "Give --piece-bytes" in tool.error(
            "split", tool.file(large), "--output-dir", "out", "--piece-bytes", "1000")
        assert not pathlib.Path("out").exists()

    def test_nothing_is_left_when_it_fails(self, tool, large, monkeypatch):
        real, opened = os.open, []

        def full(path, *arguments):
            opened.append(path)
            if len(opened) > 1:
                raise OSError(28, "No space left on device")
            return real(path, *arguments)
        monkeypatch.setattr("os.open", full)
        with pytest.raises(errors.UnusableFileError, match="No space left on device"):
            files.write_pieces([b"a", b"b"], "out", "name")
        assert len(opened) == 2 and os.listdir("out") == []


class TestStore:

    def test_in_one_piece(self, tenant, key_manager, small):
        out, err = tenant.done("store", tenant.file(small))
        assert re.fullmatch(UUID + "\n", out)
        value = out.strip()
        assert list(key_manager.secrets) == [value]
        assert key_manager.secrets[value] == stub_secret_store.Secret(
            "protector.bin 1/1", None, small, private=False)
        assert err.splitlines()[0] == (
            "Piece 1/1: stored, and read back: %d bytes, secret %s" % (len(small), value))
        assert [line.split(" IMAGE")[0] for line in err.splitlines()[-2:]] == [
            "openstack image set --property hw_machine_type=hyperv-gen2 --property "
            "os_vtpm=required --property os_vtpm_keys=" + value,
            "openstack server create --image"]
        # One request to store it, one to read it.
        assert [(method, path.replace(value, "ID")) for method, path, _ in
                key_manager.requests] == [("POST", "/v1/secrets"),
                                          ("GET", "/v1/secrets/ID/payload")]
        assert key_manager.logins == 1

    def test_in_pieces(self, tenant, key_manager, large, fabric):
        out, err = tenant.done("store", tenant.file(large), "--name", "Contoso's",
                               "--guardian", fabric.thumbprint)
        keys = policy.parse_keys(out.strip())
        assert [key.text for key in keys] == list(key_manager.secrets)
        assert b"".join(key_manager.payloads()) == large
        # As nova-compute reads them.
        assert key_material.read(key_manager.payloads(), "it", False, True).raw == large
        assert [secret.name for secret in key_manager.secrets.values()] == [
            "Contoso's %d/3" % number for number in (1, 2, 3)]
        assert len([line for line in err.splitlines() if line.startswith("Piece ")]) == 3

    def test_quietly(self, tenant, key_manager, small):
        out, err = tenant.done("store", tenant.file(small), "--quiet")
        assert re.fullmatch(UUID + "\n", out) and err == ""

    def test_from_standard_input(self, tenant, key_manager, small, monkeypatch):
        with standard_input(monkeypatch, small):
            tenant.done("store", "-")
        (secret,) = key_manager.secrets.values()
        assert (secret.name, secret.payload) == ("key protector 1/1", small)

    @pytest.mark.parametrize("most", ["15001", "20000"])
    def test_pieces_that_do_not_fit_into_one_request(self, tenant, key_manager, large, most):
        tenant.done("store", tenant.file(large), "--piece-bytes", most)
        if most == "20000":
            assert len(key_manager.secrets) == 2 and len(key_manager.payloads()[0]) > 15000
        assert b"".join(key_manager.payloads()) == large

    def test_private_before_there_is_anything_to_read(self, tenant, key_manager, large):
        tenant.done("store", tenant.file(large), "--private")
        assert b"".join(key_manager.payloads()) == large
        for secret in key_manager.secrets.values():
            assert secret.private and secret.was_private

    @pytest.mark.parametrize(("text", "sent"), [
        ("2971-12-31", "2971-12-31T00:00:00"), ("2971-12-31T18:00:00Z", "2971-12-31T18:00:00"),
        ("2971-12-31T18:00:00+02:00", "2971-12-31T16:00:00")])
    def test_expiration(self, tenant, key_manager, small, text, sent):
        tenant.done("store", tenant.file(small), "--expiration", text)
        (secret,) = key_manager.secrets.values()
        assert secret.expiration == sent

    def test_guardian_metadata(self, tenant, key_manager, fabric):
        path = tenant.file(fabric.metadata(), "metadata.xml")
        tenant.done("store", path)
        assert key_manager.payloads() == [fabric.metadata()]
        key_manager.secrets.clear()
        assert "leave it out" in tenant.error("store", path, "--guardian", fabric.thumbprint)
        assert "and is not cut: give --piece-bytes" in tenant.error(
            "store", path, "--piece-bytes", "1000")
        forged = fabric.metadata().replace(
            base64.b64encode(fabric.encryption_signature)[:20], b"A" * 20)
        assert "guardian metadata of %s" % tenant.folder in tenant.error(
            "store", tenant.file(forged, "forged.xml"))
        assert key_manager.secrets == {}

    def test_warnings_come_first(self, tenant, key_manager, fabric):
        old = guardian.Guardian.generate("Old", now=lambda: 86400 * 365)
        assert "expired on" in tenant.done("store", tenant.file(
            simulated.make_protector(old, [fabric])), "--quiet")[1].splitlines()[0]

    def test_refused_before_anything_is_asked(self, tenant, key_manager, small, large, fabric):
        assert "is not a key protector" in tenant.error("store", tenant.file(small[4:-1], "cut"))
        forged = small.replace(base64.b64encode(fabric.encryption_signature)[:20], b"A" * 20)
        assert forged != small
        assert "damaged or forged" in tenant.error("store", tenant.file(forged, "forged"))
        path = tenant.file(large)
        assert "does not name this fabric's guardian" in tenant.error(
            "store", path, "--guardian", "ab" * 32)
        message = tenant.error("store", path, "--piece-bytes", "1000")
        assert "os_vtpm_keys takes 6. Give --piece-bytes %d or more." % -(-len(large) // 6) in \
            message
        assert "give a --name of at most 200" in tenant.error("store", path, "--name", "n" * 201)
        assert key_manager.requests == [] and key_manager.logins == 0

    def test_usage(self, tenant, small):
        path = tenant.file(small)
        for number in ("0", "20001", "-1", "x", ""):
            assert "it is a number from 1 to 20000" in tenant.usage(
                "store", path, "--piece-bytes=" + number)
        assert "is no time" in tenant.usage("store", path, "--expiration", "tomorrow")
        assert "has passed" in tenant.usage("store", path, "--expiration", "2020-01-01")
        assert "cannot be printed" in tenant.usage("store", path, "--name", "a\nb")
        assert "required" in tenant.usage("store")
        assert "required: COMMAND" in tenant.usage()
        assert "invalid choice" in tenant.usage("sell", path)

    @pytest.mark.parametrize("command", ["show", "split", "store", "delete"])
    def test_help(self, tool, command):
        code, out, _ = tool.run(command, "--help")
        assert code == 0 and command in out


ANSWERS = [
    (400, "refuses the request as malformed (400)"), (401, "does not accept your login (401)"),
    (403, "It takes the role creator or member"), (404, "there is no key manager at 127.0.0.1:"),
    (413, "Give a smaller --piece-bytes"), (418, "not expected (418). Tell the administrator"),
    (429, "too many requests (429). Try again later"), (500, "(500). Try again later"),
    (503, "(503). Try again later")]


class TestWhatGoesWrong:
    """Whatever it is: one line that says what to do, and nothing stays in the key manager."""

    @pytest.mark.parametrize(("status", "words"), ANSWERS)
    def test_first_piece_refused(self, tenant, key_manager, large, status, words):
        for number in (1, 2, 3):
            key_manager.fail("POST", number, status)
        message = tenant.error("store", tenant.file(large))
        assert message.startswith("Piece 1/3 cannot be stored: ") and words in message
        assert message.endswith(". Nothing was stored.")

    @pytest.mark.parametrize("number", [2, 3])
    @pytest.mark.parametrize("method", ["POST", "GET"])
    @pytest.mark.parametrize("private", [False, True])
    def test_a_later_piece_refused(self, tenant, key_manager, large, method, number, private):
        key_manager.fail(method, number, 403)
        message = tenant.error("store", tenant.file(large), *["--private"] * private)
        assert message.startswith("Piece %d/3 cannot be stored: " % number)
        assert message.endswith("What was stored before was deleted again (%d)." % (
            number - (method == "POST")))
        assert key_manager.secrets == {}
        assert sum(method == "DELETE" for method, _, _ in key_manager.requests) == \
            number - (method == "POST")

    @pytest.mark.parametrize("number", [1, 2, 3, 4])
    def test_steps_of_private_pieces(self, tenant, key_manager, large, number):
        # Two of each piece: its ACL, then its bytes.
        key_manager.fail("PUT", number, 403)
        assert "deleted again (%d)" % ((number + 1) // 2) in tenant.error(
            "store", tenant.file(large), "--private")
        assert key_manager.secrets == {}

    @pytest.mark.parametrize("change", [
        lambda payload: payload[:-1] + b"x", lambda payload: payload[:-1],
        lambda payload: payload + b"x", lambda _: b""])
    def test_reads_back_otherwise(self, tenant, key_manager, large, change):
        def action(handler):
            payload = key_manager.payloads()[1]
            handler.answer(200, change(payload), "application/octet-stream")
            return True
        key_manager.actions["GET", 2] = action
        message = tenant.error("store", tenant.file(large))
        assert "Piece 2/3 cannot be stored: it reads back as something else" in message
        assert message.endswith("deleted again (2).") and key_manager.secrets == {}

    def test_passing_trouble_is_tried_again_but_nothing_is_stored_twice(
            self, tenant, key_manager, large):
        key_manager.fail("GET", 1, 503)
        tenant.done("store", tenant.file(large))
        assert len(key_manager.secrets) == 3
        key_manager.secrets.clear()
        key_manager.requests.clear()
        key_manager.fail("POST", 2, 503)
        tenant.error("store", tenant.file(large))
        assert sum(method == "POST" for method, _, _ in key_manager.requests) == 2

    def test_what_cannot_be_deleted_again_is_named(self, tenant, key_manager, large):
        key_manager.fail("POST", 3, 500)
        key_manager.fail("DELETE", 1, 403)
        message = tenant.error("store", tenant.file(large))
        ((left, _),) = key_manager.secrets.items()
        assert message.endswith(
            "is NOT deleted again: run nova-hyperv-vtpm-protector delete " + left)

    @pytest.mark.parametrize("answer", ["close", 502, 504, "text", "strange"])
    def test_whether_it_was_stored_is_not_known(self, tenant, key_manager, large, answer):
        def action(handler):
            if answer == "close":
                handler.close_connection = True
            elif answer == "text":
                handler.answer(201, b"<html>")
            elif answer == "strange":
                handler.answer(201, b'{"secret_ref": "http://x/v1/secrets/../x"}')
            else:
                handler.answer(answer)
            return True
        key_manager.actions["POST", 2] = action
        message = tenant.error("store", tenant.file(large))
        assert 'Whether "protector.bin 2/3" was stored is not known: look with openstack secret ' \
            'list. What was stored before was deleted again (1).' in message
        assert key_manager.secrets == {}

    def test_a_redirect_gets_no_token(self, tenant, key_manager, small):
        with stub_secret_store.running() as elsewhere:
            for method, number in (("POST", 1), ("GET", 1)):
                key_manager.requests.clear()
                key_manager.actions.clear()
                key_manager.fail(method, number, 307, {"Location": elsewhere.url + "/v1/secrets"})
                assert "a redirect (307), which is not followed" in tenant.error(
                    "store", tenant.file(small))
                assert key_manager.secrets == {}
            assert elsewhere.requests == [] and elsewhere.logins == 0

    def test_below_a_path_and_with_the_version(self, tenant, key_manager, small, monkeypatch):
        key_manager.endpoint_path = "/key-manager"
        tenant.done("store", tenant.file(small))
        monkeypatch.setenv("OS_KEY_MANAGER_ENDPOINT_OVERRIDE",
                           key_manager.url + "/key-manager/v1/")
        tenant.done("store", tenant.file(small))
        assert {path.split("/v1/secrets")[0] for _, path, _ in key_manager.requests} == {
            "/key-manager"}

    def test_output_that_nobody_reads(self, tenant, key_manager, small):
        with open("/dev/full", "w") as full:
            done = run_apart(key_manager, tenant.folder, "show", tenant.file(small), stdout=full)
            assert done.returncode == 1
            assert done.stderr == "error: The output cannot be written: No space left on device.\n"
            done = run_apart(key_manager, tenant.folder, "store", tenant.file(small), stdout=full)
        assert done.returncode == 1
        assert "The value cannot be printed: No space left on device. What was stored before was " \
            "deleted again (1)." in done.stderr
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
        assert key_manager.secrets == {}


    def test_messages_that_nobody_reads(self, tenant, key_manager, small):
        with open("/dev/full", "w") as full:
            done = run_apart(key_manager, tenant.folder, "store", tenant.file(small), stderr=full)
        assert done.stdout.strip() in key_manager.secrets

    def test_no_answer_in_time(self, tenant, key_manager, small, monkeypatch):
        def late(_):
            key_manager.stopping.wait(20)
        monkeypatch.setattr(login, "_TIMEOUT", 0.5)
        key_manager.actions["POST", 1] = late
        message = tenant.error("store", tenant.file(small))
        assert "The key manager does not answer in time. Try again later" in message
        assert '"protector.bin 1/1" was stored is not known' in message


class TestLogin:

    def test_refused(self, tenant, key_manager, small):
        key_manager.refuses_logins = True
        assert tenant.error("store", tenant.file(small)).startswith(
            "Not logged in: Keystone refuses your login (401)")
        assert key_manager.requests == []

    def test_no_key_manager(self, tenant, key_manager, small):
        key_manager.has_catalog = False
        assert "Not logged in: " in tenant.error("store", tenant.file(small))

    def test_no_key_manager_in_this_region(self, tenant, key_manager, small, monkeypatch):
        monkeypatch.setenv("OS_REGION_NAME", "Elsewhere")
        assert "has no key manager in this region" in tenant.error("store", tenant.file(small))

    def test_nobody_there(self, tenant, small, monkeypatch):
        monkeypatch.setenv("OS_AUTH_URL", "http://127.0.0.1:1/v3")
        assert "Keystone cannot be reached" in tenant.error("store", tenant.file(small))

    def test_no_credentials(self, tool, small):
        assert "Check OS_CLOUD and clouds.yaml" in tool.error("store", tool.file(small))
        assert "Check OS_CLOUD and clouds.yaml" in tool.error("delete", NOBODYS)

    def test_clouds_yaml(self, tool, key_manager, small, monkeypatch):
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "clouds.yaml")
        pathlib.Path("clouds.yaml").write_text(json.dumps({"clouds": {"contoso": {
            "region_name": "RegionOne", "auth": {
                "auth_url": key_manager.url + "/v3", "username": "alice",
                "password": stub_secret_store.PASSWORD, "project_name": "demo",
                "user_domain_name": "Default", "project_domain_name": "Default"}}}}))
        path = tool.file(small)
        tool.done("store", path, "--os-cloud", "contoso")
        assert key_manager.payloads() == [small]
        assert "Cloud fabrikam was not found" in tool.error("store", path, "--os-cloud", "fabrikam")

    def test_a_broken_clouds_yaml_is_not_quoted(self, tool, small, monkeypatch):
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "clouds.yaml")
        pathlib.Path("clouds.yaml").write_text("clouds: {contoso: {auth: {password: 'hunter2}}")
        message = tool.error("store", tool.file(small), "--os-cloud", "contoso")
        assert "your credentials cannot be read" in message and "hunter2" not in message

    def test_without_openstacksdk(self, tenant, key_manager, small, monkeypatch):
        monkeypatch.setitem(sys.modules, "openstack.config", None)
        assert "pip install 'nova_hyperv_vtpm-VERSION-py3-none-any.whl[tool]'" in tenant.error(
            "store", tenant.file(small))


class TestInterruption:

    def kill(self, _):
        os.kill(os.getpid(), signal.SIGINT)

    @pytest.mark.parametrize(("method", "number", "count"), [
        ("POST", 1, 1), ("POST", 2, 2), ("POST", 3, 3), ("GET", 1, 1), ("GET", 3, 3)])
    def test_the_answer_is_read_and_everything_deleted(
            self, tenant, key_manager, large, method, number, count):
        key_manager.actions[method, number] = self.kill
        code, out, err = tenant.run("store", tenant.file(large))
        assert code == 130 and out == ""
        assert err.splitlines()[-1] == (
            "error: Interrupted. What was stored before was deleted again (%d)." % count)
        assert key_manager.secrets == {}

    @pytest.mark.parametrize("number", [1, 2])
    def test_between_the_steps_of_a_private_piece(self, tenant, key_manager, large, number):
        key_manager.actions["PUT", number] = self.kill
        code, _, _ = tenant.run("store", tenant.file(large), "--private")
        assert code == 130 and key_manager.secrets == {}

    def test_while_it_deletes_again(self, tenant, key_manager, large):
        key_manager.fail("POST", 3, 500)
        key_manager.actions["DELETE", 1] = self.kill
        # The first is only noted: what is to be deleted is.
        assert "deleted again (2)" in tenant.error("store", tenant.file(large))
        assert key_manager.secrets == {}

    def test_a_second_one_while_it_deletes_again(self, tenant, key_manager, large):
        key_manager.actions["POST", 2] = key_manager.actions["DELETE", 1] = self.kill
        code, _, err = tenant.run("store", tenant.file(large))
        assert code == 130
        (left,) = re.findall("NOT deleted again: run nova-hyperv-vtpm-protector delete (.*)", err)
        assert set(key_manager.secrets) <= set(left.split(","))
        assert len(key_manager.secrets) == 1

    def test_signals_are_as_before_afterwards(self, tenant, key_manager, small):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        tenant.done("store", tenant.file(small))
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    def test_a_further_one_interrupts_at_once(self):
        with interruption.held_back() as held:
            held.check()
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(interruption.Interrupted):
                held.check()
            with pytest.raises(interruption.Interrupted) as caught:
                signal.raise_signal(signal.SIGINT)
        assert caught.value.number == signal.SIGINT

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_other_ends(self, tenant, key_manager, small, number):
        key_manager.actions["POST", 1] = lambda _: os.kill(os.getpid(), number)
        # The tests may have been started with nohup.
        old = signal.signal(number, signal.SIG_DFL)
        try:
            code, _, _ = tenant.run("store", tenant.file(small))
        finally:
            signal.signal(number, old)
        assert code == 128 + number and key_manager.secrets == {}

    def test_a_signal_that_is_ignored_stays_so(self):
        """As nohup starts it."""
        old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with interruption.held_back() as held:
                signal.raise_signal(signal.SIGHUP)
                try:
                    held.check()
                except interruption.Interrupted:
                    pytest.fail("it was taken for an interruption")
        finally:
            signal.signal(signal.SIGHUP, old)

    def test_elsewhere(self, tenant, key_manager, monkeypatch):
        key_manager.secrets[NOBODYS] = stub_secret_store.Secret("mine", None, b"x")
        key_manager.actions["GET", 1] = self.kill
        assert tenant.error("delete", NOBODYS, "--yes", code=130) == "Interrupted."
        assert list(key_manager.secrets) == [NOBODYS]


class TestDelete:

    @pytest.fixture
    def value(self, tenant, large):
        return tenant.done("store", tenant.file(large))[0].strip()

    @pytest.mark.parametrize("answer", [b"y\n", b"YES\n"])
    def test_confirmed(self, tenant, key_manager, value, monkeypatch, answer):
        with standard_input(monkeypatch, answer):
            out, err = tenant.done("delete", value)
        assert key_manager.secrets == {}
        assert out == "" and '"protector.bin 3/3", stored 2026-02-03' in err

    @pytest.mark.parametrize("answer", [b"", b"\n", b"n\n", b"yellow\n"])
    def test_not_confirmed(self, tenant, key_manager, value, monkeypatch, answer):
        with standard_input(monkeypatch, answer):
            assert "Nothing was deleted" in tenant.error("delete", value)
        assert len(key_manager.secrets) == 3

    def test_without_asking(self, tenant, key_manager, value):
        tenant.done("delete", value, "--yes")
        assert key_manager.secrets == {}
        assert "None of these secrets is there" in tenant.error("delete", value, "--yes")

    def test_one_that_is_gone(self, tenant, key_manager, value):
        gone = list(key_manager.secrets)[1]
        del key_manager.secrets[gone]
        _, err = tenant.done("delete", value, "--yes")
        assert "Secret %s is not there" % gone in err and key_manager.secrets == {}

    def test_one_that_may_not_be_seen(self, tenant, key_manager, value):
        key_manager.requests.clear()
        key_manager.fail("GET", 3, 403)
        assert tenant.error("delete", value, "--yes").endswith("Nothing was deleted.")
        assert len(key_manager.secrets) == 3

    def test_one_that_cannot_be_deleted(self, tenant, key_manager, value):
        key_manager.requests.clear()
        key_manager.fail("DELETE", 2, 403)
        message = tenant.error("delete", value, "--yes")
        assert message.endswith("Not deleted: " + ",".join(list(key_manager.secrets)))
        assert len(key_manager.secrets) == 2

    @pytest.mark.parametrize("value", ["", "x", NOBODYS + "," + NOBODYS, "a,b,c,d,e,f,g"])
    def test_no_value(self, tenant, key_manager, value):
        assert "os_vtpm_keys" in tenant.error("delete", value, "--yes")
        assert key_manager.requests == []


def run_apart(key_manager, folder, *arguments, prefix=("-m", "vtpm_compute.cmd.protector"),
              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **variables):
    """Run the tool in a process of its own."""
    environment = {**key_manager.environment(), "PATH": os.environ["PATH"], "HOME": str(folder),
                   "PYTHONPATH": str(REPOSITORY), **variables}
    return subprocess.run([sys.executable, *prefix, *arguments], env=environment, cwd=folder,
                          stdout=stdout, stderr=stderr, text=True)


class TestProcess:

    # Runs the tool where some packages are not installed.
    WITHOUT = """
import runpy, sys
without = sys.argv.pop(1).split(",")
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in without:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Refuse())
runpy.run_module("vtpm_compute.cmd.protector", run_name="__main__")
"""
    NOT_A_TENANTS = ("nova,oslo_config,oslo_log,oslo_utils,os_win,compute_hyperv,barbicanclient,"
                     "wmi")

    def test_without_nova_oslo_and_windows(self, key_manager, tmp_path, large):
        (tmp_path / "protector.bin").write_bytes(large)
        prefix = ("-c", self.WITHOUT, self.NOT_A_TENANTS)
        for command in (["show", "protector.bin"], ["split", "protector.bin", "--output-dir", "o"],
                        ["store", "protector.bin"]):
            done = run_apart(key_manager, tmp_path, *command, prefix=prefix)
            assert done.returncode == 0, done.stderr
        done = run_apart(key_manager, tmp_path, "delete", "--yes", done.stdout.strip(),
                         prefix=prefix)
        assert done.returncode == 0 and key_manager.secrets == {}, done.stderr

    @pytest.mark.parametrize("package", ["lxml", "cryptography", "openstack"])
    def test_without_the_extra(self, key_manager, tmp_path, small, package):
        (tmp_path / "protector.bin").write_bytes(small)
        prefix = ("-c", self.WITHOUT, package)
        done = run_apart(key_manager, tmp_path, "store", "protector.bin", prefix=prefix)
        assert done.returncode == 1 and done.stdout == ""
        assert re.fullmatch("error: .*the Python package of %s.* is missing. Install it with "
                            "the project's wheel: pip install 'nova_hyperv_vtpm-VERSION-py3-none-"
                            "any.whl.tool.'\\.?\n" % package, done.stderr)
        # Help needs nothing, and a look at a file no cloud.
        assert run_apart(key_manager, tmp_path, "--help", prefix=prefix).returncode == 0
        assert run_apart(key_manager, tmp_path, "show", "protector.bin", prefix=prefix
                         ).returncode == (0 if package == "openstack" else 1)

    def test_nothing_else_on_the_terminal(self, key_manager, tmp_path, small):
        (tmp_path / "protector.bin").write_bytes(small)
        done = run_apart(key_manager, tmp_path, "store", "protector.bin", "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip() in key_manager.secrets
        done = run_apart(key_manager, tmp_path, "store", "protector.bin",
                         OS_AUTH_URL="http://127.0.0.1:1/v3")
        assert done.stderr == ("error: Not logged in: Keystone cannot be reached, or ends the "
                               "connection. Check the network, or try again later.\n")

    def test_letters_that_the_terminal_does_not_have(self, key_manager, tmp_path, fabric):
        owner = guardian.Guardian.generate("Žluťoučký")
        (tmp_path / "protector.bin").write_bytes(simulated.make_protector(owner, [fabric]))
        done = run_apart(key_manager, tmp_path, "show", "protector.bin", PYTHONIOENCODING="ascii")
        assert done.returncode == 0 and "\\u017dlu" in done.stdout


def test_nothing_secret_in_logs_and_messages(tenant, key_manager, large, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("keystoneauth", "urllib3", "openstack"):
        caplog.set_level(logging.DEBUG, logger=name)
    path, said = tenant.file(large), []
    for arguments in ([], ["--private"], ["--piece-bytes", "20000"]):
        said += tenant.done("store", path, *arguments)
    for status in (400, 500):
        key_manager.requests.clear()
        key_manager.fail("POST", 2, status)
        said.append(tenant.error("store", path))
    assert key_manager.logins == 5 and "/v3/auth/tokens" in caplog.text
    text = "".join([caplog.text, *said]).encode()
    for secret in (stub_secret_store.PASSWORD, stub_secret_store.TOKEN):
        assert secret.encode() not in text
    assert [needle for needle in secrets_in_logs.needles(large) if needle in text] == []


def test_the_reading_is_bounded(tenant, key_manager):
    """A key manager that sends more than was stored is not read to its end."""
    key_manager.secrets[NOBODYS] = stub_secret_store.Secret("mine", None, bytes(10000))
    store = secret_store.connect()
    assert store.read(NOBODYS, 100) == bytes(101)


def test_an_upload_that_nobody_wants_any_more(tenant, key_manager):
    """Whatever leaves the block, nothing stays."""
    with pytest.raises(ZeroDivisionError):
        with upload.all_or_none(secret_store.connect(), lambda _: None) as running:
            running.run([b"one", b"two"], "name")
            assert len(key_manager.secrets) == 2
            raise ZeroDivisionError
    assert key_manager.secrets == {}
