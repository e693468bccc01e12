"""An order's life, a search, two logs compared, other parameters: what a log can be asked.

Budget: 12 seconds on two cores.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from history_market import CODES, POOR, Script, two_days
from recorded import BUSY, SECOND, entered, record, record_of

from exchange.engine import Engine
from exchange.history import order, search, tell, walk
from exchange.history.differ import compare
from exchange.history.picture import money
from exchange.history.records import EVENT_PLACES, event_row, where
from exchange.history.whatif import NOTE, Changes, WhatIf, what_if
from exchange.history.words import CANCELS, RULES
from exchange.journal.errors import NotReproduced
from exchange.journal.frame import Frame
from exchange.messages import (
    EVENT,
    EVENT_BYTES,
    CancelReason,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Reason,
    SelfTrade,
    Side,
    TimeInForce,
)

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_days().write(tmp_path_factory.mktemp("history") / "market")


def all_rows(directory: Path) -> list[tuple[int, ...]]:
    """Every event of a log, unpacked one by one."""
    rows: list[tuple[int, ...]] = []
    walk.walk(directory, lambda _, events: rows.extend(EVENT.iter_unpack(events)))
    return rows


# An order's life


class Scene:
    """A small market, told by hand, and the tellings of its orders."""

    def __init__(self) -> None:
        self.script = Script()
        self.script.set_up()

    def enter(self, account: int, side: Side, price: int, lots: int, **more: int) -> int:
        """Enter an order into the first instrument; its order id, 0 if it was rejected."""
        rows = self.script.say(self.script.enter(account, side, price, lots, **more))
        first = rows[0]
        return first["order_id"] if first["kind"] == EventKind.ORDER_ACCEPTED else 0

    def do(self, kind: CommandKind, account: int, target: int, **more: int) -> None:
        fields = {"side": Side.UNSTATED, "target_lo": target, "key_lo": self.script.key(), **more}
        self.script.say((record_of(kind, account=account, **fields), None))

    def told(self, directory: Path, order_id: int) -> dict[str, Any]:
        if not directory.exists():
            self.script.write(directory)
        life, picture = order.trace(directory, order_id=order_id)
        assert life is not None
        return tell.tell(life, picture)


def happened(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(h["what"], h["why"]) for step in told["steps"] for h in step["happened"]]


def test_a_life_is_told_step_by_step_with_the_rule(tmp_path: Path) -> None:
    scene = Scene()
    ahead = scene.enter(3, Side.SELL, 2_503, 4)
    mine = scene.enter(4, Side.SELL, 2_503, 10)
    taker = scene.enter(5, Side.BUY, 2_504, 6, tif=TimeInForce.IOC)
    scene.do(CommandKind.REDUCE, 4, mine, quantity=1)
    scene.do(CommandKind.REPLACE, 4, mine, price=2_503, quantity=8)  # a smaller total: keeps
    scene.do(CommandKind.REPLACE, 4, mine, price=2_502, quantity=8)  # another price: to the back
    scene.script.say(
        (record_of(CommandKind.SET_LIMITS, instrument=0, target_lo=2_510, target_hi=3_000), None)
    )
    scene.script.say(
        (record_of(CommandKind.SET_LIMITS, instrument=0, target_lo=2_000, target_hi=3_000), None)
    )
    scene.do(CommandKind.CANCEL, 4, mine)
    told = scene.told(tmp_path / "scene", mine)
    steps = happened(told)
    assert [what.split(";")[0] for what, _ in steps[:1]] == [f"accepted as order {mine}"]
    assert "behind 4 lots of 1 order at 2.503" in steps[0][0]
    assert steps[1][0].startswith(f"sold 2 at 2.503 with order {taker} of account 5, which came in")
    assert "oldest at the best offer" in steps[1][1]
    assert steps[2][0].startswith("reduced: 1 lots off, 7 left (REQUESTED")
    assert "keeps its place" in steps[3][1]
    assert steps[4][1] == "another price: it goes to the back; alone at 2.502"
    assert "REPLACE by account 4 of order" in told["steps"][4]["command"]
    assert told["steps"][4]["command"].endswith(": 8 lots in all at 2.502")
    assert steps[5][0] == "6 lots wait outside the book"
    assert steps[6][0] == "returned to the market with 6 lots, 6 rest"
    assert steps[7] == ("cancelled: 6 lots off, 0 left (REQUESTED, in the book)",
                        CANCELS[CancelReason.REQUESTED])  # fmt: skip
    assert told["state"] == "cancelled"
    assert (told["executed"], told["leaves"]) == (2, 0)
    assert told["quantity"] == told["executed"] + told["cancelled"]
    other = scene.told(tmp_path / "scene", ahead)
    assert other["state"] == "filled"
    assert other["steps"][1]["by"] == "account 5"
    page = tell.text(told)
    assert page.startswith(f"order {mine} of account 4: sell ")
    assert "because" in page and "[engine.md, Price-time priority]" in page


def test_a_life_tells_of_self_trades_repeats_and_new_ids(tmp_path: Path) -> None:
    scene = Scene()
    resting = scene.enter(3, Side.SELL, 2_500, 5)
    record = scene.script.enter(3, Side.BUY, 2_500, 3, stp=SelfTrade.CANCEL_OLDEST)
    first = scene.script.say(record)
    again = scene.script.say(record)
    assert again[0]["flags"] & EventFlag.DUPLICATE
    mine = first[0]["order_id"]
    renewed = scene.script.say(
        (
            record_of(
                CommandKind.REPLACE, account=3, side=Side.UNSTATED, flags=CommandFlag.NEW_ID,
                target_lo=mine, price=2_499, quantity=3, key_lo=scene.script.key(), key_hi=7,
            ),
            None,
        )
    )  # fmt: skip
    told = scene.told(tmp_path / "scene", resting)
    assert "(CANCEL_OLDEST)" in happened(told)[-1][1]
    assert told["steps"][-1]["by"] == "another order of account 3"
    told = scene.told(tmp_path / "scene", mine)
    repeated = dict(happened(told))["the first answer again"]
    assert repeated == "a repeat of a known id with the same fields changes nothing"
    assert happened(told)[-1][1] == CANCELS[CancelReason.REPLACED]
    assert (told["quantity"], told["cancelled"]) == (3, 3)
    assert scene.told(tmp_path / "scene", renewed[1]["order_id"])["state"] == "working"


@pytest.mark.parametrize(
    ("wish", "reason", "words"),
    [
        ({"price": 2_500, "lots": 51}, "QUANTITY_RANGE", "51 lots; an order has 1 to 50"),
        (
            {"price": 3_001, "lots": 1},
            "PRICE_LIMIT",
            "price 3.001 is beyond the day's limit, 3.000",
        ),
        ({"price": 2_500, "lots": 40}, "MARGIN", "need 6,000.00 USD as margin and has 3,000.00"),
        ({"price": 2_400, "lots": 1, "tif": 9}, "SYNTAX", "a field of the command has no such"),
    ],
    ids=["quantity", "limit", "margin", "syntax"],
)
def test_a_rejected_order_is_found_by_its_client_id(
    tmp_path: Path, wish: dict[str, int], reason: str, words: str
) -> None:
    scene = Scene()
    assert scene.enter(POOR, Side.BUY, wish.pop("price"), wish.pop("lots"), **wish) == 0
    scene.script.write(tmp_path / "scene")
    key = (scene.script.keys, 7)
    life, picture = order.trace(tmp_path / "scene", account=POOR, key=key)
    assert life is not None
    told = tell.tell(life, picture)
    assert told["state"] == "rejected" and told["order_id"] is None
    what, why = happened(told)[0]
    assert what == f"rejected: {reason} ({Reason[reason].value})"
    assert words in why
    assert tell.text(told).startswith("never accepted, account 6")
    assert order.trace(tmp_path / "scene", account=5, key=key)[0] is None


def test_every_lot_of_any_order_is_accounted_for(market: Path) -> None:
    """A life's figures against a plain count over all events."""
    figures: dict[int, Counter[str]] = {}
    for row in all_rows(market):
        kind, lots = row[2], row[9]
        if row[3] & EventFlag.DUPLICATE:
            continue
        if kind == EventKind.ORDER_ACCEPTED:
            figures[row[7]] = Counter(entered=lots)
        elif kind == EventKind.TRADE:
            for one in (row[7], row[11]):
                figures[one]["executed"] += lots
        elif kind in (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED):
            figures[row[7]]["cancelled"] += lots
    lively = sorted(figures, key=lambda one: (-figures[one]["executed"], one))[::50]
    assert len(lively) >= 10
    for order_id in lively:
        life, _ = order.trace(market, order_id=order_id)
        assert life is not None
        count = figures[order_id]
        assert (life.executed, life.cancelled) == (count["executed"], count["cancelled"])
        assert life.quantity == life.executed + life.cancelled + life.leaves
        assert life.leaves >= 0
        by_key, _ = order.trace(market, account=life.account, key=life.key)
        assert by_key is not None
        assert [step.sequence for step in by_key.steps] == [step.sequence for step in life.steps]


def test_an_order_that_is_not_there_is_none(market: Path) -> None:
    assert order.trace(market, order_id=1 << 40)[0] is None


def test_every_reject_of_the_engine_and_every_cancel_has_words() -> None:
    page = (CHECKOUT / "docs/reference/rejects.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (G?\s?E?) \|", page, re.MULTILINE)
    engine = {Reason(int(number)) for number, _, where_ in rows if "E" in where_}
    assert len(engine) > 30
    assert engine - {Reason.SESSION_LIVE, *RULES} == set()
    assert set(CANCELS) == set(CancelReason)


# Search


def found_by(directory: Path, **wanted: Any) -> list[tuple[int, ...]]:
    query, rows = search.Query(**wanted), []

    def keep(_: Frame, row: tuple[int, ...]) -> None:
        rows.append(row)

    walk.walk(directory, lambda frame, events: query.search(frame, events, keep))
    assert query.counts.total() == len(rows)
    return rows


def test_a_search_finds_what_a_plain_look_at_every_event_finds(market: Path) -> None:
    rows = all_rows(market)
    orders = range(EventKind.ORDER_ACCEPTED, EventKind.SESSION_OPENED)

    def concerns(row: tuple[int, ...], account: int) -> bool:
        return row[6] == account or (row[2] == EventKind.TRADE and row[12] & 0xFFFF_FFFF == account)

    assert found_by(market, account=3) == [row for row in rows if concerns(row, 3)]
    trades = frozenset({int(EventKind.TRADE)})
    expected = [row for row in rows if row[2] == EventKind.TRADE and row[5] == 1]
    assert found_by(market, code=CODES[1], event_kinds=trades) == expected
    expected = [r for r in rows if r[2] == EventKind.REJECTED and r[4] == Reason.MARGIN]
    assert found_by(market, reject_reason=int(Reason.MARGIN)) == expected
    assert {row[2] for row in found_by(market, cancel_reason=int(CancelReason.SELF_TRADE))} == {
        EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED,
    }  # fmt: skip
    kinds = frozenset({int(CommandKind.SETTLE)})
    settled = found_by(market, command_kinds=kinds)
    assert {row[2] for row in settled} == {EventKind.INSTRUMENT_SETTLED, EventKind.POSITION_SETTLED}
    late = [row for row in rows if row[0] >= 600 and row[2] in orders and concerns(row, 3)]
    assert found_by(market, account=3, first_sequence=600, event_kinds=frozenset(orders)) == late
    assert found_by(market, code="H100F99") == []


def test_names_of_kinds_and_reasons_are_understood() -> None:
    assert search.kinds_named("trade") == (frozenset({3}), frozenset())
    assert search.kinds_named("enter") == (frozenset(), frozenset({1}))
    assert search.kinds_named("recovered") == (frozenset({14}), frozenset({13}))
    assert search.reason_named("ioc-remainder") == (2, None)
    assert search.reason_named("MARGIN") == (None, 603)
    for lookup in (search.kinds_named, search.reason_named):
        with pytest.raises(KeyError):
            lookup("nonsense")


def test_where_agrees_with_a_plain_look(market: Path) -> None:
    places = EVENT_PLACES["order_id"], EVENT_PLACES["maker_order_id"]
    for frame, events in walk.batches(market):
        del frame
        for needle in (4_294_967_297, 4_294_967_310, 0):
            plain = [
                n for n in range(len(events) // EVENT_BYTES)
                if needle in (event_row(events, n)[7], event_row(events, n)[11])
            ]  # fmt: skip
            assert where(events, needle, EVENT_BYTES, *places) == plain


# Places in a log


def test_a_time_names_the_last_sequence_stamped_by_then(market: Path) -> None:
    frames = [frame for frame, _ in walk.batches(market)]
    middle = frames[len(frames) // 2]
    text = walk.time_text(middle.opening.stamp)
    before = walk.time_text(middle.opening.stamp - SECOND // 1000)

    def until(text: str) -> int:
        return walk.last_sequence_at(market, walk.parse_time(text))

    assert until(text) == middle.last_sequence
    assert until(before) == middle.opening.first_sequence - 1
    assert until("2001-01-01T00:00:00") == 0
    assert until(text.replace("Z", "+00:00")) == middle.last_sequence
    with pytest.raises(ValueError, match="noon"):
        until("noon")


def test_a_visit_sees_the_state_before_each_sequence(market: Path) -> None:
    wanted = [1, 2, 3, 333, 334, 700, 10**9]
    seen: dict[int, bytes] = {}
    walk.visit(market, wanted, lambda engine, at: seen.update({at: engine.state_bytes()}))
    assert list(seen) == wanted[:-1]
    for sequence, state in seen.items():
        replayed = walk.replay(market, until=sequence - 1)
        assert replayed.engine.state_bytes() == state


def without_grace(script: Script) -> tuple[int, int]:
    """A session without grace is lost, and its order taken, in one batch; then it is cancelled.

    Return the ids of the order, and of the one that takes it.
    """
    logon = record_of(CommandKind.LOGON, account=3, flags=CommandFlag.CANCEL_ON_DISCONNECT)
    (opened,) = script.say((logon, None))
    session = opened["order_id"]
    (mine,) = script.say(script.enter(3, Side.SELL, 2_503, 9, session=session))
    logoff = record_of(CommandKind.LOGOFF, account=3, session=session)
    taking = script.enter(4, Side.BUY, 2_503, 2)
    more = script.enter(5, Side.BUY, 2_503, 3)
    rows = script.say((logoff, None), taking, more)
    assert sum(row["kind"] == EventKind.TRADE for row in rows) == 2
    return mine["order_id"], rows[1]["order_id"]


def test_a_timer_that_is_due_at_once_waits_for_the_next_batch(tmp_path: Path) -> None:
    """However the batch is looked into: the session's order is there until its end."""
    script = Script()
    script.set_up()
    order_id, taker = without_grace(script)
    cancel = record_of(
        CommandKind.CANCEL, account=4, side=Side.UNSTATED, target_lo=taker, key_lo=script.key()
    )
    market = script.write(tmp_path / "market")
    asks: list[list[tuple[int, int, int]]] = []

    def look(engine: Engine, sequence: int) -> None:
        asks.append(engine.book(0, 1)[1])

    last = script.sequence
    walk.visit(market, [last - 2, last - 1, last], look)
    assert asks == [[(2_503, 9, 1)], [(2_503, 9, 1)], [(2_503, 7, 1)]]
    life, _ = order.trace(market, order_id=order_id)
    assert life is not None and life.executed == 5
    assert [step.before["asks"] for step in life.steps[1:3]] == asks[1:]  # type: ignore[index]
    script.batches[-1].append((cancel, None))  # of an order entered in the same batch
    told = what_if(script.write(tmp_path / "cancelled"), Changes(margin=[("*", 100)]))
    assert (told["trades"], told["trades_instead"], told["trades_gone"]) == (2, 2, 0)
    assert told["lots"] == {CODES[0]: [5, 5]}


def test_a_directory_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(walk.NoLog, match="data directory"):
        walk.walk(tmp_path, lambda *_: None)


def test_money_is_exact_and_short() -> None:
    shown = [money(value) for value in (0, 1, -1, 2_400_000, 1_234_567_891_230, -10)]
    assert shown == ["0.00", "0.000001", "-0.000001", "2.40", "1,234,567.89123", "-0.00001"]


# Two logs


def test_a_log_is_the_same_as_its_copy_however_it_is_batched(market: Path, tmp_path: Path) -> None:
    assert compare(market, market).as_dict()["same"]
    script, quarters = two_days(), []
    pieces = []
    for number, batch in enumerate(script.batches):  # one stamp, other frames
        for piece in (batch[:2], batch[2:]):
            if piece:
                pieces.append(piece)
                quarters.append(number)
    assert len(pieces) > len(script.batches)
    script.batches = pieces
    found = compare(market, script.write(tmp_path / "pieces", stamps=quarters))
    assert found.as_dict()["same"], found.as_dict()["first"]
    assert found.commands == script.sequence


def test_the_first_difference_of_two_logs_is_explained(market: Path, tmp_path: Path) -> None:
    script = two_days()
    number = next(n for n, batch in enumerate(script.batches) if n > 60 and batch[0][0][0] == 1)
    changed, text = script.batches[number][0]
    script.batches[number][0] = (changed[:24] + bytes([changed[24] + 1]) + changed[25:], text)
    told = compare(market, script.write(tmp_path / "other")).as_dict()
    assert not told["same"]
    first = told["first"]
    sequence = sum(map(len, script.batches[:number])) + 1
    assert (first["kind"], first["sequence"]) == ("command ENTER", sequence)
    assert f"quantity: {changed[24]} and {changed[24] + 1}" in first["words"]
    assert {d["kind"] for d in told["differences"]} >= {"command ENTER", "events of other commands"}
    assert first["count"] == 1


def test_a_longer_log_and_another_time_are_told(market: Path, tmp_path: Path) -> None:
    script = two_days()
    del script.batches[-1]
    told = compare(market, script.write(tmp_path / "short")).as_dict()
    assert [(d["kind"], d["count"]) for d in told["differences"]] == [("only in the first log", 1)]
    told = compare(tmp_path / "short", market).as_dict()
    assert told["first"]["kind"] == "only in the second log"
    assert "EXPIRE" in told["first"]["words"][0]
    late = two_days(batches=2).write(tmp_path / "late", stamps=range(1, 100))
    kinds = {d["kind"] for d in compare(late, two_days(batches=2).write(tmp_path / "now"))
             .as_dict()["differences"]}  # fmt: skip
    assert kinds == {"stamp", "events of ENTER"}  # some are good till a time that has come


# Other parameters


def test_nothing_changed_gives_the_same(market: Path) -> None:
    told = what_if(market, Changes(margin=[("*", 100)]))
    assert told["trades"] == told["trades_instead"] > 100
    names = ("commands_changed", "orders_rejected", "others_rejected", "orders_accepted",
             "trades_gone", "trades_new", "orders_taken_out")  # fmt: skip
    assert [told[name] for name in names] == [0] * len(names)
    assert all(p["difference"] == "0.00" for p in told["profit"])
    assert told["note"] == NOTE


def test_a_dearer_margin_rejects_what_a_plain_rerun_rejects(tmp_path: Path) -> None:
    """With orders named by client id alone, a plain run of the edited commands is the answer."""
    script = two_days(seed=5, by_client=True)
    market = script.write(tmp_path / "market")
    other = WhatIf(Changes(margin=[("*", 300)], position_limit=[("H2*", 20)]))
    engine = walk.walk(market, other.take)
    plain, sequence = Engine(), 1
    for number, batch in enumerate(script.batches):
        edited = b"".join(_edited(record) for record, _ in batch)
        plain.apply(edited, sequence, 1_800_000_000 * SECOND + number * SECOND // 4)
        sequence += len(batch)
    assert other.engine.state_bytes() == plain.state_bytes()
    told = other.report(engine)
    assert told["orders_rejected"] > 20
    assert set(told["rejected_by_reason"]) >= {"MARGIN", "POSITION_LIMIT"}
    assert told["commands_changed"] == 2
    assert all(" ENTER " in one or " REPLACE " in one for one in told["examples"])


def _edited(record: bytes) -> bytes:
    if record[0] != CommandKind.SET_RISK:
        return record
    fields = bytearray(record)
    fields[16:24] = (int.from_bytes(record[16:24], "little") * 3).to_bytes(8, "little")
    if record[4] == 1:
        fields[24:28] = (20).to_bytes(4, "little")
    return bytes(fields)


@pytest.mark.parametrize(
    "changes",
    [Changes(without=frozenset({3})), Changes(margin=[("*", 250)], limits=[("*", 1)])],
    ids=["an account gone", "margin and limits"],
)
def test_orders_named_by_their_ids_are_followed(tmp_path: Path, changes: Changes) -> None:
    """Order ids are slots: without one order the others get other ids, not other fates."""
    told = []
    for by_client in (True, False):
        script = two_days(seed=8, by_client=by_client)
        report = what_if(script.write(tmp_path / f"{by_client}"), changes)
        told.append({k: v for k, v in report.items() if k not in ("examples", "commands_changed")})
    assert told[0] == told[1]
    assert told[0]["trades_gone"] > 10


def test_an_account_taken_out_neither_trades_nor_earns(market: Path) -> None:
    told = what_if(market, Changes(without=frozenset({2})))
    assert told["orders_taken_out"] > 50
    assert {p["account"]: p["instead"] for p in told["profit"]}[2] == "0.00"
    assert sum(lots for _, lots in told["lots"].values()) < sum(a for a, _ in told["lots"].values())


@pytest.mark.parametrize(
    "changes",
    [
        Changes(margin=[("*", 10**22)]),
        Changes(limits=[("*", 10**22)]),
        Changes(position_limit=[("*", 10**22)]),
    ],
    ids=["margin", "limits", "position limit"],
)
def test_a_parameter_beyond_any_is_refused_like_another(market: Path, changes: Changes) -> None:
    told = what_if(market, changes)
    assert told["parameters_refused"] >= len(CODES)


def test_a_log_that_this_build_does_not_reproduce_answers_nothing(tmp_path: Path) -> None:
    from test_history_divergence import NoPostOnly  # noqa: PLC0415

    market = two_days().write(tmp_path / "market", NoPostOnly())
    with pytest.raises(NotReproduced, match="--verify"):
        order.trace(market, order_id=1)
    with pytest.raises(NotReproduced, match="--verify"):
        what_if(market, Changes(without=frozenset({2})))


QUOTE = record_of(
    CommandKind.MASS_QUOTE, account=1, price=2_490, quantity=5, target_lo=2_510, target_hi=5,
    key_lo=77,
)  # fmt: skip


def test_an_account_taken_out_quotes_no_more(tmp_path: Path) -> None:
    record(tmp_path, [*BUSY[:3], [QUOTE], [entered(2, 0, 2_510, 5, 30)]])
    told = what_if(tmp_path, Changes(without=frozenset({1})))
    facts = ("commands_changed", "orders_taken_out", "trades", "trades_instead", "trades_gone")
    assert [told[name] for name in facts] == [1, 1, 1, 0, 1]
    assert all(p["instead"] == "0.00" for p in told["profit"])


def test_both_orders_of_a_quote_are_followed_to_their_other_ids(tmp_path: Path) -> None:
    ids: list[int] = []

    def take(frame: Frame, events: bytes) -> None:
        rows = map(event_row, [events] * (len(events) // EVENT_BYTES), range(len(events)))
        ids.extend(row[7] for row in rows if row[2] == EventKind.ORDER_ACCEPTED)

    record(tmp_path, [*BUSY[:3], [entered(2, 0, 2_400, 1, 30)], [QUOTE]])
    walk.walk(tmp_path, take)
    cancels = [
        record_of(CommandKind.CANCEL, account=1, side=2, target_lo=order_id, key_lo=order_id)
        for order_id in ids[1:]
    ]
    record(tmp_path, [cancels])
    told = what_if(tmp_path, Changes(without=frozenset({2})))
    assert (len(cancels), told["orders_taken_out"], told["others_rejected"]) == (2, 1, 0)
