"""The matters of a market, in the order in which they see time and events."""

from typing import Final

from exchange.clearing.calling import Calls, Interest
from exchange.clearing.cycles import Cycles
from exchange.clearing.default.hedging import Hedges
from exchange.clearing.default.matter import Defaults
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.expiry import Fixings
from exchange.clearing.fees import Fees
from exchange.clearing.margin.matter import MarginVersions
from exchange.clearing.matters import Dues, Matter
from exchange.clearing.members.offbook import OffBook
from exchange.clearing.members.registry import Registry
from exchange.clearing.pricing import Prices
from exchange.clearing.transferring import Transferring

MATTERS: Final[tuple[type[Matter], ...]] = (
    Dues,
    Transferring,
    Prices,
    Cycles,
    MarginVersions,
    Calls,
    Interest,
    Fees,
    Registry,
    Deliveries,
    Defaults,
    Hedges,
    OffBook,
    Fixings,
)
