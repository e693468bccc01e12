"""The records of off-book transfers of positions. Prices are clearing prices."""

from typing import Literal

from exchange.clearing.records import Record


class GiveUp(Record, frozen=True, kw_only=True, tag="give_up"):
    """An account that executed a trade requests that another account takes over its lots.

    ``lots`` is signed: the taker becomes long if it is positive. ``price`` is that of the trade, so
    that the taker has the gain or loss since the trade. Both clearing members must accept.
    """

    account: int
    taker: int
    instrument: int
    lots: int
    price: int
    match_number: int


class Register(Record, frozen=True, kw_only=True, tag="register_trade"):
    """One side registers a trade made off the book; the other side must sign it.

    ``account`` registers it and buys, or sells if ``lots`` is negative. The kind ``efp`` is an
    exchange for the physical deal that ``related`` describes.
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
