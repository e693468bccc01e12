"""``hourbook serve`` and ``hourbook demo``: running markets."""

import asyncio
import contextlib
import errno
import logging
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from exchange.cli import signals
from exchange.cli.access import DATA_HELP, Json, databases
from exchange.cli.config import ConfigFile, gather, show_settings
from exchange.cli.output import Exit, fail, progress, show_json

if TYPE_CHECKING:
    from exchange.app.settings import Settings

# None: asyncio of Python 3.13 could bind none of the host's addresses.
NO_ADDRESS: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, None)
AlwaysJson = Annotated[
    bool,
    typer.Option("--json", help="Without it, too, it prints JSON, except with --show-config."),
]
_log: Final = logging.getLogger("hourbook")


def serve(
    data: Annotated[
        str | None, typer.Option("--data", help=DATA_HELP + " [default: market]")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0: a free one. [default: 8000]")
    ] = None,
    tls: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="CERT KEY", help="Two PEM files: serve TLS only."),
    ] = None,
    deribit: Annotated[
        bool | None,
        typer.Option("--deribit/--no-deribit", help="Serve the Deribit dialect too. [default: no]"),
    ] = None,
    heads: Annotated[
        str | None, typer.Option(help="Directory for signed heads, on another disk.")
    ] = None,
    gateways: Annotated[
        int | None, typer.Option(help="Processes that serve the clients; 0: this one. [default: 0]")
    ] = None,
    processor: Annotated[
        int | None, typer.Option(help="Processor this one keeps to; -1: any. [default: -1]")
    ] = None,
    file: ConfigFile = None,
    log_format: Annotated[
        str | None, typer.Option(help="text or json, a line each on stderr. [default: text]")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. [default: info]")
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the settings in force and stop.")
    ] = False,
    as_json: AlwaysJson = False,
) -> None:
    """Serve the market of a data directory; an empty one is made ready to trade first.

    Prints one JSON line with its addresses when it is ready and one with the final state's hash
    when it was stopped by SIGTERM or SIGINT.
    """
    flags = {
        "serve.data": data,
        "serve.host": host,
        "serve.port": port,
        "serve.tls_certificate": tls and tls[0],
        "serve.tls_key": tls and tls[1],
        "serve.deribit": deribit,
        "serve.heads": heads,
        "serve.gateways": gateways,
        "serve.processor": processor,
        "serve.log_format": log_format,
        "serve.log_level": log_level,
    }
    effective = gather(file, flags)
    if show_config:
        show_settings(effective, as_json)
        return
    from exchange.app import logs, processors  # noqa: PLC0415

    logs.configure(effective.settings.serve.log_format, effective.settings.serve.log_level)
    try:
        processors.keep_to(effective.settings.serve.processor)
    except processors.NoSuchProcessor as error:
        fail(f"serve.processor: {error}", Exit.USAGE)
    with databases(Path(effective.settings.serve.data)):
        asyncio.run(_serve(effective.settings))


async def _serve(settings: "Settings") -> None:
    from exchange.app import Market, collector  # noqa: PLC0415

    collector.give_back_tables()
    collector.open_many_files()
    serve = settings.serve
    # During a replay the loop gets no turn to see a signal, and there is nothing yet to stop in
    # order.
    with signals.noted() as asked, progress("replaying the log") as advance:
        told = signals.until(asked, advance)
        market = await Market.start(Path(serve.data), progress=told, settings=settings)
    stopped = signals.stop_signal()
    if asked.is_set():
        stopped.set()
    collector.calm_collector()
    collector.short_turns()
    try:
        with listening(serve.host, serve.port):
            addresses = await market.listen(serve.host, serve.port)
        _log.info("serving", extra={"facts": msgspec.to_builtins(addresses)})
        show_json(addresses)
        await until(stopped, market.failed())
        _log.info("stopping", extra={"facts": {"sequence": market.desk.sequence}})
    finally:
        state_hash = await market.stop()
    end = {"stopped": True, "sequence": market.desk.sequence, "state_hash": state_hash}
    _log.info("stopped", extra={"facts": end})
    show_json(end)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[None]:
    """Turn an error of listening into a failure that names the address."""
    try:
        yield
    except (OSError, UnicodeError) as error:  # UnicodeError: the host is no domain name
        of_address = not isinstance(error, OSError) or error.errno in NO_ADDRESS
        if of_address or isinstance(error, socket.gaierror):
            where = f"{host}, port {port}"
            fail(f"cannot listen on {where} (--host, --port): {error}", Exit.UNUSABLE)
        raise


async def until(stopped: asyncio.Event, failed: Any) -> None:
    """Wait for the stop, or raise the failure that comes first."""
    tasks = [asyncio.ensure_future(stopped.wait()), asyncio.ensure_future(failed)]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    for task in done:
        task.result()


def demo(
    seconds: Annotated[int, typer.Option(min=1, help="Seconds that the market trades.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed, the same participants.")] = 1,
    stay: Annotated[
        bool,
        typer.Option(
            "--serve", help="Leave the market open until Ctrl-C, with a key for a visitor."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a market day with real clients, settle it, and prove it.

    Exit code 0 only if every check of the proof held; 130 if it was interrupted before its end.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    if not asyncio.run(_demo(seconds, seed, stay, as_json)):
        fail("the proof does not hold; see the checks above", Exit.NO)


async def _demo(seconds: int, seed: int, stay: bool, as_json: bool) -> bool:
    from exchange.sim import demo  # noqa: PLC0415

    stopped = signals.stop_signal()
    with tempfile.TemporaryDirectory(prefix="hourbook-demo-") as folder:
        with progress("trading") as advance:
            day = await demo.run_day(Path(folder), seconds, seed, stopped, advance)
        async with day:
            proof = await day.settle_and_prove()
            if as_json:
                show_json(proof)
            else:
                print(proof.text())
            if stay and not stopped.is_set():
                visit = await day.invite()
                show_json(visit) if as_json else print(visit.text(), flush=True)
                await until(stopped, day.market.failed())
        if proof.holds and not day.is_whole:
            fail("interrupted: what holds is above; nobody's hedge was done", Exit.INTERRUPTED)
        return proof.holds
