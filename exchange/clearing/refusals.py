"""The reasons for which clearing refuses a record: frozen numbers from 2200 to 2299, never reused.

docs/reference/clearing.md has their meaning and, for each record, the order of the checks. A
refusal changes nothing.
"""

from enum import IntEnum


class Denial(IntEnum):
    """The reason of a refused record."""

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
    SETTLED = 2240  # another price needs a correction, as the next cycle
    ASSET_MISMATCH = 2241  # not an asset that the house takes as collateral
    TERMS = 2242  # not the agreement that the other side has signed
    BARRED = 2243  # the jurisdiction in force bars who would receive a delivery
