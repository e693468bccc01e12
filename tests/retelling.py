"""What the rooms between engine and socket make of random markets, and of frames that are random
nonsense, as digests: for test_interpreted.py.
"""

import json
from collections.abc import Iterator
from hashlib import blake2b
from importlib import import_module
from typing import Final

from generator import Generator
from interpreted import compiled_python
from mutation import Records, mutated
from readers import Told

from exchange.engine import Engine
from exchange.gateway.batches import is_batch, read_batch
from exchange.gateway.decode import Refused, read_json, read_msgpack
from exchange.gateway.reports import Reports
from exchange.gateway.resume import reports_of
from exchange.gateway.session import JSON
from exchange.gateway.view import View
from exchange.marketdata.feed import Feed
from exchange.marketdata.prints import CHANNELS
from exchange.marketdata.stream import Row
from exchange.messages import COMMAND_BYTES, EVENT, CommandKind
from exchange.messages.wire import Response, encode_json, encode_msgpack

SEEDS: Final = range(4)
BATCHES: Final = 60
FRAMES: Final = 1_000  # of each form
SIZE: Final = 60  # commands of a batch
SHOWN: Final = (
    "top.{}", "depth.{}", "depth.{}.top5", "depth.{}.by10.100ms", "queue.{}", "statistics.{}",
    "trades.{}", "state.{}",
)  # fmt: skip


def told(seed: int) -> bytes:
    """Return a digest of all that a random market is told."""
    return Teller(seed).run()


class Teller:
    """A random market, what is known of it, and a feed that tells all of it."""

    def __init__(self, seed: int) -> None:
        self._generator, self._engine = Generator(seed), Engine()
        self._view, self._feed, self._told = View(), Feed(), Told(JSON)
        self._sequence = 1
        self._joined: set[str] = set(CHANNELS)

    def run(self) -> bytes:
        """Return a digest of all that is said, and of what is known at the end."""
        said = blake2b(digest_size=16)
        data = self._generator.opening()
        for number in range(BATCHES):
            for message in self._batch(data):
                said.update(encode_json(message) + encode_msgpack(message))
            if number % 9 == 4:
                self._view = View.unpack(self._view.pack())
            data = self._generator.batch(SIZE)
        for reader in self._told.readers.values():
            for text, _ in reader.told:
                said.update(text)
        said.update(self._view.pack())
        return said.digest()

    def _batch(self, data: bytes) -> Iterator[Response]:
        first, stamp = self._sequence, self._generator.stamp
        events = self._engine.apply(data, first, stamp)
        self._generator.learn(events)
        self._sequence += len(data) // COMMAND_BYTES
        kinds = enumerate(data[::COMMAND_BYTES], first)
        texts = {n: f"c{n % 50}" for n, kind in kinds if kind <= CommandKind.REPLACE}
        self._view.take(1, stamp, events, texts)
        self._told.take(stamp, events, texts)
        rows: list[Row] = list(EVENT.iter_unpack(events))
        for _, message in self._feed.apply(rows, stamp, texts, self._joined):
            yield message
        yield from (message for _, message in self._feed.tick(first))
        yield from self._reports(rows, stamp, texts)
        for code in self._feed.instruments.by_code:
            for channel in (shown.format(code) for shown in SHOWN):
                if channel not in self._joined:
                    self._feed.join(channel)
                    self._joined.add(channel)
        for channel in sorted(self._joined):
            yield from self._feed.snapshot(channel, self._sequence)

    def _reports(self, rows: list[Row], stamp: int, texts: dict[int, str]) -> Iterator[Response]:
        accounts = self._view.accounts
        reports = Reports(self._view.feed.instruments, accounts)
        for row in rows:
            for account in accounts.by_id:
                yield from reports_of(row, account, reports, stamp, texts.get(row[0]))


def heard(seed: int) -> bytes:
    """Return a digest of the records that frames become, and of the refusals."""
    said, records = blake2b(digest_size=16), Records()
    for packed in (False, True):
        for data in mutated(seed, FRAMES, packed=packed):
            frame = data if packed else data.decode("utf-8", "surrogateescape")
            said.update(repr([is_batch(frame), *_outcomes(frame, records)]).encode())
    return said.digest()


def _outcomes(frame: str | bytes, records: Records) -> Iterator[object]:
    for part in (frame, f"[{frame},{frame}]" if isinstance(frame, str) else b"\x91" + frame):
        try:
            if is_batch(part):
                requests = read_batch(part)
            else:
                requests = [read_json(part) if isinstance(part, str) else read_msgpack(part)]
            for one in requests:
                if isinstance(one, Refused):
                    raise one
                yield records.record(one, 1) or one
        except Refused as refused:
            yield refused.args, refused.limit, refused.observed, refused.seen


def main() -> None:
    """Print the digests, and from where each module came that may be compiled."""
    digests = [digest(seed).hex() for digest in (told, heard) for seed in SEEDS]
    files = {name: import_module(name).__file__ for name in compiled_python()}
    print(json.dumps({"digests": digests, "files": files}))
