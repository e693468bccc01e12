"""The methods that change orders, as native requests."""

import re
from collections.abc import Sequence
from itertools import takewhile
from secrets import token_hex
from typing import Any, Final, Literal

from exchange.gateway.decode import Refused
from exchange.gateway.dialects.deribit.blotter import Blotter, Ticket
from exchange.gateway.dialects.deribit.calls import Wish
from exchange.gateway.dialects.deribit.codes import (
    NOT_DONE,
    TIMED_OUT,
    refusal,
    refused_by,
)
from exchange.gateway.dialects.deribit.instruments import CURRENCY, chosen, find
from exchange.gateway.dialects.deribit.numbers import plain
from exchange.gateway.dialects.deribit.params import Act, CancelOne, Edit, Order
from exchange.gateway.dialects.deribit.portray import (
    LABEL_CHARS,
    Portrayer,
    client_order_id,
)
from exchange.gateway.dialects.deribit.rpc import Failure, wrong_param
from exchange.gateway.hub import Hub
from exchange.messages import Reason, TradingState
from exchange.messages.access import GatewayReason
from exchange.messages.wire import (
    Accepted,
    Cancel,
    Enter,
    OrderReport,
    Replace,
    SideText,
    TimeInForceText,
)
from exchange.messages.wire_mass import MassCancel, MassCancelled

ORDER_ID_DIGITS: Final = 20
BOOKS_MAX: Final = 64  # combinations in one frame of mass cancels
_LABEL: Final = re.compile(rf"[A-Za-z0-9._-]{{0,{LABEL_CHARS}}}")
_TIMES: Final[dict[str, TimeInForceText]] = {
    "good_til_cancelled": "GTC",
    "good_til_day": "DAY",
    "immediate_or_cancel": "IOC",
    "fill_or_kill": "FOK",
}


class CancelAll(Act, frozen=True, kw_only=True):
    """The orders to cancel, by currency and kind."""

    currency: str = CURRENCY
    kind: Literal["any", "combo", "future", "future_combo"] = "any"
    type: Literal["all"] = "all"
    detailed: bool = False  # a Literal would refuse the text of a query; only False is taken


class CancelBook(CancelAll, frozen=True, kw_only=True):
    """The instrument whose orders to cancel; currency and kind must agree with it."""

    instrument_name: str


class Trading:
    """Makes wishes from the methods. Checks that the engine makes are left to it."""

    def __init__(self, hub: Hub, blotter: Blotter, portrayer: Portrayer) -> None:
        self._hub = hub
        self._blotter = blotter
        self._portrayer = portrayer

    def buy(self, account: int, order: Order) -> Wish:
        """Enter an order to buy."""
        return self._enter(account, order, "buy")

    def sell(self, account: int, order: Order) -> Wish:
        """Enter an order to sell."""
        return self._enter(account, order, "sell")

    def _enter(self, account: int, order: Order, side: SideText) -> Wish:
        instrument = find(self._hub.feed.instruments, order.instrument_name)
        self._check_time(order.valid_until)
        if _LABEL.fullmatch(order.label) is None:
            raise wrong_param("label", Reason.ID_FORMAT, f"not {_LABEL.pattern}")
        market = order.type in ("market", "market_limit", "stop_market")
        if market and order.price is not None:
            raise wrong_param("price", Reason.COMBINATION, f"a {order.type} order has no price")
        if (order.trigger_price is not None) != order.type.startswith("stop_"):
            told = "a stop order has a trigger_price, and no other order"
            raise wrong_param("trigger_price", Reason.COMBINATION, told)
        tif: TimeInForceText | None = _TIMES[order.time_in_force]
        if market and order.type != "market_limit" and tif in ("GTC", "DAY"):
            tif = None  # a market order never rests
        text = client_order_id(order.label)
        request = Enter(
            client_order_id=text,
            instrument=instrument.code,
            side=side,
            quantity=_amount(order.amount, order.contracts),
            price=None if market else _needed(order.price, "price"),
            type="market" if market else "limit",
            time_in_force=tif,
            post_only=order.post_only,
            stop_price=_optional(order.trigger_price, "trigger_price"),
            display_quantity=None if order.max_show is None else _lots(order.max_show, "max_show"),
            reduce_only=order.reduce_only,
        )

        def result(accepted: Accepted) -> Any:
            return self._done(account, accepted)

        return Wish(text, request, result)

    def edit(self, account: int, edit: Edit) -> Wish:
        """Replace an order's price, total amount, or both."""
        self._check_time(edit.valid_until)
        ticket = self.own(account, edit.order_id)
        if ticket.market and ticket.waits and edit.price is not None:
            raise wrong_param("price", Reason.COMBINATION, "a stop_market order has no price")
        instrument = self._hub.feed.instruments.by_id[ticket.instrument]
        amount = edit.amount if edit.contracts is None else edit.contracts
        request = Replace(
            request_id=token_hex(12),
            order_id=edit.order_id,
            instrument=instrument.code,
            price=_optional(edit.price, "price") or instrument.price_text(ticket.price),
            quantity=str(ticket.quantity) if amount is None else _amount(
                edit.amount, edit.contracts
            ),
            post_only=edit.post_only,
        )  # fmt: skip

        def result(report: OrderReport) -> Any:
            return self._done(account, report)

        return Wish(request.request_id, request, result)

    def cancel(self, account: int, cancel: CancelOne) -> Wish:
        """Cancel an order, also one that this gateway does not know yet: another has said that it
        works, and an order must never be called gone that is not."""
        if number_of(cancel.order_id) is None:
            raise refusal(Reason.NOT_FOUND)
        request = Cancel(request_id=token_hex(12), order_id=cancel.order_id)

        def result(report: OrderReport) -> Any:
            return self._portrayer.order(self.own(account, report.order_id))

        return Wish(request.request_id, request, result)

    def cancel_all(self, account: int, cancel: CancelAll) -> Wish | int:
        """Cancel all orders, or those of a currency and a kind; the result is their number."""
        _check_detail(cancel)
        instruments = self._hub.feed.instruments
        everywhere = cancel.currency in ("any", CURRENCY)
        if everywhere and cancel.kind == "any":
            return _mass([MassCancel(request_id=token_hex(12))])
        if not everywhere and cancel.currency not in instruments.products:
            raise wrong_param("currency", Reason.NOT_FOUND, "no such currency")
        found = chosen(instruments, cancel.currency, cancel.kind)
        products = dict.fromkeys(one.data.product for one in found if not one.legs)
        books = [one for one in found if one.legs and one.state != TradingState.EXPIRED]
        if len(books) > BOOKS_MAX:  # this may miss an order that is not released yet
            working = {ticket.instrument for ticket in self._blotter.working(account)}
            books = [one for one in books if one.id in working]
        if len(books) > BOOKS_MAX:
            told = f"orders of more than {BOOKS_MAX} combinations"
            raise wrong_param("kind", Reason.COMBINATION, told)
        return _mass([
            *(MassCancel(request_id=token_hex(12), product=one) for one in products),
            *(MassCancel(request_id=token_hex(12), instrument=one.code) for one in books),
        ])  # fmt: skip

    def cancel_book(self, account: int, cancel: CancelBook) -> Wish | int:
        """Cancel all orders of an instrument; the result is their number."""
        _check_detail(cancel)
        instruments = self._hub.feed.instruments
        instrument = find(instruments, cancel.instrument_name)
        if instrument not in chosen(instruments, cancel.currency, cancel.kind):
            told = f"{instrument.code} is none of that"
            raise wrong_param("instrument_name", Reason.COMBINATION, told)
        return _mass([MassCancel(request_id=token_hex(12), instrument=instrument.code)])

    def own(self, account: int, order_id: str) -> Ticket:
        """Return an order of the account; raises the same Failure for an unknown order and for
        another account's."""
        number = number_of(order_id)
        ticket = None if number is None else self._blotter.orders.get(number)
        if ticket is None or ticket.account != account:
            raise refusal(Reason.NOT_FOUND)
        return ticket

    def _done(self, account: int, report: OrderReport) -> dict[str, Any]:
        """Return the order of a report, with the trades of the same command."""
        fills = reversed(self._blotter.fills.get(account, ()))
        recent = takewhile(lambda fill: fill.trade.sequence >= report.sequence, fills)
        trades = [
            self._portrayer.fill(fill)
            for fill in recent
            if fill.trade.sequence == report.sequence and fill.trade.order_id == report.order_id
        ][::-1]
        order = self._portrayer.order(self.own(account, report.order_id))
        return {"order": order, "trades": trades}

    def _check_time(self, valid_until: int) -> None:
        if valid_until and self._hub.now_ms() > valid_until:
            code, message = TIMED_OUT
            late = GatewayReason.LATE
            data = {"reason": late.name, "number": int(late), "param": "valid_until"}
            raise Failure(code, message, data | {"outcome": NOT_DONE})


def number_of(order_id: str) -> int | None:
    """Return the number of an order id; None if it is not written as one."""
    is_number = order_id.isascii() and order_id.isdigit() and len(order_id) <= ORDER_ID_DIGITS
    return int(order_id) if is_number and order_id[0] != "0" else None


def _check_detail(cancel: CancelAll) -> None:
    if cancel.detailed:
        raise wrong_param("detailed", Reason.SYNTAX, "the number of orders is all there is")


def _mass(requests: list[MassCancel]) -> Wish | int:
    """Return a wish of mass cancels in one frame; 0 if there is nothing to cancel."""
    if not requests:
        return 0

    def result(done: Sequence[MassCancelled]) -> int:
        return sum(one.orders for one in done)

    return Wish(requests[0].request_id, requests, result)


def _amount(amount: object, contracts: object) -> str:
    """Return the lots, from either parameter; raises Failure if they are missing or differ."""
    said = [_lots(v, name) for v, name in ((amount, "amount"), (contracts, "contracts"))
            if v is not None]  # fmt: skip
    if not said:
        raise wrong_param("amount", Reason.MISSING_FIELD)
    if len(set(said)) > 1:
        raise wrong_param("contracts", Reason.COMBINATION, "amount and contracts differ")
    return said[0]


def _lots(value: object, param: str) -> str:
    text = plain(value, param)
    if "." in text:  # in a native frame it would count as malformed
        raise refused_by(Refused(Reason.LOT, param, "whole contracts alone"))
    return text


def _needed(value: object, param: str) -> str:
    if value is None:
        raise wrong_param(param, Reason.MISSING_FIELD)
    return plain(value, param)


def _optional(value: object, param: str) -> str | None:
    return None if value is None else plain(value, param)
