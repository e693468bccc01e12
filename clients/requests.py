"""Builds requests from user input: checks decimals, creates ids, requires one target.

Whatever can be recognized as wrong without the exchange raises ValueRefused here, before anything
is sent.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from clients.decimals import Number, checked_decimal, quantity_text
from clients.errors import ValueRefused
from clients.feed import Feed
from clients.portfolio import Portfolio
from exchange.messages import Limit
from exchange.messages.wire import (
    BATCH_REQUESTS,
    AnyCommand,
    AnyRequest,
    Cancel,
    Enter,
    Reduce,
    Replace,
    SelfTradeText,
    SideText,
    TimeInForceText,
    encode_json,
    encode_msgpack,
)
from exchange.messages.wire_mass import (
    Kill,
    KillText,
    MassCancel,
    Protect,
    Quote,
    QuoteTimeText,
)

_ID: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{Limit.CLIENT_ID_CHARS}}}")


class Requests:
    """Builds the requests that change orders.

    The clients' methods of the same names also send them, and share these docstrings.
    """

    def __init__(self, feed: Feed, portfolio: Portfolio, next_id: Callable[[], str]) -> None:
        self._feed = feed
        self._portfolio = portfolio
        self._next_id = next_id

    def enter(
        self,
        instrument: str,
        side: SideText,
        quantity: Number,
        price: Number | None = None,
        *,
        client_order_id: str | None = None,
        time_in_force: TimeInForceText | None = None,
        post_only: bool = False,
        self_trade: SelfTradeText = "cancel_newest",
        manual: bool = False,
        expires_ms: int | None = None,
        minimum_quantity: Number | None = None,
        protection: Number | None = None,
        stop_price: Number | None = None,
        display_quantity: Number | None = None,
        reduce_only: bool = False,
        group_with: str | None = None,
        valid_until_ms: int | None = None,
    ) -> Enter:
        """Enter a limit order, or a market order if there is no price.

        Prices are strings or Decimals in dollars, or ints of ticks; quantities whole lots. Entering
        again with the same ``client_order_id`` and fields is a retry: only one order exists.

        ``GTD`` needs ``expires_ms``, milliseconds since 1970. ``minimum_quantity`` must trade at
        once, or all is cancelled. A market order with a resting time in force takes the best
        opposite price as its limit; ``protection`` puts the limit that far beyond it.
        ``stop_price`` makes a stop order, which waits for a trade at that price or beyond.
        ``display_quantity`` makes an iceberg, which shows that many lots at a time. ``reduce_only``
        orders are cancelled as far as there is less to reduce. With ``group_with``, another order's
        id, a trade of either order cancels the other. An order that the exchange reads after
        ``valid_until_ms`` is dropped: LATE. ``manual``: entered by a person.
        """
        return Enter(
            client_order_id=self._id(client_order_id),
            instrument=instrument,
            side=side,
            quantity=quantity_text(quantity),
            price=None if price is None else self._price(instrument, price),
            type="market" if price is None else "limit",
            time_in_force=time_in_force,
            post_only=post_only,
            self_trade=self_trade,
            manual=manual,
            expires_ms=expires_ms,
            minimum_quantity=None if minimum_quantity is None else quantity_text(minimum_quantity),
            protection=None if protection is None else self._price(instrument, protection),
            stop_price=None if stop_price is None else self._price(instrument, stop_price),
            display_quantity=None if display_quantity is None else quantity_text(display_quantity),
            reduce_only=reduce_only,
            group_with=group_with,
            valid_until_ms=valid_until_ms,
        )

    def cancel(
        self,
        client_order_id: str | None = None,
        *,
        order_id: str | None = None,
        manual: bool = False,
        request_id: str | None = None,
    ) -> Cancel:
        """Cancel an order, named by one of its two ids."""
        self._one_target(client_order_id, order_id)
        return Cancel(
            request_id=self._id(request_id),
            order_id=order_id,
            client_order_id=client_order_id,
            manual=manual,
        )

    def reduce(
        self,
        client_order_id: str | None = None,
        *,
        quantity: Number,
        order_id: str | None = None,
        manual: bool = False,
        request_id: str | None = None,
    ) -> Reduce:
        """Reduce an order by ``quantity`` lots; it keeps its place."""
        self._one_target(client_order_id, order_id)
        return Reduce(
            request_id=self._id(request_id),
            quantity=quantity_text(quantity),
            order_id=order_id,
            client_order_id=client_order_id,
            manual=manual,
        )

    def replace(
        self,
        client_order_id: str | None = None,
        *,
        quantity: Number,
        price: Number,
        instrument: str = "",
        order_id: str | None = None,
        post_only: bool = False,
        manual: bool = False,
        request_id: str | None = None,
        valid_until_ms: int | None = None,
    ) -> Replace:
        """Give an order a new price and a new total quantity, executed lots included.

        At the same price and no larger the order keeps its place. ``instrument`` is needed only if
        this client has not seen the order's acceptance.
        """
        self._one_target(client_order_id, order_id)
        known = instrument or self._instrument_of(client_order_id, order_id)
        return Replace(
            request_id=self._id(request_id),
            instrument=known or None,
            price=self._price(known, price),
            quantity=quantity_text(quantity),
            order_id=order_id,
            client_order_id=client_order_id,
            post_only=post_only,
            manual=manual,
            valid_until_ms=valid_until_ms,
        )

    def mass_cancel(
        self,
        *,
        instrument: str | None = None,
        product: str | None = None,
        side: SideText | None = None,
        session: int | None = None,
        manual: bool = False,
        request_id: str | None = None,
    ) -> MassCancel:
        """Cancel all of the account's orders, or those that match every field given.

        A report of each order follows the answer.
        """
        return MassCancel(
            request_id=self._id(request_id),
            instrument=instrument,
            product=product,
            side=side,
            session=session,
            manual=manual,
        )

    def kill(self, scope: KillText = "session", *, request_id: str | None = None) -> Kill:
        """Turn on the kill switch of this session or of the account: orders are cancelled, and only
        an operator can allow trading again."""
        return Kill(request_id=self._id(request_id), scope=scope)

    def quote(
        self,
        instrument: str,
        *,
        bid: tuple[Number, Number] | None = None,
        ask: tuple[Number, Number] | None = None,
        time_in_force: QuoteTimeText = "DAY",
        request_id: str | None = None,
        valid_until_ms: int | None = None,
    ) -> Quote:
        """Set both sides of the quote in an instrument, each (price, quantity); None: no quote.

        An unchanged side keeps its place. A quote never takes.
        """
        return Quote(
            request_id=self._id(request_id),
            instrument=instrument,
            bid_price=None if bid is None else self._price(instrument, bid[0]),
            bid_quantity=None if bid is None else quantity_text(bid[1]),
            ask_price=None if ask is None else self._price(instrument, ask[0]),
            ask_quantity=None if ask is None else quantity_text(ask[1]),
            time_in_force=time_in_force,
            valid_until_ms=valid_until_ms,
        )

    def protect(
        self, product: str, quantity: Number, window_ms: int, *, request_id: str | None = None
    ) -> Protect:
        """Limit the lots that the quotes in a product may trade within a window; 0 and 0: no limit.

        When the limit is reached, quotes are refused until this is sent again.
        """
        return Protect(
            request_id=self._id(request_id),
            product=product,
            quantity=quantity_text(quantity) if checked_decimal(quantity, "quantity") else "0",
            window_ms=window_ms,
        )

    def _id(self, text: str | None) -> str:
        if text is None:
            return self._next_id()
        if not isinstance(text, str) or _ID.fullmatch(text) is None:
            raise ValueRefused(f"id {text!r} is not of the form {_ID.pattern}")
        return text

    def _one_target(self, client_order_id: str | None, order_id: str | None) -> None:
        if (client_order_id is None) == (order_id is None):
            raise ValueRefused("name the order by client_order_id or by order_id")
        if client_order_id is not None:
            self._id(client_order_id)

    def _instrument_of(self, client_order_id: str | None, order_id: str | None) -> str:
        """Return the instrument of a working order; empty if the client does not know the order."""
        if client_order_id is not None:
            order = self._portfolio.orders.get(client_order_id)
            return order.instrument if order is not None else ""
        orders = tuple(self._portfolio.orders.values())  # a copy: another thread may change them
        return next((o.instrument for o in orders if o.order_id == order_id), "")

    def _price(self, instrument: str, price: Number) -> str:
        scale = self._feed.scales.get(instrument)
        if scale is not None:
            return scale.text(scale.ticks(price))
        if isinstance(price, int):
            raise ValueRefused(f"{price} ticks: the tick of {instrument or 'the order'} is unknown")
        return f"{checked_decimal(price, 'price'):f}"


def measured(request: AnyRequest, *, msgpack: bool = False) -> int:
    """Return the bytes of a request's frame.

    Raises ValueRefused for what has no encoding, and for more than fits into a frame: the exchange
    closes the connection that brings it, and the next one, which would bring it again.
    """
    try:
        size = len(encode_msgpack(request) if msgpack else encode_json(request))
    except (UnicodeEncodeError, OverflowError) as error:  # a lone surrogate, an int of 65 bits
        raise ValueRefused(f"{type(request).__name__} cannot be sent: {error}") from None
    if size > Limit.FRAME_BYTES:
        kind = type(request).__name__
        raise ValueRefused(f"{kind} of {size} bytes: the limit is {Limit.FRAME_BYTES.value}")
    return size


def frames_of(requests: Iterable[AnyCommand]) -> Iterator[list[AnyCommand]]:
    """Yield the commands in lists that fit into one frame each, in order."""
    frame: list[AnyCommand] = []
    size = 2
    for request in requests:
        more = measured(request) + 1  # MessagePack is never longer
        if frame and (len(frame) == BATCH_REQUESTS or size + more > Limit.FRAME_BYTES):
            yield frame
            frame, size = [], 2
        frame.append(request)
        size += more
    if frame:
        yield frame
