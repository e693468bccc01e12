"""Measures the machine it runs on, with matrix products and small transformer steps.

This is the only file that imports torch, and only when it runs: ``pip install 'hourbook[probe]'``.
A GPU is compared with the dense peak of its class; a CPU has no class, so it gets rates and no
utilization. A node's rates are those of its slowest device. All devices do the same work in turns,
so that heat and other load affect them alike, and each rate is the median of the rounds.

A probe's report is the node's own claim and sets no factor: factors rest on attestation logs of
nodes and hours that the exchange draws.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from contracts.goodput import keys
from contracts.goodput.events import Name, Nanoseconds, Workload
from contracts.goodput.mfu import NANO, utilization
from contracts.hardware import peak
from contracts.refusals import UNREADABLE, Refusal, Refused

SCHEMA: Final = 1
ROUNDS: Final = 5
ROUNDS_MAX: Final = 1_000
_E4: Final = 10_000
# The driver's name of each known GPU class; other form factors of the same chip are other classes.
_CLASS_NAMES: Final = {
    "NVIDIA A100-SXM4-80GB": "A100-SXM",
    "NVIDIA H100 80GB HBM3": "H100-SXM",
    "NVIDIA H200": "H200-SXM",
    "NVIDIA B200": "B200-HGX",
    "NVIDIA GB200": "GB200-NVL72",
    "AMD Instinct MI300X": "MI300X-OAM",
}


# What a report may say, since whoever checks it prints it.
Words = Annotated[str, Meta(max_length=200, pattern=r"^[ -~]*\Z")]
Rate = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]  # per second


class TorchMissing(RuntimeError):
    """The optional extra ``hourbook[probe]`` is not installed."""


class Size(msgspec.Struct, frozen=True):
    """The work of one round."""

    matrix: int  # side of the square matrices
    products: int  # matrix products per round
    layers: int
    width: int
    heads: int
    sequence: int
    batch: int
    steps: int  # transformer steps per round


CPU_SIZE: Final = Size(512, 4, 2, 128, 4, 128, 2, 2)
GPU_SIZE: Final = Size(8_192, 20, 4, 4_096, 32, 2_048, 4, 10)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device's medians. Shares are of the dense peak at 1e-4, None for an unknown class."""

    identity: Words
    name: Words
    gpu_class: Words  # empty for an unknown device
    matmul_flops: Rate
    matmul_share_e4: int | None
    tokens_a_second: Rate
    mfu_e4: int | None


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a probe; ``signature`` covers all fields but itself and ``key``."""

    schema: int
    node: Name
    at_ns: Nanoseconds
    kind: Words  # "cuda" or "cpu"
    torch: Words
    precision: Words
    rounds: Annotated[int, Meta(ge=1, le=ROUNDS_MAX)]
    size: Size
    devices: tuple[Device, ...]
    matmul_flops: Rate  # the least of any device; likewise the next two
    tokens_a_second: Rate
    mfu_e4: int | None
    key: str = ""
    signature: str = ""

    @property
    def content(self) -> bytes:
        """The bytes that the signature covers."""
        plain = msgspec.structs.replace(self, key="", signature="")
        return msgspec.json.encode(plain, order="sorted")


def check(data: bytes, key: str | None = None) -> ProbeReport:
    """Return the report of a file after checking its signature and that its figures are its
    devices'.

    ``key`` is the public key that must have signed it (hex); without it the report's own is
    trusted. Raises Refused: SYNTAX, VERSION, UNSIGNED, WRONG_KEY, MFU_RANGE.
    """
    try:
        found = msgspec.json.decode(data, type=dict[str, Any])
        if found.get("schema") != SCHEMA:
            raise Refused(Refusal.VERSION, "another schema", limit=SCHEMA, seen=found.get("schema"))
        report = msgspec.convert(found, ProbeReport)
    except UNREADABLE as error:
        raise Refused(Refusal.SYNTAX, f"not a probe's report: {error}") from error
    whole = [msgspec.json.encode(one, order="sorted") for one in (found, report)]
    if whole[0] != whole[1]:
        raise Refused(Refusal.SYNTAX, "it holds what no signature is over")
    if not report.signature:
        raise Refused(Refusal.UNSIGNED, "a report without a signature")
    if key is not None and report.key != key.lower():
        raise Refused(Refusal.WRONG_KEY, "signed with another key", limit=key, seen=report.key)
    if not keys.verify(report.key, keys.REPORT, report.content, report.signature):
        raise Refused(Refusal.WRONG_KEY, "the signature is of something else")
    if not report.devices or _slowest(report.devices) != (
        report.matmul_flops, report.tokens_a_second, report.mfu_e4
    ):  # fmt: skip
        raise Refused(Refusal.SYNTAX, "its figures are not those of the slowest device")
    for device in report.devices:
        for share in (device.matmul_share_e4, device.mfu_e4):
            if share is not None and not 0 <= share <= _E4:
                raise Refused(Refusal.MFU_RANGE, device.identity, limit=_E4, seen=share)
    return report


def _slowest(devices: tuple[Device, ...]) -> tuple[int, int, int | None]:
    """The least matrix rate, token rate and MFU of any device; MFU None if any device has none."""
    shares = [device.mfu_e4 for device in devices if device.mfu_e4 is not None]
    return (
        min(device.matmul_flops for device in devices),
        min(device.tokens_a_second for device in devices),
        min(shares) if len(shares) == len(devices) else None,
    )


class _Bench:
    """The workload of one device."""

    def __init__(self, torch: Any, place: Any, dtype: Any, size: Size) -> None:
        self._torch, self._place, self._size = torch, place, size
        side = size.matrix
        self._a = torch.randn(side, side, device=place, dtype=dtype)
        self._b = torch.randn(side, side, device=place, dtype=dtype)
        layer = torch.nn.TransformerEncoderLayer(
            size.width, size.heads, 4 * size.width, dropout=0.0, batch_first=True
        )
        model = torch.nn.TransformerEncoder(layer, size.layers, enable_nested_tensor=False)
        self._model = model.to(device=place, dtype=dtype)
        shape = (size.batch, size.sequence, size.width)
        self._input = torch.randn(shape, device=place, dtype=dtype, requires_grad=True)
        self.parameters = sum(weights.numel() for weights in model.parameters())

    def _seconds(self, work: Callable[[], object], times: int) -> float:
        self._wait()
        started = time.perf_counter()
        for _ in range(times):
            work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._place.type == "cuda":
            self._torch.cuda.synchronize(self._place)

    def matmul_flops(self) -> float:
        """Measure matrix products, in FLOP per second."""
        work = 2 * self._size.matrix**3 * self._size.products
        return work / self._seconds(lambda: self._a @ self._b, self._size.products)

    def tokens_a_second(self) -> float:
        """Measure forward and backward passes, in tokens per second."""
        tokens = self._size.batch * self._size.sequence * self._size.steps
        return tokens / self._seconds(self._step, self._size.steps)

    def _step(self) -> None:
        self._model.zero_grad(set_to_none=True)
        self._model(self._input).float().square().mean().backward()


def run(
    node: str, *, rounds: int = ROUNDS, advance: Callable[[int, int], None] | None = None
) -> ProbeReport:
    """Measure every device of this machine and return the unsigned report.

    ``advance(done, rounds)`` is called after every round, the warm-up being round 0. Raises Refused
    SYNTAX for an invalid node name, TorchMissing without torch, ValueError unless ``rounds`` is
    from 1 to ``ROUNDS_MAX``.
    """
    try:
        msgspec.convert(node, Name)
    except msgspec.ValidationError as error:
        raise Refused(Refusal.SYNTAX, "not a node's name", seen=ascii(node[:80])) from error
    if not 1 <= rounds <= ROUNDS_MAX:
        raise ValueError(f"rounds must be from 1 to {ROUNDS_MAX}, not {rounds}")
    torch = _torch()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    size = GPU_SIZE if kind == "cuda" else CPU_SIZE
    precision, dtype = ("bf16", torch.bfloat16) if kind == "cuda" else ("fp32", torch.float32)
    count = torch.cuda.device_count() if kind == "cuda" else 1
    benches = [_Bench(torch, torch.device(kind, n), dtype, size) for n in range(count)]
    flops: list[list[float]] = [[] for _ in benches]
    tokens: list[list[float]] = [[] for _ in benches]
    for number in range(rounds + 1):
        for place, bench in enumerate(benches):
            rates = bench.matmul_flops(), bench.tokens_a_second()
            if number:  # round 0 is the warm-up
                flops[place].append(rates[0])
                tokens[place].append(rates[1])
        if advance is not None:
            advance(number, rounds)
    devices = tuple(
        _device(torch, kind, n, precision, benches[n], size, median(flops[n]), median(tokens[n]))
        for n in range(count)
    )
    flops_least, tokens_least, mfu_least = _slowest(devices)
    return ProbeReport(
        schema=SCHEMA,
        node=node,
        at_ns=time.time_ns(),
        kind=kind,
        torch=str(torch.__version__),
        precision=precision,
        rounds=rounds,
        size=size,
        devices=devices,
        matmul_flops=flops_least,
        tokens_a_second=tokens_least,
        mfu_e4=mfu_least,
    )


def _torch() -> Any:
    try:
        import torch  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise TorchMissing("the probe needs torch: pip install 'hourbook[probe]'") from error
    return torch


def _device(
    torch: Any, kind: str, number: int, precision: str, bench: _Bench, size: Size,
    flops: float, tokens: float,
) -> Device:  # fmt: skip
    if kind == "cpu":
        return Device(
            identity="cpu", name="cpu", gpu_class="", matmul_flops=int(flops),
            matmul_share_e4=None, tokens_a_second=int(tokens), mfu_e4=None,
        )  # fmt: skip
    properties = torch.cuda.get_device_properties(number)
    gpu_class = _CLASS_NAMES.get(properties.name, "")
    share = mfu = None
    if gpu_class:
        share = round(flops * _E4 / peak(gpu_class, precision))
        work = _workload(bench.parameters, size, precision)
        mfu = round(utilization(work, gpu_class, size.steps, _step_ns(size, tokens)) * _E4)
    return Device(
        identity=f"GPU-{getattr(properties, 'uuid', number)}",
        name=properties.name,
        gpu_class=gpu_class,
        matmul_flops=int(flops),
        matmul_share_e4=share,
        tokens_a_second=int(tokens),
        mfu_e4=mfu,
    )


def _step_ns(size: Size, tokens: float) -> int:
    return round(size.batch * size.sequence * size.steps * NANO / tokens)


def _workload(parameters: int, size: Size, precision: str) -> Workload:
    return Workload(
        model="probe",
        benchmark="probe-step",
        benchmark_version="1",
        precision=precision,
        gpus=1,
        parameters=parameters,
        active_parameters=parameters,
        layers=size.layers,
        heads=size.heads,
        head_dimension=size.width // size.heads,
        sequence_length=size.sequence,
        tokens_per_step=size.batch * size.sequence,
        image="torch",
    )
