"""The events of an attestation log: one JSON object a line, tagged ``type``.

Schema, limits and versions: docs/reference/attestation.md. ``at`` is nanoseconds since the epoch,
UTC, and never decreases within a log. Between two events there is exactly one activity, so every
nanosecond from the first event to the last falls into one bucket.
"""

from enum import IntEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

SCHEMA: Final = 1
LINE_BYTES_MAX: Final = 1 << 20
SEGMENT_EVENTS_MIN: Final = 1_000  # fewest events of a segment, except of a log's last one
SEGMENT_EVENTS: Final = 4_096  # default of the writer
GPUS_MAX: Final = 1 << 20
STEPS_MAX: Final = 1 << 53

Nanoseconds = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
StepNumber = Annotated[int, Meta(ge=0, lt=STEPS_MAX)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/-]{1,64}\Z")]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")]
Size = Annotated[int, Meta(ge=1, lt=1 << 53)]
Counter = Annotated[int, Meta(ge=0, lt=1 << 53)]

Activity = Literal[
    "step",
    "initialization",
    "preparation",
    "startup",
    "data_loading",
    "checkpoint_save",
    "checkpoint_restore",
    "custom",
]
Cause = Literal[
    "hardware",
    "fabric",
    "power",
    "host",
    "maintenance",
    "scheduler",
    "unknown",
    "buyer_code",
    "buyer_request",
]
# The buyer answers for these, the seller for all others: also for unknown causes, since it operates
# the hardware.
BUYER_CAUSES: Final = frozenset({"buyer_code", "buyer_request"})


class Bucket(IntEnum):
    """The kinds of unproductive time."""

    UNAVAILABLE = 0  # no resources: the Scheduling term
    RECOVERY = 1  # the resources are back, the job has not resumed
    WASTED_PROGRESS = 2  # steps done and lost
    INITIALIZATION = 3
    PREPARATION = 4
    STARTUP = 5
    DATA_LOADING = 6
    CHECKPOINT_SAVE = 7
    CHECKPOINT_RESTORE = 8
    CUSTOM = 9
    IDLE = 10  # resources available, no job
    UNPRESERVED = 11  # work that was not preserved when the job or the log ended


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job computes: the inputs of PaLM's MFU formula."""

    model: Name
    benchmark: Name
    benchmark_version: Name
    precision: Name
    gpus: Annotated[int, Meta(ge=1, le=GPUS_MAX)]
    parameters: Size
    active_parameters: Size  # per token: fewer than all in a mixture of experts
    layers: Size
    heads: Size
    head_dimension: Size
    sequence_length: Size
    tokens_per_step: Size
    image: Name  # the software stack: a digest or a tag


class _Tagged(msgspec.Struct, frozen=True, gc=False, tag_field="type", forbid_unknown_fields=True):
    """Base of every line: the tag ``type``."""


class Step(_Tagged, frozen=True, gc=False, tag="step"):
    """Step number ``step`` of the job is complete."""

    at: Nanoseconds
    step: StepNumber


class Begin(_Tagged, frozen=True, gc=False, tag="begin"):
    """The job's activity from now on."""

    at: Nanoseconds
    activity: Activity


class Checkpoint(_Tagged, frozen=True, gc=False, tag="checkpoint"):
    """All steps up to ``step`` are preserved."""

    at: Nanoseconds
    step: StepNumber


class Disruption(_Tagged, frozen=True, gc=False, tag="disruption"):
    """The resources are unavailable until ``available``; a running job stops."""

    at: Nanoseconds
    cause: Cause


class Available(_Tagged, frozen=True, gc=False, tag="available"):
    """All resources are back; a job that was disrupted has not resumed yet."""

    at: Nanoseconds


class Resume(_Tagged, frozen=True, gc=False, tag="resume"):
    """The job resumes after ``step``, which must be preserved; later steps are lost."""

    at: Nanoseconds
    step: StepNumber


class JobStart(_Tagged, frozen=True, tag="job_start"):
    """A job starts; ``step`` of its steps were done before."""

    at: Nanoseconds
    job: Name
    workload: Workload
    step: StepNumber = 0


class JobEnd(_Tagged, frozen=True, gc=False, tag="job_end"):
    """The job ended in order: all complete steps are preserved."""

    at: Nanoseconds


class Hardware(_Tagged, frozen=True, tag="hardware"):
    """A node and its GPUs' identities; repeated when they change, without GPUs when it leaves."""

    at: Nanoseconds
    node: Name
    gpu_class: Name
    gpus: Annotated[tuple[Name, ...], Meta(max_length=1024)]
    driver: Name = "unknown"


class Counters(_Tagged, frozen=True, tag="counters"):
    """Hardware counters of one GPU since it started; energy in millijoules."""

    at: Nanoseconds
    gpu: Name
    ecc_corrected: Counter = 0
    ecc_uncorrected: Counter = 0
    xid: Counter = 0  # the last fatal code, 0 for none
    throttled_ns: Counter = 0
    energy_mj: Counter = 0


class Open(_Tagged, frozen=True, tag="open"):
    """The first line: the node and its key. ``challenge`` is the previous fixing's hash."""

    at: Nanoseconds
    schema: int
    node: Name
    provider: Name
    key: Hex32
    challenge: Hex32


class Close(_Tagged, frozen=True, gc=False, tag="close"):
    """The last event: the log ends here."""

    at: Nanoseconds


class Seal(_Tagged, frozen=True, tag="seal"):
    """Ends a segment: its number from 0, its event count, the chain's digest, the signature."""

    segment: Counter
    events: Counter
    digest: Hex32
    signature: Hex64


Event = (
    Step
    | Begin
    | Checkpoint
    | Disruption
    | Available
    | Resume
    | JobStart
    | JobEnd
    | Hardware
    | Counters
    | Open
    | Close
)
