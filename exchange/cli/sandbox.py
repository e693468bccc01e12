"""``hourbook sandbox``: a market for testing bots."""

import asyncio
import contextlib
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import typer

from exchange.cli import signals
from exchange.cli.access import Json
from exchange.cli.market import listening
from exchange.cli.output import Exit, fail, progress, show_facts, show_json

if TYPE_CHECKING:
    from exchange.gateway.faults import Rates

PORT: Final = 8000
FAULTS_HELP: Final = "Faults by chance: drop, delay, duplicate and gap in thousandths of frames."
ASK_SECONDS: Final = 10.0


def sandbox(
    clock: Annotated[
        Literal["real", "virtual"],
        typer.Option(help="Serve on a port, or run a --bot in simulated time."),
    ] = "real",
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed, the same makers, takers and faults.")
    ] = 1,
    bot: Annotated[
        str, typer.Option(help="With --clock virtual: a bot and its arguments, as 'maker H100Z26'.")
    ] = "",
    seconds: Annotated[
        int, typer.Option(min=0, help="Seconds to run; 0: until stopped, virtual 300 or the tape.")
    ] = 0,
    faults: Annotated[str, typer.Option(metavar="drop=2,gap=5", help=FAULTS_HELP)] = "",
    product: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Product that makers quote; repeatable. [default: H100]"),
    ] = None,
    tape: Annotated[
        Path | None,
        typer.Option(help="With --clock virtual: a recorded day (Parquet), not makers."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Keep the market in this empty directory; deleted if absent."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: a free one.")
    ] = PORT,
    fault: Annotated[
        Literal["drop", "delay", "duplicate", "gap"] | None,
        typer.Option(help="Demand a fault of the sandbox at --url, and end."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=10_000, help="With --fault: frames that meet it.")
    ] = 1,
    delay_ms: Annotated[
        int, typer.Option(min=0, max=60_000, help="Milliseconds that a delay lasts.")
    ] = 200,
    url: Annotated[
        str, typer.Option(help="With --fault: address of a served sandbox.")
    ] = f"http://localhost:{PORT}",
    as_json: Json = False,
) -> None:
    """Run a market with seeded makers, and faults between it and you.

    Served, it prints one JSON line with its addresses and a key. With --clock virtual it runs a
    bot in virtual time: the same seed gives the same log, byte for byte.
    """
    if fault is not None:
        return show_facts(_demand(url, fault, count, delay_ms), as_json)
    if data is not None and data.exists():
        _refuse_used(data)
    if bool(bot) != (clock == "virtual"):
        fail("--clock virtual runs a --bot; any bot may connect to a sandbox that is served",
             Exit.USAGE)  # fmt: skip
    if tape is not None and clock != "virtual":
        fail("a --tape is played with --clock virtual", Exit.USAGE)
    rates = _rates(faults, delay_ms)
    with signals.interrupting(), _folder(data, in_memory=clock == "virtual") as folder:
        if clock == "virtual":
            _run(bot, seconds, folder, seed, product, rates, tape, as_json)
        else:
            asyncio.run(_serve(folder, seed, product, rates, host, port, seconds))


def _refuse_used(data: Path) -> None:
    """Fail unless the directory is empty: whose key file, keys or ledger would be written over?"""
    if not data.is_dir():
        fail(f"{data} is no directory; a sandbox begins with an empty one", Exit.USAGE)
    if (data / "log").exists():
        fail(f"there is a market in {data}; a sandbox begins with an empty directory", Exit.USAGE)
    for one in data.iterdir():
        fail(f"{data} holds {one.name}; a sandbox begins with an empty directory", Exit.USAGE)


@contextlib.contextmanager
def _folder(data: Path | None, *, in_memory: bool) -> Iterator[Path]:
    """Yield the given directory, or a temporary one."""
    if data is not None:
        yield data
        return
    from exchange.sim.storm import memory_folder  # noqa: PLC0415

    place = memory_folder() if in_memory else None
    with tempfile.TemporaryDirectory(prefix="hourbook-sandbox-", dir=place) as folder:
        yield Path(folder)


def _rates(text: str, delay_ms: int) -> "Rates":
    from exchange.gateway.faults import Rates  # noqa: PLC0415

    given = dict(part.partition("=")[::2] for part in text.split(",") if part)
    try:
        return msgspec.convert({"delay_ms": delay_ms, **given}, Rates, strict=False)
    except msgspec.ValidationError as error:
        fail(f"--faults {text}: {error}; write drop=2,gap=5, in thousandths", Exit.USAGE)


def _scene(products: list[str] | None) -> Any:
    from exchange.sim.crowd import Scene  # noqa: PLC0415

    return Scene(products=tuple(dict.fromkeys(products))) if products else Scene()


def _run(
    command: str,
    seconds: int,
    folder: Path,
    seed: int,
    products: list[str] | None,
    rates: "Rates",
    tape: Path | None,
    as_json: bool,
) -> None:
    from clients.bots import options  # noqa: PLC0415
    from clients.errors import HourbookError  # noqa: PLC0415
    from exchange.sim.loop import Stuck  # noqa: PLC0415
    from exchange.sim.recorded import Tape  # noqa: PLC0415
    from exchange.sim.sandbox import END_SECONDS, Deaf, VirtualSandbox  # noqa: PLC0415

    try:
        bot, day = options.load(command), None if tape is None else Tape.load(tape)
    except HourbookError as error:
        fail(str(error), Exit.USAGE)
    box = VirtualSandbox(folder, seed=seed, scene=_scene(products), rates=rates, tape=day)
    # With --json stdout is read by a program: what the bot prints goes to stderr.
    said: Any = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with progress("trading", printing=True) as advance, said:
            box.on_second = advance
            report = box.run(bot, seconds)
    except HourbookError as error:
        fail(f"the run ended with {type(error).__name__}: {error}")
    except Stuck as error:
        fail(f"the run ended with Stuck: {error}; a bot must wait now and then")
    except Deaf:
        fail(f"the bot went on for {END_SECONDS:.0f} seconds after it was asked to stop")
    except TimeoutError as error:  # the bot's own error
        traceback.print_exc()
        fail(f"the run ended with TimeoutError: {error}".rstrip(": "))
    if as_json:
        return show_json(report)
    show_facts({name: getattr(report, name) for name in report.__struct_fields__}, False)


async def _serve(
    folder: Path,
    seed: int,
    products: list[str] | None,
    rates: "Rates",
    host: str,
    port: int,
    seconds: int,
) -> None:
    from clients.errors import HourbookError  # noqa: PLC0415
    from exchange.app import collector  # noqa: PLC0415
    from exchange.sim.sandbox import OPEN_SECONDS, Sandbox  # noqa: PLC0415

    collector.give_back_tables()
    stopped = signals.stop_signal()
    box = Sandbox(folder, seed=seed, scene=_scene(products), rates=rates)
    try:
        with listening(host, port):
            addresses = await box.open(host, port)
        show_json(addresses)
        if seconds:
            asyncio.get_running_loop().call_later(seconds, stopped.set)
        await box.run(stopped)
    except HourbookError as error:
        fail(f"the sandbox ended with {type(error).__name__}: {error}")
    except TimeoutError:
        fail(f"the makers had no quotes within {OPEN_SECONDS:.0f} seconds; is the machine busy?")
    finally:
        await box.close()
    show_json({"stopped": True, "faults": box.trouble.told.met})


def _demand(url: str, fault: str, count: int, delay_ms: int) -> dict[str, Any]:
    import json  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415
    from http.client import HTTPException  # noqa: PLC0415

    from exchange.gateway.relay import FAULTS_PATH  # noqa: PLC0415

    order: dict[str, Any] = {"fault": fault, "count": count}
    if fault == "delay":
        order["delay_ms"] = delay_ms
    body = json.dumps(order).encode()
    address = url.rstrip("/").removesuffix("/api/v1") + FAULTS_PATH
    try:
        with urllib.request.urlopen(address, body, timeout=ASK_SECONDS) as answer:
            told: dict[str, Any] = json.load(answer)
    except (OSError, ValueError, HTTPException) as error:
        fail(f"no sandbox answers at {url}: {error}", Exit.UNUSABLE)
    return told
