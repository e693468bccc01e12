"""``hourbook log``: queries on a market's log, whether or not it is being served."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from exchange.cli import archive, reports
from exchange.cli.access import Json, need_log
from exchange.cli.output import Exit, fail, group, progress, show_facts, show_json, show_table
from exchange.cli.replay import UNTIL_HELP, Directory, named, stop_at

_ID_MAX: Final = (1 << 64) - 1
_PERCENT_MAX: Final = 100_000
_LOTS_MAX: Final = (1 << 31) - 1
_DIGITS_MAX: Final = 15  # longer texts are no plausible number

if TYPE_CHECKING:
    from exchange.history.records import EventRow
    from exchange.history.search import Query
    from exchange.journal.frame import Frame

app = group("Ask a market's log.")
app.command("audit")(reports.audit)
app.command("bulletin")(reports.bulletin)
app.command("large-traders")(reports.large_traders)
app.command("surveillance")(reports.surveillance)
app.command("tape")(archive.tape)


@app.command("why")
def why(
    directory: Directory,
    order_id: Annotated[
        int | None, typer.Argument(min=0, max=_ID_MAX, help="The exchange's order id.")
    ] = None,
    account: Annotated[
        int | None, typer.Option(help="With --client-id: whose order it is.")
    ] = None,
    client_id: Annotated[str, typer.Option(help="The client order id it was entered with.")] = "",
    as_json: Json = False,
) -> None:
    """Tell an order's whole life, and the rule behind each step."""
    from exchange.gateway.decode import ORDER, digest  # noqa: PLC0415
    from exchange.history import order, tell  # noqa: PLC0415

    by_client = account is not None and bool(client_id)
    if by_client == (order_id is not None) or by_client != (account is not None or bool(client_id)):
        fail("name the order by ORDER_ID, or by --account and --client-id", Exit.USAGE)
    key = None
    if by_client:
        if not client_id.isascii():
            fail(f"{client_id!a}: a client order id is ASCII", Exit.USAGE)
        raw = digest(client_id, ORDER)
        key = (int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little"))
    with progress("searching") as advance:
        life, picture = order.trace(
            directory,
            order_id=order_id,
            account=account if by_client else None,
            key=key,
            progress=advance,
        )
    if life is None:
        if by_client:
            fail(
                f"the log has no order {client_id} of {account}; what the gateway rejects (G in"
                " docs/reference/rejects.md) never enters it"
            )
        grep = f"`hourbook log grep {directory} --kind ORDER_ACCEPTED`"
        fail(f"the log has no order {order_id}; {grep} lists them")
    told = tell.tell(life, picture)
    show_json(told) if as_json else print(tell.text(told))


@app.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A market's data directory.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    as_json: Json = False,
) -> None:
    """Compare two logs: the first difference explained, and how many there are of each kind."""
    from exchange.history.differ import compare  # noqa: PLC0415

    need_log(first)
    need_log(second)
    with progress("comparing") as advance:
        told = compare(first, second, advance).as_dict()
    if as_json:
        show_json(told)
    elif told["same"]:
        print(f"the same: {told['commands_compared']:,} commands")
    else:
        print(f"the first difference is at #{told['first']['sequence']}: {told['first']['kind']}")
        for word in told["first"]["words"]:
            print(f"  {word}")
        print()
        heads = ("difference", "count", "first at")
        rows = [(d["kind"], f"{d['count']:,}", f"#{d['sequence']}") for d in told["differences"]]
        show_table(heads, rows)
    if not told["same"]:
        fail(f"the logs differ: {len(told['differences'])} kinds of difference")


@app.command("grep")
def grep(
    directory: Directory,
    account: Annotated[
        int | None, typer.Option(help="Only of this account, on either side of a trade.")
    ] = None,
    instrument: Annotated[
        str, typer.Option(metavar="CODE", help="Only of this instrument, as H100Z26.")
    ] = "",
    reason: Annotated[
        str, typer.Option(help="Only rejects and cancels for this reason, as MARGIN.")
    ] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND", help="Only of this kind of event or command, as TRADE; repeatable."
        ),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SEQ|TIME",
            help="Begin with this sequence, or at this time (ISO 8601, UTC).",
        ),
    ] = "",
    until: Annotated[str, typer.Option(metavar="SEQ|TIME", help=UNTIL_HELP)] = "",
    limit: Annotated[int, typer.Option(min=0, help="Lines printed; all are counted.")] = 1_000,
    as_json: Json = False,
) -> None:
    """Print the events that match, and count all of them by kind.

    With --json each event is a line, and the counts are the last.
    """
    from exchange.history.walk import walk  # noqa: PLC0415
    from exchange.history.words import event_line  # noqa: PLC0415

    query = _query(account, instrument, reason, kind or [], since)
    stop = stop_at(directory, until) if until else None
    shown = 0

    def found(frame: "Frame", row: "EventRow") -> None:
        nonlocal shown
        shown += 1
        if shown <= limit:
            _print_event(frame, row, event_line(row, query.picture), as_json)

    with progress("searching", printing=limit > 0) as advance:
        walk(directory, lambda frame, events: query.search(frame, events, found), stop, advance)
    if instrument and instrument not in query.picture.instruments.by_code:
        fail(f"{instrument} is listed nowhere in what was searched; `hourbook log bulletin"
             f" {directory} --json` names what is")  # fmt: skip
    if account is not None and account not in query.picture.accounts:
        fail(f"account {account} is opened nowhere in what was searched")
    if as_json:
        show_json({"found": shown, "counts": dict(query.counts.most_common())})
        return
    if shown > limit:
        print(f"... and {shown - limit:,} more; --limit prints them")
    show_facts({"found": shown, **dict(query.counts.most_common())}, False)


def _query(
    account: int | None, instrument: str, reason: str, kinds: list[str], since: str
) -> "Query":
    from exchange.history.search import Query, kinds_named, reason_named  # noqa: PLC0415

    query = Query(account=account, code=instrument or None)
    try:
        if reason:
            query.cancel_reason, query.reject_reason = reason_named(reason)
        for name in kinds:
            events, commands = kinds_named(name)
            query.event_kinds |= events
            query.command_kinds |= commands - ({0} if events else set())
    except KeyError as unknown:
        fail(f"no kind or reason is named {unknown.args[0]}; docs/reference/engine.md has the"
             " kinds, rejects.md the reasons", Exit.USAGE)  # fmt: skip
    if since:
        sequence, query.first_stamp = named(since)
        query.first_sequence = sequence or 0
    return query


def _print_event(frame: "Frame", row: "EventRow", line: str, as_json: bool) -> None:
    from exchange.history.walk import time_text  # noqa: PLC0415

    at = time_text(frame.opening.stamp)
    if as_json:
        show_json({"sequence": row[0], "index": row[1], "time": at, "what": line})
    else:
        print(f"#{row[0]}.{row[1]}  {at}  {line}")


@app.command("what-if")
def what_if(
    directory: Directory,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE=PERCENT",
            help="Margin rates in per cent of the log's, as 'H100*=150'; repeatable.",
        ),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE=PERCENT",
            help="Outrights' price limits, per cent either side of the mark; repeatable.",
        ),
    ] = None,
    position_limit: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE=LOTS", help="Most lots of an account; repeatable."),
    ] = None,
    without: Annotated[
        list[int] | None, typer.Option(metavar="ACCOUNT", help="Leave its orders out; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay with other parameters: orders rejected instead, trades gone, profit by account.

    CODE may hold * and ?. Participants' reactions are not simulated: all send what they sent.
    """
    from exchange.history.whatif import Changes, NothingChosen, what_if  # noqa: PLC0415

    changes = Changes(
        margin=_pairs("--margin", margin, _PERCENT_MAX),
        limits=_pairs("--limits", limits, _PERCENT_MAX),
        position_limit=_pairs("--position-limit", position_limit, _LOTS_MAX),
        without=frozenset(without or ()),
    )
    if not changes:
        fail("change something: --margin, --limits, --position-limit or --without", Exit.USAGE)
    try:
        with progress("replaying") as advance:
            told = what_if(directory, changes, advance)
    except NothingChosen as unknown:
        fail(str(unknown))
    show_json(told) if as_json else _print_what_if(told)


def _pairs(option: str, given: list[str] | None, most: int) -> list[tuple[str, int]]:
    pairs = []
    for text in given or []:
        code, _, value = text.partition("=")
        if not code or not value.isdecimal() or len(value) > _DIGITS_MAX or int(value) > most:
            said = f"write CODE=WHOLE, as in 'H100*=150', and at most {most}"
            fail(f"{option} {text}: {said}", Exit.USAGE)
        pairs.append((code, int(value)))
    return pairs


def _print_what_if(told: dict[str, Any]) -> None:
    names = (
        "commands_changed", "parameters_refused", "orders_taken_out", "orders_rejected",
        "others_rejected", "orders_accepted", "others_accepted", "trades", "trades_instead",
        "trades_gone", "trades_new",
    )  # fmt: skip
    show_facts({name: f"{told[name]:,}" for name in names}, False)
    for reason, count in told["rejected_by_reason"].items():
        print(f"  {reason} {count:,}")
    for example in told["examples"]:
        print(f"  {example}")
    if told["lots"]:
        print()
        rows = [(code, f"{a:,}", f"{b:,}", f"{b - a:+,}") for code, (a, b) in told["lots"].items()]
        show_table(("lots traded", "in the log", "instead", "difference"), rows)
    print()
    heads = ("profit in USD", "in the log", "instead", "difference")
    rows = [
        (f"account {p['account']}", p["in_the_log"], p["instead"], p["difference"])
        for p in told["profit"]
    ]
    show_table(heads, rows)
    print(f"\n{told['note']}")
