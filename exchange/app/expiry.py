"""The price at which an instrument expires, and its inputs."""

from datetime import UTC, datetime
from typing import Any, Final

from contracts.index.settlement import MonthIncomplete, Step
from contracts.spec import PHYSICAL
from contracts.spec import Instrument as Terms
from exchange.app.wishes import RequestRefused
from exchange.clearing import Clearing
from exchange.marketdata.instruments import Instrument

LAST: Final = "last settlement price"  # name of the rule that uses it
BY_MARKET: Final = (LAST, Step.MARKET_MEAN.name)  # rules that use the exchange's own prices


def final_price(
    listed: Instrument,
    terms: Terms,
    clearing: Clearing,
    now_ns: int,
    at_settlement: bool = False,
) -> tuple[int, dict[str, Any]]:
    """Return the clearing price at which an instrument expires, and its inputs. RequestRefused.

    Cash settlement: the mean of its month's fixings in the log, or the index's fallback ladder; if
    that gives no price, the last settlement price if ``at_settlement``. Not before no revision of a
    fixing counts any more: an expiry cannot be taken back. Physical settlement: the last settlement
    price, once the last notice has passed and its tenders are assigned.
    """
    code = listed.code
    physical = terms.settlement == PHYSICAL
    if physical and not clearing.is_assigned(listed.id):
        raise RequestRefused(
            f"{code} expires after its last notice, {terms.last_notice_day} at"
            f" {terms.notice_cutoff}: until then it is not assigned who delivers to whom"
        )
    last = listed.mark if listed.settlement_price is None else listed.settlement_price
    if physical:
        return last, {"rule": LAST}
    try:
        found = clearing.final_price(listed.id, terms.index, terms.expiry)
    except LookupError as gone:
        raise RequestRefused(
            f"{code} settles on {terms.index}: {gone}; an index stays in"
            " contracts/data/indices.toml until its last month has settled"
        ) from gone
    except MonthIncomplete as lacks:
        raise RequestRefused(f"{code}: {lacks}; `hourbook index record` puts them there") from lacks
    if now_ns <= found.cut_ns:
        until = datetime.fromtimestamp((found.cut_ns + 1) // 10**9, UTC)
        raise RequestRefused(
            f"{code}: revisions of {found.index} count until {until:%Y-%m-%d %H:%M} UTC;"
            " expire it after that"
        )
    if found.price_micros is None and at_settlement:
        return last, {"rule": LAST, "index": found.index}
    if found.price_micros is None:
        raise RequestRefused(
            f"{code}: {found.index} of {found.month} is {Step(found.step).name}: too few fixings"
            " and too few settlement prices; two persons must settle it at a price"
            " (clear propose-price), then --at-settlement expires it there"
        )
    return found.price_micros, {
        "rule": Step(found.step).name, "index": found.index, "fixings": found.published_days,
        "withheld": [str(day) for day in found.withheld], "inputs_hash": found.inputs_hash,
    }  # fmt: skip
