"""Orders, trades, positions and balances in Deribit's form."""

from base64 import b32encode
from decimal import Decimal
from secrets import token_bytes
from typing import Any, Final

from exchange.gateway.accounts import Exposure
from exchange.gateway.dialects.deribit.blotter import (
    Blotter,
    Fill,
    Print,
    Shown,
    Ticket,
    kept_at,
    tif_name,
)
from exchange.gateway.dialects.deribit.instruments import (
    CURRENCY,
    base_of,
    book_state,
    kind_of,
    mark_text,
)
from exchange.gateway.dialects.deribit.numbers import exact, half_even, milliseconds
from exchange.gateway.hub import Hub
from exchange.marketdata.instruments import Instrument, micros_text
from exchange.marketdata.statistics import Day
from exchange.messages import Limit
from exchange.messages.wire import Execution, PublicTrade

ID_START: Final = "drb"
ID_CHARS: Final = 15  # ID_START and sixty random bits; "_" and the label follow
LABEL_CHARS: Final = Limit.CLIENT_ID_CHARS - ID_CHARS - 1
# Of an order, known only from its entry.
_TERMS: Final = (
    "creation_timestamp", "max_show", "post_only", "reject_post_only", "reduce_only",
)  # fmt: skip


def side_name(sell: bool) -> str:
    """Return the name of a side."""
    return "sell" if sell else "buy"


def label_of(text: str) -> str:
    """Return the label in a client order id of this dialect; any other id as it is."""
    head, mark, label = text.partition("_")
    return label if mark and len(head) == ID_CHARS and head.startswith(ID_START) else text


def client_order_id(label: str) -> str:
    """Return a new client order id with a label; labels need not be unique."""
    return f"{ID_START}{b32encode(token_bytes(10)).decode()[:12]}_{label}"


class Portrayer:
    """Builds answers from the state of the hub and the blotter."""

    def __init__(self, hub: Hub, blotter: Blotter) -> None:
        self._hub = hub
        self._blotter = blotter
        self._instruments = hub.feed.instruments
        self._stats: dict[int, tuple[int, dict[str, Any]]] = {}  # (sequence of change, figures)
        self._exposures: dict[int, dict[int, Exposure]] = {}  # by account
        self._exposed_at = -1  # sequence of ``_exposures``

    @property
    def revalued(self) -> int:
        """A number that rises whenever a mark or a margin rate has changed."""
        return self._blotter.revalued

    def known_order(self, order_id: int) -> dict[str, Any] | None:
        """Return an order by its id; None if it is no longer kept."""
        ticket = self._blotter.orders.get(order_id)
        return None if ticket is None else self.order(ticket)

    def order(self, ticket: Ticket) -> dict[str, Any]:
        """Return an order."""
        instrument = self._instruments.by_id[ticket.instrument]
        average = "0"
        if ticket.filled:
            average = micros_text(half_even(ticket.value * instrument.tick_scale, ticket.filled))
        kind = "market" if ticket.market else "limit"
        shown: dict[str, Any] = {
            "order_id": str(ticket.id),
            "order_state": ticket.state,
            "order_type": f"stop_{kind}" if ticket.stop else kind,
            "instrument_name": instrument.code,
            "direction": side_name(ticket.sell),
            "price": exact(instrument.price_text(ticket.price)),
            "amount": ticket.quantity,
            "contracts": ticket.quantity,
            "filled_amount": ticket.filled,
            "average_price": exact(average),
            "max_show": ticket.display or ticket.quantity,
            "time_in_force": tif_name(ticket.tif),
            "post_only": ticket.post_only,
            "reject_post_only": ticket.post_only,
            "reduce_only": ticket.reduce_only,
            "replaced": ticket.replaced,
            "label": label_of(ticket.text),
            "creation_timestamp": milliseconds(ticket.created),
            "last_update_timestamp": milliseconds(ticket.updated),
            "api": True,
            "web": False,
            "mmp": False,
            "is_liquidation": False,
        }
        # The price of a waiting stop market order is the day's limit, not the client's.
        if ticket.market and (ticket.waits or not ticket.priced):
            shown["price"] = "market_price"
        if ticket.stop:
            shown["trigger"] = "last_price"
            shown["trigger_price"] = exact(instrument.price_text(ticket.trigger))
            shown["triggered"] = not ticket.waits
        if ticket.early:
            unknown = list(_TERMS)
            unknown += [] if ticket.replaced else ["replaced"]
            unknown += ["average_price"] if ticket.filled else []
            unknown += ["trigger_price"] if ticket.stop else []
            unknown += [] if ticket.updated else ["last_update_timestamp"]
            shown |= dict.fromkeys(unknown)
        if ticket.why:
            shown["cancel_reason"] = ticket.why.lower()
        return shown

    def fill(self, shown: Fill) -> dict[str, Any]:
        """Return an account's side of a trade."""
        execution = shown.trade
        ticket = self._blotter.orders.get(int(execution.order_id))
        market = ticket is not None and ticket.market
        entered = None if ticket is None or ticket.early else ticket
        mark = exact(micros_text(shown.mark))
        fee = micros_text(shown.leg_fees) if shown.leg_fees else execution.fee
        return {
            "trade_id": execution.match_number,
            "trade_seq": int(execution.match_number),
            "timestamp": milliseconds(execution.time),
            "instrument_name": execution.instrument,
            "order_id": execution.order_id,
            "order_type": "market" if market else "limit",
            "direction": execution.side,
            "price": exact(execution.price),
            "amount": exact(execution.quantity),
            "contracts": exact(execution.quantity),
            "fee": exact(fee),
            "fee_currency": CURRENCY,
            "liquidity": "M" if execution.liquidity == "maker" else "T",
            "state": "filled" if execution.leaves_quantity == "0" else "open",
            "label": label_of(execution.client_order_id),
            "post_only": None if entered is None else entered.post_only,
            "reduce_only": None if entered is None else entered.reduce_only,
            "tick_direction": shown.direction,
            "mark_price": mark,
            "index_price": mark,
            "self_trade": False,
            "matching_id": None,
            "api": True,
            "mmp": False,
        }

    def print(self, shown: Print) -> dict[str, Any]:
        """Return a public trade. A trade of an auction has no aggressor; its direction is that of
        the tick rule."""
        trade = shown.trade
        direction = trade.aggressor or side_name(shown.direction > 1)
        mark = exact(micros_text(shown.mark))
        return {
            "trade_id": trade.match_number,
            "trade_seq": int(trade.match_number),
            "timestamp": milliseconds(trade.time),
            "instrument_name": trade.instrument,
            "direction": direction,
            "price": exact(trade.price),
            "amount": exact(trade.quantity),
            "contracts": exact(trade.quantity),
            "tick_direction": shown.direction,
            "mark_price": mark,
            "index_price": mark,
        }

    def told(self, trade: PublicTrade) -> dict[str, Any]:
        """Return a public trade of the feed, with the blotter's additions if it has them."""
        instrument = self._instruments.by_code[trade.instrument]
        prints = self._blotter.prints[instrument.id]
        for shown in kept_at(prints, trade.sequence, trade.index):
            return self.print(shown)
        return self.print(Shown(trade, 1, self._instruments.mark(instrument)))

    def told_fill(self, execution: Execution, account: int) -> dict[str, Any]:
        """Return an account's side of a reported trade, with the blotter's additions if it has
        them."""
        fills = self._blotter.fills[account]
        for shown in kept_at(fills, execution.sequence, execution.index):
            if shown.trade.order_id == execution.order_id:
                return self.fill(shown)
        instrument = self._instruments.by_code[execution.instrument]
        return self.fill(Shown(execution, 1, self._instruments.mark(instrument)))

    def top(self, instrument: Instrument) -> dict[str, Any]:
        """Return the best price and amount of each side; None and 0 for an empty side."""
        shown: dict[str, Any] = {}
        depth = self._hub.feed.depths[instrument.id]
        for name, best in (("bid", depth.bids(1)), ("ask", depth.asks(1))):
            shown |= {f"best_{name}_price": None, f"best_{name}_amount": 0}
            for price, lots in best:
                shown[f"best_{name}_price"] = exact(instrument.price_text(price))
                shown[f"best_{name}_amount"] = lots
        return shown

    def levels(self, instrument: Instrument, depth: int) -> dict[str, Any]:
        """Return the best levels of both sides, best first, as ``[price, amount]``."""
        known = self._hub.feed.depths[instrument.id]
        return {
            name: [[exact(instrument.price_text(price)), lots] for price, lots in side]
            for name, side in (("bids", known.bids(depth)), ("asks", known.asks(depth)))
        }

    def change_id(self, instrument: Instrument) -> int:
        """Return the ``change_id`` of the current book, as in its channel's messages."""
        return self._hub.feed.sent.get(instrument.id, 0)

    def ticker(self, instrument: Instrument) -> dict[str, Any]:
        """Return an instrument's ticker."""
        mark = exact(mark_text(instrument, self._instruments))
        last = self._blotter.last.get(instrument.id)
        settled = instrument.settlement_price
        return {
            "instrument_name": instrument.code,
            "timestamp": milliseconds(self._hub.feed.time),
            "state": book_state(instrument),
            "last_price": None if last is None else exact(instrument.price_text(last)),
            "mark_price": mark,
            "index_price": mark,
            "estimated_delivery_price": mark,
            "settlement_price": None if settled is None else exact(micros_text(settled)),
            "min_price": exact(instrument.price_text(instrument.low_ticks)),
            "max_price": exact(instrument.price_text(instrument.high_ticks)),
            "open_interest": self.open_interest(instrument),
            "stats": self.stats(instrument),
            **self.top(instrument),
        }

    def open_interest(self, instrument: Instrument) -> int:
        """Return an instrument's open interest in lots."""
        return self._hub.feed.statistics.open_interest.get(instrument.id, 0)

    def stats(self, instrument: Instrument) -> dict[str, Any]:
        """Return the statistics of the business day; cached until they change."""
        number = instrument.id
        changed = self._hub.feed.statistics.sequences.get(number, 0)
        at, stats = self._stats.get(number, (-1, {}))
        if at != changed:
            stats = self._day(instrument)
            self._stats[number] = changed, stats
        return stats

    def _day(self, instrument: Instrument) -> dict[str, Any]:
        day = self._hub.feed.statistics.days.get(instrument.id) or Day()
        traded = [price for price, lots in day.lots.items() if lots > 0]
        change = None
        if day.open and day.last is not None:
            change = 100 * Decimal(day.last - day.open) / abs(day.open)
        notional = exact(micros_text(day.tick_lots * instrument.tick_value))
        return {
            "volume": day.volume,
            "volume_notional": notional,
            "volume_usd": notional,
            "high": exact(instrument.price_text(max(traded))) if traded else None,
            "low": exact(instrument.price_text(min(traded))) if traded else None,
            "price_change": None if change is None else exact(f"{change:.4f}"),
        }

    def summary(self, instrument: Instrument) -> dict[str, Any]:
        """Return an instrument's summary."""
        top, ticker = self.top(instrument), self.ticker(instrument)
        bid, ask = top["best_bid_price"], top["best_ask_price"]
        return {
            "instrument_name": instrument.code,
            "base_currency": base_of(instrument, self._instruments),
            "quote_currency": CURRENCY,
            "creation_timestamp": ticker["timestamp"],
            "bid_price": bid,
            "ask_price": ask,
            "last": ticker["last_price"],
            "mark_price": ticker["mark_price"],
            "open_interest": ticker["open_interest"],
            **ticker["stats"],
        }

    def position(self, instrument: Instrument, exposure: Exposure) -> dict[str, Any]:
        """Return a position; ``average_price`` is since the last settlement."""
        accounts, net = self._hub.accounts, exposure.net
        hold = exact(micros_text(accounts.hold(instrument.id, exposure)))
        gain = exact(micros_text(accounts.unrealized(instrument.id, exposure)))
        average = 0
        if net:
            sign = 1 if net > 0 else -1
            average = half_even(sign * exposure.cost, abs(net) * instrument.multiplier)
        settled = instrument.settlement_price
        mark = exact(mark_text(instrument, self._instruments))
        return {
            "instrument_name": instrument.code,
            "kind": kind_of(instrument),
            "direction": "zero" if not net else side_name(net < 0),
            "size": net,
            "size_currency": net * instrument.multiplier,
            "average_price": exact(micros_text(average)),
            "mark_price": mark,
            "index_price": mark,
            "settlement_price": None if settled is None else exact(micros_text(settled)),
            "floating_profit_loss": gain,
            "total_profit_loss": gain,
            "realized_profit_loss": 0,
            "initial_margin": hold,
            "maintenance_margin": hold,
            "delta": net * instrument.multiplier,
        }

    def position_in(self, instrument: Instrument, account: int) -> dict[str, Any]:
        """Return an account's position in an instrument, also if it is zero."""
        found = self.exposures(account).get(instrument.id)
        return self.position(instrument, found or Exposure())

    def exposures(self, account: int) -> dict[int, Exposure]:
        """Return an account's exposure by instrument; cached until the next batch, since it is
        computed from all its orders."""
        if self._hub.sequence != self._exposed_at:
            self._exposed_at = self._hub.sequence
            self._exposures.clear()
        if account not in self._exposures:
            accounts = self._hub.accounts
            self._exposures[account] = accounts.exposures(accounts.by_id[account])
        return self._exposures[account]

    def account(self, number: int) -> dict[str, Any]:
        """Return an account's money in USD."""
        account, exposures = self._hub.accounts.by_id[number], self.exposures(number)
        required = self._hub.queries.required(account, exposures)
        gain = sum(self._hub.accounts.unrealized(*item) for item in exposures.items())
        margin = exact(micros_text(required))
        free = exact(micros_text(account.cash - required))
        equity = exact(micros_text(account.cash + gain))
        return {
            "currency": CURRENCY,
            "balance": exact(micros_text(account.cash)),
            "equity": equity,
            "margin_balance": equity,
            "available_funds": free,
            "available_withdrawal_funds": free,
            "initial_margin": margin,
            "maintenance_margin": margin,
            "futures_session_upl": exact(micros_text(gain)),
            "session_upl": exact(micros_text(gain)),
            "total_pl": exact(micros_text(gain)),
            "portfolio_margining_enabled": False,
        }
