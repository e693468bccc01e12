"""The settings of a serving market, and all fixed limits.

A setting is taken from, in rising precedence: its default here, a TOML file, the environment
(``HOURBOOK_SERVE_PORT``), a flag. Unknown names are refused.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta

from exchange.app import processors, trial
from exchange.gateway import (
    arrivals,
    deadlines,
    lockouts,
    pace,
    previews,
    queries,
    refreshes,
    rest,
    resume,
    seats,
    server,
)
from exchange.gateway import session as gateway_session
from exchange.journal import segments, tape
from exchange.messages import Limit, wire, wire_market
from exchange.sequencer import SOURCE_COMMANDS

PREFIX: Final = "HOURBOOK_"
DEFAULT, FILE, ENVIRONMENT, FLAG, FIXED = "default", "file", "environment", "flag", "fixed"
# What the engine's limits are of; each is the most that there may be.
ENGINE_LIMITS: Final = {
    "ORDERS": "slots of orders: working ones and remembered ids; one is not used",
    "BOOK_ORDERS": "working orders of an outright; of a combination divided by its legs + 3",
    "POSITIONS": "pairs of an account and an instrument; one is not used",
    "ACCOUNTS": "accounts, of numbers below it",
    "MEMBERS": "members, of numbers below it",
    "INSTRUMENTS": "instruments ever listed",
    "PRODUCTS": "products, of numbers below it",
    "PROTECTIONS": "products in which an account's quotes are protected",
    "SESSIONS": "sessions at a time; one is not used",
    "LADDER_LEVELS": "prices between an instrument's limits",
    "IDEMPOTENCY_WINDOW": "accepted ids that are remembered of an account",
    "QUANTITY": "lots of an order",
    "POSITION": "lots of an account in an instrument, held or working",
    "PRICE": "a price's absolute value, in ticks or clearing units",
    "MONEY": "absolute value of an amount or a balance, in micro-dollars",
    "BATCH_COMMANDS": "commands in a batch",
    "QUEUE_COMMANDS": "commands that wait for the sequencer",
    "FRAME_BYTES": "of a WebSocket frame from a client",
    "CLIENT_ID_CHARS": "characters of a client's id",
    "SUBSCRIPTIONS": "channels of a connection",
    "WINDOW_PARTS": "parts in which a breaker's window is counted",
    "CORRECTIONS": "trades busted or adjusted on a business date",
    "REDUCING": "reduce-only orders of an account in an instrument",
    "GROUPS": "orders of an instrument that are grouped with one of another",
    "ICEBERGS": "live iceberg orders of an instrument",
    "REFILLS": "refills of an iceberg order",
    "ELECTIONS": "stops of an instrument that enter under one command",
    "AUCTION_ROUNDS": "rounds in which stops join an auction",
    "ELECTION_NS": "log time after which the next stops enter",
    "LEGS": "legs of a combination",
    "LEG_SPREADS": "combinations with implied prices that one leg is in",
    "IMPLIED_TRADES": "trades of an incoming order at implied prices",
    "LEG_CHANGES": "changes of legs that are remembered for corrections",
    "CREDITS": "spreads with a margin credit",
}


class Serve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how a market is served."""

    data: Annotated[str, Meta(min_length=1, description="the market's data directory")] = "market"
    # Not empty, as an unset variable would be: that would mean all addresses.
    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port; 0: any free one")] = 8000
    tls_certificate: Annotated[
        str, Meta(description="PEM file of a certificate chain: only TLS is served; empty: no TLS")
    ] = ""
    tls_key: Annotated[str, Meta(description="PEM file of its key")] = ""
    origins: Annotated[
        tuple[str, ...],
        Meta(description="browser origins accepted; in the environment separated by commas"),
    ] = ()
    metrics: Annotated[
        Literal["loopback", "any", "off"],
        Meta(description="who may read /metrics: this machine, anybody, nobody"),
    ] = "loopback"
    deribit: Annotated[
        bool, Meta(description="serve the Deribit dialect too, under /api/v2 and /ws/api/v2")
    ] = False
    heads: Annotated[
        str, Meta(description="directory for signed heads, on another disk; empty: none are signed")
    ] = ""
    clearing: Annotated[
        Literal["thread", "process"],
        Meta(description="where clearing runs: a thread of the server, or a process of its own"),
    ] = "thread"
    gateways: Annotated[
        int,
        Meta(
            ge=0, le=64, description="gateway processes; 0: the market's own process serves clients"
        ),
    ] = 0
    processor: Annotated[
        int,
        Meta(ge=-1, description="processor that the market's own process is pinned to; -1: none"),
    ] = processors.ANY
    log_format: Annotated[
        Literal["text", "json"], Meta(description="format of the lines on stderr")
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="lowest level that is logged"),
    ] = "info"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of a serving market that change no event, only how it runs."""

    clearing_lag_commands_max: Annotated[
        int, Meta(ge=-1, description="commands that clearing may lag behind; more: cancel-only")
    ] = 500_000
    clearing_frames: Annotated[
        int, Meta(ge=1, le=65_536, description="most batches in one transaction of the ledger")
    ] = 512
    clearing_pause_seconds: Annotated[
        float,
        Meta(ge=0, le=10, description="pause between two of these transactions, to have fewer"),
    ] = 0.1
    watch_seconds: Annotated[
        float, Meta(gt=0, le=60, description="time between two checks of clearing and the ledger")
    ] = 1.0
    checkpoint_seconds: Annotated[
        float,
        Meta(gt=0, le=86_400, description="time between two checkpoints while commands arrive"),
    ] = 30.0
    previews_apart: Annotated[
        bool,
        Meta(description="previews of a large market in a separate process, with a copy of it"),
    ] = True
    gateway_silence_seconds: Annotated[
        float,
        Meta(ge=1, le=600, description="time after which a gateway that hangs is killed"),
    ] = 5.0
    gateway_start_seconds: Annotated[
        float,
        Meta(
            ge=1, le=600, description="time after which one that starts without progress is killed"
        ),
    ] = 30.0
    drain_seconds: Annotated[
        float, Meta(ge=0, le=600, description="longest time that a stop waits for what is queued")
    ] = 5.0


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a market follows the calendar."""

    follow: Annotated[
        bool,
        Meta(
            description="follow the calendar's sessions; else trade whenever the market is served"
        ),
    ] = False
    settle: Annotated[
        bool, Meta(description="settle each day once its session has closed; else an operator does")
    ] = True


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings."""

    serve: Serve = Serve()
    limits: Limits = Limits()
    schedule: Schedule = Schedule()


DEFAULTS: Final = Settings()


class SettingsError(ValueError):
    """An unknown or invalid setting; the message names it and its source."""


class Entry(NamedTuple):
    """One line of the effective view."""

    name: str
    value: Any
    source: str
    variable: str  # of the environment; empty for a fixed limit
    text: str


_SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "serve": Serve,
    "limits": Limits,
    "schedule": Schedule,
}


def _fields() -> dict[str, tuple[Any, Any, str]]:
    """Return every setting's type, default and description, by its dotted name."""
    found = {}
    for section, kind in _SECTIONS.items():
        for field in msgspec.structs.fields(kind):
            (meta,) = field.type.__metadata__
            found[f"{section}.{field.name}"] = (field.type, field.default, meta.description)
    return found


FIELDS: Final = _fields()


class Effective:
    """The settings in force and the source of each."""

    def __init__(self, settings: Settings, sources: Mapping[str, str]) -> None:
        self.settings = settings
        self.sources = sources

    def entries(self) -> list[Entry]:
        """Return every setting, then every fixed limit."""
        lines = []
        for name, (_, _, text) in FIELDS.items():
            section, _, key = name.partition(".")
            value = getattr(getattr(self.settings, section), key)
            lines.append(Entry(name, value, self.sources[name], variable(name), text))
        return lines + [Entry(name, value, FIXED, "", text) for name, value, text in fixed()]


def variable(name: str) -> str:
    """Return a setting's environment variable."""
    return PREFIX + name.replace(".", "_").upper()


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Effective:
    """Load the settings. Raises SettingsError for the first that is unknown or invalid.

    ``flags`` are values by dotted name; None means that the flag was not given.
    """
    given: dict[str, tuple[object, str]] = {}
    if file is not None:
        given |= {name: (value, FILE) for name, value in _from_file(file)}
    given |= {n: (value, ENVIRONMENT) for n, value in _from_environment(environment or {})}
    for name, value in (flags or {}).items():
        if value is not None:
            given[name] = value, FLAG
    values: dict[str, dict[str, object]] = {section: {} for section in _SECTIONS}
    for name, (value, source) in given.items():
        section, _, key = name.partition(".")
        values[section][key] = _checked(name, value, source)
    sources = {name: given[name][1] if name in given else DEFAULT for name in FIELDS}
    made = {section: kind(**values[section]) for section, kind in _SECTIONS.items()}
    return Effective(Settings(**made), sources)  # type: ignore[arg-type]


def _from_file(path: Path) -> Iterator[tuple[str, object]]:
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{path} cannot be read: {why}") from error
    for section, values in document.items():
        if section not in _SECTIONS:
            raise SettingsError(
                f"{path}: {section}: no such section; there are {_names(_SECTIONS)}"
            )
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: {section} is a section: write [{section}]")
        for key, value in values.items():
            name = f"{section}.{key}"
            if name not in FIELDS:
                raise SettingsError(f"{path}: {name}: no such setting{_guess(name, FIELDS)}")
            yield name, value


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    known = {variable(name): name for name in FIELDS}
    for key, value in environment.items():
        if key in known:
            name = known[key]
            yield name, _listed(value) if name == "serve.origins" else value
        elif key.startswith(tuple(variable(f"{section}.") for section in _SECTIONS)):
            raise SettingsError(f"environment: {key}: no such setting{_guess(key, known)}")


def _listed(value: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, value.split(","))))


def _checked(name: str, value: object, source: str) -> object:
    kind = FIELDS[name][0]
    where = variable(name) if source == ENVIRONMENT else name
    try:
        found = msgspec.convert(value, kind, strict=source in (FILE, FLAG))
    except msgspec.ValidationError as error:
        own = get_args(kind)[0]
        words = f"; it is one of {', '.join(get_args(own))}" if get_origin(own) is Literal else ""
        raise SettingsError(f"{source}: {where} = {value!r}: {error}{words}") from error
    if isinstance(found, str) and "\0" in found:
        raise SettingsError(f"{source}: {where} = {value!r}: no path or address has a NUL")
    return found


def _guess(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are {_names(known)}"


def _names(known: Mapping[str, object]) -> str:
    return ", ".join(known)


def fixed() -> list[tuple[str, float, str]]:
    """Return the limits that clients, logs or hashes rely on: changing one changes the protocol."""
    return [
        *((f"engine.{name.lower()}", int(limit), ENGINE_LIMITS[name])
          for name, limit in Limit.__members__.items()),
        ("queue.source_commands", SOURCE_COMMANDS, "commands that one account may have queued"),
        ("journal.segment_bytes", segments.SEGMENT_BYTES,
         "bytes after which a log segment is full"),
        ("tape.recent_records", tape.RECENT_RECORDS, "batches kept in memory for followers"),
        ("tape.recent_bytes", tape.RECENT_BYTES, "most bytes of these batches"),
        ("gateway.backlog_bytes", gateway_session.BACKLOG_BYTES,
         "unsent of a connection; more: close 4008"),
        ("gateway.stale_bytes", gateway_session.STALE_BYTES,
         "unsent of a connection; more: pictures are skipped"),
        ("gateway.refresh_bytes", refreshes.REFRESH_BYTES,
         "of snapshots for slow readers, in 100 ms"),
        ("gateway.snapshot_orders", wire_market.SNAPSHOT_ORDERS,
         "orders in one part of a snapshot"),
        ("gateway.queue_orders", wire_market.QUEUE_ORDERS, "orders of a queue that may be joined"),
        ("gateway.pictures", wire_market.PICTURES, "pictures, over all connections"),
        ("gateway.resume_messages", wire_market.RESUME_MESSAGES,
         "messages that a channel remembers"),
        ("gateway.malformed", gateway_session.MALFORMED_LIMIT, "malformed frames; then 1008"),
        ("gateway.refused_logons", gateway_session.LOGON_LIMIT, "refused logons; then 1008"),
        ("gateway.silent_seconds", server.SILENT_SECONDS, "without logon or subscription; 4000"),
        ("gateway.handshake_seconds", arrivals.HANDSHAKE_SECONDS,
         "for the first request's headers"),
        ("gateway.keepalive_seconds", arrivals.KEEPALIVE_SECONDS, "between two HTTP requests"),
        ("gateway.body_seconds", arrivals.BODY_SECONDS, "for an HTTP request's body"),
        ("gateway.send_seconds", arrivals.SEND_SECONDS, "for an answer over HTTP to be taken"),
        ("gateway.sockets_per_seat", arrivals.SOCKETS_PER_SEAT, "of an address, HTTP included"),
        ("gateway.files_kept", arrivals.FILES_KEPT,
         "open files that connections leave to the process"),
        ("gateway.read_bytes", arrivals.READ_BYTES, "of a connection, before others are read"),
        ("gateway.address_one_in", pace.ADDRESS_ONE_IN, "an address' part of the time: 1 in"),
        ("gateway.loopback_one_in", pace.LOOPBACK_ONE_IN, "that of this machine itself"),
        ("gateway.member_one_in", pace.MEMBER_ONE_IN, "that of an account that trades"),
        ("gateway.in_hand_ns", pace.IN_HAND_NS, "of it may be spent at once"),
        ("gateway.owed_ns", pace.OWED_NS, "one waits for no longer to be read again"),
        ("gateway.body_bytes", server.BODY_BYTES, "of an HTTP request, as sent and inflated"),
        ("gateway.requests_a_second", rest.REQUESTS_A_SECOND, "HTTP requests, from one address"),
        ("gateway.reads", rest.READS, "HTTP requests that may wait for the disk"),
        ("gateway.ping_seconds", server.PING_SECONDS, "between two pings of a connection"),
        ("gateway.close_seconds", server.CLOSE_SECONDS, "for the answer to a close"),
        ("gateway.pings_a_second", server.PINGS_A_SECOND,
         "pings of a connection; more: close 1008"),
        ("gateway.address_connections", seats.ADDRESS_CONNECTIONS, "from one peer's address"),
        ("gateway.loopback_connections", seats.LOOPBACK_CONNECTIONS, "from this machine itself"),
        ("gateway.key_connections", seats.KEY_CONNECTIONS, "logged on under one key"),
        ("gateway.bad_signatures", lockouts.BAD_LIMIT,
         "bad signatures in a row that lock a key for an address"),
        ("gateway.lock_ms", lockouts.LOCK_MS, "how long the key is locked there"),
        ("gateway.frame_commands", wire.BATCH_REQUESTS, "commands in one frame"),
        ("gateway.query_orders_a_second", queries.ORDERS_A_SECOND,
         "orders that queries of one account may read"),
        ("gateway.previews_a_second", previews.PREVIEWS_A_SECOND, "previews of one account"),
        ("gateway.previews_share", trial.MARKET_SHARE,
         "of the market's time for all previews: 1 in"),
        ("gateway.previews_state_bytes", trial.STATE_BYTES,
         "bytes of a market; larger: a separate process previews"),
        ("gateway.cancel_after_ms", deadlines.TIMEOUT_MS_MOST, "longest dead man's switch"),
        ("gateway.switches", deadlines.SWITCHES, "of one account; one more triggers the next due"),
        ("gateway.heartbeat_ms", wire.HEARTBEAT_MS, "between two heartbeats"),
        ("gateway.resume_slice_events", resume.SLICE_EVENTS,
         "events read at a time for a client that resumes"),
    ]  # fmt: skip
