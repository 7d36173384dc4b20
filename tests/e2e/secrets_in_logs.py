"""Looks for the bytes of secrets in the logs, in every form in which they could be there."""

import base64

_LENGTH = 24


def needles(payload):
    """Pieces of a payload as code prints them: raw, base64, hexadecimal, repr, numbers."""
    found = set()
    for start in {0, 4, len(payload) // 4, len(payload) // 2, 3 * len(payload) // 4}:
        piece = payload[start:start + _LENGTH]
        # Shorter ones are found by chance.
        if len(piece) < _LENGTH:
            continue
        found.add(piece)
        found.add(piece.hex().encode())
        found.add(repr(piece)[2:-1].encode())
        found.add(", ".join(map(str, piece)).encode())
        # In the base64 of a longer text a piece begins at any of three places.
        for shift in range(3):
            whole = base64.b64encode(b"x" * shift + piece)
            found.add(whole[4 if shift else 0:-4])
    return found


def find(folder, payloads):
    """Where in the files of a folder any payload is: [(file, needle)]."""
    wanted = set().union(*map(needles, payloads)) if payloads else set()
    hits = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            hits += [(path.name, needle) for needle in wanted if needle in content]
    return hits


def assert_none(cloud, payloads):
    """No log of any service holds a piece of any payload."""
    assert payloads
    logs = list(cloud.log_dir.rglob("*"))
    assert sum(path.stat().st_size for path in logs if path.is_file()) > 100000
    assert find(cloud.log_dir, payloads) == []
