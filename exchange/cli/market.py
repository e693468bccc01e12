"""``hourbook serve`` and ``hourbook demo``: markets that run."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.cli.access import DATA_HELP, DEFAULT_DATA, Json
from exchange.cli.output import Exit, fail, progress, show_json


def serve(
    data: Annotated[Path, typer.Option("--data", help=DATA_HELP)] = DEFAULT_DATA,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.")] = 8000,
    as_json: Json = True,
) -> None:
    """Serve the market of a data directory; an empty one is made ready to trade first.

    Prints one JSON line with its addresses when it is ready and one with the final state's hash
    when it was stopped by SIGTERM or SIGINT.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    asyncio.run(_serve(data, host, port))


async def _serve(data: Path, host: str, port: int) -> None:
    from exchange.app import Market  # noqa: PLC0415
    from exchange.app.collector import calm_collector  # noqa: PLC0415

    stopped = stop_signal()
    with progress("replaying the log") as advance:
        market = await Market.start(data, progress=advance)
    calm_collector()
    try:
        addresses = await market.listen(host, port)
        show_json(addresses)
        await until(stopped, market.failed())
    finally:
        state_hash = await market.stop()
    show_json({"stopped": True, "sequence": market.desk.sequence, "state_hash": state_hash})


def stop_signal() -> asyncio.Event:
    """An event that SIGINT or SIGTERM sets."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def until(stopped: asyncio.Event, failed: Any) -> None:
    """Wait for the stop, or raise the failure that comes before it."""
    tasks = [asyncio.ensure_future(stopped.wait()), asyncio.ensure_future(failed)]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    for task in done:
        task.result()


def demo(
    seconds: Annotated[int, typer.Option(min=1, help="How long the market trades.")] = 20,
    seed: Annotated[int, typer.Option(help="Seeds the participants.")] = 1,
    stay: Annotated[bool, typer.Option("--serve", help="Leave the market open.")] = False,
    as_json: Json = False,
) -> None:
    """Run a market day with real clients, settle it, and prove it.

    Exit code 0 only if every check of the proof held.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    if not asyncio.run(_demo(seconds, seed, stay, as_json)):
        fail("the proof does not hold; see the checks above", Exit.NO)


async def _demo(seconds: int, seed: int, stay: bool, as_json: bool) -> bool:
    import tempfile  # noqa: PLC0415

    from exchange.sim import demo  # noqa: PLC0415

    stopped = stop_signal()
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
        return proof.holds
