"""Margin calls: when money is asked for, and to which level. Integers only."""

from typing import Final, Literal, NamedTuple

Policy = Literal["to_initial", "to_maintenance"]
POLICY: Final[Policy] = "to_initial"  # what a call of this house refills


class Required(NamedTuple):
    """What an account must hold: to open positions, and to keep them."""

    initial: int
    maintenance: int


def margin_call(
    balance: int, required: Required, policy: Policy = POLICY, *, called: bool = False
) -> int:
    """What is called: nothing at or above maintenance; below it, what is missing to the level of
    the policy. Who is ``called`` already is asked for it until that level is reached."""
    level = required.initial if policy == "to_initial" else required.maintenance
    least = level if called else required.maintenance
    return level - balance if balance < least else 0
