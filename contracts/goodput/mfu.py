"""Model FLOP utilization by PaLM's formula (Chowdhery et al. 2022, appendix B), exactly.

    FLOPs of one token = 6N + 12 L H Q T      forward and backward; recomputation does not count
    MFU = tokens x that / (seconds x GPUs x dense peak of the precision computed in)

N parameters that one token passes (of a mixture of experts the active ones), L layers, H heads, Q
head dimension, T sequence length. The seconds are those of preserved steps alone: time that made no
lasting progress is goodput's, so nothing counts twice.
"""

from fractions import Fraction

from contracts.goodput.events import Workload
from contracts.hardware import peak
from contracts.refusals import Refusal, Refused

NANO = 10**9


def flops_per_token(work: Workload) -> int:
    """Model FLOPs of one token, forward and backward. Refused MFU_RANGE if more than all pass."""
    if work.active_parameters > work.parameters:
        raise Refused(
            Refusal.MFU_RANGE,
            "active parameters are a part of all parameters",
            limit=work.parameters,
            seen=work.active_parameters,
        )
    attention = 12 * work.layers * work.heads * work.head_dimension * work.sequence_length
    return 6 * work.active_parameters + attention


def utilization(work: Workload, gpu_class: str, steps: int, step_ns: int) -> Fraction:
    """MFU of so many steps in so many nanoseconds; Refused MFU_RANGE above one.

    Refused UNKNOWN_GPU, UNKNOWN_PRECISION or SPARSE_PEAK where there is no such dense peak.
    """
    capacity = step_ns * work.gpus * peak(gpu_class, work.precision)
    flops = steps * work.tokens_per_step * flops_per_token(work) * NANO
    if flops > capacity:
        raise Refused(
            Refusal.MFU_RANGE,
            "no GPU does more than its peak",
            limit=1,
            seen=f"{flops / capacity:.4f}" if capacity else "no time at all",
        )
    return Fraction(flops, capacity) if capacity else Fraction(0)
