"""The GPU-seconds that a site's attestation logs of one UTC day show for a delivery.

    available  time of the logs without the seller's outages x the GPUs named then, at most those
               sold; rounded down
    lost       the seller's other losses x the most GPUs named at once; rounded up, at most
               ``available``

Time that no log covers counts as unavailable. No GPU may be in two logs of one moment, and one that
replaces another does not add to it. GPUs beyond the number sold never count: twice as many for half
the day are half the day. Losses are scaled down by the share of GPU time beyond the number sold.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Final, NamedTuple

from contracts.goodput import Computed
from contracts.goodput.account import Presence
from contracts.goodput.events import Bucket
from contracts.grades.roster import Entry
from contracts.refusals import Refusal, Refused

SECOND_NS: Final = 10**9
_GONE: Final = Bucket.UNAVAILABLE.name


class Present(NamedTuple):
    """GPU-seconds of a day, and a digest (hex) of the logs that attest them."""

    available: int
    lost: int
    digest: str


def present(
    logs: Sequence[Computed], site: Entry, window_ns: tuple[int, int], gpus: int
) -> Present:
    """Return the day of a site that delivers ``gpus`` GPUs; ``window_ns`` is the day's first
    instant and the first after it.

    Raises Refused UNKNOWN_NODE, WRONG_KEY or UNKNOWN_GPU for a log of other nodes, keys or GPUs, or
    of another class, STALE for one not within the day, GPU_TWICE for a GPU in two logs at once.
    """
    pledged = {node.node: node for node in site.nodes}
    there: list[Presence] = []
    lost = 0
    until: dict[str, int] = {}
    for computed in sorted(logs, key=lambda one: (one.account.from_ns, one.account.node)):
        account = computed.account
        node = pledged.get(account.node)
        if node is None or account.provider != site.provider:
            raise Refused(Refusal.UNKNOWN_NODE, "not pledged by the site", seen=account.node)
        if account.key != node.key:
            raise Refused(Refusal.WRONG_KEY, "not the key it was pledged with", seen=account.node)
        if not window_ns[0] <= account.from_ns or account.to_ns > window_ns[1]:
            raise Refused(
                Refusal.STALE, "outside the day", limit=f"{window_ns[0]} to {window_ns[1]}",
                seen=f"{account.from_ns} to {account.to_ns}",
            )  # fmt: skip
        for kind in account.gpu_classes:
            if kind != site.gpu_class:
                raise Refused(
                    Refusal.UNKNOWN_GPU, "another class of GPU", limit=site.gpu_class, seen=kind
                )
        for gpu in account.gpus:
            if gpu not in node.gpus:
                raise Refused(Refusal.UNKNOWN_GPU, "not pledged for this node", seen=gpu)
            if until.get(gpu, 0) > account.from_ns:
                raise Refused(Refusal.GPU_TWICE, "in two logs at once", seen=gpu)
            until[gpu] = account.to_ns
        gone = account.losses[_GONE].seller_ns if _GONE in account.losses else 0
        there += account.there
        lost += (account.seller_ns - gone) * account.most_gpus
    every, sold = _gpu_ns(there, gpus)
    if every > sold:  # losses on GPUs that were not sold do not concern the buyer
        lost = lost * sold // every
    digest = blake2b(digest_size=32)
    for said in sorted(one.digest for one in logs):
        digest.update(said.encode())
    available = sold // SECOND_NS
    return Present(available, min(available, -(-lost // SECOND_NS)), digest.hexdigest())


def _gpu_ns(there: Sequence[Presence], sold: int) -> tuple[int, int]:
    """GPU-nanoseconds of all GPUs present, and of at most ``sold`` GPUs at each moment."""
    changes = sorted(
        [(one.from_ns, one.gpus) for one in there] + [(one.to_ns, -one.gpus) for one in there]
    )
    level = every = counted = 0
    for (at, change), (after, _) in pairwise(changes):
        level += change
        every += level * (after - at)
        counted += min(level, sold) * (after - at)
    return every, counted
