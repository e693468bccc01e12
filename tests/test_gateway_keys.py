"""API keys: the file, the signature, the time window, nonces and the lockout."""

import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.gateway import auth
from exchange.messages import wire


def test_the_key_file_is_private_and_keys_can_be_revoked(tmp_path: Path) -> None:
    key_id, secret = auth.create_key(tmp_path, 7, "trade")
    assert stat.S_IMODE((tmp_path / auth.FILE).stat().st_mode) == 0o600
    assert [key.key_id for key in auth.list_keys(tmp_path)] == [key_id]
    assert len(secret) == 64
    auth.revoke_key(tmp_path, key_id)
    assert auth.list_keys(tmp_path) == []
    with pytest.raises(LookupError):
        auth.revoke_key(tmp_path, key_id)
    with pytest.raises(ValueError, match="scope"):
        auth.create_key(tmp_path, 7, "everything")


def test_a_signature_is_hmac_sha256(shared: Path) -> None:
    cases = {case["id"]: case for case in msgspec.json.decode(read(shared))["cases"]}
    known = cases["KA3"]
    message = known["inputs"]["message"].encode()
    assert auth.sign(known["inputs"]["key"], message) == known["expected"]["hex"]


def read(shared: Path) -> bytes:
    return (shared / "vectors" / "auth.json").read_bytes()


def logon_at(key: tuple[str, str], timestamp_ms: int, nonce: int, *, bad: bool = False) -> Any:
    text = wire.signed_text(timestamp_ms, nonce, key[0], 0)
    signature = auth.sign(key[1], text)
    return wire.Logon(
        key_id=key[0],
        timestamp_ms=timestamp_ms,
        nonce=nonce,
        signature=signature.upper() if bad else signature,
    )


def test_time_window_nonces_and_lockout_as_the_vectors_have_them(
    tmp_path: Path, shared: Path
) -> None:
    cases = {case["id"]: case for case in msgspec.json.decode(read(shared))["cases"]}
    keys = auth.Keys(tmp_path)
    window = cases["TW1"]["inputs"]
    got = []
    key = auth.create_key(tmp_path, 1, "trade")
    for nonce, stamp in enumerate(window["timestamps_ms"]):
        verdict = keys.check(logon_at(key, stamp, nonce), window["server_ms"])
        got.append("accept" if isinstance(verdict, auth.Key) else "reject")
    assert got == cases["TW1"]["expected"]["results"]

    key, got = auth.create_key(tmp_path, 1, "trade"), []
    keys.check(logon_at(key, 1000, cases["NC1"]["inputs"]["last"]), 1000)
    for nonce in cases["NC1"]["inputs"]["nonces"]:
        verdict = keys.check(logon_at(key, 1000, nonce), 1000)
        got.append("accept" if isinstance(verdict, auth.Key) else "reject")
    assert got == cases["NC1"]["expected"]["results"]

    key, got = auth.create_key(tmp_path, 1, "trade"), []
    for nonce, attempt in enumerate(cases["LK1"]["inputs"]["attempts"]):
        verdict = keys.check(logon_at(key, 1000, nonce, bad=attempt == "bad"), 1000)
        named = {"KEY_LOCKED": "locked"}.get(getattr(verdict, "name", ""), "reject")
        got.append("accept" if isinstance(verdict, auth.Key) else named)
    assert got == cases["LK1"]["expected"]["results"]
