"""HTTP's reads of clearing: pages of its store, and an account's statement in wire form."""

from pathlib import Path

from exchange.clearing import Clearing
from exchange.clearing.reading import Reading
from exchange.clearing.standing import Standing
from exchange.clearing.statements import CASH_LINES, Statement
from exchange.marketdata.instruments import micros_text
from exchange.messages.rest import (
    StatementCallStep,
    StatementHolding,
    StatementPledged,
    StatementReport,
    StatementShare,
    StatementStanding,
)

_MONEY = ("opening", *CASH_LINES, "closing", "unrealized", "profit")


class Books(Reading):
    """Clearing for readers; called in a thread that is neither the loop's nor clearing's own."""

    def __init__(self, clearing: Clearing, ledger: Path) -> None:
        super().__init__(ledger)
        self._clearing = clearing

    def statement(self, account: int, date: int | None) -> StatementReport:
        """Return an account's statement. KeyError: clearing does not know the account yet."""
        self._clearing.refresh()  # another process may do the booking
        return _report(self._clearing.statement(account, date))


def _report(found: Statement) -> StatementReport:
    return StatementReport(
        account=found.account,
        sequence=found.sequence,
        business_date=found.business_date,
        holdings=[
            StatementHolding(
                instrument=held.code,
                net=str(held.net),
                mark=micros_text(held.mark),
                unrealized=micros_text(held.unrealized),
            )
            for held in found.holdings
        ],
        standing=None if found.standing is None else _standing(found.standing),
        **{name: micros_text(getattr(found, name)) for name in _MONEY},
    )


def _standing(found: Standing) -> StatementStanding:
    return StatementStanding(
        collateral=[
            StatementPledged(
                asset=held.asset,
                units=str(held.units),
                price=micros_text(held.price),
                haircut_bp=held.haircut_bp,
                counts=micros_text(held.counts),
            )
            for held in found.collateral
        ],
        collateral_value=micros_text(found.collateral_value),
        required=None if found.required is None else micros_text(found.required),
        liquidity=None if found.liquidity is None else micros_text(found.liquidity),
        call=micros_text(found.call),
        call_deadline=found.call_deadline,
        calls=[
            StatementCallStep(
                stamp=one.stamp,
                business_date=one.business_date,
                step=one.step,
                missing=micros_text(one.missing),
                deadline=one.deadline,
            )
            for one in found.calls
        ],
        fee_version=found.fee_version,
        maker_discount_bp=found.maker_discount_bp,
        taker_discount_bp=found.taker_discount_bp,
        lots_last_month=str(found.lots_last_month),
        lots_this_month=str(found.lots_this_month),
        defaults=[
            StatementShare(
                default=one.default,
                layer=one.layer,
                borne=micros_text(one.borne),
                repaid=micros_text(one.repaid),
            )
            for one in found.defaults
        ],
    )
