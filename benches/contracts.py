"""The contract registry compared with parsing its TOML files, and listing compared with that.

    hourbook bench contracts [--json] [--rounds N] [--record]

``contracts.toml`` only parses the product files. ``contracts.load`` reads them and the files they
refer to, checks every field and makes the specs. ``contracts.list`` lists a day's instruments. All
are timed in the same rounds.
"""

import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from statistics import median
from typing import Final

from benches.rows import Row, bench_parser, publish, row
from contracts import registry
from contracts.references import FILES

ROUNDS: Final = 30
DAY: Final = date(2026, 12, 1)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def registry_rows(rounds: int = ROUNDS) -> Iterator[Row]:
    """Yield the milliseconds of each step, as median of the rounds, and their ratios within a
    round."""
    files = registry.shipped()
    products = [text.decode() for name, text in files.items() if name not in FILES]
    loaded = registry.read(files)
    steps: dict[str, Callable[[], object]] = {
        "contracts.toml": lambda: [tomllib.loads(text) for text in products],
        "contracts.load": lambda: registry.read(files),
        "contracts.list": lambda: (loaded.listing(DAY), loaded.combinations(DAY)),
    }
    if len(loaded.specs) < len(products):
        raise RuntimeError("the registry has fewer specs than files")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, work in steps.items():
            times[name].append(seconds(work))
    base = "contracts.toml"
    yield row(base, median(times[base]) * 1e3, "ms")
    for name in ("contracts.load", "contracts.list"):
        ratio = median(a / b for a, b in zip(times[name], times[base], strict=True))
        made = row(name, median(times[name]) * 1e3, "ms")
        yield Row(made.name, made.value, made.unit, float(f"{ratio:.4g}"), base)


def main(arguments: Sequence[str]) -> None:
    parser = bench_parser("contracts", __doc__, ROUNDS)
    chosen = parser.parse_args(arguments)
    publish(registry_rows(chosen.rounds), as_json=chosen.json, record=chosen.record)


if __name__ == "__main__":
    main(sys.argv[1:])
