"""Reasons to refuse a figure, a log or a table of the normalization: fixed numbers, never reused.

The band 2100 to 2199 belongs to this room; docs/reference/attestation.md says what to do about
each. A refusal changes nothing: a file is accepted whole or not at all.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import msgspec

# What decoding bytes from outside may raise.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Refusal(IntEnum):
    """One reason; where several hold, the lowest number of the earliest line is named first."""

    SYNTAX = 2101
    VERSION = 2102
    TOO_LARGE = 2103
    UNSIGNED = 2104
    WRONG_KEY = 2105
    CHAIN_BROKEN = 2106
    SEGMENT_SHORT = 2107
    CLOCK_FUTURE = 2108
    STALE = 2109
    REPLAYED = 2110
    TIME_ORDER = 2111
    STEP_ORDER = 2112
    STATE = 2113
    UNKNOWN_GPU = 2114
    UNKNOWN_PRECISION = 2115
    SPARSE_PEAK = 2116
    GPU_COUNT = 2117
    GPU_TWICE = 2118
    GOODPUT_RANGE = 2119
    MFU_RANGE = 2120
    UNKNOWN_GRADE = 2121
    UNKNOWN_NODE = 2122
    NOT_DRAWN = 2123
    PROVIDER_TWICE = 2124
    RULES_CHANGED = 2125
    FROZEN = 2126
    DISPUTE_CLOSED = 2127
    FACTOR_BOUNDS = 2128
    FACTOR_VERSION = 2129
    DELIVERY_UNIT = 2130
    FORM_FACTOR = 2131
    FABRIC = 2132
    CLUSTER_SIZE = 2133
    TENANCY = 2134
    REGION = 2135
    SERVICE_LEVEL = 2136
    JURISDICTION = 2137


class Refused(ValueError):
    """One refusal: its reason, where it was found, the value seen and the limit."""

    def __init__(
        self, reason: Refusal, what: str, *, where: str = "", limit: object = "", seen: object = ""
    ) -> None:
        self.reason, self.what, self.where = reason, what, where
        self.limit, self.seen = limit, seen
        place = f"{where}: " if where else ""
        facts = [
            f"{name} {value}" for name, value in (("limit", limit), ("seen", seen)) if value != ""
        ]
        detail = f" ({', '.join(facts)})" if facts else ""
        super().__init__(f"{place}{reason.name} ({reason.value}): {what}{detail}")


class RefusedAll(ValueError):
    """A whole input was refused; ``faults`` holds every reason."""

    def __init__(self, faults: Sequence[Refused]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in faults))
