"""Margin calls: when an account is called, and for how much. Integer micro-dollars."""

from typing import Final, Literal, NamedTuple

Policy = Literal["to_initial", "to_maintenance"]
POLICY: Final[Policy] = "to_initial"  # of this clearing house


class Required(NamedTuple):
    """What an account must hold to open positions (initial), and to keep them (maintenance)."""

    initial: int
    maintenance: int


def margin_call(
    balance: int, required: Required, policy: Policy = POLICY, *, called: bool = False
) -> int:
    """Return the amount that is called: 0 at or above maintenance, below it what is missing to the
    level of the policy. If the account is ``called`` already, until that level is reached."""
    level = required.initial if policy == "to_initial" else required.maintenance
    least = level if called else required.maintenance
    return level - balance if balance < least else 0
