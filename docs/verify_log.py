"""Verify a log from its bytes, with nothing of Hourbook: python docs/verify_log.py DIR

Written from docs/reference/journal.md alone; the one package it needs is blake3. It checks every
frame (length, CRC, hash) and that each follows the one before (exchange, shard, sequence, hash,
epoch, stamp, durable mark), and the head. An end that is no whole frame is torn_end, if nothing
says that it was durable. It prints what it counted; any doubt, and a log without a frame, is one
line that names the file and the byte, and exit code 1. What it cannot check is the engine's part:
whether the commands give the events whose digests are recorded. That is what `hourbook replay DIR
--verify` does.
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


def frame(data, at):
    """Return what is wrong with the frame at ``at`` ("" if it is whole), its fields and body."""
    header = data[at : at + 208].ljust(208, b"\0")
    fields = HEADER.unpack(header)
    end = at + 208 + fields[9] * 72 + fields[11] + fields[12]  # commands, texts, notes
    body = data[at + 208 : end]
    faults = (
        ("cut short", at + 208 > len(data)),
        ("no frame of format 1", fields[0] != b"HBLF"),
        ("cut short", end > len(data)),
        ("CRC differs", zlib.crc32(body, zlib.crc32(header[:168])) != fields[16]),
        ("hash differs", blake3(header[:176] + body).digest() != fields[18]),
    )
    return next((what for what, is_so in faults if is_so), ""), fields, body


def frames(segment, torn, marks):
    """Yield (place, fields of the header, body) of every whole frame up to the first damage; note
    where that is, and the durable marks of whole frames beyond it."""
    data = segment.read_bytes()
    data, at = (gzip.decompress(data) if segment.suffix == ".gz" else data), 0
    while at < len(data) and (data[at] or data[at:].strip(b"\0")):  # zeros to the end: no frame
        place, (fault, fields, body) = f"{segment.name} at byte {at}", frame(data, at)
        check(fields[0] != b"HBLF" or fields[1] <= 1, place, "no frame of format 1")
        if fault:
            torn.append((place, fault))
            while (at := data.find(b"HBLF", at + 1)) >= 0:
                fault, fields, _ = frame(data, at)
                marks.add(0 if fault else fields[8])
            return
        yield place, fields, body
        at += 208 + len(body)


def main(directory):
    last, previous, before, log, head = 0, bytes(32), None, directory / "log", directory / "head"
    kinds, hashes, stamps, torn, marks = Counter(), {0: ""}, [], [], {0}
    gone = [one for one in log.glob("*.hbl.gz") if not (log / one.stem).exists()]
    for segment in sorted([*log.glob("*.hbl"), *gone]):  # archived ones, if the plain one is gone
        check(not torn, *[*torn, ("", "")][0])
        check(int(segment.name[:20]) == last + 1, segment.name, f"{last + 1} was to come next")
        for place, fields, body in frames(segment, torn, marks):
            exchange, shard, epoch, sequence, stamp, mark, count = fields[3:10]
            check(fields[14] == previous, place, "not chained to the frame before it")
            check(sequence == last + 1 and count > 0, place, f"{last + 1} was to come next")
            check(mark < sequence, place, "durable before it was written")
            same, rising = before or ((exchange, shard), (epoch, stamp))
            check(same == (exchange, shard), place, "another exchange or shard")
            check(epoch >= rising[0] and stamp >= rising[1], place, "epoch or stamp falls")
            kinds.update(body[: count * 64 : 64])
            before, previous = ((exchange, shard), (epoch, stamp)), fields[18]
            marks.add(mark)
            last, stamps = sequence + count - 1, [*stamps[:1], stamp]
            hashes[last] = previous.hex()
    named = json.loads(head.read_bytes()) if head.exists() else {"sequence": 0, "frame_hash": ""}
    check(not torn or last >= max(marks | {named["sequence"]}), *[*torn, ("", "")][0])
    same = hashes.get(named["sequence"]) == named["frame_hash"]
    check(same and last, head if last else log, "another frame, or none")
    counted = {"frames": len(hashes) - 1, "commands": last, "by_kind": dict(sorted(kinds.items()))}
    found = {"stamps": stamps, "last_hash": previous.hex(), "torn_end": [at for at, _ in torn]}
    print(json.dumps({"verified": True} | counted | found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
