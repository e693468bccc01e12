"""Verify a log from its bytes, with nothing of Hourbook: python docs/verify_log.py DIR

Written from docs/reference/journal.md alone; the one package it needs is blake3. It checks every
frame (length, CRC, hash) and that each follows the one before (exchange, shard, sequence, hash,
epoch, stamp, durable mark), and the head. It prints what it counted; any doubt is one line that
names the file and the byte, and exit code 1. What it cannot check is the engine's part: whether
the commands give the events whose digests are recorded. `hourbook replay DIR --verify` does.
"""

import gzip
import json
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

from blake3 import blake3

HEADER = struct.Struct("<4sHH16sIIQQQIIII32s32s32sII32s")


def check(holds, place, what):
    if not holds:
        sys.exit(f"NOT VERIFIED: {place}: {what}")


def frames(segment, torn):
    """Yield (place, fields of the header, body) of every whole frame; note a torn end."""
    data = segment.read_bytes()
    data, at = (gzip.decompress(data) if segment.suffix == ".gz" else data), 0
    while at < len(data) and (data[at] or data[at:].strip(b"\0")):  # zeros to the end: no frame
        place, header = f"{segment.name} at byte {at}", data[at : at + 208]
        fields = HEADER.unpack(header) if len(header) == 208 else None
        if fields is None or at + 208 + fields[9] * 72 + fields[11] + fields[12] > len(data):
            return torn.append(place)
        check(fields[:2] == (b"HBLF", 1), place, "no frame of format 1")
        end = at + 208 + fields[9] * 72 + fields[11] + fields[12]  # commands, texts, notes
        body = data[at + 208 : end]
        check(zlib.crc32(body, zlib.crc32(header[:168])) == fields[16], place, "CRC differs")
        check(blake3(header[:176] + body).digest() == fields[18], place, "hash differs")
        yield place, fields, body
        at = end


def main(directory):
    last, durable, previous, before, torn = 0, 0, bytes(32), None, []
    kinds, hashes, stamps = Counter(), {0: ""}, []
    for segment in sorted((directory / "log").glob("*.hbl*")):
        check(not torn, *torn[:1] or [""], "torn, and more follows")
        check(int(segment.name[:20]) == last + 1, segment.name, f"{last + 1} was to come next")
        for place, fields, body in frames(segment, torn):
            exchange, shard, epoch, sequence, stamp, mark, count = fields[3:10]
            check(fields[14] == previous, place, "not chained to the frame before it")
            check(sequence == last + 1 and count > 0, place, f"{last + 1} was to come next")
            check(mark < sequence, place, "durable before it was written")
            same, rising = before or ((exchange, shard), (epoch, stamp))
            check(same == (exchange, shard), place, "another exchange or shard")
            check(epoch >= rising[0] and stamp >= rising[1], place, "epoch or stamp falls")
            kinds.update(body[: count * 64 : 64])
            before, previous = ((exchange, shard), (epoch, stamp)), fields[18]
            last, durable, stamps = sequence + count - 1, max(durable, mark), [*stamps[:1], stamp]
            hashes[last] = previous.hex()
    if (head := directory / "head").exists():
        named = json.loads(head.read_bytes())
        check(hashes.get(named["sequence"]) == named["frame_hash"], head, "another frame, or none")
        durable = max(durable, named["sequence"])
    check(last >= durable, *torn[:1] or [directory], f"ends at {last}, {durable} was durable")
    counted = {"frames": len(hashes) - 1, "commands": last, "by_kind": dict(sorted(kinds.items()))}
    found = {"stamps": stamps, "last_hash": previous.hex(), "torn_end": torn}
    print(json.dumps({"verified": True} | counted | found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
