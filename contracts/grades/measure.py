"""Attestation logs to the measured runs of a factor table. One refused log refuses all of them.

A log is accepted if it is the node's own (registered key, unbroken chain), made for this roster
(its challenge, inside the window, not in the future), worked on long enough, the only one of its
drawn hour, of a node and begun in an hour that were drawn, on GPUs that its site pledged, and of
the grade's GPU class, precision, benchmark and size tier.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from contracts.goodput import Computed, compute
from contracts.goodput.events import Open, Workload
from contracts.grades import Benchmark, Grade, Rules
from contracts.grades.roster import HOUR_NS, Entry, Node, Roster, draw, hours
from contracts.grades.schedule import schedule
from contracts.refusals import UNREADABLE, Refusal, Refused, RefusedAll

_MINUTE_NS: Final = 60 * 10**9
CLOCK_NS_MAX: Final = 60 * 10**9  # tolerated lead of a node's clock
FIRST_LINE_BYTES_MAX: Final = 4_096


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One measured log; times in ns, MFU at 1e-6."""

    provider: str
    facility: str
    node: str
    digest: str
    from_ns: int
    to_ns: int
    elapsed_ns: int
    seller_ns: int
    mfu_e6: int
    gpus: tuple[str, ...] = ()  # every GPU named at any time


class _Terms(NamedTuple):
    roster: Roster
    grade: Grade
    rules: Rules
    window: tuple[int, int]
    now_ns: int
    nodes: dict[str, tuple[Entry, Node]]
    drawn: dict[str, tuple[int, ...]]  # drawn hours (first instant, ns) of every drawn node
    pledged: dict[str, str]  # node of every GPU of the roster: gathered once, it may have a million


def measure(
    paths: Sequence[Path], roster: Roster, grade: Grade, rules: Rules, *, now_ns: int
) -> list[Run]:
    """Return the runs of the logs, sorted by site, node and time.

    Raises RefusedAll with the first fault of every log, a TIME_ORDER for each overlap of two logs
    of a node, and a GPU_TWICE for each log that names a GPU which another node's has at that time;
    Refused RULES_CHANGED if the calendar does not cover the expiry.
    """
    nodes = {node.node: (site, node) for site in roster.sites for node in site.nodes}
    drawn = {
        name: hours(roster, nodes[name][0], name, rules)
        for names in draw(roster, rules).values()
        for name in names
    }
    window = schedule(roster.month, rules).window_ns
    terms = _Terms(roster, grade, rules, window, now_ns, nodes, drawn, _pledged(roster))
    runs: list[Run] = []
    faults: list[Refused] = []
    seen: set[tuple[str, int]] = set()
    for path in sorted(paths):
        try:
            run = _run(path, terms)
            hour = run.from_ns // HOUR_NS  # windows begin on the hour
            if (run.node, hour) in seen:
                raise Refused(Refusal.REPLAYED, "this hour was measured already", where=path.name)
        except Refused as refused:
            faults.append(refused)
            continue
        seen.add((run.node, hour))
        runs.append(run)
    runs.sort(key=lambda run: (run.provider, run.facility, run.node, run.from_ns))
    for before, after in pairwise(runs):
        if before.node == after.node and after.from_ns < before.to_ns:
            faults.append(
                Refused(Refusal.TIME_ORDER, "two logs of one moment", where=after.node,
                        limit=before.to_ns, seen=after.from_ns)
            )  # fmt: skip
    faults += _taken_twice(runs)
    if faults:
        raise RefusedAll(faults)
    return runs


def _taken_twice(runs: Sequence[Run]) -> list[Refused]:
    """A fault for each run that names a GPU of another node's run at the same time: of a cluster's
    job every node could tell, and each would count."""
    faults: list[Refused] = []
    last: dict[str, Run] = {}  # the run of each GPU that ends last, of those begun so far
    for run in sorted(runs, key=lambda run: (run.from_ns, run.node)):
        befores = [last[gpu] for gpu in run.gpus if gpu in last]
        twice = [one for one in befores if one.to_ns > run.from_ns and one.node != run.node]
        if twice:
            what = f"a GPU is in the log of {twice[0].node} at that time"
            faults.append(
                Refused(Refusal.GPU_TWICE, what, where=run.node, limit=twice[0].to_ns,
                        seen=run.from_ns)
            )  # fmt: skip
        for gpu in run.gpus:
            if gpu not in last or last[gpu].to_ns < run.to_ns:
                last[gpu] = run
    return faults


def _pledged(roster: Roster) -> dict[str, str]:
    """The node of every GPU."""
    return {gpu: node.node for site in roster.sites for node in site.nodes for gpu in node.gpus}


def _run(path: Path, terms: _Terms) -> Run:
    """The run of one log; Refused with its first fault."""
    opened = _opened(path)
    if opened.node not in terms.nodes:
        raise Refused(Refusal.UNKNOWN_NODE, "not on the roster", where=path.name, seen=opened.node)
    site, node = terms.nodes[opened.node]
    computed = compute(path, key=node.key)
    _check_origin(path.name, computed, site, terms)
    _check_workload(path.name, computed, terms.grade)
    account = computed.account
    if account.mfu_e6 is None:
        raise Refused(Refusal.STATE, "no step was preserved", where=path.name)
    return Run(
        provider=site.provider,
        facility=site.facility,
        node=node.node,
        digest=computed.digest,
        from_ns=account.from_ns,
        to_ns=account.to_ns,
        elapsed_ns=account.elapsed_ns,
        seller_ns=account.seller_ns,
        mfu_e6=account.mfu_e6,
        gpus=account.gpus,
    )


def _opened(path: Path) -> Open:
    with path.open("rb") as file:
        line = file.readline(FIRST_LINE_BYTES_MAX)
    try:
        return msgspec.json.decode(line, type=Open)
    except UNREADABLE as error:
        raise Refused(Refusal.SYNTAX, f"not a log: {error}", where=f"{path.name}:1") from error


def _check_origin(name: str, computed: Computed, site: Entry, terms: _Terms) -> None:
    account = computed.account
    if account.provider != site.provider:
        raise Refused(
            Refusal.UNKNOWN_NODE, "another provider's node", where=name, limit=site.provider,
            seen=account.provider,
        )  # fmt: skip
    if account.to_ns > terms.now_ns + CLOCK_NS_MAX:
        raise Refused(
            Refusal.CLOCK_FUTURE, "set the node's clock", where=name, limit=terms.now_ns,
            seen=account.to_ns,
        )  # fmt: skip
    first, after = terms.window
    if not first <= account.from_ns or account.to_ns > after:
        raise Refused(
            Refusal.STALE, "outside the window measured", where=name, limit=f"{first} to {after}",
            seen=f"{account.from_ns} to {account.to_ns}",
        )  # fmt: skip
    if account.challenge != terms.roster.fixing:
        raise Refused(
            Refusal.REPLAYED, "made for another fixing", where=name, limit=terms.roster.fixing,
            seen=account.challenge,
        )  # fmt: skip
    if account.node not in terms.drawn:
        raise Refused(Refusal.NOT_DRAWN, "the draw chose others", where=name, seen=account.node)
    if not any(slot <= account.from_ns < slot + HOUR_NS for slot in terms.drawn[account.node]):
        drawn = " ".join(map(str, terms.drawn[account.node]))
        raise Refused(
            Refusal.NOT_DRAWN, "the draw chose other hours", where=name, limit=drawn,
            seen=account.from_ns,
        )  # fmt: skip
    least = terms.rules.run_minutes * _MINUTE_NS
    # Not the time that the log is open: a run of one good step and idling would be long enough.
    worked = account.productive_ns + account.seller_ns
    if worked < least:
        raise Refused(
            Refusal.TIME_ORDER, "too short for a run", where=name, limit=least, seen=worked
        )
    beside = {gpu for node in site.nodes for gpu in node.gpus}
    own = set(terms.nodes[account.node][1].gpus)
    # Other nodes' GPUs are accepted only beside its own, and if the run names more than these.
    if own.isdisjoint(account.gpus) or len(account.gpus) <= len(own):
        beside = own
    for gpu in account.gpus:
        if gpu in beside:
            continue
        if gpu in terms.pledged:
            by = terms.pledged[gpu]
            raise Refused(Refusal.GPU_TWICE, f"pledged by {by}", where=name, seen=gpu)
        raise Refused(Refusal.UNKNOWN_GPU, "not pledged for this node", where=name, seen=gpu)


def _check_workload(name: str, computed: Computed, grade: Grade) -> None:
    for job in computed.account.jobs:
        work = job.workload
        if job.gpu_class != grade.gpu_class:
            raise Refused(
                Refusal.UNKNOWN_GPU, "another class of GPU", where=name, limit=grade.gpu_class,
                seen=job.gpu_class,
            )  # fmt: skip
        if work.precision != grade.precision:
            raise Refused(
                Refusal.UNKNOWN_PRECISION, "par is at another precision", where=name,
                limit=grade.precision, seen=work.precision,
            )  # fmt: skip
        wanted, seen = grade.work, _benchmark(work)
        if seen != wanted:
            field = next(
                n for n in Benchmark.__struct_fields__ if getattr(seen, n) != getattr(wanted, n)
            )
            raise Refused(
                Refusal.VERSION, f"par is of another {field}", where=name,
                limit=getattr(wanted, field), seen=getattr(seen, field),
            )  # fmt: skip
        if not grade.gpus_least <= work.gpus <= grade.gpus_most:
            raise Refused(
                Refusal.CLUSTER_SIZE, "not of the grade's size tier", where=name,
                limit=f"{grade.gpus_least} to {grade.gpus_most}", seen=work.gpus,
            )  # fmt: skip


def _benchmark(work: Workload) -> Benchmark:
    """The benchmark that a workload states; 0 tokens per GPU if they do not divide evenly."""
    tokens, rest = divmod(work.tokens_per_step, work.gpus)
    return Benchmark(
        name=work.benchmark,
        version=work.benchmark_version,
        model=work.model,
        parameters=work.parameters,
        active_parameters=work.active_parameters,
        layers=work.layers,
        heads=work.heads,
        head_dimension=work.head_dimension,
        sequence_length=work.sequence_length,
        tokens_per_gpu=0 if rest else tokens,
    )
