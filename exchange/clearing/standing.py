"""An account's standing: collateral, margin, margin calls, fee tier, and what it bore of others'
defaults."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from exchange.clearing.calling import Calls
from exchange.clearing.default.loss import Share, shares
from exchange.clearing.default.matter import Defaults
from exchange.clearing.fees import Fees
from exchange.clearing.state import State
from exchange.clearing.store import STEPS, Store


@dataclass(frozen=True, slots=True)
class Pledged:
    """Pledged units of an asset, and the micro-dollars that they count for."""

    asset: str
    units: int
    price: int
    haircut_bp: int
    counts: int


@dataclass(frozen=True, slots=True)
class CallStep:
    """One step of a margin call.

    ``called``, ``changed`` (another amount, the same deadline), ``met``, ``closed`` (a later
    ``call_margin`` found nothing missing, or the account was ported), ``missed`` or ``default``.
    """

    stamp: int
    business_date: int
    step: str
    missing: int
    deadline: int  # 0: the step has none


@dataclass(frozen=True, slots=True)
class Standing:
    """Amounts are micro-dollars. ``liquidity`` = cash + collateral - required; negative if missing.

    ``required`` is the requirement by the margin parameters plus the loss since the last
    settlement; None without parameters, or if they do not cover a position. Collateral counts here
    and in calls; for a withdrawal or an order the engine counts cash alone.
    """

    collateral: list[Pledged]
    collateral_value: int
    required: int | None
    liquidity: int | None
    call: int  # the open call; 0: none
    call_deadline: int
    calls: list[CallStep]
    fee_version: int  # 0: none is in force
    maker_discount_bp: int
    taker_discount_bp: int
    lots_last_month: int
    lots_this_month: int
    defaults: list[Share]  # what it bore of others' defaults, and was repaid


def standing(state: State, store: Store, account: int) -> Standing:
    """Return an account's present standing, with the steps of all its calls."""
    matter, fees = state.matters.get(Calls), state.matters.get(Fees)
    pledged = [
        Pledged(asset, units, valued.price, valued.haircut_bp, counts)
        for asset, valued, units, counts in matter.pledges(account, state)
    ]
    value = sum(line.counts for line in pledged)
    try:
        required = matter.required(account, state) if matter.asks(state) else None
    except KeyError:  # the parameters do not cover a position
        required = None
    call, date = matter.open.get(account), state.business_date
    tier, version = fees.tier(account, date), fees.in_force(date)
    trader = fees.trader(account, state)
    return Standing(
        collateral=pledged,
        collateral_value=value,
        required=required,
        liquidity=None if required is None else state.ledger.cash(account) + value - required,
        call=0 if call is None else call.amount,
        call_deadline=0 if call is None else call.deadline,
        calls=list(_course(store, account)),
        fee_version=0 if version is None else version.version,
        maker_discount_bp=tier.maker_bp,
        taker_discount_bp=tier.taker_bp,
        lots_last_month=trader.lots_last_month,
        lots_this_month=trader.lots_this_month,
        defaults=shares(state.matters.get(Defaults).defaults, account, state),
    )


def _course(store: Store, account: int) -> Iterator[CallStep]:
    """Yield every step of an account's margin calls, from the rulings."""
    name, called = str(account), False
    for row in store.rows(STEPS, (account,)):
        facts: dict[str, Any] = json.loads(row["facts"])
        step, missing, deadline = "", 0, 0
        if row["operation"] == "margin_call":
            step, missing = row["outcome"], facts["missing"]
        elif row["operation"] == "declare_default":
            step = "default"
        elif row["operation"] in ("pledge", "release"):  # also a call that variation has met
            step = "met"
        elif name in facts.get("calls", {}):
            step, missing = "changed" if called else "called", facts["calls"][name]
            deadline = facts.get("deadlines", {}).get(name, 0)
        elif called:  # no longer called, or ported
            step = "closed"
        if step:
            called = step in ("called", "changed") or (called and step == "missed")
            yield CallStep(row["stamp"], row["business_date"], step, missing, deadline)
