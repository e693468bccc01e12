"""The settlement index: how far one provider can move it, and how long a month of it takes.

hourbook bench index [--json] [--panel FILE] [--plot FOLDER] [--seeds N] [--record]
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benches import index_manipulation, index_panel, index_speed
from benches.rows import Row, bench_parser, folder, publish, whole


def rows(seeds: int, panel: Path | None, plot: Path | None) -> Iterator[Row]:
    """Yield every row; draw the pictures if a folder for them is given."""
    points = index_manipulation.points(seeds)
    yield from index_manipulation.rows(points, seeds)
    yield from index_speed.rows()
    if panel is not None:
        yield from index_panel.rows(panel)
    if plot is not None:
        from benches import index_plots  # noqa: PLC0415 - the bench runs without matplotlib

        index_plots.curve(points, plot)
        if panel is not None:
            methodology, batch = index_panel.load(panel)
            codes = sorted(methodology.indices)
            panels = [index_panel.run(methodology, batch, code) for code in codes]
            index_plots.fixings([one for one in panels if not np.isnan(one.fixings).all()], plot)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("index", "What one provider can do to the index, and its speed.")
    parser.add_argument("--panel", type=Path, help="a CSV of real observations to attack as well")
    parser.add_argument("--plot", type=folder, help="a folder for the pictures (needs matplotlib)")
    parser.add_argument("--seeds", type=whole, default=index_manipulation.SEEDS,
        help="made-up markets to attack (%(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.panel is not None and not options.panel.is_file():
        parser.error(f"--panel {options.panel}: there is no such file")
    publish(
        rows(options.seeds, options.panel, options.plot),
        as_json=options.json,
        record=options.record,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
