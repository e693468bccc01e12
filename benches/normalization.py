"""The normalization on real data: what it predicts, what it would have charged, and its limits.

    hourbook bench normalization [--data FOLDER] [--plot FOLDER] [--search TRIES] [--json]

Three parts: GPU-minutes of the last round of published benchmark results predicted from earlier
rounds (benches/mlperf.py), months of a fault trace delivered and trued up, and how much of price
dispersion a factor explains. The data are not part of the project; docs/concepts/normalization.md
reports the results.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benches import mlperf, normalization_faults, normalization_prices
from benches.rows import Row, bench_parser, folder, publish, row, whole

_LOG: Final = "log GPU-minutes x 100"
DATA: Final = Path(__file__).parents[2] / "shared" / "data"


def forecast_rows(results: mlperf.Results) -> Iterator[Row]:
    """Yield the forecast of the last round beside simpler ones, and how the model was chosen."""
    for round_, (rms, middle, _) in zip(
        mlperf.ROUNDS[1:], mlperf.validate(results, mlperf.CHOSEN), strict=True
    ):
        yield row(f"mlperf.chosen_on_{round_}.rms", 100 * rms, _LOG)
        yield row(f"mlperf.chosen_on_{round_}.median", 100 * middle, _LOG)
    found = mlperf.verdict(results)
    base = found.scores["class_and_size"]
    yield row("mlperf.results", int(found.known.sum()), "results of 5.1")
    for name, (rms, middle) in found.scores.items():
        yield row(f"mlperf.{name}.rms", 100 * rms, _LOG, 100 * base[0], "class_and_size")
        yield row(f"mlperf.{name}.median", 100 * middle, _LOG, 100 * base[1], "class_and_size")
    for benchmark, count, rms, middle in mlperf.by_group(
        [str(name) for name in found.new.benchmark[found.known]], found.off[found.known]
    ):
        yield row(f"mlperf.{benchmark}.rms", 100 * rms, f"log x 100, {count} results")
        yield row(f"mlperf.{benchmark}.median", 100 * middle, f"log x 100, {count} results")
    worst, rest = mlperf.worst_submitter(found)
    yield row(f"mlperf.without_{worst.replace(' ', '-')}.rms", 100 * rest, "log x 100, seen after")
    pairs, correlation, spread = mlperf.persistence(results)
    yield row("mlperf.submitter_pairs", pairs, "pairs of rounds")
    yield row("mlperf.submitter_correlation", correlation, "round to next round")
    yield row("mlperf.submitter_sd", 100 * spread, _LOG)


def rows(data: Path, plot: Path | None) -> Iterator[Row]:
    """Yield every row; draw the pictures if a folder for them is given."""
    results = mlperf.load(data)
    yield from forecast_rows(results)
    there = normalization_faults.node_months(data)
    yield from normalization_faults.rows(there)
    count, work_sd, robust = mlperf.work_spread(results)
    yield row("mlperf.same_class_and_size.sd", 100 * work_sd, f"log x 100, {count} results")
    yield row("mlperf.same_class_and_size.robust_sd", 100 * robust, f"log x 100, {count} results")
    yield from normalization_prices.rows(data, work_sd, robust)
    if plot is not None:
        from benches import normalization_plots  # noqa: PLC0415 - runs without matplotlib

        normalization_plots.forecast(mlperf.verdict(results), plot)
        normalization_plots.months(there, plot)
        normalization_plots.prices(normalization_prices.quotes(data), work_sd, plot)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("normalization", "The normalization against real data.")
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        help="the folder of the data files (shared/data beside the checkout)",
    )
    parser.add_argument("--plot", type=folder, help="a folder for the pictures (needs matplotlib)")
    parser.add_argument(
        "--search", type=whole, help="choose the model anew in so many tries, and stop"
    )
    parser.add_argument("--seed", type=int, default=12, help="of the search (%(default)s)")
    options = parser.parse_args(arguments)
    if not (options.data / mlperf.FILE).is_file():
        wanted = f"no {mlperf.FILE} in {options.data}; name its folder with --data"
        print(f"bench normalization: {wanted}", file=sys.stderr)
        return 2
    if options.search is not None:
        cost, scale = mlperf.search(mlperf.load(options.data), options.seed, options.search)
        print(f"{cost:.5f}", {name: round(value, 3) for name, value in scale.items()})
        return 0
    publish(rows(options.data, options.plot), as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
