"""The released stream over its socket: put together from any pieces, and read in turns."""

import asyncio
from contextlib import ExitStack, closing
from itertools import accumulate
from pathlib import Path

import pytest
from recorded import deposits, everything, running, say
from test_tape import spoken

from exchange.journal import stream
from exchange.journal.errors import JournalError, NoSuchPosition
from exchange.journal.stream import REFUSAL, REFUSAL_MAGIC, Arriving, Subscription
from exchange.journal.tape import PREAMBLE, START, Position, Released, pack_released
from exchange.messages import EVENT_BYTES

__all__ = ["spoken"]  # a fixture
ANOTHER = b"another exchange"


@pytest.fixture(scope="module")
def sent(spoken: Path) -> tuple[list[Released], bytes]:
    """Records, and the bytes that a follower of all of them is sent."""
    data = (spoken / "tape/released.hbt").read_bytes()
    records = Arriving(START).take(data)
    assert data == data[: PREAMBLE.size] + b"".join(map(pack_released, records))
    return records, data


@pytest.mark.parametrize("size", [1, 3, 39, 40, 41, 1_000])
def test_any_pieces_make_the_same_records(sent: tuple[list[Released], bytes], size: int) -> None:
    records, data = sent
    arriving, found = Arriving(START), []
    for at in range(0, len(data), size):
        whole = arriving.take(data[at : at + size])
        found += whole
        assert found == records[: len(found)]
    arriving.end()
    assert found == records


def test_a_stream_that_ends_inside_a_record_broke_off(sent: tuple[list[Released], bytes]) -> None:
    records, data = sent
    sizes = [len(pack_released(one)) for one in records]
    ends = set(accumulate(sizes, initial=PREAMBLE.size))
    assert max(ends) == len(data)
    for cut in range(min(len(data), 4_000) + 1):
        arriving = Arriving(START)
        arriving.take(data[:cut])
        if cut in ends:
            arriving.end()
        else:
            with pytest.raises(JournalError, match="broke off"):
                arriving.end()


def test_what_is_no_stream_of_this_exchange_is_refused(sent: tuple[list[Released], bytes]) -> None:
    records, data = sent
    with pytest.raises(JournalError, match="exchange"):
        Arriving(START, ANOTHER).take(data)
    with pytest.raises(JournalError, match="not a released stream"):
        Arriving(START).take(b"x" + data[1:])
    first = len(pack_released(records[0]))
    for at in (PREAMBLE.size, PREAMBLE.size + 20, PREAMBLE.size + first):
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(JournalError, match="out of step"):
            Arriving(START).take(bytes(damaged))


@pytest.mark.parametrize("size", [1, 5, 100])
def test_a_refusal_is_heard_whole(sent: tuple[list[Released], bytes], size: int) -> None:
    reason = "released are 1 to 9: grüße".encode()
    told = sent[1][: PREAMBLE.size] + REFUSAL.pack(REFUSAL_MAGIC, len(reason)) + reason
    arriving = Arriving((3, 7, 0))
    with pytest.raises(NoSuchPosition, match="grüße") as refused:
        for at in range(0, len(told), size):
            assert arriving.take(told[at : at + size]) == []
    assert refused.value.position == (3, 7, 0)
    cut = Arriving(START)
    cut.take(told[:-1])
    with pytest.raises(JournalError, match="broke off"):
        cut.end()


def come(following: Subscription, size: int, most: int) -> bytes:
    """The events that come, until there are so many bytes of them."""
    found = b""
    while len(found) < size:
        found += b"".join(one.events for one in following.come(most))
    return found


async def test_who_is_busy_is_given_what_came_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with running(tmp_path / "market") as sequencer:
        server = await stream.serve(sequencer.tape, path, patient=True)
        with ExitStack() as leaving:

            def follow(after: Position = START) -> Subscription:
                return leaving.enter_context(closing(Subscription(path, after)))

            await say(sequencer, deposits(2, 100))
            every = await asyncio.to_thread(follow)
            found = await asyncio.to_thread(come, every, 1, 1)
            for number in range(5):
                await say(sequencer, deposits(2, 1_000 + 2 * number))
            whole = everything(sequencer.tape)
            found += await asyncio.to_thread(come, every, len(whole) - len(found), 3)
            assert found == whole
            inside = await asyncio.to_thread(follow, (1, 1, 0))
            rest = whole[EVENT_BYTES:]
            assert await asyncio.to_thread(come, inside, len(rest), 100) == rest
            lost = await asyncio.to_thread(follow, (3, 10_000, 0))
            with pytest.raises(NoSuchPosition, match="released are 1 to"):
                await asyncio.to_thread(lost.come, 1)
            sequencer.tape.close()
            assert await asyncio.to_thread(every.come, 1) == []
        server.close()
