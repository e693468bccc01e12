"""Nodes that keep attestation logs, and rosters of them, for the tests of the normalization."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from contracts.calendar import Month
from contracts.goodput import events as ev
from contracts.goodput.events import Event
from contracts.goodput.keys import SigningKey
from contracts.goodput.log import Recorder
from contracts.goodput.mfu import flops_per_token
from contracts.grades import Rules, load
from contracts.grades.roster import Entry, Node, Roster, hours
from contracts.grades.schedule import schedule
from contracts.hardware import peak

SECOND: Final = 10**9
START: Final = 1_790_000_000 * SECOND
FIXING: Final = "5e" * 32
EXPIRY: Final = Month(2026, 12)
STEP_SECONDS: Final = 4
RUN_SECONDS: Final = 1_210  # a little more than twenty minutes

_WORK: Final = {
    "model": "dense-7b",
    "benchmark": "transformer-step",
    "benchmark_version": "1",
    "precision": "bf16",
    "gpus": 8,
    "parameters": 7 * 10**9,
    "active_parameters": 7 * 10**9,
    "layers": 32,
    "heads": 32,
    "head_dimension": 128,
    "sequence_length": 4096,
    "tokens_per_step": 262_144,
    "image": "sha256:0",
}


def work(**changes: Any) -> ev.Workload:
    return ev.Workload(**{**_WORK, **changes})


def work_at(mfu: float, gpu_class: str = "H100-SXM", **changes: Any) -> ev.Workload:
    """A workload whose steps of ``STEP_SECONDS`` come out at about that MFU."""
    made = work(**changes)
    flops = 6 * made.active_parameters + 12 * made.layers * 32 * 128 * made.sequence_length
    room = STEP_SECONDS * made.gpus * peak(gpu_class, made.precision)
    return work(**{**changes, "tokens_per_step": max(1, round(mfu * room / flops))})


def key_of(name: str) -> SigningKey:
    return SigningKey(blake2b(name.encode(), digest_size=32).digest())


def gpus_of(node: str, count: int = 8) -> tuple[str, ...]:
    return tuple(f"GPU-{node}-{n}" for n in range(count))


def opening(
    node: str = "n1",
    *,
    at: int = START,
    provider: str = "alpha",
    challenge: str = FIXING,
    gpu_class: str = "H100-SXM",
    workload: ev.Workload | None = None,
    gpus: tuple[str, ...] | None = None,
) -> list[Event]:
    """Open, hardware, job start and the first step's beginning."""
    own = gpus_of(node) if gpus is None else gpus
    return [
        ev.Open(at, ev.SCHEMA, node, provider, key_of(node).public, challenge),
        ev.Hardware(at, node, gpu_class, own),
        ev.JobStart(at, "job", work_at(0.4) if workload is None else workload),
        ev.Begin(at, "step"),
    ]


def steps(count: int, at: int, first: int = 1, seconds: int = STEP_SECONDS) -> list[Event]:
    return [ev.Step(at + (n + 1) * seconds * SECOND, first + n) for n in range(count)]


def job(node: str = "n1", *, count: int = 50, at: int = START, **options: Any) -> list[Event]:
    """A whole log of one undisturbed job."""
    done = steps(count, at)
    last = done[-1].at if done else at + SECOND
    return [*opening(node, at=at, **options), *done, ev.JobEnd(last), ev.Close(last)]


def run(
    node: str, mfu: float = 0.4, *, seconds: int = RUN_SECONDS, at: int, **options: Any
) -> list[Event]:
    """A log of the benchmark at that MFU: the workload is given, so the steps take their time."""
    made = options.pop("workload", work())
    flops = made.tokens_per_step * flops_per_token(made)
    span = round(flops * SECOND / (mfu * made.gpus * peak("H100-SXM", "bf16")))
    count = -(-seconds * SECOND // span)
    done = [ev.Step(at + (n + 1) * span, n + 1) for n in range(count)]
    last = done[-1].at
    head = opening(node, at=at, workload=made, **options)
    return [*head, *done, ev.JobEnd(last), ev.Close(last)]


def write(path: Path, events: Sequence[Event], key: SigningKey | None = None) -> Path:
    """The events as a signed log; by the key of the node it names unless another is given."""
    opened = events[0]
    assert isinstance(opened, ev.Open)
    with path.open("wb") as file:
        recorder = Recorder(file, key or key_of(opened.node), segment_events=1_000)
        for event in events:
            recorder.record(event)
        recorder.close()
    return path


def rules() -> Rules:
    return load().rules_of(EXPIRY)


def hour_of(made: Roster, node: str, number: int = 0) -> int:
    """When a drawn node's run of that number starts."""
    (place,) = [site for site in made.sites if node in {one.node for one in site.nodes}]
    return hours(made, place, node, rules())[number]


def window_start() -> int:
    return schedule(EXPIRY, rules()).window_ns[0]


def site(provider: str, nodes: int = 10, **changes: Any) -> Entry:
    """A site that may deliver H100-NODE, with so many nodes."""
    terms: dict[str, Any] = {
        "provider": provider,
        "facility": "one",
        "gpu_class": "H100-SXM",
        "form_factor": "SXM5",
        "fabric": "infiniband",
        "fabric_gbps": 400,
        "gpus": 512,
        "tenancy": "dedicated",
        "region": "eu",
        "availability_e4": 9900,
    }
    named = [f"{provider}-{n:02}" for n in range(nodes)]
    pledged = tuple(Node(name, key_of(name).public, gpus_of(name)) for name in named)
    return Entry(**{**terms, "nodes": pledged, **changes})


def roster(*sites: Entry, **changes: Any) -> Roster:
    terms: dict[str, Any] = {
        "schema": 1, "grade": "H100-NODE", "expiry": str(EXPIRY), "fixing": FIXING, "sites": sites,
    }  # fmt: skip
    return Roster(**{**terms, **changes})


def encoded(made: Roster) -> bytes:
    return msgspec.json.encode(made)
