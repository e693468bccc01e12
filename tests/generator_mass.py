"""Random mass acts for the generator: mass cancels, kill switches, quotes, protections."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from packing import pack

from exchange.messages import CommandKind, KillScope, Limit, Selection

if TYPE_CHECKING:
    from generator import Generator

SECOND_NS: Final = 1_000_000_000


def product_of(g: "Generator") -> int:
    return g.random.choice((0, 1, 1, 2))


def mass_cancel(g: "Generator") -> bytes:
    """Mostly a part of what an account has: one side, product, instrument or session."""
    draw, account, key = g.random.random, g._account(), g._request()
    by = g.random.choice((0, 1, 2, 2, 3, 4, 5, 6)) if draw() < 0.9 else 1
    number = product_of(g) if by & Selection.PRODUCT else g._instrument()
    session = g.random.choice(g.sessions)[1] if g.sessions and draw() < 0.7 else 0
    record = pack(
        CommandKind.MASS_CANCEL,
        side=g.random.choice((0, 1, 2)),
        tif=by,
        instrument=number,
        account=account,
        session=g._session_of(account),
        target_lo=session if by & Selection.SESSION else 0,
        key_lo=key,
        key_hi=key % 3,
    )
    return g._sent(record)


def quote(g: "Generator") -> bytes:
    """Two sides around a price, now and then one or none; often those of a moment ago."""
    draw, key = g.random.random, g._request()
    account = g.random.choice(g.accounts[:3])
    instrument = g.random.choice(g.outrights) if g.outrights else g._instrument()
    bid = g._price(instrument)
    ask = bid + g.random.choice((1, 1, 2, 3, 5, 8, 0)) * g.step
    lots = [g._lots() if draw() < 0.9 else 0 for _ in range(2)]
    if (account, instrument) in g.quoted and draw() < 0.5:
        bid, ask, *lots = g.quoted[account, instrument]
        lots[draw() < 0.5] += g.random.choice((-1, 0, 1)) if draw() < 0.6 else 0
    g.quoted[account, instrument] = bid, ask, *lots
    record = pack(
        CommandKind.MASS_QUOTE,
        tif=(draw() < 0.15) + (draw() < 0.01),
        instrument=instrument,
        account=account,
        session=g._session_of(account),
        price=bid,
        quantity=max(0, lots[0]),
        stp=g.random.randrange(4),
        target_lo=ask,
        target_hi=max(0, lots[1]),
        key_lo=key,
        key_hi=key % 3,
    )
    return g._sent(record)


def shield(g: "Generator") -> bytes:
    """Mostly of a product that trades; now and then of as many as an account may have and more."""
    if g.random.random() < 0.02:
        wish = {"account": g._account(), "quantity": 5, "target_lo": SECOND_NS}
        products = range(product_of(g), int(Limit.PROTECTIONS) + 2)
        return b"".join(pack(CommandKind.SET_PROTECTION, instrument=n, **wish) for n in products)
    lots = g.random.choice((0, 1, 5, 5, 20))
    window = g.random.choice((1, 5_000_000, SECOND_NS, 90 * SECOND_NS))
    return pack(
        CommandKind.SET_PROTECTION,
        instrument=product_of(g),
        account=g.random.choice(g.accounts[:3]),
        quantity=lots,
        target_lo=window if lots or g.random.random() < 0.05 else 0,
    )


def kill(g: "Generator", kind: CommandKind = CommandKind.KILL) -> bytes:
    scope = g.random.choices(list(KillScope), (4, 4, 2, 1))[0]
    account, session = g._account(), 0
    if scope == KillScope.SESSION and g.sessions:
        account, session = g.random.choice(g.sessions)
    number = g.random.randrange(4)
    return pack(kind, tif=scope, account=account, session=session, quantity=number)


def resume(g: "Generator") -> bytes:
    """Of every scope: most of what was killed trades again soon."""
    out = [pack(CommandKind.RESUME, tif=KillScope.EXCHANGE)]
    out += [pack(CommandKind.RESUME, tif=KillScope.MEMBER, quantity=n) for n in range(4)]
    out += [kill(g, CommandKind.RESUME) for _ in range(3)]
    return b"".join(out) + pack(CommandKind.RESUME, account=g._account())


MASS_ACTS: Final[Mapping[str, Callable[["Generator"], bytes]]] = {
    "mass_cancel": mass_cancel,
    "quote": quote,
    "shield": shield,
    "kill": kill,
    "resume": resume,
}
