"""Model FLOP utilization by PaLM's formula (Chowdhery et al. 2022, appendix B), exactly.

    FLOPs of one token = 6N + 12 L H Q T      forward and backward, without recomputation
    MFU = tokens x FLOPs of one token / (seconds x GPUs x dense peak at the job's precision)

N is the number of parameters active per token (fewer than all in a mixture of experts), L layers,
H heads, Q the head dimension, T the sequence length. The seconds are those of preserved steps only:
other time lowers goodput, and must not count twice.
"""

from fractions import Fraction

from contracts.goodput.events import Workload
from contracts.hardware import peak
from contracts.refusals import Refusal, Refused

NANO = 10**9


def flops_per_token(work: Workload) -> int:
    """Return the model FLOPs of one token, forward and backward.

    Raises Refused MFU_RANGE if more parameters are active than the model has.
    """
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
    """Return the MFU of ``steps`` steps done in ``step_ns`` nanoseconds in all; 0 without steps.

    Raises Refused MFU_RANGE above one or as ``flops_per_token`` does, and UNKNOWN_GPU,
    UNKNOWN_PRECISION or SPARSE_PEAK if the class has no dense peak at that precision.
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
