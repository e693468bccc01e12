"""GPU classes: dense peak rates per precision, memory and power, each with its source and date.

``data/hardware.toml`` is the table. A rate is the dense FLOP/s of one GPU. Data sheets often print
the rate with 2:4 sparsity, which is twice the dense one; computing with it would halve every
utilization. A sparse rate is therefore refused with SPARSE_PEAK as a precision, and the table has
both, so that one is not taken for the other.
"""

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from contracts import symbol
from contracts.refusals import Refusal, Refused
from contracts.rules import entries

PRECISIONS: Final = {"tf32": 19, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4}  # bits
FILE_BYTES_MAX: Final = 65_536
_FILE: Final = "hardware.toml"
_GIGA: Final = 10**9
_SPARSITY: Final = 2

Gflops = Annotated[int, Meta(ge=1_000, le=1_000_000_000)]
Text = Annotated[str, Meta(min_length=1, max_length=300, pattern=r"^[ -~]+\Z")]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class GpuClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of GPU in its form factor; ``dense`` and ``sparse`` are GFLOP/s by precision."""

    name: Text
    product: Text  # the root of the contracts it can be delivered on
    form_factor: Text
    gpus_per_domain: Count
    memory_gb: Count
    memory_gb_s: Count
    power_w: Count
    dense: dict[str, Gflops]
    sparse: dict[str, Gflops]
    source: Text
    as_of: date

    @property
    def tpp(self) -> int:
        """Total processing performance: the largest product of dense TFLOP/s and bits."""
        return max(rate * PRECISIONS[name] for name, rate in self.dense.items()) // 1_000


@cache
def classes() -> Mapping[str, GpuClass]:
    """Return the classes that ship with this package, by code."""
    return read((resources.files("contracts") / "data" / _FILE).read_bytes())


def read(content: bytes) -> Mapping[str, GpuClass]:
    """Return the classes of a file; raise ValueError if it has any fault."""
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{_FILE} must be at most {FILE_BYTES_MAX} bytes")
    table = entries(msgspec.toml.decode(content, type=dict[str, dict[str, Any]]), GpuClass)
    for code, found in table.items():
        if found.product not in symbol.ROOTS:
            raise ValueError(f"{code}: product {found.product!a} is no root of a contract")
        if not found.dense or set(found.dense) - set(PRECISIONS):
            raise ValueError(f"{code}: dense must name precisions of {', '.join(PRECISIONS)}")
        twice = {name: rate * _SPARSITY for name, rate in found.dense.items()}
        if found.sparse != twice:
            raise ValueError(f"{code}: sparse must be twice dense: is one of them the other's?")
    return table


def gpu_class(code: str, known: Mapping[str, GpuClass] | None = None) -> GpuClass:
    """Return the class of a code, from ``known`` or, if None, from the shipped classes.

    Raises Refused (UNKNOWN_GPU) if there is none.
    """
    known = classes() if known is None else known
    found = known.get(code)
    if found is None:
        what = f"name one of {', '.join(known)}"
        raise Refused(Refusal.UNKNOWN_GPU, what, seen=ascii(code[:40]))
    return found


def peak(code: str, precision: str, known: Mapping[str, GpuClass] | None = None) -> int:
    """Return the dense peak of one GPU in FLOP/s at a precision; ``known`` as in gpu_class.

    Raises Refused: UNKNOWN_GPU, SPARSE_PEAK for a name such as ``bf16-sparse``, or
    UNKNOWN_PRECISION for one that the class does not have.
    """
    found = gpu_class(code, known)
    if "sparse" in precision.lower() or "2:4" in precision:
        raise Refused(Refusal.SPARSE_PEAK, "count with the dense peak", seen=ascii(precision[:40]))
    if precision not in found.dense:
        has = ", ".join(found.dense)
        raise Refused(Refusal.UNKNOWN_PRECISION, f"{code} has {has}", seen=ascii(precision[:40]))
    return found.dense[precision] * _GIGA
