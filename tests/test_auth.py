"""Keys and proofs: every case of the vectors, scopes, addresses, rotation, lockouts, secrets."""

import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benches.calls import noted
from exchange.gateway import access, auth, lockouts
from exchange.messages import Reason
from exchange.messages.access import SCOPES, GatewayReason, Right, Scope
from exchange.messages.wire import AnyRequest

DOCS: Final = Path(__file__).parents[1] / "docs" / "reference"
NOW: Final = 1_800_000_000_000
TEXT: Final = b"whatever a protocol signs"
R = Reason
PRIVATE: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC: Final = PRIVATE.public_key().public_bytes_raw().hex()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("PRAGMA user_version = 2", "the layout 2 of a later build, and this one knows 1: use the"),
        ("ALTER TABLE keys DROP COLUMN expires_ms; PRAGMA user_version = 0", "of another build: "),
    ],
)
def test_a_key_file_of_another_build_is_refused_by_name(
    tmp_path: Path, change: str, says: str
) -> None:
    auth.create_key(tmp_path, 1, "trade")
    with closing(sqlite3.connect(tmp_path / auth.FILE)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (auth.KEYS_VERSION,)
        database.executescript(change)
    for use in (auth.Keys, auth.list_keys):
        with pytest.raises(auth.OtherKeys, match=says):
            use(tmp_path)


class Client:
    """Makes proofs under a key; ``bad`` ones are signed with another secret."""

    def __init__(self, key: tuple[str, str]) -> None:
        self.key_id, self.secret = key
        self.nonce = 0

    def proof(self, *, bad: bool = False, **fields: Any) -> access.Proof:
        self.nonce += 1
        secret = "another" if bad else self.secret
        signed = access.sign(secret, TEXT) if secret else PRIVATE.sign(TEXT).hex()
        given = {"key_id": self.key_id, "text": TEXT, "signature": signed, "timestamp_ms": NOW,
                 "nonce": self.nonce, **fields}  # fmt: skip
        return access.Proof(**given)


@pytest.fixture
def keys(tmp_path: Path) -> auth.Keys:
    return auth.Keys(tmp_path)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(auth.create_key(tmp_path, 7, "trade"))


def outcome(verdict: object) -> str:
    if isinstance(verdict, access.Key):
        return "accept"
    return "locked" if verdict is R.KEY_LOCKED else "reject"


# The vectors: one check a kind, and every case is of a kind.


def hmac_known(case: Any, keys: auth.Keys, client: Client) -> object:
    return {"hex": access.sign(case["key"], case["message"].encode())}


def ed25519_known(case: Any, keys: auth.Keys, client: Client) -> object:
    message, signature = bytes.fromhex(case["message_hex"]), case["signature_hex"]
    return {"valid": access.is_signed("ed25519", case["public_hex"], message, signature)}


def three_lines(case: Any, keys: auth.Keys, client: Client) -> object:
    text = f"{case['timestamp']}\n{case['nonce']}\n{case['data']}"
    return {"hex": access.sign(case["secret"], text.encode())}


def window(case: Any, keys: auth.Keys, client: Client) -> object:
    assert (case["ahead_ms"], case["window_ms"]) == (access.AHEAD_MS, access.WINDOW_MS)
    proofs = [client.proof(timestamp_ms=stamp) for stamp in case["timestamps_ms"]]
    return {"results": [outcome(keys.check(proof, case["server_ms"])) for proof in proofs]}


def nonces(case: Any, keys: auth.Keys, client: Client) -> object:
    assert outcome(keys.check(client.proof(nonce=case["last"]), NOW)) == "accept"
    proofs = [client.proof(nonce=nonce) for nonce in case["nonces"]]
    return {"results": [outcome(keys.check(proof, NOW)) for proof in proofs]}


def lockout(case: Any, keys: auth.Keys, client: Client) -> object:
    assert case["limit"] == lockouts.BAD_LIMIT
    proofs = [client.proof(bad=attempt == "bad") for attempt in case["attempts"]]
    return {"results": [outcome(keys.check(proof, NOW)) for proof in proofs]}


KINDS: Final[dict[str, Callable[[Any, auth.Keys, Client], object]]] = {
    "hmac": hmac_known, "ed25519": ed25519_known, "ts_nonce_data_hmac": three_lines,
    "time_window": window, "nonce": nonces, "lockout": lockout,
}  # fmt: skip
CASES: Final = ("KA3", "KA6", "KA7", "KA9", "KA10", "TW1", "NC1", "LK1")


def vectors(shared: Path) -> dict[str, Any]:
    cases = msgspec.json.decode((shared / "vectors" / "auth.json").read_bytes())["cases"]
    return {case["id"]: case for case in cases}


@pytest.mark.parametrize("name", CASES)
def test_a_case_of_the_vectors(name: str, shared: Path, keys: auth.Keys, client: Client) -> None:
    case = vectors(shared)[name]
    assert KINDS[case["kind"]](case["inputs"], keys, client) == case["expected"]


def test_no_case_of_the_vectors_is_left_out(shared: Path) -> None:
    assert set(CASES) == set(vectors(shared)) and len(CASES) == len(set(CASES))


# Signatures


def test_an_ed25519_key_has_no_secret_here(tmp_path: Path, keys: auth.Keys) -> None:
    key_id, secret = auth.create_key(tmp_path, 3, "read", public_key=PUBLIC)
    client = Client((key_id, secret))
    verdict = keys.check(client.proof(), NOW)
    assert secret == "" and isinstance(verdict, access.Key)
    assert (verdict.account, verdict.algorithm) == (3, "ed25519")
    signature = PRIVATE.sign(TEXT).hex()
    for odd in (signature.upper(), f"{signature[:-1]} ", "0" * 128, access.sign(PUBLIC, TEXT)):
        assert keys.check(client.proof(signature=odd), NOW) in (R.BAD_SIGNATURE, R.KEY_LOCKED)
    with pytest.raises(ValueError, match=r"32|hex"):
        auth.create_key(tmp_path, 3, "read", public_key="00")


@pytest.mark.parametrize("signature", ["0" * 64, "0" * 128, "\ud800", ""])
def test_an_unknown_key_takes_the_path_of_a_bad_signature_b02(
    keys: auth.Keys, client: Client, signature: str
) -> None:
    """The same functions in the same order, whatever the signature's form."""

    def path(key_id: str) -> tuple[list[str], object]:
        proof = client.proof(key_id=key_id, signature=signature)
        with noted() as called:
            verdict = keys.check(proof, NOW)
        return called, verdict

    path(client.key_id)  # what is loaded or cached at a first use
    path("0" * 16)
    known, unknown = path(client.key_id), path("f" * 16)
    assert known == unknown and known[1] is R.BAD_SIGNATURE
    assert "is_signed" in known[0]


# Scopes


def test_every_request_of_a_session_has_its_right() -> None:
    assert set(access.NEEDS) == set(get_args(AnyRequest))


def test_scopes_and_their_rights(tmp_path: Path) -> None:
    assert set(SCOPES) == set(get_args(Scope))
    granted = {
        scope: "".join(
            (right.name or "")[0] for right in Right if access.Key("k", 1, scope).may(right)
        )
        for scope in SCOPES
    }
    assert granted == {"read": "R", "trade": "RCT", "cancel_only": "RC", "clear": "RC",
                       "admin": "RCA"}  # fmt: skip
    assert not access.Key("k", 1, "clear").may(Right.CANCEL)
    assert not access.Key("k", 1, "admin").may(Right.TRADE)
    with pytest.raises(ValueError, match="scope"):
        auth.create_key(tmp_path, 7, "everything")  # type: ignore[arg-type]


def test_the_gateways_own_numbers_are_nobody_elses() -> None:
    assert {r.value for r in GatewayReason}.isdisjoint(r.value for r in Reason)
    assert {r.name for r in GatewayReason}.isdisjoint(r.name for r in Reason)


def test_the_page_has_the_scopes_and_the_numbers() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z ]+) \|", (DOCS / "keys.md").read_text(), re.MULTILINE)
    told = {
        scope: " ".join(right.name or "" for right in rights) for scope, rights in SCOPES.items()
    }
    assert dict(rows) == told
    page = (DOCS / "rejects.md").read_text()
    for reason in GatewayReason:
        assert f"| {reason.value} | {reason.name} |" in page


# Addresses


@pytest.mark.parametrize(
    ("address", "good"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("10.2.0.1", False), ("2001:db8::7", True),
     ("2001:db9::7", False), ("fe80::1%eth0", False), ("", False), ("no address", False)],
)  # fmt: skip
def test_an_address_list(tmp_path: Path, keys: auth.Keys, address: str, good: bool) -> None:
    allowed = ("10.1.0.0/16", "2001:db8::/32")
    client = Client(auth.create_key(tmp_path, 1, "trade", addresses=allowed))
    verdict = keys.check(client.proof(address=address), NOW)
    assert isinstance(verdict, access.Key) if good else verdict is GatewayReason.ADDRESS
    if not good:  # a bad signature from there learns nothing of the list
        assert keys.check(client.proof(address=address, bad=True), NOW) is R.BAD_SIGNATURE
    with pytest.raises(ValueError, match="does not appear"):
        auth.create_key(tmp_path, 1, "trade", addresses=("10.1.0.0/99",))


# Lockouts


def test_a_lock_is_of_one_address_and_ends(
    keys: auth.Keys, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(lockouts.BAD_LIMIT):
        keys.check(client.proof(bad=True, address="192.0.2.1"), NOW)
    assert keys.check(client.proof(address="192.0.2.1"), NOW) is R.KEY_LOCKED
    assert isinstance(keys.check(client.proof(address="192.0.2.2"), NOW), access.Key)
    (record,) = caplog.records
    assert client.key_id in record.getMessage() and "192.0.2.1" in record.getMessage()
    end = NOW + lockouts.LOCK_MS
    assert keys.check(client.proof(address="192.0.2.1"), end - 1) is R.KEY_LOCKED
    late = client.proof(address="192.0.2.1", timestamp_ms=end)
    assert isinstance(keys.check(late, end), access.Key)


def test_a_key_id_in_the_log_is_inert_b102(
    keys: auth.Keys, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(lockouts.BAD_LIMIT):
        keys.check(Client(("k\nERROR all is lost\x1b[31m" + "x" * 99, "s")).proof(), NOW)
    (record,) = caplog.records
    assert record.getMessage().isprintable() and len(record.getMessage()) < 200


def test_what_is_counted_is_bounded(monkeypatch: pytest.MonkeyPatch, keys: auth.Keys) -> None:
    monkeypatch.setattr(lockouts, "FAILURES_COUNTED", 100)
    for number in range(300):
        keys.check(Client((f"k{number}", "s")).proof(), NOW)
    (counted,) = keys._database.execute("SELECT count(*) FROM failures").fetchone()
    assert counted == 100
    for _ in range(2):  # the last hundred failures are
        keys.check(Client(("k299", "s")).proof(), NOW)
    assert keys._database.execute(
        "SELECT key_id, count FROM failures WHERE key_id IN ('k201', 'k202', 'k299') ORDER BY 1"
    ).fetchall() == [("k202", 1), ("k299", 3)]


def test_bad_signatures_are_counted_by_all_gateways_together(
    tmp_path: Path, client: Client
) -> None:
    gateways = [auth.Keys(tmp_path) for _ in range(3)]
    for number in range(lockouts.BAD_LIMIT):
        judged = gateways[number % 3].check(client.proof(bad=True, address="192.0.2.1"), NOW)
        assert judged is R.BAD_SIGNATURE
    for keys in (*gateways, auth.Keys(tmp_path)):  # one that was started again, too
        assert keys.check(client.proof(address="192.0.2.1"), NOW) is R.KEY_LOCKED
    later = NOW + lockouts.LOCK_MS
    for _ in range(lockouts.BAD_LIMIT - 1):  # the count has begun anew
        proof = client.proof(bad=True, address="192.0.2.1", timestamp_ms=later)
        assert gateways[0].check(proof, later) is R.BAD_SIGNATURE
    good = client.proof(address="192.0.2.1", timestamp_ms=later)
    assert isinstance(gateways[1].check(good, later), access.Key)
    for keys in gateways:  # and is cleared by a good one, wherever it came
        proof = client.proof(bad=True, address="192.0.2.1", timestamp_ms=later)
        assert keys.check(proof, later) is R.BAD_SIGNATURE


# The file


def test_the_key_file_is_private_and_keys_can_be_revoked(tmp_path: Path) -> None:
    key_id, secret = auth.create_key(tmp_path, 7, "trade")
    keys = auth.Keys(tmp_path)
    keys.check(Client((key_id, secret)).proof(), NOW)
    for path in tmp_path.glob(f"{auth.FILE}*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert [key.key_id for key in auth.list_keys(tmp_path)] == [key_id]
    assert len(secret) == 64 and keys.revoked({key_id}, NOW) == set()
    auth.revoke_key(tmp_path, key_id)
    assert auth.list_keys(tmp_path) == [] and keys.revoked({key_id}, NOW) == {key_id}
    assert keys.check(Client((key_id, secret)).proof(), NOW) is R.BAD_SIGNATURE
    with pytest.raises(LookupError):
        auth.revoke_key(tmp_path, key_id)


def test_a_rotated_key_is_good_until_its_overlap_ends(tmp_path: Path, keys: auth.Keys) -> None:
    networks = ("10.0.0.0/8",)
    old = Client(auth.create_key(tmp_path, 7, "cancel_only", addresses=networks))
    new = Client(auth.rotate_key(tmp_path, old.key_id, NOW + 1_000))
    for one in (old, new):
        verdict = keys.check(one.proof(address="10.0.0.1"), NOW)
        assert isinstance(verdict, access.Key)
        assert (verdict.account, verdict.scope, verdict.addresses) == (7, "cancel_only", networks)
    both = {old.key_id, new.key_id}
    assert keys.revoked(both, NOW) == set() and keys.revoked(both, NOW + 1_000) == {old.key_id}
    late = NOW + 1_000
    assert keys.check(old.proof(address="10.0.0.1"), late) is R.BAD_SIGNATURE
    again = auth.rotate_key(tmp_path, old.key_id, NOW + 9_000)  # never longer than was said
    assert keys.revoked({old.key_id, again[0]}, late) == {old.key_id}
    with pytest.raises(LookupError):
        auth.rotate_key(tmp_path, "none", NOW)


def test_an_ed25519_key_is_followed_by_one(tmp_path: Path) -> None:
    key_id, _ = auth.create_key(tmp_path, 7, "trade", public_key=PUBLIC)
    with pytest.raises(ValueError, match="public key"):
        auth.rotate_key(tmp_path, key_id, NOW)
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    assert auth.rotate_key(tmp_path, key_id, NOW, public_key=other)[1] == ""


def test_nothing_that_verifies_is_in_a_repr(tmp_path: Path, client: Client) -> None:
    keys = auth.Keys(tmp_path)
    stored = keys._stored(client.key_id, NOW)
    assert stored.material == client.secret
    for shown in (stored, keys, client.proof(), *auth.list_keys(tmp_path)):
        assert client.secret not in repr(shown)


def test_keys_made_beside_an_open_gateway_are_known_to_it(tmp_path: Path) -> None:
    """By this process or by another: the file is one, and nobody's locks on it are lost."""
    keys = auth.Keys(tmp_path)
    code = "import pathlib, sys; from exchange.gateway.auth import create_key as make; "
    code += "make(pathlib.Path(sys.argv[1]), 1, 'trade')"
    for count in range(1, 4):
        auth.create_key(tmp_path, 1, "trade")
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert len(keys.of_account(1)) == 2 * count
