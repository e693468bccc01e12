"""The waterfall of a default's loss: layers in order, each used up before the next is touched.

    defaulter's margin > defaulter's fund > the house's own capital > survivors' fund >
    survivors' assessments > haircuts of gains > uncovered

Survivors' fund: the junior members' (exchange.clearing.default.auction) first, pro rata, then the
others', pro rata. Assessments: pro rata to their caps (fund x cap %, floored). Haircuts: pro rata
to the gains. All by largest remainder (exchange.clearing.sharing). Asserted:

    loss = sum of all layers        each layer is within what was there
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Generic

from exchange.clearing.sharing import Id, mapped, share

PERCENT: Final = 100
ASSESSMENT_CAP_PCT: Final = 275  # of a member's fund contribution, for one default
ASSESSMENT_CAP_MANY_PCT: Final = 550  # for several within the period


@dataclass(frozen=True, slots=True)
class Waterfall(Generic[Id]):
    """What each layer bears of a loss; all amounts are in the same unit of money."""

    loss: int
    defaulter_margin: int
    defaulter_fund: int
    own_capital: int
    survivors_fund: dict[Id, int]
    assessments: dict[Id, int]
    haircuts: dict[int, int]  # by account
    uncovered: int

    def layers(self) -> list[tuple[str, int]]:
        """Return (name, amount) of every layer, in order."""
        return [
            ("defaulter_margin", self.defaulter_margin),
            ("defaulter_fund", self.defaulter_fund),
            ("own_capital", self.own_capital),
            ("survivors_fund", sum(self.survivors_fund.values())),
            ("assessments", sum(self.assessments.values())),
            ("haircuts", sum(self.haircuts.values())),
            ("uncovered", self.uncovered),
        ]


def waterfall(
    loss: int,
    *,
    defaulter_margin: int,
    defaulter_fund: int,
    own_capital: int,
    survivors_fund: Mapping[Id, int],
    assessment_cap_pct: int = ASSESSMENT_CAP_PCT,
    junior: AbstractSet[Id] = frozenset(),
    gains: Mapping[int, int] | None = None,
    caps: Mapping[Id, int] | None = None,
) -> Waterfall[Id]:
    """Share a loss of 0 or more among the layers.

    ``junior`` are the members whose fund is used before the other survivors'. ``gains`` is what
    haircuts may take, by account. ``caps`` is what each member may be assessed; without it
    ``assessment_cap_pct`` of its fund.
    """
    left = loss
    own = []
    for there in (defaulter_margin, defaulter_fund, own_capital):
        own.append(taken := min(left, there))
        left -= taken
    fund = mapped(survivors_fund)
    for members in (junior, survivors_fund.keys() - junior):
        some = {member: survivors_fund[member] for member in members if member in fund}
        taken = min(left, sum(some.values()))
        fund.update(share(taken, some))
        left -= taken
    if caps is None:
        caps = {
            member: there * assessment_cap_pct // PERCENT
            for member, there in survivors_fund.items()
        }
    called = min(left, sum(caps.values()))
    left -= called
    won = gains or {}
    cut = min(left, sum(won.values()))
    found = Waterfall(
        loss=loss,
        defaulter_margin=own[0],
        defaulter_fund=own[1],
        own_capital=own[2],
        survivors_fund=fund,
        assessments=share(called, caps),
        haircuts=share(cut, won),
        uncovered=left - cut,
    )
    assert sum(taken for _, taken in found.layers()) == loss, "the layers are not the loss"
    assert all(fund[member] <= survivors_fund[member] for member in fund), "more than was there"
    assert all(found.assessments[member] <= caps[member] for member in caps), "above its cap"
    return found
