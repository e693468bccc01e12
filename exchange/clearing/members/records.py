"""What is recorded of positions that change hands off the book. Prices are clearing prices."""

from typing import Literal

from exchange.clearing.records import Record


class GiveUp(Record, frozen=True, kw_only=True, tag="give_up"):
    """An account that executed a trade asks that another account takes its lots over.

    ``lots`` signed: above 0 the taker becomes long. ``price``: of the trade, so that the taker has
    its result from the trade on. Both clearing members must accept.
    """

    account: int
    taker: int
    instrument: int
    lots: int
    price: int
    match_number: int


class Register(Record, frozen=True, kw_only=True, tag="register_trade"):
    """One side registers a trade made off the book; the other side must sign it.

    ``account`` registers it and buys, or with negative lots sells. ``kind`` efp: exchanged for the
    physical deal that ``related`` describes.
    """

    account: int
    other: int
    instrument: int
    lots: int
    price: int
    kind: Literal["block", "efp"] = "block"
    related: str = ""


class Sign(Record, frozen=True, kw_only=True, tag="sign_transfer"):
    """An account accepts, or refuses, a give-up or a registered trade."""

    account: int
    transfer: int
    accept: bool = True
