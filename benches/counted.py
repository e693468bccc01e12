"""The process that callgrind counts: prepare an engine with some batches, then apply the others.

    python -m benches.counted FILE        as benches.instructions writes it

It is a separate process with few imports, since callgrind slows everything about fifty times.
"""

import sys
from pathlib import Path

import msgspec

from exchange.engine import Engine
from exchange.messages import COMMAND_BYTES
from exchange.sim.flow_records import apply_all


def main() -> None:
    written = Path(sys.argv[1]).read_bytes()
    stamp_ns, ready, counted = msgspec.msgpack.decode(
        written, type=tuple[int, list[bytes], list[bytes]]
    )
    engine = Engine()
    sequence = 1
    for batch in ready:
        engine.apply(batch, sequence, stamp_ns)
        sequence += len(batch) // COMMAND_BYTES
    apply_all(engine.apply, counted, sequence, stamp_ns)


if __name__ == "__main__":
    main()
