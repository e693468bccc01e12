"""``hourbook bench features``: the cost of each feature of the core, in instructions per use.

Callgrind counts a flow that uses the feature and the same flow without it. The difference divided
by the number of uses is the cost of one use; it is compared with that of the plain order in its
place. The figures do not depend on load. ``--table FILE`` updates the table between the two marks
in docs/concepts/speed.md.
"""

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benches import feature_markets as markets
from benches.feature_flows import (
    FAR_NS,
    MASS,
    Before,
    Build,
    cancel_each,
    cancel_together,
    elect,
    hit_quote,
    lessen,
    meet,
    meet_spread,
    move,
    probed,
    quote_both,
    replace_both,
    rest,
    take,
    take_twice,
    trade_one_of_group,
    trade_one_of_two,
    uncrossed,
    watched,
    with_requests,
)
from benches.instructions import count
from benches.rows import Row, bench_parser, publish, row
from exchange.cli.output import progress
from exchange.messages import Breaker, CommandFlag, Limit, OrderFeature, SelfTrade, TimeInForce

MARKS: Final = ("<!-- features -->\n", "<!-- end of features -->\n")
AT_ONCE: Final = 2  # processes of callgrind
NEW_ID: Final = int(CommandFlag.NEW_ID)
MARKET: Final = {"flags": int(CommandFlag.MARKET)}
LATER: Final = {"tif": int(TimeInForce.GTD), "target_lo": FAR_NS}
SHOWS_ONE: Final = {"spare": int(OrderFeature.ICEBERG), "target_hi": 1, "quantity": 2}


@dataclass(frozen=True, slots=True)
class Feature:
    """``words`` describes one use. ``instead`` is the name of the feature it is compared with."""

    words: str
    build: Build
    instead: str = ""
    whole: bool = False  # the flow has no probes: nothing is subtracted


@dataclass(frozen=True, slots=True)
class Cost:
    """Instructions of one use, and how many more than those of what it is compared with."""

    name: str
    each: float
    over: float


def watching(words: str, before: Before, instead: str = "plain") -> Feature:
    """Return a feature of the market that the unchanged flow runs through; each command is a
    use."""
    return Feature(words, watched(before), instead, whole=True)


FEATURES: Final = {
    "plain": Feature("a command of the flow", watched(), whole=True),
    # orders that rest
    "rest": Feature("a limit order rests and is cancelled", probed(rest())),
    "post_only": Feature(
        "the order is post-only",
        probed(rest(lambda market: {"flags": CommandFlag.POST_ONLY})), "rest",
    ),
    "asked": Feature("its cancel has a request id", probed(rest(asked=True)), "rest"),
    "move": Feature("an order rests, is replaced under a new id, and is cancelled",
                    probed(move(NEW_ID))),
    "amend": Feature("it keeps its id, and the replacement has a request id",
                     probed(move()), "move"),
    "reduce": Feature("an order of two lots rests, loses one, and is cancelled", probed(lessen())),
    "reduce_asked": Feature("the reduction has a request id", probed(lessen(asked=True)), "reduce"),
    "good_till_date": Feature(
        "the order expires at a time of its own", probed(rest(lambda market: LATER)), "rest"
    ),
    "reduce_only": Feature(
        "the order only reduces a position",
        probed(rest(lambda market: {"spare": OrderFeature.REDUCE_ONLY})), "rest",
    ),
    "iceberg": Feature(
        "the order shows a part of itself", probed(rest(lambda market: SHOWS_ONE)), "rest"
    ),
    "stop_limit": Feature(
        "the order is a stop that waits for its price",
        probed(rest(lambda market: {"spare": OrderFeature.STOP, "target_hi": market.low})), "rest",
    ),
    "stop": Feature(
        "the order is a market stop that waits",
        probed(rest(lambda market: MARKET | {
            "price": 0, "spare": OrderFeature.STOP, "target_hi": market.low})), "rest",
    ),
    # orders that trade at once
    "take": Feature("an IOC order takes a lot", probed(take(tif=TimeInForce.IOC))),
    "fill_or_kill": Feature(
        "the order is fill-or-kill", probed(take(tif=TimeInForce.FOK)), "take"
    ),
    "minimum": Feature(
        "the order has a minimum", probed(take(tif=TimeInForce.IOC, target_hi=1)), "take"
    ),
    "market": Feature(
        "a market order takes a lot", probed(take(tif=TimeInForce.IOC, **MARKET)), "take"
    ),
    "market_to_limit": Feature(
        "the market order would rest", probed(take(tif=TimeInForce.GTC, **MARKET)), "market"
    ),
    "protected": Feature(
        "the market order is protected",
        probed(take(tif=TimeInForce.IOC, price=10,
                    flags=CommandFlag.MARKET | CommandFlag.PROTECTED)), "market",
    ),
    "two_takes": Feature("two IOC orders take a lot each", probed(take_twice)),
    "elected": Feature(
        "the second is a stop that the first elects", probed(elect), "two_takes"
    ),
    # two orders that meet
    "meet": Feature("an order rests, and one takes it", probed(meet())),
    "self_trade": Feature(
        "both are of one group: each loses its lot",
        probed(meet(taking={"stp": SelfTrade.DECREMENT}, same_owner=True)), "meet",
    ),
    "two_lots": Feature(
        "an order of two lots rests, and one takes it", probed(meet(taking={"quantity": 2}, made={
            "quantity": 2}))
    ),
    "refill": Feature(
        "it shows one lot, and then the other",
        probed(meet(made=SHOWS_ONE, taking={"quantity": 2})), "two_lots",
    ),
    "spread_trade": Feature(
        "the two meet in a calendar spread", probed(meet_spread, markets.spread), "meet"
    ),
    "spread_rest": Feature(
        "the order is in a calendar spread",
        probed(rest(lambda market: {"instrument": 2, "price": market.high - market.low}),
               markets.spread), "rest",
    ),
    "unbound": Feature("one order rests, one trades, the first is cancelled",
                       probed(trade_one_of_two)),
    "group": Feature(
        "the trade of one cancels the other", probed(trade_one_of_group), "unbound"
    ),
    # many orders at once
    "cancels": Feature(f"{MASS} orders rest and are cancelled one by one", probed(cancel_each)),
    "mass_cancel": Feature(
        "one command cancels them together", probed(cancel_together), "cancels"
    ),
    "two_replaces": Feature("a bid and an ask are replaced", probed(replace_both)),
    "mass_quote": Feature("one quote replaces both", probed(quote_both), "two_replaces"),
    "quote_hit": Feature("a quote that another order takes a lot of", probed(hit_quote)),
    "quote_protection": Feature(
        "the maker is protected, and its trades are counted",
        probed(hit_quote, markets.quotes_protected), "quote_hit",
    ),
    # protections and states of a market
    "asked_flow": Feature("every cancel of the flow has a request id", with_requests,
                          whole=True, instead="plain"),
    "stops_wait": watching(
        f"{markets.STOPS:,} stops wait in the book; none is elected", markets.stops
    ),
    "band": watching("a price band around the last trade",
                     markets.protected(price=Limit.PRICE)),
    "order_value": watching("a most value of an order", markets.protected(target_lo=Limit.MONEY)),
    "all_months": watching("a limit of an account over all months",
                           markets.protected(target_hi=Limit.POSITION)),
    "accountability": watching("a level of positions that is told",
                               markets.protected(quantity=Limit.QUANTITY)),
    "circuit_breaker": watching("a circuit breaker", markets.breaker(Breaker.CIRCUIT)),
    "velocity": watching("velocity logic", markets.breaker(Breaker.VELOCITY)),
    "shipped": watching(
        f"all that a month of a shipped product has, in each of {markets.MONTHS}",
        markets.as_shipped,
    ),
    "loss_limit": watching("a daily loss limit of every account", markets.loss_limits),
    "curve": watching(
        f"{markets.MONTHS} months and {Limit.LEG_SPREADS} spreads, implied prices off",
        markets.curve,
    ),
    "credits": watching(
        f"the {Limit.LEG_SPREADS} spreads have a credit of margin", markets.credits, "curve"
    ),
    "implied": watching(
        f"implied prices on: {Limit.LEG_SPREADS} looked at on either side, none better",
        markets.implied, "curve",
    ),
    # auctions
    "collected_alone": Feature("an order rests and is cancelled in a book without any other",
                               probed(rest(), alone=True), whole=True),
    "collected": Feature("it is collected for an auction",
                         probed(rest(), markets.collecting, alone=True), "collected_alone",
                         whole=True),
    "auction": Feature("a trade of an auction, and what ends of its orders", uncrossed,
                       whole=True),
}  # fmt: skip


def spent(name: str) -> tuple[int, int]:
    """Return the instructions of a feature's flow, and its uses."""
    built = FEATURES[name].build()
    return count(built.ready, built.counted).instructions, built.uses


def costs(names: list[str]) -> Iterator[Cost]:
    """Yield the cost of each; what one is compared with must come before it."""
    each: dict[str, float] = {}
    plain = 0
    with ThreadPoolExecutor(AT_ONCE) as pool, progress("features", printing=True) as advance:
        for done, (name, (total, uses)) in enumerate(
            zip(names, pool.map(spent, names), strict=True), 1
        ):
            plain = plain or total
            feature = FEATURES[name]
            each[name] = (total if feature.whole else total - plain) / uses
            yield Cost(name, each[name], each[name] - each.get(feature.instead, 0.0))
            if advance is not None:
                advance(done, len(names), name)


def wanted(names: list[str]) -> list[str]:
    """Return the requested features and those they are compared with, in the order of FEATURES."""
    chosen = {"plain", *(names or FEATURES)}
    for name in reversed(FEATURES):
        if name in chosen:
            chosen.add(FEATURES[name].instead or "plain")
    return [name for name in FEATURES if name in chosen]


def rows(found: Iterable[Cost]) -> Iterator[Row]:
    each: dict[str, float] = {}
    for cost in found:
        each[cost.name] = cost.each
        instead = FEATURES[cost.name].instead
        to = f"features.{instead}" if instead else ""
        yield row(f"features.{cost.name}", cost.each, "instructions/use", each.get(instead), to)


def kept(costs: Iterable[Cost], found: list[Cost]) -> Iterator[Cost]:
    """Yield the costs as they come; collect them in ``found``."""
    for cost in costs:
        found.append(cost)
        yield cost


def table(found: list[Cost]) -> str:
    """Return the costs as a Markdown table."""
    lines = ["| one use | instructions | more than | by |", "|---|--:|---|--:|"]
    for cost in found:
        feature = FEATURES[cost.name]
        instead, over = "", ""
        if feature.instead:
            instead, over = FEATURES[feature.instead].words, f"{cost.over:+,.0f}"
        lines.append(f"| {feature.words} | {cost.each:,.0f} | {instead} | {over} |")
    return "\n".join(lines) + "\n"


def renew(page: Path, found: list[Cost]) -> None:
    """Replace the table between the two marks of a page."""
    head, rest = page.read_text().split(MARKS[0])
    page.write_text(head + MARKS[0] + table(found) + MARKS[1] + rest.split(MARKS[1])[1])


def main() -> int:
    parser = bench_parser("features", __doc__)
    parser.add_argument("features", nargs="*", help=f"of {', '.join(FEATURES)}; all if absent")
    parser.add_argument(
        "--table", type=Path, help="a Markdown page with the two marks, whose table is renewed"
    )
    options = parser.parse_args()
    unknown = set(options.features) - set(FEATURES)
    if unknown:
        parser.error(f"no such feature: {', '.join(sorted(unknown))}")
    found: list[Cost] = []
    published = rows(kept(costs(wanted(options.features)), found))
    publish(published, as_json=options.json, record=options.record)
    if options.table:
        renew(options.table, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
