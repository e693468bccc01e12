"""Goodput and MFU from attestation logs that anyone can recompute.

    log.read(path)        verified segments of a log            ``Refused`` names what is wrong
    compute(path)         its account: every nanosecond in a bucket, each bucket somebody's
    importer, probe       records of another library as events; a node that measures itself

Definitions: docs/concepts/normalization.md. The schema of a log: docs/reference/attestation.md.
"""

from pathlib import Path
from typing import NamedTuple

from contracts.goodput.account import Account, Accountant
from contracts.goodput.log import read


class Computed(NamedTuple):
    """The account of a log, and what identifies the log."""

    account: Account
    digest: str
    segments: int
    events: int


def compute(path: Path, *, key: str | None = None) -> Computed:
    """Verify a log and account for its time; ``key`` as in ``log.read``.

    Raises Refused with the first thing wrong; nothing of such a log counts.
    """
    accountant = Accountant(path.name)
    digest, segments, count = "", 0, 0
    for segment in read(path, key=key):
        accountant.take(segment.events, segment.first_line)
        digest, segments, count = segment.digest, segments + 1, count + len(segment.events)
    return Computed(accountant.result(), digest, segments, count)


__all__ = ["Account", "Computed", "compute"]
