"""Recorded logs that every later build must replay: what they are, and how a new one is made.

    PYTHONPATH=tests:. .venv/bin/python -m golden_logs

records those that the present versions lack and never touches one that is there. See
tests/golden/README.md.
"""

import asyncio
import enum
import json
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from blake3 import blake3
from generator import EXPIRING, START_NS, Generator
from recorded import BUSY, Clock, deposits, running, say

from exchange import messages
from exchange.engine import Engine
from exchange.journal.frame import FORMAT_VERSION, Opening
from exchange.journal.reader import LogReader
from exchange.journal.replay import Replayer
from exchange.journal.retention import archive_upto
from exchange.journal.storage import LocalStorage
from exchange.messages import RULES_VERSION, SCHEMA_VERSION

FOLDER: Final = Path(__file__).parent / "golden"
VOCABULARY: Final = FOLDER / "vocabulary.json"
EXPECTED_NAME: Final = "expected.json"
RANDOM_BATCHES: Final = 120


async def busy(directory: Path) -> None:
    """Two epochs of a small market, with texts, a checkpoint and a clean close each."""
    for number, batches in enumerate((BUSY, [deposits(3, 900)])):
        async with running(directory, clock=Clock(START_NS + number)) as sequencer:
            for at, batch in enumerate(batches):
                await say(sequencer, batch, text=f"{number}.{at}")


async def random(directory: Path) -> None:
    """Every kind of command, accepted and refused, with timers. None that a later build may know
    better: numbers that mean nothing today stay out.
    """
    drawn, clock = (
        Generator(20_261_121, dict(EXPIRING) | {"wild": 0, "noise": 0, "correct": 30}),
        Clock(START_NS),
    )
    async with running(directory, Engine(), clock=clock) as sequencer:
        batch = drawn.opening()
        for _ in range(RANDOM_BATCHES):
            clock.now = max(clock.now, drawn.stamp)
            seen = sequencer.tape.last
            commands = [batch[at : at + 64] for at in range(0, len(batch), 64)]
            await say(sequencer, commands)
            for released in sequencer.tape.read(*seen):
                drawn.learn(released.events)
            batch = drawn.batch(25)


async def archived(directory: Path) -> None:
    """Segments of a few frames, all but the last of them compressed, and one end that is torn."""
    async with running(directory, clock=Clock(START_NS), segment_bytes=4_000) as sequencer:
        for number in range(1, 9):
            await say(sequencer, deposits(20, 100 * number), text="archived")
    archive_upto(LocalStorage(directory), 1 << 62)
    (directory / "head").unlink()
    *_, last = sorted((directory / "log").iterdir())
    with last.open("ab") as file:
        file.write(last.read_bytes()[:333])


RECIPES: Final[dict[str, Callable[[Path], Coroutine[Any, Any, None]]]] = {
    "busy": busy,
    "random": random,
    "archived": archived,
}


def name_of(recipe: str) -> str:
    """Return the folder of a recipe's log at the present versions."""
    return f"schema{SCHEMA_VERSION}-rules{RULES_VERSION}-{recipe}"


def file_hashes(directory: Path) -> dict[str, str]:
    """Return the BLAKE3 of every file of a recorded log, by name."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): blake3(path.read_bytes()).hexdigest()
        for path in files
        if path.name != EXPECTED_NAME
    }


def found_in(directory: Path) -> dict[str, Any]:
    """Read and replay a log; return all that must stay as it is."""
    engine, events, texts = Engine(), blake3(), blake3()
    reader = LogReader(directory)
    replayer = Replayer(engine, reader)
    kinds: set[int] = set()

    def note(frame: Any, out: bytes) -> None:
        events.update(out)
        texts.update(frame.texts)
        kinds.update(frame.commands[::64])

    replayer.run(on_batch=note)
    recovered = reader.finish()
    return {
        "format": FORMAT_VERSION,
        "schema": SCHEMA_VERSION,
        "rules": RULES_VERSION,
        "files": file_hashes(directory),
        "frames": replayer.frames,
        "commands": replayer.commands,
        "kinds": sorted(kinds),
        "last_sequence": recovered.last_sequence,
        "last_hash": recovered.last_hash.hex(),
        "epoch": recovered.epoch,
        "stamp": recovered.stamp,
        "tail_bytes": recovered.tail_dropped.size if recovered.tail_dropped else 0,
        "events": replayer.events,
        "events_hash": events.hexdigest(),
        "texts_hash": texts.hexdigest(),
        "state_hash": replayer.state_hash().hex(),
    }


def record(recipe: str) -> bool:
    """Record a recipe's log at the present versions, unless there is one. Whether it was made."""
    target = FOLDER / name_of(recipe)
    if target.exists():
        return False
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "market"
        asyncio.run(RECIPES[recipe](made))
        kept = Path(folder) / "kept"
        shutil.copytree(made / "log", kept / "log")
        if (made / "head").exists():
            shutil.copy(made / "head", kept / "head")
        expected = json.dumps(found_in(kept), indent=1)
        (kept / EXPECTED_NAME).write_text(expected + "\n")
        shutil.copytree(kept, target)
    return True


def vocabulary() -> dict[str, Any]:
    """Every number and field of the present build."""
    numbers = {
        name: {member: int(kind[member]) for member in kind.__members__}
        for name, kind in vars(messages).items()
        if isinstance(kind, enum.EnumType) and kind.__members__ and name != "Limit"
    }
    return {
        "numbers": dict(sorted(numbers.items())),
        "records": {
            f"schema{SCHEMA_VERSION}": {
                "command": [messages.COMMAND.format, *messages.COMMAND_FIELDS],
                "event": [messages.EVENT.format, *messages.EVENT_FIELDS],
                "trade": [messages.TRADE.format, *messages.TRADE_FIELDS],
            }
        },
        "frames": {f"format{FORMAT_VERSION}": list(Opening.__struct_fields__)},
    }


def extended(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return ``old`` with what only ``new`` has; what ``old`` has stays."""
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict)
        merged[key] = extended(old[key], value) if both else old.get(key, value)
    return merged


def main() -> None:
    for recipe in RECIPES:
        made = record(recipe)
        print(f"{name_of(recipe)}: {'recorded' if made else 'is there, and stays as it is'}")
    old = json.loads(VOCABULARY.read_text()) if VOCABULARY.exists() else {}
    VOCABULARY.write_text(json.dumps(extended(old, vocabulary()), indent=1) + "\n")


if __name__ == "__main__":
    main()
