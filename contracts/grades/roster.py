"""The roster of a factor table, and the draw of the nodes and hours to measure.

The draw is seeded by the hash of the previous fixing, which nobody knows when rosters close, so
neither the seller nor the exchange can choose. At each site the nodes with the least
BLAKE2b(fixing, grade, expiry, provider, facility, node) are drawn; a node's number does not depend
on the other nodes of the roster. The hours in which a node is measured are drawn the same way, so
that a seller cannot submit the best of many runs.
"""

from hashlib import blake2b
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from contracts.calendar import Month
from contracts.goodput.events import Hex32
from contracts.grades import Rules
from contracts.grades.eligibility import Name, Site
from contracts.grades.schedule import schedule
from contracts.refusals import UNREADABLE, Refusal, Refused, RefusedAll

SCHEMA: Final = 1
HOUR_NS: Final = 3600 * 10**9
_PERSON: Final = b"hourbook.draw"


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node: its name, its public key (hex), and its GPUs' identities."""

    node: Name
    key: Hex32
    gpus: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=1024)]


class Entry(Site, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site and the nodes that it pledges."""

    nodes: Annotated[tuple[Node, ...], Meta(min_length=1, max_length=100_000)]

    @property
    def place(self) -> tuple[str, str]:
        return self.provider, self.facility


class Roster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sites measured for one grade and expiry; ``fixing`` is the previous fixing's hash."""

    schema: int
    grade: str
    expiry: str  # YYYY-MM
    fixing: Hex32
    sites: Annotated[tuple[Entry, ...], Meta(min_length=1, max_length=10_000)]

    @property
    def month(self) -> Month:
        return Month.parse(self.expiry)


def read(content: bytes) -> Roster:
    """Return the roster of a JSON text.

    Raises RefusedAll with every fault: SYNTAX (then alone), VERSION, PROVIDER_TWICE, GPU_TWICE.
    """
    try:
        roster = msgspec.json.decode(content, type=Roster)
        _ = roster.month
    except (*UNREADABLE, ValueError) as error:
        raise RefusedAll([Refused(Refusal.SYNTAX, f"not a roster: {error}")]) from error
    faults = []
    if roster.schema != SCHEMA:
        faults.append(Refused(Refusal.VERSION, "another schema", limit=SCHEMA, seen=roster.schema))
    places: set[str] = set()  # joined as in refusals: names may contain slashes
    nodes: set[str] = set()
    pledged: dict[str, str] = {}
    for site in roster.sites:
        where = "/".join(site.place)
        if where in places:
            faults.append(Refused(Refusal.PROVIDER_TWICE, "a site is named once", where=where))
        places.add(where)
        for node in site.nodes:
            if node.node in nodes:
                faults.append(
                    Refused(Refusal.PROVIDER_TWICE, "a node is named once", where=node.node)
                )
            nodes.add(node.node)
            for gpu in node.gpus:
                if gpu in pledged:
                    faults.append(
                        Refused(
                            Refusal.GPU_TWICE,
                            f"pledged by {pledged[gpu]}",
                            where=node.node,
                            seen=gpu,
                        )
                    )
                pledged[gpu] = node.node
    if faults:
        raise RefusedAll(faults)
    return roster


def draw(roster: Roster, rules: Rules) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the nodes to measure, by (provider, facility), in the order drawn."""
    return {
        site.place: tuple(
            sorted((node.node for node in site.nodes), key=lambda name: _lot(roster, site, name))
        )[: rules.nodes_drawn]
        for site in roster.sites
    }


def hours(roster: Roster, site: Entry, node: str, rules: Rules) -> tuple[int, ...]:
    """Return the hours in which a drawn node starts its runs, by their first instants in ns.

    In order of time. Raises Refused RULES_CHANGED if the calendar does not cover the expiry.
    """
    start, end = schedule(roster.month, rules).window_ns
    slots = range((end - start) // HOUR_NS)
    drawn = sorted(slots, key=lambda slot: _lot(roster, site, f"{node} {slot}"))
    return tuple(sorted(start + slot * HOUR_NS for slot in drawn[: rules.runs_drawn]))


def _lot(roster: Roster, site: Entry, node: str) -> bytes:
    parts = (roster.grade, roster.expiry, *site.place, node)
    state = blake2b(bytes.fromhex(roster.fixing), digest_size=16, person=_PERSON)
    state.update("\n".join(parts).encode())
    return state.digest()
