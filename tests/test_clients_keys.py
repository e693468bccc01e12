"""API keys of the SDK: where they are read from, what they sign, and that no text shows them."""

import json
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from live import Live, clock_ns

from clients.aio import AsyncClient
from clients.bots import options
from clients.errors import LogonRefused, ValueRefused
from clients.keys import Key
from exchange.app.requests import Deposit
from exchange.gateway.access import is_signed, sign
from exchange.gateway.auth import create_key

SECRET: Final = "hourbook-example-of-a-secret"
TEXT: Final = b"1700000000000\n1\nk1\n0"


def pem_of(private: Ed25519PrivateKey | X25519PrivateKey, password: bytes = b"") -> bytes:
    protection = BestAvailableEncryption(password) if password else NoEncryption()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def public_of(private: Ed25519PrivateKey) -> str:
    return private.public_key().public_bytes_raw().hex()


@pytest.fixture
def private() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def written(folder: Path, name: str, content: bytes | dict[str, str]) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def test_a_key_signs_what_the_exchange_verifies(private: Ed25519PrivateKey) -> None:
    assert Key.hmac("k1", SECRET).sign(TEXT) == sign(SECRET, TEXT)
    signed = Key.ed25519("k1", pem_of(private)).sign(TEXT)
    assert is_signed("ed25519", public_of(private), TEXT, signed)


def test_a_key_is_read_from_files_and_the_environment(
    tmp_path: Path, private: Ed25519PrivateKey
) -> None:
    pem = written(tmp_path, "private.pem", pem_of(private))
    with_secret = written(tmp_path, "key.json", {"key_id": "k1", "secret": SECRET})
    without = written(tmp_path, "public.json", {"key_id": "k1"})
    naming = written(tmp_path, "both.json", {"key_id": "k1", "private_key": "private.pem"})
    by_secret = [
        Key.from_file(with_secret),
        Key.from_environment({"HOURBOOK_KEY": with_secret}),
        Key.from_environment({"HOURBOOK_KEY_ID": "k1", "HOURBOOK_SECRET": SECRET}),
        Key.from_environment(
            {"HOURBOOK_KEY": "", "HOURBOOK_KEY_ID": "k1", "HOURBOOK_SECRET": SECRET}
        ),
        Key.from_environment({"HOURBOOK_KEY_ID": "k1\n", "HOURBOOK_SECRET": f"{SECRET}\n"}),
    ]
    by_pem = [
        Key.from_file(without, pem),
        Key.from_file(naming),
        Key.from_environment({"HOURBOOK_KEY": without, "HOURBOOK_PRIVATE_KEY": pem}),
        Key.from_environment({"HOURBOOK_KEY_ID": "k1", "HOURBOOK_PRIVATE_KEY": pem}),
    ]
    assert {key.sign(TEXT) for key in by_secret} == {sign(SECRET, TEXT)}
    assert len({key.sign(TEXT) for key in by_pem}) == 1
    assert {key.algorithm for key in by_pem} == {"ed25519"}


def faults(folder: Path, private: Ed25519PrivateKey) -> dict[str, Callable[[], Key]]:
    """Keys that cannot be had, each near a secret."""
    hidden = written(folder, "hidden.pem", pem_of(private, b"password"))
    other = written(folder, "other.pem", pem_of(X25519PrivateKey.generate()))
    broken = written(folder, "broken.json", f'{{"key_id": "k1", "secret": "{SECRET}"'.encode())
    bare = written(folder, "bare.json", {"key_id": "k1"})
    return {
        "no Ed25519 private key": lambda: Key.ed25519("k1", SECRET.encode()),
        "without a password": lambda: Key.from_file(bare, hidden),
        "private key without": lambda: Key.from_file(bare, other),
        "no key file": lambda: Key.from_file(broken),
        "name the PEM file": lambda: Key.from_file(bare),
        "cannot be read": lambda: Key.from_file(bare, folder / "none.pem"),
        "HOURBOOK_KEY": lambda: Key.from_environment({"HOURBOOK_SECRET": SECRET}),
    }


def test_what_is_no_key_is_refused_and_no_secret_is_told(
    tmp_path: Path, private: Ed25519PrivateKey
) -> None:
    for said, read in faults(tmp_path, private).items():
        with pytest.raises(ValueRefused, match=said) as refused:
            read()
        if said != "HOURBOOK_KEY":  # whose mapping the test itself holds
            frames = list(traceback.walk_tb(refused.tb))[2:]  # without those of the test
            told = "".join(repr(frame.f_locals) for frame, _ in frames)
            assert SECRET not in told + str(refused.value) and "PRIVATE KEY" not in told


def test_half_a_key_is_refused_and_not_taken_for_none() -> None:
    """Without an id a client has public data only, and without a secret a bad signature."""
    for key_id, secret in (("", SECRET), ("k1", "")):
        with pytest.raises(ValueRefused, match="of the key is empty") as refused:
            AsyncClient("ws://127.0.0.1:9", key_id, secret)
        assert SECRET not in str(refused.value)
    with pytest.raises(ValueRefused, match="no key: set HOURBOOK_KEY"):
        Key.from_environment({"HOURBOOK_KEY_ID": "k1", "HOURBOOK_SECRET": ""})


def test_nonces_rise_whatever_the_clock_does() -> None:
    key = Key.hmac("k1", SECRET)
    nonces = [key.next_nonce(now) for now in (5, 5, 3, 9)]
    assert nonces == [5, 6, 7, 9]


async def test_a_refused_logon_shows_no_secret(tmp_path: Path) -> None:
    client = AsyncClient("ws://127.0.0.1:9", Key.hmac("k1", SECRET))
    async with Live.open(tmp_path) as live:
        client = AsyncClient(live.addresses.ws, Key.hmac("k1", SECRET), clock_ns=clock_ns)
        with pytest.raises(LogonRefused) as refused:
            await client.connect()
    locals_shown = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    shown = "".join(locals_shown.format()) + repr(vars(client)) + repr(vars(client._session))
    assert "k1" in shown and SECRET not in shown
    assert SECRET not in repr(vars(client._session.key))
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(client._session.key)


async def test_an_ed25519_key_logs_on_and_signs_http(
    tmp_path: Path, private: Ed25519PrivateKey
) -> None:
    async with Live.open(tmp_path / "market") as live:
        await live.market.operations.perform(Deposit(account=1, amount="1000"))
        key_id, secret = create_key(
            live.market.directory, 1, "trade", public_key=public_of(private)
        )
        assert secret == ""
        key = Key.ed25519(key_id, pem_of(private))
        async with AsyncClient(live.addresses.ws, key, clock_ns=clock_ns) as client:
            assert client.account == 1
            (told,) = await client.rest.keys()
            assert (told.key_id, told.algorithm) == (key_id, "ed25519")
        wrong = Key.ed25519(key_id, pem_of(Ed25519PrivateKey.generate()))
        with pytest.raises(LogonRefused) as refused:
            await AsyncClient(live.addresses.ws, wrong, clock_ns=clock_ns).connect()
        assert refused.value.reason == "BAD_SIGNATURE"


def test_the_bots_take_their_key_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "key.json", {"key_id": "k7", "secret": SECRET})
    parser = options.parser("?")
    assert options.key_of(parser.parse_args(["--key", path])).key_id == "k7"
    monkeypatch.setenv("HOURBOOK_KEY", path)
    assert options.key_of(parser.parse_args([])).key_id == "k7"
