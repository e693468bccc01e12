"""Seeded bulk commands for the engine: mostly sensible, with edges, repeats and nonsense mixed in.

``Generator(seed, weights)`` makes a market with tiny caps so that every rule bites often. It learns
ids from the events of what it sent, so the same seed and weights always give the same commands.
"""

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Final

from generator_acts import ACTS, combination
from generator_mass import MASS_ACTS, product_of
from packing import MASK
from packing import pack as pack

from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    COMMAND_FIELDS,
    EVENT,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    OrderFeature,
    Side,
    TimeInForce,
    TradingState,
)

WIDTHS: Final = dict(zip(COMMAND_FIELDS, "BBBBIIIqIHBBQQQQ", strict=True))
SECOND_NS: Final = 1_000_000_000
START_NS: Final = 1_800_000_000 * SECOND_NS
REMEMBERED: Final = 400  # more than the window, so that forgotten ids are asked for too
INSTRUMENTS_MAX: Final = 4  # outrights trading at a time
ACCOUNTS_MAX: Final = 9

# How often each kind of step comes, unless a test draws its own weights.
MIXED: Final[Mapping[str, int]] = {
    "enter": 420, "cancel": 90, "reduce": 50, "replace": 90, "renew": 40, "again": 40,
    "altered": 20, "wild": 25, "noise": 5, "money": 25, "session": 25, "clock": 10,
    "limits": 12, "risk": 6, "state": 30, "mark": 15, "settle": 8, "expire": 1, "list": 3,
    "open_account": 2, "set_account": 6, "day": 6, "mode": 4, "other": 8,
    "churn": 1, "recovered": 1, "correct": 10, "protect": 7, "feature": 2, "mass_cancel": 6,
    "kill": 1, "resume": 8, "combine": 3, "call": 4, "uncross": 8, "indicate": 6, "imply": 3,
    "quote": 60, "shield": 4, "transfer": 12, "credit": 6, "correct_legs": 6, "twin": 8, "fall": 3,
}  # fmt: skip

# Instruments come and go, and their position records with them.
EXPIRING: Final[Mapping[str, int]] = {**MIXED, "expire": 60, "list": 60, "state": 60, "combine": 20}

# The steps whose commands may have a field put at an edge.
TAMEABLE: Final = (
    "enter", "enter", "cancel", "reduce", "replace", "renew", "money", "session",
    "limits", "risk", "state", "mark", "settle", "open_account", "other", "correct", "transfer",
    "protect", "set_account",
    "mass_cancel", "kill",
)  # fmt: skip

OrderName = tuple[int, int, int, int]  # account, order id, key_lo, key_hi


class Generator:
    """A stream of batches. ``batch`` gives commands, ``learn`` takes their events."""

    def __init__(self, seed: int, weights: Mapping[str, int] = MIXED) -> None:
        self.random = Random(seed)
        wanted = {name: weight for name, weight in weights.items() if weight > 0} or {"enter": 1}
        self.names, self.weights = list(wanted), list(wanted.values())
        acts = {**ACTS, **MASS_ACTS}
        self.steps: dict[str, Callable[[], bytes]] = {
            name: partial(acts[name], self) if name in acts else getattr(self, "_" + name)
            for name in MIXED
        }
        self.stamp = START_NS
        self.next_key = 1
        self.working: dict[int, OrderName] = {}  # by order id
        self.nets: dict[tuple[int, int], int] = {}  # by account and instrument
        self.quoted: dict[tuple[int, int], tuple[int, ...]] = {}  # by account and instrument
        self.seen: deque[OrderName] = deque(maxlen=REMEMBERED)  # whatever became of them
        self.trades: deque[tuple[int, ...]] = deque(maxlen=REMEMBERED)  # rows of TRADE events
        # of trades with an implied price: the row of what came in, then those of the legs
        self.chains: deque[list[tuple[int, ...]]] = deque(maxlen=REMEMBERED)
        self.sent: deque[bytes] = deque(maxlen=REMEMBERED)  # commands that may be repeated
        self.sessions: deque[tuple[int, int]] = deque(maxlen=12)  # account, session id
        self.online: dict[int, int] = {}  # account by session
        self.accounts = [0]
        self.listed = 0
        self.trading: list[int] = []  # listed and not expired
        self.outrights: list[int] = []  # of these
        self.products: dict[int, int] = {}  # by instrument
        self.centres: dict[int, int] = {}  # of a price, by instrument
        self.traded_in: dict[int, int] = {}  # instrument by order id
        self.asked: dict[int, tuple[int, int]] = {}  # side and price by order id
        self.centre = self.random.choice((0, 100, 100, 2650))
        self.spread = self.random.choice((2, 6, 20))
        self.step = self.random.choice((1, 1, 1, 5))
        self.lot_step = self.random.choice((1, 1, 1, 2))
        scales = ((1, 1), (10, 7), (1000, 744), (1 << 20, 1 << 20))
        self.tick_scale, self.multiplier = self.random.choice(scales)
        self.wealth = 150 * (self.spread * self.tick_scale * self.multiplier + 100)
        self.stops = self.random.choice((0, 0.05, 0.3))  # of the orders
        self.icebergs = self.random.choice((0, 0.05, 0.3))
        self.markets = 0.06  # of the orders
        self.date = 20260101
        self.cycle = 0

    # --- the stream

    def opening(self) -> bytes:
        """Commands that make a market which trades."""
        out = [self._open_account() for _ in range(self.random.randint(2, 6))]
        opened = len(out) + 1
        out += [
            pack(CommandKind.DEPOSIT, account=n, price=self._amount(), key_lo=self._key())
            for n in range(1, opened)
        ]
        for number in range(self.random.randint(1, 3)):
            self.listed = number
            out.append(self._list())
        out.append(pack(CommandKind.OPEN_DAY, quantity=self.date))
        if self.random.random() < 0.6:
            outrights = list(range(number + 1))
            self.listed = number + 1
            out.append(combination(self, outrights))
        return b"".join(out)

    def batch(self, count: int) -> bytes:
        """The next ``count`` commands."""
        if self.random.random() < 0.3:
            self.stamp += self.random.choice((1, 1000, 5_000_000, SECOND_NS, 60 * SECOND_NS))
        if self.random.random() < 0.02:
            self.stamp -= SECOND_NS  # the log's time never goes back: the engine must hold it
        names = self.random.choices(self.names, self.weights, k=count)
        return b"".join(self.steps[name]() for name in names)

    def learn(self, events: bytes) -> None:
        """Take the ids that the engine gave."""
        for event in EVENT.iter_unpack(events):
            kind, instrument, account, order_id = event[2], event[5], event[6], event[7]
            if kind == EventKind.ORDER_ACCEPTED:
                name = account, order_id, event[11], event[12]  # a quote has its request's id
                self.seen.append(name)
                self.working[order_id] = name
                self.traded_in[order_id] = instrument
                self.asked[order_id] = int(event[3] & EventFlag.SELL > 0), event[8]
            elif kind == EventKind.ORDER_CANCELLED or (kind == EventKind.TRADE and not event[10]):
                self.working.pop(order_id, None)
            elif kind == EventKind.SESSION_OPENED:
                self.sessions.append((account, order_id))
                self.online[order_id] = account
            elif kind == EventKind.SESSION_LOST:
                self.online.pop(order_id, None)
            elif kind == EventKind.ACCOUNT_OPENED:
                self.accounts.append(account)
            elif kind == EventKind.INSTRUMENT_LISTED:
                self.listed = instrument + 1
                self.trading.append(instrument)
                self.outrights.append(instrument)
                self.products[instrument] = event[11]
                low, high = event[13] // self.step, event[14] // self.step
                self.centres[instrument] = (low + high) // 2 * self.step
            elif kind == EventKind.LEG_LISTED and event[9] == 1:
                self.outrights.remove(instrument)
            elif kind == EventKind.INSTRUMENT_EXPIRED or (
                kind == EventKind.STATE_CHANGED and event[9] == TradingState.EXPIRED
            ):
                self.trading.remove(instrument)
                if instrument in self.outrights:
                    self.outrights.remove(instrument)
            elif kind == EventKind.ORDER_EXECUTED and event[4] == 0:
                self.chains.append([event])
            if kind in (EventKind.LEG_TRADE, EventKind.RESIDUAL_POSTED):
                self._learn_cash(event)
            if kind == EventKind.LEG_TRADE and self.chains:
                first = self.chains[-1][0]
                if first[:2] == (event[0], event[10]):
                    self.chains[-1].append(event)
            if kind == EventKind.TRADE:
                self.trades.append(event)
                self._learn_position(event)
                if not event[12] >> 32:
                    self.working.pop(event[11], None)

    def _learn_cash(self, event: tuple[int, ...]) -> None:
        """Of a trade of a combination, the last one: what its legs and residual moved."""
        if self.trades and self.trades[-1][:2] == (event[0], event[10]):
            trade = self.trades[-1]
            self.trades[-1] = (*trade[:13], trade[13] + event[13], trade[14] + event[14])

    def _learn_position(self, event: tuple[int, ...]) -> None:
        """Of a trade: roughly who holds what, for orders that may only reduce it."""
        lots = -event[9] if event[3] & EventFlag.SELL else event[9]
        for account, change in ((event[6], lots), (event[12] & MASK["I"], -lots)):
            held = account, event[5]
            self.nets[held] = self.nets.get(held, 0) + change

    # --- draws

    def _key(self) -> int:
        self.next_key += 1
        return self.next_key

    def _request(self) -> int:
        """Most requests carry an id, some none."""
        return self._key() if self.random.random() < 0.6 else 0

    def _account(self) -> int:
        return self.random.choice(self.accounts)

    def _instrument(self) -> int:
        if self.trading and self.random.random() < 0.98:
            return self.random.choice(self.trading)
        return self.random.randrange(self.listed + 1)

    def _amount(self) -> int:
        return self.random.randint(1, self.wealth)

    def _price(self, instrument: int) -> int:
        ticks = round(self.random.gauss(0, self.spread))
        price = self.centres.get(instrument, self.centre) + ticks * self.step
        return price + (self.random.random() < 0.02)

    def _lots(self) -> int:
        lots = min(self.random.randint(1, 12), self.random.randint(1, 40)) * self.lot_step
        return lots + (self.random.random() < 0.02)

    def _session_of(self, account: int) -> int:
        draw = self.random.random()
        if self.sessions and draw < 0.02:
            return self.random.choice(self.sessions)[1]
        own = [session for session, owner in self.online.items() if owner == account]
        return self.random.choice(own) if own and draw < 0.6 else 0

    def edge(self, name: str) -> int:
        """A number of the field's width, near a power of two or at an end."""
        width = WIDTHS[name]
        top = (1 << 63) - 1 if width == "q" else MASK[width]
        value = (1 << self.random.randrange(64)) + self.random.choice((-1, 0, 1))
        value = self.random.choice((0, 1, 2, 3, top, top - 1, value, value)) % (top + 1)
        return -value if width == "q" and self.random.random() < 0.5 else value

    # --- orders

    def _enter(self) -> bytes:
        draw = self.random.random
        account = self._account()
        key = self._key()
        market = draw() < self.markets
        tif = self.random.choices(list(TimeInForce), (64, 10, 12, 8, 6, 4))[0]
        post_only = draw() < 0.08 and not market and (tif < TimeInForce.IOC or draw() < 0.1)
        flags = CommandFlag.MARKET if market else 0
        flags |= CommandFlag.POST_ONLY if post_only else 0
        flags |= CommandFlag.MANUAL if draw() < 0.1 else 0
        protected = draw() < (0.4 if market else 0.003)
        flags |= CommandFlag.PROTECTED if protected else 0
        if market and draw() < 0.6:
            tif = self.random.choice((TimeInForce.IOC, TimeInForce.IOC, TimeInForce.GFA))
        price = self.random.randrange(-1, 9) * self.step if protected else 0
        instrument = self._instrument()
        bounded = draw() < 0.06 and (not post_only or draw() < 0.1)
        target = self.random.randint(1, 12) if bounded else 0
        features = 0
        side, lots = self.random.randrange(2), self._lots()
        if instrument in self.outrights or draw() < 0.05:
            features, target = self._features(account, target, instrument)
        held = [key for key, net in self.nets.items() if net and key[0] == account]
        if features & OrderFeature.REDUCE_ONLY and held and draw() < 0.8:
            instrument, net = held[-1][1], self.nets[held[-1]]
            side, lots = int(net > 0), max(1, min(lots, abs(net)))
        record = pack(
            CommandKind.ENTER,
            side=side,
            tif=tif,
            flags=flags,
            instrument=instrument,
            account=account,
            session=self._session_of(account),
            price=price if market else self._price(instrument),
            quantity=lots,
            operator=7,
            stp=self.random.randrange(4),
            target_lo=self._expiry() if tif == TimeInForce.GTD else 0,
            spare=features | (OrderFeature.ALL_OR_NONE if draw() < 0.01 else 0),
            target_hi=target,
            key_lo=key,
            key_hi=key % 3,
        )
        return self._sent(record)

    def _features(self, account: int, target: int, instrument: int) -> tuple[int, int]:
        """What is special about an order, and the ``target_hi`` that goes with it."""
        draw = self.random.random()
        reduces = OrderFeature.REDUCE_ONLY if self.random.random() < 0.08 else 0
        if self.working and self.random.random() < 0.06:
            own = [order_id for order_id, name in self.working.items() if name[0] == account]
            other = self.random.choice(own if own and draw < 0.98 else list(self.working))
            return int(OrderFeature.GROUPED | reduces), other + (draw > 0.99)
        features, target = self._one_feature(draw, target, instrument)
        return features | reduces, target

    def _one_feature(self, draw: float, target: int, instrument: int) -> tuple[int, int]:
        if draw < self.stops:
            return int(OrderFeature.STOP), self._price(instrument)
        if draw < self.stops + self.icebergs:
            display = self.random.choice((1, 1, 2, 3, 6)) * self.lot_step
            return int(OrderFeature.ICEBERG), display + (self.random.random() < 0.02)
        if draw > 0.998:
            return self.random.choice((12, 32, 255)), target
        return 0, target

    def _expiry(self) -> int:
        """Mostly soon, now and then past."""
        waits = (-1, 0, 1, 1_000_000, SECOND_NS, 20 * SECOND_NS, 90 * SECOND_NS, 1 << 62)
        return min(self.stamp + self.random.choice(waits), (1 << 63) - 1)

    def _sent(self, record: bytes) -> bytes:
        self.sent.append(record)
        return record

    def _target(self) -> dict[str, int]:
        """An order to name: mostly a recent one of its own account."""
        draw = self.random.random
        if self.working and draw() < 0.85:
            account, order_id, key_lo, key_hi = self.random.choice(list(self.working.values()))
        elif self.seen:
            account, order_id, key_lo, key_hi = self.random.choice(self.seen)
        else:
            account, order_id, key_lo, key_hi = 0, 1, 1, 1
        if draw() < 0.4:
            by_key = CommandFlag.BY_CLIENT_ID
            named = {"flags": int(by_key), "target_lo": key_lo, "target_hi": key_hi}
        else:
            named = {"flags": 0, "target_lo": order_id + (draw() < 0.02)}
        if draw() < 0.03:
            account = self._account()
        session, side = self._session_of(account), self._stated(order_id)
        return {"account": account, "side": side, "session": session, **named}

    def _stated(self, order_id: int) -> int:
        """The side that a request states: its order's or none, now and then another."""
        draw = self.random.random()
        if draw < 0.1:
            return self.random.randrange(2)
        return self.asked[order_id][0] if draw < 0.6 and order_id in self.asked else Side.UNSTATED

    def _cancel(self) -> bytes:
        fields, key = self._target(), self._request()
        record = pack(CommandKind.CANCEL, key_lo=key, key_hi=key % 3, **fields)
        return self._sent(record)

    def _reduce(self) -> bytes:
        fields, key = self._target(), self._request()
        lots = self._lots() if self.random.random() < 0.95 else 0
        record = pack(CommandKind.REDUCE, quantity=lots, key_lo=key, key_hi=key % 3, **fields)
        return self._sent(record)

    def _replace(self, flags: int = 0) -> bytes:
        fields = self._target()
        key = self._key() if flags else self._request()
        fields["flags"] |= flags
        fields["flags"] |= CommandFlag.POST_ONLY if self.random.random() < 0.1 else 0
        record = pack(
            CommandKind.REPLACE,
            price=self._price(self.traded_in.get(fields["target_lo"], -1)),
            quantity=self._lots(),
            stp=self.random.randrange(4),
            key_lo=key,
            key_hi=key % 3,
            **fields,
        )
        return self._sent(record)

    def _renew(self) -> bytes:
        return self._replace(CommandFlag.NEW_ID)

    # --- repeats and nonsense

    def _again(self) -> bytes:
        return self.random.choice(self.sent) if self.sent else self._enter()

    def _altered(self) -> bytes:
        """A known id with one field changed, which may be one that does not count."""
        if not self.sent:
            return self._enter()
        values = list(COMMAND.unpack(self.random.choice(self.sent)))
        index = self.random.choice((1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13))
        values[index] ^= 1 if index != 3 else CommandFlag.MANUAL
        return COMMAND.pack(*values)

    def _wild(self) -> bytes:
        """A sensible command with one to three fields at an edge."""
        values = dict(zip(COMMAND_FIELDS, COMMAND.unpack(self._any()), strict=True))
        for name in self.random.sample(COMMAND_FIELDS[1:], self.random.randint(1, 3)):
            if not self._harmful(values["kind"], name):
                values[name] = self.edge(name)
        return COMMAND.pack(*values.values())

    def _any(self) -> bytes:
        return self.steps[self.random.choice(TAMEABLE)]()[:COMMAND_BYTES]

    def _harmful(self, kind: int, name: str) -> bool:
        """Would an edge here only end the run early? A far date, or a ladder of gigabytes."""
        wide = kind in (CommandKind.LIST, CommandKind.SET_LIMITS) and name.startswith("target")
        return wide and self.random.random() < 0.9

    def _noise(self) -> bytes:
        kind = self.random.choice((0, 49, 14, 19, 27, 46, 99, 255, *range(1, 5)))
        return bytes([kind]) + self.random.randbytes(63)

    # --- money, sessions, time

    def _money(self) -> bytes:
        account, key = self._account(), self._request()
        kinds = (CommandKind.DEPOSIT, CommandKind.WITHDRAW, CommandKind.FEE)
        kind = self.random.choices(kinds, (5, 4, 1))[0]
        record = pack(
            kind,
            account=account,
            price=self._amount() if self.random.random() < 0.97 else 0,
            tif=self.random.random() < 0.02,
            key_lo=key,
            key_hi=key % 3,
        )
        return self._sent(record)

    def _session(self) -> bytes:
        account, session = self._account(), 0
        if self.sessions and self.random.random() < 0.7:
            account, session = self.random.choice(self.sessions)
        if session and self.random.random() < 0.5:
            return pack(CommandKind.LOGOFF, account=account, session=session)
        flags = CommandFlag.CANCEL_ON_DISCONNECT if self.random.random() < 0.7 else 0
        return pack(
            CommandKind.LOGON,
            account=account,
            session=session,
            flags=flags,
            quantity=self.random.choice((0, 1, 5, 1000, 60_000)),
            key_lo=9,
        )

    def _clock(self) -> bytes:
        return pack(CommandKind.ADVANCE_TIME)

    def _recovered(self) -> bytes:
        return pack(CommandKind.RECOVERED, quantity=self.random.randrange(9))

    # --- instruments

    def _list(self) -> bytes:
        """List the next instrument and open it."""
        number = self.listed
        if len(self.outrights) >= INSTRUMENTS_MAX:
            number = self.random.choice((0, number + 1))
        half = self.spread * 3 * self.step
        listing = pack(
            CommandKind.LIST,
            instrument=number,
            price=self.centre * self.tick_scale,
            quantity=self.multiplier + number % 2 * (self.multiplier // 30),
            session=self.tick_scale,
            account=self.step,
            operator=self.lot_step,
            target_lo=self.centre - half,
            target_hi=self.centre + half,
            key_lo=product_of(self),
        )
        opening = pack(CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS)
        return listing + self._risk(number) + opening

    def _limits(self) -> bytes:
        shift = round(self.random.gauss(0, self.spread)) * self.step
        half = self.random.choice((1, 2, 3, 3, 3, 4)) * self.spread * self.step
        odd = self.random.random() < 0.03
        instrument = self._instrument()
        centre = self.centres.get(instrument, self.centre)
        return pack(
            CommandKind.SET_LIMITS,
            instrument=instrument,
            target_lo=centre + shift - half + odd,
            target_hi=centre + shift + half,
        )

    def _risk(self, instrument: int = -1) -> bytes:
        maker, taker = self.random.choice(((0, 0), (-2, 5), (3, 3), (7, -7), (1, -2)))
        return pack(
            CommandKind.SET_RISK,
            instrument=self._instrument() if instrument < 0 else instrument,
            price=self.random.choice((0, 10, 100, 1000)),
            quantity=self.random.choice((20, 60, 200, 1 << 20)),
            session=self.random.choice((15, 30, 50, 50)),
            target_lo=maker,
            target_hi=taker,
        )

    def _state(self) -> bytes:
        states = (TradingState.CONTINUOUS, TradingState.HALTED, TradingState.CLOSED)
        state = self.random.choices((*states, self.random.randrange(7)), (86, 6, 5, 3))[0]
        return pack(CommandKind.SET_STATE, instrument=self._instrument(), tif=state)

    def _call(self) -> bytes:
        """Orders are collected for an auction."""
        state = self.random.choice((TradingState.PRE_OPEN, TradingState.AUCTION))
        cause = self.random.choice((0, 0, 10, 11, 12, 12, self.random.randrange(14)))
        number = self._instrument()
        return pack(CommandKind.SET_STATE, instrument=number, tif=state, quantity=cause)

    def _uncross(self) -> bytes:
        state = self.random.choices((TradingState.CONTINUOUS, TradingState.CLOSED), (9, 1))[0]
        return pack(CommandKind.SET_STATE, instrument=self._instrument(), tif=state)

    def _indicate(self) -> bytes:
        return pack(CommandKind.INDICATE, instrument=self._instrument())

    def _clearing_price(self) -> int:
        ticks = self.centre + round(self.random.gauss(0, self.spread)) * self.step
        return ticks * self.tick_scale + self.random.randrange(2)

    def _mark(self) -> bytes:
        price = self._clearing_price()
        return pack(CommandKind.MARK, instrument=self._instrument(), price=price)

    def _settle(self) -> bytes:
        self.cycle += self.random.random() < 0.5
        price = self._clearing_price()
        number = self._instrument()
        return pack(CommandKind.SETTLE, instrument=number, price=price, quantity=self.cycle)

    def _expire(self) -> bytes:
        price = self._clearing_price()
        return pack(CommandKind.EXPIRE, instrument=self._instrument(), price=price)

    # --- accounts and the market

    def _open_account(self) -> bytes:
        """Few members and groups, small caps, some with a throttle."""
        draw = self.random
        interval, burst = draw.choice(((0, 1), (0, 1), (1_000_000, 30), (SECOND_NS, 99)))
        number = draw.randint(1, ACCOUNTS_MAX)
        return pack(
            CommandKind.OPEN_ACCOUNT,
            account=number,
            instrument=draw.randint(0, 3),
            session=draw.randint(0, 4),
            tif=draw.randrange(3),
            quantity=draw.choice((4, 15, 40, 1000)),
            target_lo=interval,
            target_hi=burst,
        )

    def _set_account(self) -> bytes:
        killed = CommandFlag.KILLED if self.random.random() < 0.07 else 0
        lots = self.random.choice((0, 0, 0, 8, 20))
        loss = self.random.choice((*[0] * 20, self.wealth // 200, self.wealth // 20))
        return pack(
            CommandKind.SET_ACCOUNT,
            account=self._account(),
            flags=killed,
            quantity=lots,
            price=loss,
        )

    def _day(self) -> bytes:
        if self.random.random() < 0.5:
            return pack(CommandKind.CLOSE_DAY, quantity=self.date)
        self.date += 1
        self.cycle = 0
        return pack(CommandKind.OPEN_DAY, quantity=self.date)

    def _churn(self) -> bytes:
        """Many requests of one account push its older ids out of the window."""
        account = self._account()
        count = self.random.choice((60, 260))
        return b"".join(
            pack(CommandKind.RECORD, account=account, key_lo=self._key()) for _ in range(count)
        )

    def _mode(self) -> bytes:
        return pack(CommandKind.SET_MODE, tif=self.random.choices((0, 1, 2), (88, 7, 5))[0])

    def _other(self) -> bytes:
        account, key = self._account(), self._request()
        kind = self.random.choice((CommandKind.RECORD, CommandKind.RECORD, CommandKind.UPGRADE))
        if kind == CommandKind.UPGRADE or self.random.random() < 0.3:
            kind = self.random.choice((CommandKind.UPGRADE, CommandKind.CHECKPOINT))
            return pack(kind, quantity=self.random.randrange(4))
        record = pack(kind, account=account, key_lo=key, key_hi=key % 3)
        return self._sent(record)
