"""The ranges that every parameter of a simulation is drawn from.

They follow those of TigerBeetle's simulator, as far as a single node behind TCP has the fault:
one-way delays (least 0 to 30 ms, mean 30 to 100), blocked paths (up to 5 s), partitions, failing
reads and writes, misdirected reads and writes, torn sectors (80 to 100 % of what was not synced),
crashes. For each kind of fault a quarter of the seeds has none of it, so that the kinds also occur
alone.
"""

from random import Random

import msgspec

from exchange.sim.disk import DiskFaults
from exchange.sim.host import HostFaults
from exchange.sim.net import MS, Weather


class NetFaults(msgspec.Struct, frozen=True):
    """Probabilities for one client per tenth of a second, in permille."""

    block: int = 0  # its path is blocked
    block_ms: int = 0  # for at most this long
    cut: int = 0  # its connections end
    lose: int = 0  # its connections die unseen by either end
    slow: int = 0  # it stops reading for up to ``block_ms``
    leave: int = 0  # the client's host dies, and the trader's next client resumes


class Limits(msgspec.Struct, frozen=True):
    """Capacities made small, so that their limits are reached."""

    segment_bytes: int
    batch_commands: int
    backlog_bytes: int
    reserve_bytes: int
    stale_bytes: int


class Ranges(msgspec.Struct, frozen=True):
    """All parameters, drawn before the first step."""

    shuffled: bool  # ready callbacks run in any order
    seconds: int  # duration of the storm
    traders: int
    instruments: int
    workers: int
    pause_mean: float
    # Seconds that a client waits for an answer before it reports the outcome as unknown
    patience: float
    weather: Weather
    net: NetFaults
    disk: DiskFaults
    host: HostFaults
    limits: Limits
    full_disks: int  # permille of tenths of a second in which the disk fills up
    jumps: int  # the same, in which the server's clock jumps
    jump_ms: int
    operator_mean: float  # mean seconds between two acts of the operator
    sessions: bool = False  # the operator calls auctions, closes, opens, and sets breakers
    spread: bool = False  # a second month and the calendar spread, with implied prices
    stops: int = 0  # percent of the orders

    @classmethod
    def draw(cls, random: Random) -> "Ranges":
        """Draw all figures."""
        calm_net, calm_disk, calm_host = (random.randrange(4) == 0 for _ in range(3))
        drawn = cls(
            shuffled=random.randrange(2) == 0,
            seconds=random.randint(3, 8),
            traders=random.randint(1, 4),
            instruments=random.randint(1, 2),
            workers=random.randint(1, 3),
            pause_mean=random.choice((0.05, 0.1, 0.3)),
            patience=random.choice((0.5, 2.0, 10.0)),
            weather=_weather(random),
            net=NetFaults() if calm_net else _net(random),
            disk=DiskFaults() if calm_disk else _disk(random),
            host=_host(random, calm=calm_host),
            limits=_limits(random),
            full_disks=0 if calm_disk else random.choice((0, 0, 2, 10)),
            jumps=0 if calm_host else random.choice((0, 0, 5)),
            jump_ms=random.choice((10, 4_000, 100_000)),
            operator_mean=random.choice((0.5, 2.0)),
        )
        # Drawn from the figures above, so that the storms of earlier seeds stay the same.
        astray = 0 if calm_disk else Random(repr(drawn)).choice((0, 0, 1_000, 10_000))
        disk = msgspec.structs.replace(drawn.disk, astray_ppm=astray)
        day = Random(f"{drawn!r}/day")
        drawn = msgspec.structs.replace(
            drawn,
            disk=disk,
            sessions=day.randrange(4) > 0,
            spread=day.randrange(3) > 0,
            stops=day.choice((0, 10, 25)),
        )
        if day.randrange(4) > 0:
            return drawn
        # A crowd in one instrument: enough consecutive trades to trip a breaker.
        crowd = msgspec.structs.replace(drawn, traders=max(3, drawn.traders), workers=3)
        return msgspec.structs.replace(crowd, instruments=1, spread=False, pause_mean=0.05)


def _weather(random: Random) -> Weather:
    least = random.randint(0, 30) * MS
    window = random.choice((1 << 12, 1 << 16, 1 << 18))
    return Weather(least, max(least, random.randint(30, 100) * MS), window)


def _net(random: Random) -> NetFaults:
    return NetFaults(
        block=random.randint(0, 30),
        block_ms=random.randint(100, 5_000),
        cut=random.randint(0, 30),
        lose=random.randint(0, 10),
        slow=random.randint(0, 10),
        leave=random.randint(0, 10),
    )


def _disk(random: Random) -> DiskFaults:
    return DiskFaults(
        write_ppm=random.choice((0, 0, 1_000, 10_000)),
        sync_ppm=random.choice((0, 0, 1_000, 10_000)),
        read_ppm=random.choice((0, 100_000)),
        misdirect_ppm=random.choice((0, 100_000)),
        torn_percent=random.randint(80, 100),
    )


def _host(random: Random, *, calm: bool) -> HostFaults:
    return HostFaults(
        steps_to_crash=0 if calm else random.choice((0, 300, 1_000, 4_000)),
        operations_to_crash=0 if calm else random.choice((0, 20, 100, 300)),
        power_cuts=random.choice((0, 50, 100)),
        ledger_losses=20,
        restart_ms=random.randint(1, 2_000),
        sync_ms=random.choice((1, 2, 20)),
        stalls=random.choice((0, 0, 5)),
        stall_ms=random.choice((1_000, 5_000)),
    )


def _limits(random: Random) -> Limits:
    return Limits(
        segment_bytes=random.choice((1 << 10, 1 << 14, 1 << 26)),
        batch_commands=random.choice((2, 16, 4_096)),
        backlog_bytes=random.choice((1 << 16, 1 << 22)),
        reserve_bytes=random.choice((1 << 16, 1 << 18)),
        stale_bytes=random.choice((1 << 11, 1 << 18)),
    )
