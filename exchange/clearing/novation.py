"""Positions by open offer: each trade becomes two legs against the clearing house.

A trade of ``quantity`` lots makes the buyer long and the seller short against the house, at the
trade price. The house's own legs cancel, so for every instrument

    sum of net positions = 0        and, between settlements,        sum of costs = 0

``net`` is signed lots; ``cost`` is micro-dollars, the sum of signed lots x price x tick value since
the position was last struck to a settlement price.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Position:
    """What one account holds of one instrument."""

    net: int = 0
    cost: int = 0

    def variation(self, price: int, multiplier: int) -> int:
        """Return the gain in micro-dollars if struck to ``price`` (clearing units)."""
        return self.net * price * multiplier - self.cost


class Positions:
    """All positions, by instrument and account."""

    def __init__(self) -> None:
        self._books: dict[int, dict[int, Position]] = {}
        self._held: defaultdict[int, set[int]] = defaultdict(set)  # instruments by account

    def add(self, account: int, instrument: int, net: int, cost: int) -> None:
        """Add a stored position."""
        self._books.setdefault(instrument, {})[account] = Position(net, cost)
        self._held[account].add(instrument)

    def trade(self, instrument: int, buyer: int, seller: int, quantity: int, value: int) -> None:
        """Clear both legs of a trade. ``value`` is quantity x price x tick value, micro-dollars."""
        book = self._books.get(instrument)
        if book is None:
            book = self._books[instrument] = {}
        long, short = book.get(buyer), book.get(seller)
        if long is None:
            long = book[buyer] = Position()
            self._held[buyer].add(instrument)
        if short is None:
            short = long if seller == buyer else book.setdefault(seller, Position())
            self._held[seller].add(instrument)
        long.net += quantity
        long.cost += value
        short.net -= quantity
        short.cost -= value

    def strike(self, instrument: int, price: int, multiplier: int, *, close: bool = False) -> None:
        """Strike every position to a settlement price; ``close`` (at expiry) also ends it."""
        self.check(instrument)
        for position in self.of_instrument(instrument).values():
            position.net = 0 if close else position.net
            position.cost = position.net * price * multiplier

    def get(self, account: int, instrument: int) -> Position:
        """Return a position; an empty one if the account never held the instrument."""
        return self.of_instrument(instrument).get(account) or Position()

    def of_instrument(self, instrument: int) -> dict[int, Position]:
        """Return the positions of an instrument by account."""
        return self._books.get(instrument, {})

    def of_account(self, account: int) -> Iterator[tuple[int, Position]]:
        """Yield (instrument, position) of an account, by instrument."""
        for instrument in sorted(self._held.get(account, ())):
            yield instrument, self._books[instrument][account]

    def instruments(self) -> list[int]:
        """Return the instruments ever traded, in order."""
        return sorted(self._books)

    def open_interest(self, instrument: int) -> int:
        """Return the lots held long, which equal the lots held short."""
        return sum(max(p.net, 0) for p in self.of_instrument(instrument).values())

    def check(self, instrument: int) -> None:
        """AssertionError unless the net positions of the instrument sum to zero."""
        total = sum(position.net for position in self.of_instrument(instrument).values())
        assert total == 0, f"positions of instrument {instrument} sum to {total}"
