"""Byte mutation of valid frames: every one is refused by name, or becomes a command that an engine
takes or rejects; none raises, costs memory or changes what it should not. HOURBOOK_MUTATIONS asks
for more. Budget: 20 seconds."""

import os
import resource
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import pytest
from bad_wire import BINARY, TEXT
from msgspec.structs import astuple
from mutation import Records, mutated
from sockets import hear, running
from venue import RICH, START_NS, opening

from exchange.engine import Engine
from exchange.gateway import decode, lookups
from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    EVENT,
    EVENT_FIELDS,
    Command,
    CommandKind,
    EventKind,
    Limit,
    Reason,
    wire,
)

COUNT: Final = int(os.environ.get("HOURBOOK_MUTATIONS", "200000"))
SOCKET_COUNT: Final = COUNT // 200
GROWTH_KIB: Final = 32 << 10
DESK_COMMANDS: Final = 100  # then another one begins: some commands end all trading
_KIND, _SESSION = EVENT_FIELDS.index("kind"), EVENT_FIELDS.index("order_id")


class Desk:
    """An engine with the market of ``venue``, in which one account's commands are tried, and
    another that is told of no command which the first one rejects."""

    def __init__(self) -> None:
        self._engine, self._spared = Engine(), Engine()
        self._sequence = self.tried = 0
        logon = Command(kind=CommandKind.LOGON, account=RICH)
        for command, _ in (*opening(), (logon, None)):
            self.judge(COMMAND.pack(*astuple(command)))
        self.session = self._last[_SESSION]

    def judge(self, record: bytes) -> str:
        """Apply a command; return what became of it."""
        self._sequence += 1
        events = self._engine.apply(record, self._sequence, START_NS)
        (self._last, *_) = EVENT.iter_unpack(events)
        self.tried += 1
        if self._last[_KIND] == EventKind.REJECTED:
            return "rejected"
        assert self._spared.apply(record, self._sequence, START_NS) == events
        return "taken"

    def check(self) -> None:
        """Rejects changed nothing but the throttle: both markets are the same."""
        self._engine.check()
        assert self._engine.state_bytes(False) == self._spared.state_bytes(False)


class Decoder:
    """The way from a frame to the engine, as that of a connection that has logged on goes it."""

    def __init__(self) -> None:
        self._records = Records()
        self.desk = Desk()

    def take(self, data: bytes, *, packed: bool) -> str:
        """Return what became of a frame: a reason, or what was made of it."""
        try:
            if packed:
                request = decode.read_msgpack(data)
            else:
                request = decode.read_json(data.decode("utf-8", "surrogateescape"))
            record = self._records.record(request, self.desk.session)
        except decode.Refused as refused:
            assert refused.reason in Reason and all(map(str.isascii, refused.seen.values()))
            return refused.reason.name
        if record is None:
            return "read"
        assert len(record) == COMMAND_BYTES
        if self.desk.tried == DESK_COMMANDS:
            self.desk.check()
            self.desk = Desk()
        return self.desk.judge(record)


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("packed", [False, True])
def test_mutated_frames_against_the_decoder(packed: bool) -> None:
    decoder = Decoder()
    outcomes: dict[str, int] = {}
    before = 0
    for number, data in enumerate(mutated(1, COUNT // 2, packed=packed)):
        outcome = decoder.take(data, packed=packed)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if number == COUNT // 20:
            before = peak_kib()
    decoder.desk.check()
    assert peak_kib() - before < GROWTH_KIB
    met = {"SYNTAX", "DUPLICATE_FIELD", "UNKNOWN_FIELD", "MISSING_FIELD", "ID_FORMAT", "read",
           "UNKNOWN_COMMAND", "taken", "rejected", "UNKNOWN_INSTRUMENT"}  # fmt: skip
    if packed:  # a pair more than the map announces is no pair
        met.discard("DUPLICATE_FIELD")
    assert met <= set(outcomes), outcomes
    assert outcomes["rejected"] > COUNT // 40 and outcomes["taken"] > COUNT // 200, outcomes


@pytest.mark.parametrize("packed", [False, True])
async def test_mutated_frames_over_a_socket(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is answered, or closes its own connection with a code; a reject changes nothing."""
    monkeypatch.setattr(lookups, "WAIT_MS", 0)  # the clock stands still
    protocols = (wire.MSGPACK_PROTOCOL,) if packed else ()
    async with running(tmp_path) as house:
        socket = await house.trader(RICH, *protocols)
        rejects = closes = 0
        for data in mutated(2, SOCKET_COUNT // 2, packed=packed):
            if socket.closed:
                socket = await house.trader(RICH, *protocols)
            assert len(data) <= Limit.FRAME_BYTES
            before = house.venue.hash()
            await socket.send_frame(data, aiohttp.WSMsgType(BINARY if packed else TEXT))
            told = await hear(socket)
            if isinstance(told, aiohttp.WSMessage):
                assert told.data in (1007, 1008), told
                closes += 1
                await house.venue.settle()
            elif told[0]["type"] == "rejected":
                rejects += 1
                assert house.venue.hash() == before, data
        house.venue.engine.check()
        assert rejects > SOCKET_COUNT // 4 and (closes or packed)


def test_what_is_sent_is_what_was_meant() -> None:
    """The frames before mutation are good: a change of theirs is the cause of a reject."""
    decoder = Decoder()
    for packed in (False, True):
        assert list(mutated(1, 50, packed=packed)) == list(mutated(1, 50, packed=packed))
    assert decoder.take(msgspec.json.encode({"op": "heartbeat"}), packed=False) == "read"
