"""Why clearing refuses what was asked of it: frozen numbers, never reused.

The band 2200 to 2299 is this room's; docs/reference/clearing.md says what each means. A refusal
changes nothing. Where several hold, the checks of a record run in the order that page gives.
"""

from enum import IntEnum


class Denial(IntEnum):
    """One reason why a record does not stand."""

    NOT_YOURS = 2201
    UNKNOWN_INSTRUMENT = 2202
    UNKNOWN_ACCOUNT = 2203
    UNKNOWN_MEMBER = 2204
    NOT_PHYSICAL = 2205
    EARLY = 2206
    LATE = 2207
    EXCEEDS_SHORT = 2208
    FACTOR_VERSION = 2209
    DELIVERY_UNIT = 2210
    FACTOR_BOUNDS = 2211
    UNKNOWN_DELIVERY = 2212
    DELIVERY_STATE = 2213
    DAY_RANGE = 2214
    HOURS_RANGE = 2215
    UNKNOWN_DEFAULT = 2217
    DEFAULT_STATE = 2218
    FOUR_EYES = 2219
    EXPIRED = 2220
    OPEN_POSITION = 2221
    DUPLICATE = 2222
    UNKNOWN_PROPOSAL = 2223
    PROPOSAL_STATE = 2224
    QUANTITY = 2225
    SAME_OWNER = 2226
    PRICE_RANGE = 2227
    AMOUNT = 2228
    BOOK_NOT_EMPTY = 2230
    FULL = 2231
    ACCOUNT_NOT_EMPTY = 2232
    SETTLED = 2240  # that date or cycle; another price needs a correction, of the next cycle
    ASSET_MISMATCH = 2241  # collateral of another asset than the house takes
    TERMS = 2242  # another agreement than the other side has signed
