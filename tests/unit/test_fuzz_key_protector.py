"""A short run of the fuzzer, and that it finds what it looks for."""

import pytest

from tests.fuzz import fuzz_key_protector
from vtpm_compute import key_protector


def test_some_thousand_inputs():
    result = fuzz_key_protector.run(seed=1, count=4000)
    assert result.failure is None, result.failure
    assert result.count == 4000
    # It gets past the length and the XML, into certificates and signatures.
    for words in ("taken: ", "is over something else", "was not made with its key",
                  "cannot be read", "has no owner", "two of its wrappings"):
        assert any(words in outcome for outcome in result.outcomes), words


def test_another_error_is_a_failure(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(key_protector, "_check_chain", lambda read: {}["missing"])
    monkeypatch.setattr("sys.argv", [
        "fuzz", "--count", "1000", "--seed", "1", "--keep", str(tmp_path)])
    assert fuzz_key_protector.main() == 1
    assert "FAILED: KeyError('missing')" in capsys.readouterr().out
    monkeypatch.undo()
    kept = (tmp_path / "fuzz-key-protector-failure").read_bytes()
    assert kept.startswith(b"\0\0") or kept.startswith(b"<")


def test_it_wants_to_know_how_long(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fuzz"])
    with pytest.raises(SystemExit):
        fuzz_key_protector.main()
    assert "--count, --minutes or both" in capsys.readouterr().err
