"""Key protectors made on a simulated host: whatever happens, nothing of their making stays."""

import collections
import importlib
import logging
import os
import types

import pytest

from tests import failing_files, failing_queries
from tests.e2e import secrets_in_logs
from tests.hyperv import certificates, connection, fabric, guardian, windows
from tests.unit.guarded_host import (
    FABRIC,
    HOST,
    OLD_HOST,
    OTHER,
    GuardedHost,
    module,
    new_metadata,
    owner_of,
    pfx_files,
    read_metadata,
)
from vtpm_compute import errors, key_protector, owner_pfx

KINDS = ("new owner", "given owner and further guardians")


@pytest.fixture(scope="module")
def given():
    """An owner's files, and what is read out of them and of guardians' metadata."""
    files = pfx_files()
    return collections.namedtuple("Given", "files owner further")(
        files, owner_of(files), tuple(read_metadata(new_metadata()) for _ in range(2)))


def ingredients(given, kind):
    return {} if kind == "new owner" else {"owner": given.owner, "further": given.further}


def make(host, **keywords):
    return host.maker.make(host.guardian, **keywords)


def parsed(raw):
    return key_protector.parse([raw], "the host")


def test_a_new_owner(host):
    read = parsed(make(host))
    assert [one.thumbprint for one in read.guardians if not one.is_owner] == [
        host.guardian.thumbprint]
    assert sum(one.is_owner for one in read.guardians) == 1


def test_an_owner_goes_with_its_private_keys(host):
    make(host)
    host.assert_nothing_left()


def test_a_given_owner(host, given):
    read = parsed(make(host, owner=given.owner))
    assert read.owner.thumbprint == given.owner.encryption.thumbprint
    assert host.guardian.thumbprint in [one.thumbprint for one in read.guardians]
    host.assert_nothing_left()


def test_further_guardians(host, given):
    read = parsed(make(host, further=given.further))
    assert [one.thumbprint for one in read.guardians if not one.is_owner] == [
        host.guardian.thumbprint, *(one.thumbprint for one in given.further)]


def test_further_guardians_that_the_host_knows_are_used_and_stay(host):
    known = [guardian.Guardian.from_metadata(host.simulated.metadata(name), name)
             for name in (FABRIC, OTHER)]
    documents = [read_metadata(host.simulated.metadata(name)) for name in (FABRIC, OTHER)]
    read = parsed(make(host, further=documents))
    # The fabric's own is granted once.
    assert [one.thumbprint for one in read.guardians if not one.is_owner] == [
        one.thumbprint for one in known]
    assert host.simulated.calls(HOST, "MSFT_HgsGuardian.Import") == []


def test_the_owners_files_are_for_the_service_alone_and_under_a_new_password(
        host, given, monkeypatch):
    accept, seen = host.client.accept, []

    def looking(name, signing_path, encryption_path, password):
        for path in (signing_path, encryption_path):
            with open(path, "rb") as file:
                content = file.read()
            folder = os.stat(os.path.dirname(path))
            seen.append((content, os.stat(path).st_mode & 0o777, folder.st_mode & 0o777, password))
        return accept(name, signing_path, encryption_path, password)
    monkeypatch.setattr(host.client, "accept", looking)
    for _ in range(2):
        make(host, owner=given.owner)
    assert {modes for _, *modes, _ in map(tuple, seen) for modes in [tuple(modes)]} == {
        (0o600, 0o700)}
    passwords = [password for *_, password in seen]
    assert passwords[0] == passwords[1] and len(set(passwords)) == 2
    assert all(len(password) >= 43 for password in passwords)
    assert not any(content in given.files for content, *_ in seen)
    for content, *_ in seen:
        with pytest.raises(ValueError):
            certificates.pkcs12.load_key_and_certificates(content, None)


def test_two_protectors_at_a_time(host, monkeypatch):
    new_protector, made = host.client.new_protector, []

    def making_another_first(*arguments):
        if not made:
            made.append(None)
            made[0] = make(host)
        return new_protector(*arguments)
    monkeypatch.setattr(host.client, "new_protector", making_another_first)
    made.append(make(host))
    assert len({parsed(raw).owner.thumbprint for raw in made}) == 2


def test_the_same_owner_at_the_same_time(host, given):
    """One after the other: the first one's removal would take the second one's keys."""
    threading = importlib.import_module("threading")
    made, failed = [], []

    def run():
        try:
            made.append(make(host, owner=given.owner, further=given.further))
        except errors.HostGuardianError as exc:
            failed.append(exc)
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), failed) == (4, [])


@pytest.mark.parametrize("provider", [certificates.CNG, certificates.RSA_AES])
@pytest.mark.parametrize("point", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_call_fails_nothing_stays(host, given, kind, point, provider, monkeypatch):
    """After the next clean-up; where the clean-up itself did not fail, at once."""
    monkeypatch.setattr(
        host.simulated.host(HOST).hgs_client.certificates, "key_provider", provider)
    parts = ingredients(given, kind)
    calls = host.calls_of(lambda: make(host, **parts))
    host.assert_nothing_left()
    assert {"MSFT_HgsKeyProtector.NewByGuardians", "MSFT_HgsGuardian.Remove",
            "crypt32.CertDeleteCertificateFromStore",
            "ncrypt.NCryptDeleteKey" if provider == certificates.CNG
            else "advapi32.CryptAcquireContextW"} <= set(calls)
    for number, call in enumerate(calls):
        host.simulated.add_fault(HOST, call, nth=calls[:number + 1].count(call),
                                 return_value=32768, point=point)
        with pytest.raises(errors.HostGuardianError, match=call.split(".")[1]) as caught:
            make(host, **parts)
        if "NewBy" in call or "Import" in call:
            host.assert_nothing_left()
        elif "Remove" not in call:
            assert "failed with " in str(caught.value)
        if "Delete" in call or "Acquire" in call:
            # What is left is what the next start finds the rest by.
            assert point == "after" or host.simulated.certificates(HOST)
        host.maker.remove_leftovers()
        host.assert_nothing_left()
    print("%s: %d calls were made to fail %s their work" % (kind, len(calls), point))


@pytest.mark.parametrize("point", ["before", "after"])
def test_whatever_file_operation_fails_nothing_stays(host, given, point, monkeypatch):
    files = failing_files.FailingFiles()
    monkeypatch.setattr(module("private_folders"), "os", files.in_place_of_os)
    parts = {"owner": given.owner, "further": given.further}
    make(host, **parts)
    with files.failing(None):
        make(host, **parts)
        count = len(files.calls)
        assert set(files.calls) == set(failing_files.FUNCTIONS)
    assert count > 5
    for number in range(count):
        with files.failing(number, point), pytest.raises(
                errors.HostGuardianError, match="No space left on device"):
            make(host, **parts)
        assert [one["name"] for one in host.simulated.guardians(HOST)] == [FABRIC, OTHER]
        assert host.simulated.private_keys(HOST) == []
        host.assert_no_pfx_left()
        host.maker.remove_leftovers()
        host.assert_nothing_left()
    print("%d file operations were made to fail %s their work" % (count, point))


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_query_fails_nothing_stays(host, given, kind, monkeypatch):
    """Listing the guardian store is no method, and fails as well."""
    parts, queries = ingredients(given, kind), failing_queries.FailingQueries()
    monkeypatch.setattr(connection.LocalComputer, "query", queries.in_place_of_query)
    make(host, **parts)
    count = len(queries.texts)
    assert count >= 1
    for number in range(count):
        with queries.failing(number), pytest.raises(
                errors.HostGuardianError, match="The query failed"):
            make(host, **parts)
        host.assert_no_pfx_left()
        # The certificates of a given owner are known from the notes, those of a new one by name.
        assert host.simulated.private_keys(HOST) == []
        host.maker.remove_leftovers()
        host.assert_nothing_left()
    print("%s: %d queries were made to fail" % (kind, count))


@pytest.mark.parametrize("name", ["signing.pfx", "encryption.pfx", "certificates",
                                  "guardian-0.xml"])
def test_a_file_that_stays_locked_keeps_nothing_else(host, given, name, monkeypatch):
    """As a program that looks for viruses holds it; also at the next start."""
    files = failing_files.FailingFiles()
    monkeypatch.setattr(module("private_folders"), "os", files.in_place_of_os)
    with files.locked(name):
        with pytest.raises(errors.HostGuardianError, match="stays on the host: Permission denied"):
            make(host, owner=given.owner, further=given.further)
        for _ in range(2):
            assert [one["name"] for one in host.simulated.guardians(HOST)] == [FABRIC, OTHER]
            assert host.simulated.private_keys(HOST) == []
            (left,) = (folder for folder, _, names in os.walk(host.scratch) if names)
            # The notes stay as long as anything does.
            assert set(os.listdir(left)) <= {name, "certificates", "guardian-0.xml",
                                             "guardian-1.xml"}
            with pytest.raises(errors.HostGuardianError, match="What was left on the host"):
                host.maker.remove_leftovers()
    host.maker.remove_leftovers()
    host.assert_nothing_left()


def test_an_obstacle_at_the_next_start_keeps_nothing_else(host, given, monkeypatch):
    """A killed process left an owner, its files and its notes; one file cannot be removed."""
    folder = host.folders.new("%08x-1111-4444-8888-555555555555" % 1)
    paths = [folder.write(name, content) for name, content in zip(
        ("signing.pfx", "encryption.pfx"), given.files)]
    folder.write("certificates", "".join(
        certificates.thumbprint(one.der) + "\n"
        for one in (given.owner.signing, given.owner.encryption)).encode())
    host.client.accept(module("protector_maker").OWNER_PREFIX + "1", *paths, "")
    files = failing_files.FailingFiles()
    monkeypatch.setattr(module("private_folders"), "os", files.in_place_of_os)
    with files.locked("signing.pfx"), pytest.raises(
            errors.HostGuardianError, match="A file stays on the host"):
        host.maker.remove_leftovers()
    assert host.simulated.private_keys(HOST) == []
    assert [one["name"] for one in host.simulated.guardians(HOST)] == [FABRIC, OTHER]
    assert sorted(os.path.basename(path) for path in paths if os.path.exists(path)) == [
        "signing.pfx"]
    host.maker.remove_leftovers()


def test_pfx_files_go_first(host, given, monkeypatch):
    """Before anything that Windows may take long for, or refuse."""
    folder = host.folders.new("%08x-1111-4444-8888-555555555555" % 1)
    path = folder.write("signing.pfx", given.files[0])

    def refuse():
        assert not os.path.exists(path)
        raise errors.HostGuardianError("Windows does not tell.")
    monkeypatch.setattr(host.client, "guardians", refuse)
    with pytest.raises(errors.HostGuardianError, match="may stay on the host"):
        host.maker.remove_leftovers()
    monkeypatch.undo()
    host.maker.remove_leftovers()


def test_what_failed_first_is_told_too(host, given):
    host.simulated.add_fault(HOST, "MSFT_HgsKeyProtector.NewByGuardians", return_value=32768)
    host.simulated.add_fault(HOST, "MSFT_HgsGuardian.Remove", return_value=5)
    with pytest.raises(errors.HostGuardianError, match=(
            "NewByGuardians returned 32768.*MSFT_HgsGuardian.Remove returned 5")):
        make(host, owner=given.owner)
    host.maker.remove_leftovers()


def test_no_private_key_is_in_a_traceback(host, given):
    host.simulated.add_fault(HOST, "MSFT_HgsGuardian.NewByAcceptCertificates", return_value=5)
    with pytest.raises(errors.HostGuardianError) as caught:
        make(host, owner=given.owner)
    seen, frame = [caught.value.__cause__, caught.value.__context__], caught.tb
    assert seen == [None, None]
    while frame is not None:
        code, values = frame.tb_frame.f_code, frame.tb_frame.f_locals.values()
        if "vtpm_compute" in code.co_filename and code.co_name != "make":
            assert not any(isinstance(one, (bytes, owner_pfx.Owner)) for one in values)
            assert not any(isinstance(one, str) and len(one) == 43 for one in values)
        frame = frame.tb_next


def test_a_certificate_that_cannot_be_read_keeps_nothing_else(host, given):
    """X.509 version 0, say, of another program's in the same store."""
    odd = given.owner.signing.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01", 1)
    assert odd != given.owner.signing.der
    host.simulated.add_certificate(HOST, certificates.SHIELDED, odd)
    make(host, owner=given.owner)
    make(host)
    host.simulated.host(HOST).hgs_client.certificates.delete_certificate(
        certificates.SHIELDED, odd)


class Killed(BaseException):
    """nova-compute is gone: nothing of it runs any more."""


@pytest.fixture
def killer(host, monkeypatch):
    """A list: after that many further calls of Windows and of files, all of them kill."""
    countdown = []

    def counted(function):
        def call(*arguments, **keywords):
            if countdown:
                if countdown[0] <= 0:
                    raise Killed
                countdown[0] -= 1
            return function(*arguments, **keywords)
        return call
    access = type(host.simulated.host(HOST).certificate_access)
    monkeypatch.setattr(access, "call", counted(access.call))
    client = type(host.client)
    for name in ("_call", "guardians", "remove"):
        monkeypatch.setattr(client, name, counted(getattr(client, name)))
    monkeypatch.setattr(module("private_folders"), "os", types.SimpleNamespace(**dict(
        vars(os), **{name: counted(getattr(os, name)) for name in failing_files.FUNCTIONS})))
    return countdown


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_process_leaves_what_the_next_one_finds(host, given, kind, killer):
    """Killed at each call in turn, and again at each of the next process's clean-up."""
    parts, tried = ingredients(given, kind), 0

    def killed_after(number, function):
        killer[:] = [number]
        try:
            function()
        except Killed:
            return True
        finally:
            killer.clear()
        return False

    while killed_after(tried, lambda: make(host, **parts)):
        tried += 1
        again = tried % 7  # not all of them, for all: it would be thousands
        while killed_after(again, host.maker.remove_leftovers):
            again += 5
        host.maker.remove_leftovers()
        host.assert_nothing_left()
    print("%s: killed at %d points" % (kind, tried))
    assert tried > 10


def make_owner(name, prefix=None):
    """An owner as an earlier process left it: its guardian's name."""
    if prefix is None:
        prefix = module("protector_maker").OWNER_PREFIX
    importlib.import_module("wmi").WMI(
        "//./Root/Microsoft/Windows/Hgs").MSFT_HgsGuardian.NewByGenerateCertificates(
            Name=prefix + name, GenerateCertificates=True)
    return prefix + name


def test_nothing_stays_when_an_argument_is_wrong(host):
    unknown = module("guardians").Guardian("no handle", "00")
    with pytest.raises(errors.HostGuardianError, match="cannot be made on the host"):
        host.maker.make(unknown)
    host.assert_nothing_left()


@pytest.mark.parametrize("known_by", ["guardian and keys", "keys", "guardian"])
def test_an_owner_that_is_on_the_host_already(host, given, known_by):
    """It would be removed with ours, whosever it is."""
    signing, encryption = (os.path.join(os.path.dirname(host.scratch), name)
                           for name in ("signing", "encryption"))
    for path, content in zip((signing, encryption), given.files):
        with open(path, "wb") as file:
            file.write(content)
    name = "of the operator"
    host.client.accept(name, signing, encryption, "")
    if known_by == "keys":
        host.client.remove(name)
    elif known_by == "guardian":
        for one in host.simulated.certificates(HOST):
            host.simulated.remove_certificate(HOST, one["thumbprint"])
    keys = host.simulated.private_keys(HOST)
    with pytest.raises(errors.HostGuardianError, match="are on the host already"):
        make(host, owner=given.owner)
    host.maker.remove_leftovers()
    assert host.simulated.private_keys(HOST) == keys
    host.assert_no_file_left()
    for one in host.simulated.certificates(HOST):
        host.simulated.remove_certificate(HOST, one["thumbprint"])
    if known_by != "keys":
        host.client.remove(name)


def test_leftovers_are_only_those_that_were_made_here(host, caplog):
    left = make_owner("1")
    without_guardian = make_owner("2")
    host.simulated.remove_guardian(HOST, without_guardian)
    others = [make_owner(name, prefix="") for name in (
        "of another program", "nova-vtpm", "my-nova-vtpm-owner-3")]
    host.folders.new("%08x-1111-4444-8888-555555555555" % 1).remove()
    os.mkdir(os.path.join(host.scratch, "of another program"))
    host.maker.remove_leftovers()
    names = [one["name"] for one in host.simulated.guardians(HOST)]
    kept = host.simulated.certificates(HOST)
    for other in others:
        host.simulated.remove_guardian(HOST, other)
    for one in kept:
        host.simulated.remove_certificate(HOST, one["thumbprint"])
    assert names == [FABRIC, OTHER, *others]
    assert [(one["guardian"], one["has_private_key"]) for one in kept] == [
        (other, True) for other in others for _ in range(2)]
    assert "%s, %s" % (left, without_guardian) in caplog.text
    os.rmdir(os.path.join(host.scratch, "of another program"))


def test_certificates_of_an_owner_are_known_without_their_subject(host, monkeypatch):
    """By the thumbprints of its guardian, whatever Windows writes into the subject."""
    make_certificate = certificates.make_certificate
    monkeypatch.setattr(
        certificates, "make_certificate",
        lambda name, *arguments: make_certificate("A certificate", *arguments))
    make_owner("1")
    host.maker.remove_leftovers()
    host.assert_nothing_left()
    make(host)


def test_a_host_that_never_made_a_guardian_has_nothing_to_remove(tmp_path, caplog):
    fresh = fabric.Fabric({"hosts": [{"name": HOST}]})
    windows.install(fresh, HOST)
    module("protector_maker").ProtectorMaker(
        module("guardians").HostGuardianClient(),
        module("private_folders").PrivateFolders(str(tmp_path / "scratch"))).remove_leftovers()
    assert not fresh.host(HOST).hgs_client.certificates.exists(certificates.SHIELDED)
    assert not (tmp_path / "scratch").exists()
    assert caplog.text == ""


def test_a_key_that_is_not_found_when_it_was_just_made(host, given):
    """Windows also says so of a key that may not be opened: no server is built on that."""
    for owner in (None, given.owner):
        host.simulated.add_fault(
            HOST, "crypt32.CryptAcquireCertificatePrivateKey", return_value=0x80090016)
        with pytest.raises(errors.HostGuardianError, match="does not find the private key"):
            make(host, owner=owner)
        assert len(host.simulated.private_keys(HOST)) == 1
        host.maker.remove_leftovers()
        host.assert_nothing_left()


def test_a_key_that_cannot_be_deleted_keeps_its_guardian(host):
    host.simulated.add_fault(HOST, "ncrypt.NCryptDeleteKey", return_value=0x80090010, times=2)
    message = "may stay on the host: NCryptDeleteKey failed with 0x80090010"
    with pytest.raises(errors.HostGuardianError, match=message) as caught:
        make(host)
    assert str(caught.value).count("may stay on the host") == 2
    assert len(host.simulated.private_keys(HOST)) == 2
    assert len(host.simulated.guardians(HOST)) == 3
    host.maker.remove_leftovers()


def keep_keys(host, times):
    """Windows does not let private keys be deleted so many times; an owner has two."""
    host.simulated.add_fault(HOST, "ncrypt.NCryptDeleteKey", return_value=0x80090010, times=times)


def leave_keys(host, **parts):
    """A protector is not made, and its owner's private keys stay."""
    keep_keys(host, 2)
    with pytest.raises(errors.HostGuardianError, match="may stay on the host"):
        make(host, **parts)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_what_could_not_be_undone_is_removed_before_the_next_one(host, given, first, second):
    """The same owner would be refused until nova-compute starts anew."""
    leave_keys(host, **ingredients(given, first))
    assert len(host.simulated.private_keys(HOST)) == 2
    make(host, **ingredients(given, second))
    host.assert_nothing_left()


def test_what_cannot_be_undone_again_keeps_nobody_else(host, given):
    leave_keys(host, owner=given.owner)
    keep_keys(host, 2)
    with pytest.raises(errors.HostGuardianError, match="are on the host already"):
        make(host, owner=given.owner)
    keep_keys(host, 2)
    make(host)
    assert len(host.simulated.private_keys(HOST)) == 2
    make(host, owner=given.owner)
    host.assert_nothing_left()


def test_undoing_again_takes_nothing_of_a_protector_that_is_made_meanwhile(
        host, given, monkeypatch):
    new_protector, begun = host.client.new_protector, []

    def making_others_first(*arguments):
        if not begun:
            begun.append(None)
            leave_keys(host, owner=given.owner)
            make(host, owner=given.owner)
        return new_protector(*arguments)
    monkeypatch.setattr(host.client, "new_protector", making_others_first)
    make(host)
    host.assert_nothing_left()


def test_notes_that_were_not_written_to_their_end(host, given):
    folder = host.folders.new("%08x-1111-4444-8888-555555555555" % 1)
    folder.write("certificates", b"00" * 20 + b"\n" + b"A1" * 7)
    host.maker.remove_leftovers()
    host.assert_nothing_left()


def test_what_wmi_refuses_is_our_error(host, tmp_path):
    windows.install(host.simulated, OLD_HOST)
    maker = module("protector_maker").ProtectorMaker(
        module("guardians").HostGuardianClient(), host.folders)
    for call in (maker.remove_leftovers, lambda: maker.make(None)):
        with pytest.raises(errors.HostGuardianError, match="x_wmi|namespace|Namespace"):
            call()
    windows.install(host.simulated, HOST)


def test_nothing_secret_is_logged(host, given, caplog):
    caplog.set_level(logging.DEBUG)
    make(host, owner=given.owner, further=given.further)
    ((_, _, parameters, _),) = host.simulated.calls(
        HOST, "MSFT_HgsGuardian.NewByAcceptCertificates")
    password = parameters["SigningCertificatePassword"]
    assert len(password) > 40
    assert password not in caplog.text
    text = caplog.text.encode()
    assert [needle for file in given.files for needle in secrets_in_logs.needles(file)
            if needle in text] == []


def test_a_fabric_of_one_host_in_a_folder_that_is_a_file(guarded_fabric, given, tmp_path):
    (tmp_path / "scratch").write_text("")
    host = GuardedHost(guarded_fabric, str(tmp_path / "scratch"))
    with pytest.raises(errors.HostGuardianError, match="private folder cannot be made") as caught:
        make(host, owner=given.owner)
    assert str(tmp_path) not in str(caught.value)
    assert host.simulated.private_keys(HOST) == []
