"""How a command reaches its market: by ``--url``, by the admin socket of ``--data``, or directly.

A directory without a server is opened in this process, the request is put into its log, and it is
closed again: the same code runs as in a server, without a gateway.
"""

import asyncio
import inspect
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from exchange.app.requests import AnyRequest
from exchange.cli.output import Exit, fail, show_facts

if TYPE_CHECKING:
    from exchange.app.asking import Answer

DATA_HELP = "The market's data directory."
Data = Annotated[Path, typer.Option("--data", help=DATA_HELP)]
Json = Annotated[bool, typer.Option("--json", help="One line of JSON, not text for people.")]
Url = Annotated[str, typer.Option("--url", help="Address of a serving market, http://HOST:PORT.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key", help="File with the admin key, for --url; DIR/admin.key if absent."),
]
Account = Annotated[
    int, typer.Argument(help="The account's number; `hourbook clear fees --json` lists them.")
]
Expiry = Annotated[str, typer.Argument(metavar="CODE", help="An instrument, as H100Z26.")]
DEFAULT_DATA = Path("market")
DATABASES: Final = {
    "ledger.db": "the next start makes it of the log",
    "keys.db": "the next serve makes admin.key again, and every other key must be made again",
}


Show = Callable[[dict[str, Any], bool], None]
Make = Callable[..., AnyRequest]


def market_command(
    app: typer.Typer,
    name: str,
    *,
    create: bool = False,
    show: Show = show_facts,
    negative: bool = False,
) -> Callable[[Make], Make]:
    """Register a command that sends one request to a market and shows the result.

    The decorated function builds the request from the command's own arguments; the options that
    every such command has in common are added here. ``create`` as in ``operate``. ``negative``: an
    argument may be negative; then unknown options are taken as arguments.
    """

    def common(
        data: Data = DEFAULT_DATA, url: Url = "", key: KeyFile = None, as_json: Json = False
    ) -> None: ...

    def register(make: Make) -> Make:
        def command(
            data: Path, url: str, key: Path | None, as_json: bool, **arguments: object
        ) -> None:
            show(operate(make(**arguments), data, url, key, create=create), as_json)

        own, added = inspect.signature(make), inspect.signature(common)
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in (*own.parameters.values(), *added.parameters.values())
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {}  # so that typer reads the signature
        command.__doc__ = make.__doc__
        context = {"ignore_unknown_options": True} if negative else None
        app.command(name, context_settings=context)(command)
        return make

    return register


def need_log(directory: Path) -> None:
    """Fail if a directory has no market's log."""
    if not (directory / "log").is_dir():
        fail(f"no log in {directory}; name a market's data directory", Exit.UNUSABLE)


@contextmanager
def databases(data: Path) -> Iterator[None]:
    """Turn a database error into a failure that names the database, damaged or of another build,
    and what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        from exchange.clearing.store import Damaged  # noqa: PLC0415
        from exchange.gateway.auth import OtherKeys  # noqa: PLC0415

        if isinstance(error, OtherKeys):
            fail(str(error), Exit.UNUSABLE)
        for name, then in DATABASES.items():
            contradicts = isinstance(error, Damaged) and name == "ledger.db"
            if contradicts or not _is_whole(data / name):
                fail(
                    f"{data / name} is damaged ({error}): while nobody serves the directory, delete"
                    f" it and what is beside it under its name ({name}-wal, {name}-shm); {then}",
                    Exit.UNUSABLE,
                )
        places = [data, *(data / name for name in DATABASES if (data / name).exists())]
        for place in places:
            if not os.access(place, os.W_OK):
                fail(
                    f"{place} cannot be written to by this user ({error}), and to read a ledger"
                    " that nobody serves takes that as well: use the market's own user, or a copy",
                    Exit.UNUSABLE,
                )
        fail(f"{data}: {error}; if its disk is full, free some space", Exit.UNUSABLE)


def _is_whole(file: Path) -> bool:
    """Whether a database is absent, or passes SQLite's check."""
    if not file.is_file():
        return True
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return bool(database.execute("pragma quick_check").fetchone() == ("ok",))
    except sqlite3.OperationalError:  # locked, or no space: this says nothing of its content
        return True
    except sqlite3.DatabaseError:
        return False


def operate(
    request: AnyRequest,
    data: Path,
    url: str = "",
    key: Path | None = None,
    *,
    create: bool = False,
) -> dict[str, Any]:
    """Send an operator's request to the market and return the result.

    ``create``: a market is created in a directory that has none. Fails with the market's own text.
    """
    if url:
        answer = _ask_url(url, key or data / "admin.key", request)
    else:
        if not create and not (data / "log").is_dir():
            fail(f"no market in {data}; `hourbook serve --data {data}` starts one", Exit.UNUSABLE)
        with databases(data):
            answer = asyncio.run(_at(data, request))
    if not answer.ok:
        fail(answer.error)
    return answer.result


def _ask_url(url: str, key: Path, request: AnyRequest) -> "Answer":
    from http.client import HTTPException  # noqa: PLC0415
    from urllib.error import URLError  # noqa: PLC0415

    from exchange.app import asking  # noqa: PLC0415

    if not key.is_file():
        fail(f"no admin key in {key}; name its file with --key", Exit.UNUSABLE)
    try:
        msgspec.json.decode(key.read_bytes(), type=asking.AdminKey)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        made = "`hourbook keys create 0 --scope admin` prints one"
        fail(f"{key} holds no admin key with its secret: {error}; {made}", Exit.UNUSABLE)
    try:
        return asking.ask_url(url, key, request)
    except msgspec.DecodeError as error:
        fail(f"{url} does not answer as a market does: {error}", Exit.UNUSABLE)
    except (URLError, ValueError) as error:
        todo = "write http://HOST:PORT"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):  # never advise to speak in the clear
            todo = "name a certificate of one's own in SSL_CERT_FILE"
        fail(f"no market answers at {url}: {error}; {todo}", Exit.UNUSABLE)
    except (OSError, HTTPException) as error:
        why = f"{type(error).__name__}: {error}"
        fail(f"{url} has not answered, and may have done it ({why}); look before you ask again",
             Exit.UNUSABLE)  # fmt: skip


async def _at(data: Path, request: AnyRequest) -> "Answer":
    from exchange.app import asking  # noqa: PLC0415

    answer = await asking.ask(data, request)
    if answer is not None:
        return answer
    from exchange.app import Market, admin  # noqa: PLC0415 - a second's work that asking spares

    market = await Market.start(data, serving=False)
    try:
        return await admin.answer(request, market.operations)
    finally:
        await market.stop()
