"""Whatever is recorded, clearing rules on it: no exception, no lost cent, the same on a rebuild."""

import random
import types
import typing
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import msgspec
import pytest
from clearing_house import House, factors

from exchange.app.texts import resolve
from exchange.app.wishes import RequestRefused, put_record
from exchange.clearing import Clearing
from exchange.clearing.default.matter import Defaults
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.delivery.records import Tender
from exchange.clearing.delivery.terms import DAY_NS
from exchange.clearing.expiry import Fixings
from exchange.clearing.members.offbook import OffBook
from exchange.clearing.records import DEPTH_MAX, Malformed, Record, read, write
from exchange.messages import AccountKind, Command, CommandKind

ACCOUNTS = (1, 2, 3, 4)
RECORDS: list[type[Record]] = [
    kind for matter in (Deliveries, Defaults, Fixings, OffBook) for kind in matter.records
]
WORDS = ("", "H100-NODE", "HBX-H100", "alpha", "one", "XB", "2.500000", "ä")


def value(hint: Any, name: str, house: House, draw: random.Random) -> Any:
    """A value of a field's type, often one that makes sense."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return value(typing.get_args(hint)[0], name, house, draw)
    if origin is typing.Literal:
        return draw.choice(typing.get_args(hint))
    if origin in (types.UnionType, typing.Union):
        return value(typing.get_args(hint)[0], name, house, draw)
    if origin is dict:
        return {draw.choice(ACCOUNTS): draw.choice((0, 10**9, 10**13)) for _ in range(2)}
    if origin is tuple:
        return (draw.choice(WORDS),)
    if hint is bool:
        return draw.random() < 0.8
    if hint is str:
        likely = {"person": ("a", "b"), "grade": ("H100-NODE",), "provider": ("alpha",),
                  "facility": ("one",), "price": ("2.500000",), "index": ("HBX-H100",)}  # fmt: skip
        return draw.choice(likely.get(name, WORDS) if draw.random() < 0.8 else WORDS)
    near = {
        "account": ACCOUNTS, "other": ACCOUNTS, "taker": ACCOUNTS, "member": (1, 2, 3),
        "instrument": (0, 0, 1, 2), "default": (1, 1, 2), "auction": (1, 1, 2),
        "delivery": (1, 1, 2), "transfer": (1, 2, 3), "lots": (8, -8, 50, 1, 0),
        "deadline": (house.market.stamp + 10**9,), "date": (20261218, 20261301, 1 << 62),
        "price": (2_500_000, 2_400_000, 1), "available": (0, 691_200), "lost": (0, 5),
        "amount": (10**9, -(10**9), 0), "factor_version": (1, 1, 2), "day": (1, 2, 3, 4),
    }  # fmt: skip
    if draw.random() < 0.9 and name in near:
        return draw.choice(near[name])
    return draw.choice((0, 1, 2, -1, 1 << 40, (1 << 62) - 1))


def any_record(house: House, draw: random.Random) -> Record:
    kind = draw.choice(RECORDS)
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {name: value(hints[name], name, house, draw) for name in kind.__struct_fields__}
    return kind(**{**fields, "nonce": ""})


def market(path: Path, draw: random.Random) -> House:
    """Positions in a physical and a cash contract, of two members and a client."""
    house = House(Clearing.open(path))
    for account, member in ((1, 1), (2, 2), (3, 2), (4, 3)):
        kind = AccountKind.CLIENT if account == 3 else AccountKind.HOUSE
        house.open(account, member, kind, 10**11)
    house.list(0, "H100PZ26", date(2026, 11, 2))
    house.list(1, "H100Z26", date(2026, 11, 2))
    house.day(20261118)
    for _ in range(6):
        buyer, seller = draw.sample(ACCOUNTS, 2)
        house.trade(buyer, seller, draw.randint(1, 40), 2_500, draw.randint(0, 1))
    house.close(20261118)
    house.day(20261119)
    house.record(factors())
    return house


@pytest.mark.parametrize("seed", range(4))
def test_no_record_stops_clearing_or_loses_a_cent(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    house = market(tmp_path / "clearing.db", draw)
    terms = house.clearing._state.matters.get(Deliveries).expiries[0].terms
    times = [terms.notice_from_ns, terms.cutoff_ns + 1]
    times += [terms.begin_ns + n * DAY_NS for n in range(40)]
    house.at(times.pop(0))
    for account in ACCOUNTS:  # whoever is short
        house.record(
            Tender(account=account, instrument=0, lots=8, grade="H100-NODE", provider="alpha",
                   facility="one", factor_version=1)
        )  # fmt: skip
    for step in range(250):
        record = any_record(house, draw)
        text = write(record)
        speaker = draw.choice((0, 0, 0, getattr(record, "account", 0), draw.choice(ACCOUNTS)))
        sender = speaker if speaker in ACCOUNTS else 0
        command = Command(kind=CommandKind.RECORD, account=sender, key_lo=house.market.key())
        house.send(command, texts=[(0, text)])
        if step > 60 and step % 4 == 3 and times:
            house.at(times.pop(0))
        if step == 80:
            house.send(
                Command(kind=CommandKind.SET_STATE, instrument=0),
                Command(kind=CommandKind.EXPIRE, instrument=0, price=2_450_000),
            )
            house.pay_what_is_there()
        if step % 25 == 24:
            house.pay_what_is_there()
        if step == 150:
            house.reopen()
    state = house.clearing._state
    state.book.check()
    house.agree()
    before = [house.rulings(str(k.__struct_config__.tag)) for k in RECORDS]
    matters = {name: msgspec.json.encode(m) for name, m in state.matters.all.items()}
    head = state.book.head
    house.clearing.rebuild(house.market.frames)
    assert [house.rulings(str(k.__struct_config__.tag)) for k in RECORDS] == before
    state = house.clearing._state
    assert {name: msgspec.json.encode(m) for name, m in state.matters.all.items()} == matters
    assert state.book.head == head
    assert any(outcome == "accepted" for rows in before for _, outcome, _ in rows)
    house.clearing.close()


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: str(kind.__struct_config__.tag))
def test_a_record_that_cannot_be_read_is_malformed(kind: type[Record]) -> None:
    tag = kind.__struct_config__.tag
    assert isinstance(read(f'{{"operation":"{tag}","strange":1}}'), Malformed)
    assert read('{"operation":"nothing of ours"}') is None
    assert read("no JSON") is None


@pytest.mark.parametrize("levels", [DEPTH_MAX + 1, 1_000])
def test_a_record_that_is_nested_too_deep_is_refused_by_name(tmp_path: Path, levels: int) -> None:
    """How much nesting can be read hangs on who asks; what clearing rules on must not."""
    house = market(tmp_path / "clearing.db", random.Random(0))
    nested = f'{{"operation":"adopt_fees","tiers":{"[" * (levels - 1) + "]" * (levels - 1)}}}'
    assert read(nested) is None
    with pytest.raises(RequestRefused, match=f"at most {DEPTH_MAX} levels deep"):
        resolve(nested, MagicMock(), house.clearing)
    with pytest.raises(RequestRefused, match=f"at most {DEPTH_MAX} levels deep"):
        put_record(nested)
    house.send(Command(kind=CommandKind.RECORD, key_lo=house.market.key()), texts=[(0, nested)])
    house.agree()
    house.clearing.close()


def test_brackets_in_a_text_are_no_nesting() -> None:
    levels = DEPTH_MAX - 1
    said = '{"operation":"size_fund","person":"' + '[\\"{' * 999 + '"}'
    assert isinstance(read(said), Record)
    deep = f'{{"operation":"size_fund","person":{"[" * levels + "]" * levels}}}'
    assert isinstance(read(deep), Malformed)
    assert isinstance(read('{"operation":"size_fund","person":[' + "[]," * 999 + "[]]}"), Malformed)
