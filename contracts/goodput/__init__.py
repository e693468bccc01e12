"""Goodput and model FLOP utilization (MFU), recomputable by anyone from attestation logs.

    log.read(path)        the verified segments of a log; ``Refused`` names the first fault
    compute(path)         its account: all elapsed time by bucket and by responsible party
    importer              converts records of another library into events
    probe                 measures the devices of the machine it runs on

Definitions: docs/concepts/normalization.md. The schema of a log: docs/reference/attestation.md.
"""

from pathlib import Path
from typing import NamedTuple

from contracts.goodput.account import Account, Accountant
from contracts.goodput.log import read


class Computed(NamedTuple):
    """The account of a log, with the log's final digest (hex) and its segment and event counts."""

    account: Account
    digest: str
    segments: int
    events: int


def compute(path: Path, *, key: str | None = None) -> Computed:
    """Verify a log and account for its time; ``key`` as in ``log.read``.

    Raises Refused with the first fault, and then nothing of the log counts; OSError if it cannot be
    read.
    """
    accountant = Accountant(path.name)
    digest, segments, count = "", 0, 0
    for segment in read(path, key=key):
        accountant.take(segment.events, segment.first_line)
        digest, segments, count = segment.digest, segments + 1, count + len(segment.events)
    return Computed(accountant.result(), digest, segments, count)


__all__ = ["Account", "Computed", "compute"]
