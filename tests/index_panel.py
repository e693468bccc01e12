"""Panels of made-up quotes for the index's tests: sellers that exist, prices that do not."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec

from contracts.index import methodology as rules
from contracts.index.fixing import Fixing
from contracts.index.methodology import Index, Methodology
from contracts.index.observations import Batch, Observation
from contracts.index.run import end_ns, fix_through
from contracts.index.tape import Tape

CODE: Final = "HBX-H100"
GPU: Final = "h100-sxm"
SELLERS: Final = (
    "coreweave", "crusoe", "datacrunch", "digitalocean", "hyperstack", "jarvislabs", "lambda",
    "massedcompute", "nebius", "scaleway", "together", "vultr",
)  # fmt: skip
FIRST: Final = date(2026, 3, 1)
BASE_DAYS: Final = 14  # as the shipped indices begin
OPEN_HOUR: Final = 6  # inside the capture window

Quotes = Mapping[str, str | float]


def day(number: int) -> date:
    """The panel's days, from 0; ``BASE_DAYS`` is the first that can have a number."""
    return FIRST + timedelta(days=number)


def moment_ns(on: date, minute: int = OPEN_HOUR * 60) -> int:
    """A minute of a day, UTC, in nanoseconds since the epoch."""
    moment = datetime(on.year, on.month, on.day, tzinfo=UTC) + timedelta(minutes=minute)
    return int(moment.timestamp()) * 10**9


def observed(
    on: date,
    provider: str,
    dollars: str | float,
    *,
    gpu: str = GPU,
    kind: str = "on-demand",
    minute: int = OPEN_HOUR * 60,
    place: str = "",
) -> Observation:
    """One observation."""
    micros = round(float(dollars) * 1_000_000)
    ns = moment_ns(on, minute)
    return Observation(on.toordinal(), provider, gpu, kind, micros, ns, place)


def flat(quotes: Quotes, days: Iterable[int], **changes: str) -> list[Observation]:
    """The same quotes on every day."""
    return [
        observed(day(number), provider, dollars, gpu=changes.get("gpu", GPU))
        for number in days
        for provider, dollars in quotes.items()
    ]


def equal(sellers: int, dollars: float = 3.0) -> dict[str, float]:
    """So many sellers with one price."""
    return dict.fromkeys(SELLERS[:sellers], dollars)


def spread_out(sellers: int) -> dict[str, float]:
    """So many sellers, each with a level of its own around three dollars."""
    return {name: round(2.4 + 0.12 * place, 3) for place, name in enumerate(SELLERS[:sellers])}


def batch(observations: Sequence[Observation], name: str = "file") -> Batch:
    """The observations as a file would give them."""
    return Batch(name.encode().ljust(32), list(observations), [])


def fixed(
    observations: Sequence[Observation],
    last: int,
    *,
    code: str = CODE,
    methodology: Methodology | None = None,
) -> dict[int, Fixing]:
    """Every day's fixing of a panel, by the day's number."""
    until = day(last)
    _, fixings = fix_through(
        Tape(),
        methodology or rules.load(),
        batch(observations),
        [code],
        until,
        recorded_ns=end_ns(until),
    )
    return {(fixing.date - FIRST).days: fixing for fixing in fixings}


def changed(code: str = CODE, **fields: object) -> Methodology:
    """The shipped rules with fields of one index changed."""
    shipped = rules.load()
    index: Index = msgspec.structs.replace(shipped.indices[code], **fields)
    return msgspec.structs.replace(shipped, indices={**shipped.indices, code: index})


def with_provider(methodology: Methodology, name: str, **fields: object) -> Methodology:
    """Rules with fields of one provider changed."""
    provider = msgspec.structs.replace(methodology.providers[name], **fields)
    return msgspec.structs.replace(methodology, providers={**methodology.providers, name: provider})
