"""A book or an account's position and margin, from an engine replayed to a sequence."""

from typing import Any

from exchange.engine import Engine
from exchange.history.picture import Picture, money
from exchange.marketdata.instruments import micros_text
from exchange.messages import AccountKind, TradingState


def book(engine: Engine, picture: Picture, code: str) -> dict[str, Any]:
    """Return an instrument's whole book and its state. KeyError: not listed."""
    listed = picture.instruments.by_code[code]
    bids, asks = engine.book(listed.id, 0)
    stands = engine.instrument(listed.id)

    def shown(side: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
        return [
            {"price": listed.price_text(price), "quantity": lots, "orders": orders}
            for price, lots, orders in side
        ]

    return {
        "instrument": code,
        "state": TradingState(stands["state"]).name,
        # The engine's mark of a combination is micro-dollars per lot
        "mark": micros_text(picture.instruments.mark(listed) if listed.legs else stands["mark"]),
        "low_limit": listed.price_text(stands["low"]),
        "high_limit": listed.price_text(stands["high"]),
        "bids": shown(bids),
        "asks": shown(asks),
    }


def account(engine: Engine, picture: Picture, number: int) -> dict[str, Any]:
    """Return an account's money, margin and positions, and its member's sums. KeyError: not open.

    Money is text, in dollars.
    """
    stands = engine.account(number)
    members = [
        engine.account(other)
        for other, holder in picture.accounts.items()
        if holder.member == stands["member"]
    ]
    positions = []
    for listed in picture.instruments.by_id.values():
        held = engine.position(number, listed.id)
        if any(held.values()):
            gain = held["net"] * engine.instrument(listed.id)["mark"] * listed.multiplier
            positions.append(
                {
                    "instrument": listed.code,
                    "net": held["net"],
                    "working_buy": held["working_buy"],
                    "working_sell": held["working_sell"],
                    "hold": money(held["hold"]),
                    "unrealized": money(gain - held["cost"]),
                }
            )
    return {
        "account": number,
        "member": stands["member"],
        "kind": AccountKind(stands["kind"]).name,
        "cash": money(stands["cash"]),
        "required": money(stands["required"]),
        "member_cash": money(sum(one["cash"] for one in members)),
        "member_required": money(sum(one["required"] for one in members)),
        "free": money(stands["cash"] - stands["required"]),
        "hold": money(stands["hold"]),
        "credit": money(stands["credit"]),
        "unrealized": money(stands["unrealized"]),
        "in_deficit": bool(stands["in_deficit"]),
        "killed": bool(stands["killed"]),
        "open_orders": stands["open_orders"],
        "positions": positions,
    }
