"""A short run of the fuzzer, and that it finds what it looks for."""

import pytest

from tests.fuzz import fuzz_key_protector
from vtpm_compute import guardian_metadata, key_material, key_protector, owner_pfx


@pytest.mark.parametrize(("target", "count", "reached"), [
    ("protector", 4000, (
        "taken: ", "is over something else", "was not made with its key", "cannot be read",
        "has no owner", "two of its wrappings")),
    ("metadata", 1500, (
        "taken: ", "was not made with its key", "cannot be read", "is not a number of N bits")),
    ("pfx", 400, (
        "taken: ", "has a password, or is damaged", "asks for more than N repetitions",
        "is not whole")),
    ("mixture", 500, (
        "taken: a protector", "taken: N guardians and an owner", "taken: N guardians",
        "they exclude each other", "more than one owner"))])
def test_some_thousand_inputs(target, count, reached):
    """It gets past what is looked at first."""
    result = fuzz_key_protector.run(seed=1, count=count, targets=[target])
    assert result.failure is None, result.failure
    assert result.count == count
    for words in reached:
        assert any(words in outcome for outcome in result.outcomes), words


def test_another_error_is_a_failure(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(key_protector, "_check_chain", lambda read: {}["missing"])
    monkeypatch.setattr("sys.argv", [
        "fuzz", "--count", "1000", "--seed", "1", "--keep", str(tmp_path), "--target",
        "protector"])
    assert fuzz_key_protector.main() == 1
    assert "FAILED: KeyError('missing'); the input for protector is" in capsys.readouterr().out
    monkeypatch.undo()
    kept = (tmp_path / "fuzz-key-protector-failure").read_bytes()
    assert kept.startswith(b"\0\0") or kept.startswith(b"<")


@pytest.mark.parametrize(("target", "module"), [
    ("metadata", guardian_metadata), ("pfx", owner_pfx), ("mixture", key_material)])
def test_an_error_of_each_target_is_a_failure(monkeypatch, target, module):
    monkeypatch.setattr(module, {"metadata": "_read", "pfx": "_owner", "mixture": "_kind"}[target],
                        lambda *given: {}["missing"])
    failure = fuzz_key_protector.run(seed=1, count=500, targets=[target]).failure
    assert failure.target == target and isinstance(failure.fault, KeyError)


def test_all_is_fuzzed_where_nothing_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", [
        "fuzz", "--count", "200", "--seed", "1", "--keep", str(tmp_path)])
    assert fuzz_key_protector.main() == 0
    shown = capsys.readouterr().out
    for target in fuzz_key_protector.Targets.NAMES:
        assert "  %s: " % target in shown
    assert (tmp_path / "fuzz-key-protector-slowest").exists()


def test_it_wants_to_know_how_long(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fuzz"])
    with pytest.raises(SystemExit):
        fuzz_key_protector.main()
    assert "--count, --minutes or both" in capsys.readouterr().err
