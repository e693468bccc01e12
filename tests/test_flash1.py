"""The core behind the flash1 benchmark's C interface, driven through it. Budget: 25 seconds.

The library is built as its users build it and loaded as the harness loads it: once into this
process, and once into one that is not Python's. Expected reports follow from the interface's own
documentation; the cases are those of its conformance battery, in our words.
"""

import ctypes
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from benches.flash1.build import build

BUY, SELL = 0, 1
ACK, TRADE, CANCELLED, MODIFIED, CANCEL_REJECT, MODIFY_REJECT = range(6)
NO_BID, NO_ASK = -(1 << 63), (1 << 63) - 1


class New(ctypes.Structure):
    _fields_ = (
        ("order_id", ctypes.c_uint64), ("sequence", ctypes.c_uint64), ("price", ctypes.c_int64),
        ("quantity", ctypes.c_uint32), ("side", ctypes.c_uint8), ("ioc", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 2),
    )  # fmt: skip


class Cancel(ctypes.Structure):
    _fields_ = (("order_id", ctypes.c_uint64), ("sequence", ctypes.c_uint64))


class Modify(ctypes.Structure):
    _fields_ = (
        ("order_id", ctypes.c_uint64), ("sequence", ctypes.c_uint64), ("price", ctypes.c_int64),
        ("quantity", ctypes.c_uint32), ("side", ctypes.c_uint8), ("reserved", ctypes.c_uint8 * 3),
    )  # fmt: skip


class Report(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint8), ("side", ctypes.c_uint8), ("reserved", ctypes.c_uint8 * 6),
        ("sequence", ctypes.c_uint64), ("order_id", ctypes.c_uint64), ("price", ctypes.c_int64),
        ("quantity", ctypes.c_uint32), ("reserved2", ctypes.c_uint32),
        ("maker", ctypes.c_uint64), ("taker", ctypes.c_uint64), ("reserved3", ctypes.c_uint64),
    )  # fmt: skip


PUSH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Report))


class Transport(ctypes.Structure):
    _fields_ = (
        ("create", ctypes.c_void_p), ("push", PUSH), ("drain", ctypes.c_void_p),
        ("flush", ctypes.c_void_p), ("destroy", ctypes.c_void_p),
    )  # fmt: skip


class Harness:
    """What the benchmark's harness does, as plainly as can be."""

    def __init__(self, library: Path) -> None:
        self.lines: list[tuple[int, ...]] = []
        self._engine = ctypes.CDLL(str(library))
        self._engine.engine_query_best_bid.restype = ctypes.c_int64
        self._engine.engine_query_best_ask.restype = ctypes.c_int64
        self._engine.engine_query_depth_at.restype = ctypes.c_uint64
        self._engine.engine_query_depth_at.argtypes = (ctypes.c_int64, ctypes.c_uint8)
        self._transport = Transport(push=PUSH(self._push))
        self._engine.engine_init(ctypes.c_uint64(7), ctypes.byref(self._transport), None)
        self._sequence = 0

    def _push(self, _: int, report: "ctypes._Pointer[Report]") -> int:
        r = report.contents
        tails = {
            ACK: (r.side, r.order_id, r.price, r.quantity),
            TRADE: (r.price, r.quantity, r.maker, r.taker),
            CANCELLED: (r.side, r.order_id, r.price),
            MODIFIED: (r.side, r.order_id, r.price, r.quantity),
        }
        self.lines.append((r.type, r.sequence, *tails.get(r.type, (r.order_id,))))
        return 1

    def _told(self, begun: int) -> list[tuple[int, ...]]:
        self._sequence += 1
        told = sorted(self.lines[begun:], key=lambda line: line[0])
        assert all(line[1] == self._sequence - 1 for line in told)
        return [(line[0], *line[2:]) for line in told]

    def new(
        self, order_id: int, side: int, price: int, quantity: int, ioc: int = 0
    ) -> list[tuple[int, ...]]:
        begun = len(self.lines)
        message = New(order_id, self._sequence, price, quantity, side, ioc)
        self._engine.engine_on_new_order(ctypes.byref(message))
        return self._told(begun)

    def cancel(self, order_id: int) -> list[tuple[int, ...]]:
        begun = len(self.lines)
        self._engine.engine_on_cancel(ctypes.byref(Cancel(order_id, self._sequence)))
        return self._told(begun)

    def modify(self, order_id: int, side: int, price: int, quantity: int) -> list[tuple[int, ...]]:
        begun = len(self.lines)
        message = Modify(order_id, self._sequence, price, quantity, side)
        self._engine.engine_on_modify(ctypes.byref(message))
        return self._told(begun)

    def best(self) -> tuple[int, int]:
        return self._engine.engine_query_best_bid(), self._engine.engine_query_best_ask()

    def depth(self, price: int, side: int) -> int:
        return int(self._engine.engine_query_depth_at(price, side))

    def close(self) -> None:
        self._engine.engine_flush()
        self._engine.engine_shutdown()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("flash1"))


@pytest.fixture
def harness(library: Path) -> Iterator[Harness]:
    made = Harness(library)
    yield made
    made.close()


def test_an_order_rests_trades_and_is_cancelled(harness: Harness) -> None:
    assert harness.best() == (NO_BID, NO_ASK)
    assert harness.new(1, SELL, 33_504, 10) == [(ACK, SELL, 1, 33_504, 10)]
    assert harness.best() == (NO_BID, 33_504)
    assert harness.new(2, BUY, 33_600, 4) == [(ACK, BUY, 2, 33_600, 4), (TRADE, 33_504, 4, 1, 2)]
    assert (harness.depth(33_504, SELL), harness.depth(33_504, BUY)) == (6, 0)
    assert harness.cancel(1) == [(CANCELLED, SELL, 1, 33_504)]
    assert harness.cancel(1) == [(CANCEL_REJECT, 1)]
    assert harness.cancel(2) == [(CANCEL_REJECT, 2)]  # filled
    assert harness.cancel(99) == [(CANCEL_REJECT, 99)]  # never seen
    assert harness.best() == (NO_BID, NO_ASK)


def test_cancels_inside_a_queue_lose_nobody(harness: Harness) -> None:
    for order_id in range(1, 9):
        harness.new(order_id, BUY, 100, order_id)
    for order_id in (1, 4, 5):
        assert harness.cancel(order_id) == [(CANCELLED, BUY, order_id, 100)]
    swept = harness.new(20, SELL, 100, 100, ioc=1)
    makers = [line[3] for line in swept if line[0] == TRADE]
    assert makers == [2, 3, 6, 7, 8]
    assert swept[-1] == (CANCELLED, SELL, 20, 100)


def test_a_sweep_takes_the_best_prices_first_and_its_rest_becomes_the_touch(
    harness: Harness,
) -> None:
    for order_id, price in ((1, 102), (2, 101), (3, 103), (4, 101)):
        harness.new(order_id, SELL, price, 10)
    told = harness.new(5, BUY, 102, 45)
    assert told[1:] == [(TRADE, p, 10, maker, 5) for p, maker in ((101, 2), (101, 4), (102, 1))]
    assert harness.best() == (102, 103)
    assert harness.depth(102, BUY) == 15
    assert harness.new(6, SELL, 102, 15, ioc=1)[1:] == [(TRADE, 102, 15, 5, 6)]


def test_a_modify_goes_to_the_back_or_trades(harness: Harness) -> None:
    harness.new(1, BUY, 100, 10)
    harness.new(2, BUY, 100, 10)
    assert harness.modify(1, BUY, 100, 11) == [(MODIFIED, BUY, 1, 100, 11)]
    assert [line[3] for line in harness.new(3, SELL, 100, 12, ioc=1)[1:]] == [2, 1]
    harness.new(4, SELL, 105, 5)
    assert harness.modify(1, BUY, 105, 10) == [(TRADE, 105, 5, 4, 1), (MODIFIED, BUY, 1, 105, 10)]
    assert harness.modify(4, SELL, 105, 6) == [(MODIFY_REJECT, 4)]
    assert harness.modify(77, SELL, 105, 6) == [(MODIFY_REJECT, 77)]
    assert harness.depth(105, BUY) == 5


def test_an_id_is_free_again_once_its_order_is_gone(harness: Harness) -> None:
    for use in range(600):  # more than the market remembers of an account
        price = 100 + use % 7
        assert harness.new(1, BUY, price, 3) == [(ACK, BUY, 1, price, 3)]
        assert harness.new(1, BUY, price, 3) == []  # live: refused, nothing is told
        assert harness.cancel(1) == [(CANCELLED, BUY, 1, price)]


def plain(messages: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """A slow book of its own: what the interface asks for, message by message."""
    book: dict[int, list[int]] = {}  # id: side, price, leaves, arrival
    told: list[tuple[int, ...]] = []

    def match(order_id: int, side: int, price: int, lots: int) -> int:
        sign = 1 if side == BUY else -1
        makers = sorted(
            (sign * made[1], made[3], maker) for maker, made in book.items() if made[0] != side
        )
        for ranked, _, maker in makers:
            if not lots or ranked > sign * price:
                break
            done = min(lots, book[maker][2])
            told.append((TRADE, number, book[maker][1], done, maker, order_id))
            lots -= done
            book[maker][2] -= done
            if not book[maker][2]:
                del book[maker]
        return lots

    for number, (kind, order_id, side, price, lots, ioc) in enumerate(messages):
        if kind == 0:
            told.append((ACK, number, side, order_id, price, lots))
        elif order_id not in book:
            told.append((CANCEL_REJECT if kind == 1 else MODIFY_REJECT, number, order_id))
            continue
        else:
            side = book[order_id][0]
            if kind == 1:
                told.append((CANCELLED, number, side, order_id, book[order_id][1]))
            else:
                told.append((MODIFIED, number, side, order_id, price, lots))
            del book[order_id]
            if kind == 1:
                continue
        left = match(order_id, side, price, lots)
        if left and ioc:
            told.append((CANCELLED, number, side, order_id, price))
        elif left:
            book[order_id] = [side, price, left, number]
    return sorted(told, key=lambda line: (line[1], line[0]))


@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_flow_is_reported_as_a_plain_book_would(harness: Harness, seed: int) -> None:
    draw, messages, sizes = Random(seed), [], {}
    for number in range(3_000):
        kind = draw.choice((0, 0, 0, 1, 2)) if number else 0
        if kind == 0:
            order_id, lots = number, draw.randint(1, 100)
            sizes[order_id] = lots
        else:
            order_id = draw.choice(list(sizes)[-200:])
            sizes[order_id] = lots = sizes[order_id] + 1  # as the benchmark's: always larger
        side = draw.randrange(2)
        price = 33_504 + draw.randint(-12, 12)
        messages.append(
            (kind, order_id, side, price, lots, int(kind == 0 and draw.random() < 0.15))
        )
    for kind, order_id, side, price, lots, ioc in messages:
        if kind == 0:
            harness.new(order_id, side, price, lots, ioc)
        elif kind == 1:
            harness.cancel(order_id)
        else:
            harness.modify(order_id, side, price, lots)
    assert sorted(harness.lines, key=lambda line: (line[1], line[0])) == plain(messages)
    assert sum(line[0] == TRADE for line in harness.lines) > 300


def test_a_process_that_is_not_pythons_loads_it(library: Path, tmp_path: Path) -> None:
    """``benches/flash1/drive.c`` is a harness of our own in C: a queue, a drainer, a clock."""
    source = Path(__file__).parents[1] / "benches" / "flash1" / "drive.c"
    program = tmp_path / "drive"
    command = ["gcc", "-O2", "-pthread", str(source), "-o", str(program), "-ldl"]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [str(program), str(library), "20000"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"messages": 20000' in done.stdout
