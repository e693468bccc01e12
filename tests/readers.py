"""Connections that only remember what they are told, for every account of a market."""

from dataclasses import dataclass, field
from typing import cast

from exchange.gateway.dispatch import Dispatch
from exchange.gateway.reports import Reports
from exchange.gateway.session import Session
from exchange.gateway.view import View
from exchange.marketdata.stream import Row
from exchange.messages import EVENT


@dataclass
class Reader:
    """What a connection is to a Dispatch."""

    number: int
    codec: int
    told: list[tuple[bytes, int]] = field(default_factory=list)  # a text, of so many reports

    def push(self, encoded: bytes, count: int = 1) -> None:
        self.told.append((encoded, count))


class Told:
    """What the accounts of a random market were told, one connection of every codec each."""

    def __init__(self, *codecs: int) -> None:
        self.view = View()
        reports = Reports(self.view.feed.instruments, self.view.accounts)
        self.dispatch = Dispatch(
            self.view.feed.instruments, self.view.accounts, reports, self._answered
        )
        self._codecs = codecs
        self.readers: dict[tuple[int, int], Reader] = {}

    def _answered(self, row: Row, stamp: int) -> None:
        raise AssertionError("the generator logs nobody on with a gateway's mark")

    def take(self, stamp: int, events: bytes, texts: dict[int, str]) -> None:
        """Take a batch in; accounts that it opens have their connections from the next one on."""
        rows: list[Row] = list(EVENT.iter_unpack(events))
        self.view.feed.apply(rows, stamp, texts, ())
        told: dict[int, Session] = {}
        self.dispatch.take(rows, stamp, texts, told)
        for account in self.view.accounts.by_id.keys() - {key for key, _ in self.readers}:
            for codec in self._codecs:
                reader = self.readers[account, codec] = Reader(len(self.readers), codec)
                self.dispatch.join(account, cast(Session, reader))
