"""The checker of histories: what a market really said passes, and every lie about it does not."""

import copy
from collections.abc import Callable, Iterator

import msgspec
import pytest
from linearizable import NotLinearizable, check, frames_of

from exchange.journal.frame import Frame
from exchange.journal.reader import LogReader
from exchange.messages import wire
from exchange.sim.history import Operation
from exchange.sim.storm import Simulation, simulate

SEED = 13  # orders, cancels, queries and unknown outcomes, one life after another


@pytest.fixture(scope="module")
def told() -> Simulation:
    """A history and its log."""
    return simulate(SEED)[1]


def frames(told: Simulation) -> Iterator[Frame]:
    return frames_of(LogReader(told.disk).chunks())


def judged(told: Simulation, operations: list[Operation]) -> int:
    return check(operations, frames(told), told.codes, strangers=False)


def first(operations: list[Operation], wanted: Callable[[Operation], bool]) -> int:
    return next(at for at, operation in enumerate(operations) if wanted(operation))


def test_a_true_history_is_accepted(told: Simulation) -> None:
    counts = told.history.counts()
    assert min(counts.values()) > 0, "answered, refused and unknown"
    kinds = {op.kind for op in told.history.operations if op.outcome == "ok"}
    assert {"enter", "cancel", "orders", "account"} <= kinds
    assert judged(told, told.history.operations) > 50


def enter_that_rests(op: Operation) -> bool:
    return op.kind == "enter" and isinstance(op.answer, wire.Accepted) and not op.is_repeat


def is_busy_query(op: Operation) -> bool:
    return isinstance(op.answer, wire.Orders) and len(op.answer.orders) > 0


def other_order(operations: list[Operation]) -> None:
    """Two clients are told of one another's orders."""
    op = operations[first(operations, enter_that_rests)]
    assert isinstance(op.answer, wire.Accepted)
    op.answer = msgspec.structs.replace(op.answer, order_id=str(int(op.answer.order_id) + 1))


def refused_and_done(operations: list[Operation]) -> None:
    """A client is told that its order was refused."""
    op = operations[first(operations, enter_that_rests)]
    assert isinstance(op.answer, wire.Accepted)
    op.answer = wire.Rejected(
        number=1, name="?", sequence=op.answer.sequence, index=op.answer.index
    )


def early(operations: list[Operation]) -> None:
    """An order happens before it is asked for."""
    at = first(operations, enter_that_rests)
    later = max(op.completed_ns for op in operations if op.completed_ns is not None)
    operations[at].invoked_ns, operations[at].completed_ns = later + 1, later + 2


def forgotten(operations: list[Operation]) -> None:
    """Somebody's order is in the log, and nobody asked for it."""
    key = operations[first(operations, enter_that_rests)].key
    operations[:] = [op for op in operations if op.key != key]


def stale_query(operations: list[Operation]) -> None:
    """A query is answered as of a time that had passed when it was asked."""
    at = first(operations, is_busy_query)
    query, later = operations[at], max(op.completed_ns or 0 for op in operations)
    query.invoked_ns, query.completed_ns = later + 1, later + 2


def blind_query(operations: list[Operation]) -> None:
    """A query leaves an order out."""
    op = operations[first(operations, is_busy_query)]
    assert isinstance(op.answer, wire.Orders)
    op.answer = msgspec.structs.replace(op.answer, orders=op.answer.orders[1:])


def rich_query(operations: list[Operation]) -> None:
    """A query is a micro-dollar out."""
    at = first(operations, lambda op: isinstance(op.answer, wire.AccountReport))
    answer = operations[at].answer
    assert isinstance(answer, wire.AccountReport)
    operations[at].answer = msgspec.structs.replace(answer, cash=answer.cash[:-1] + "9")


def lost(operations: list[Operation]) -> None:
    """An order was accepted at a sequence where the log has something else."""
    op = operations[first(operations, enter_that_rests)]
    assert isinstance(op.answer, wire.Accepted)
    op.answer = msgspec.structs.replace(op.answer, sequence=op.answer.sequence + 1)


LIES = [
    other_order, refused_and_done, early, forgotten, stale_query, blind_query, rich_query, lost,
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie.__name__))
def test_a_lie_is_refused(told: Simulation, lie: Callable[[list[Operation]], None]) -> None:
    operations = copy.deepcopy(told.history.operations)
    lie(operations)
    with pytest.raises(NotLinearizable):
        judged(told, operations)


def test_what_is_unknown_may_have_happened_or_not(told: Simulation) -> None:
    """Without their answers all operations are possible, and so are some that never happened."""
    operations = copy.deepcopy(told.history.operations)
    for operation in operations:
        operation.answer = operation.completed_ns = None
    unsent = copy.copy(operations[0])
    unsent.key = "never-sent"
    assert judged(told, [*operations, unsent]) == 0
