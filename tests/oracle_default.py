"""What a default costs everybody, and what comes back: slow, obvious, with fractions.

It knows nothing of the clearing house but the rules of docs/concepts/default.md, and keeps the cash
of every account, the fund and the capital by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

HOUSE = 0


def split(total: int, weights: Mapping[int, int]) -> dict[int, int]:
    """By largest remainder, ties to the smaller id."""
    whole = sum(weights.values())
    exact = {who: Fraction(total * weight, whole) for who, weight in weights.items() if whole}
    parts = {who: int(amount) for who, amount in exact.items()}
    by_rest = sorted(exact, key=lambda who: (parts[who] - exact[who], who))
    for who in by_rest[: total - sum(parts.values())]:
        parts[who] += 1
    return parts


@dataclass
class Books:
    """Everybody's money. ``members``: each survivor's own account."""

    cash: dict[int, int]
    fund: dict[int, int]
    capital: int
    members: dict[int, int]
    defaulter: int
    estate: list[int]  # the defaulter's accounts, and those of clients that owe
    junior: set[int] = field(default_factory=set)
    bore: dict[str, dict[int, int]] = field(default_factory=dict)  # what nobody has paid back
    used: dict[tuple[str, int], int] = field(default_factory=dict)  # of what each is liable for
    liable: dict[int, int] = field(default_factory=dict)

    @property
    def net(self) -> int:
        return sum(self.cash[account] for account in self.estate)

    def total(self) -> int:
        """All the money that there is."""
        return sum(self.cash.values()) + sum(self.fund.values()) + self.capital

    def _bear(self, layer: str, who: int, amount: int) -> None:
        self.bore.setdefault(layer, {}).setdefault(who, 0)
        self.bore[layer][who] += amount
        self.used[layer, who] = self.used.get((layer, who), 0) + amount

    def _level(self, more: int) -> None:
        """What some accounts of the estate have, and ``more``, goes to those that owe."""
        owe = {a: -self.cash[a] for a in self.estate if self.cash[a] < 0}
        have = {a: self.cash[a] for a in self.estate if self.cash[a] > 0}
        given = min(sum(have.values()), sum(owe.values()))
        for account, part in split(given, have).items():
            self.cash[account] -= part
        for account, part in split(given + more, owe).items():
            self.cash[account] += part

    def share(self, per_cent: int, gains: Mapping[int, int]) -> int:
        """The waterfall over what the estate owes; what stays uncovered."""
        self.liable = self.liable or {m: self.fund[m] for m in self.members}
        owed = left = max(0, -self.net)
        left -= (taken := min(left, self.fund[self.defaulter]))
        self.fund[self.defaulter] -= taken
        left -= (taken := min(left, self.capital))
        self.capital -= taken
        self._bear("own_capital", HOUSE, taken)
        for layer, some in (("junior_fund", self.members.keys() & self.junior),
                            ("survivors_fund", self.members.keys() - self.junior)):  # fmt: skip
            most = {m: min(self.fund[m], self.liable.get(m, 0) - self._fund_used(m)) for m in some}
            left -= (taken := min(left, sum(most.values())))
            for m, part in split(taken, most).items():
                self.fund[m] -= part
                self._bear(layer, m, part)
        most = {m: self.liable.get(m, 0) * per_cent // 100 for m in self.members}
        most = {m: max(0, cap - self.used.get(("assessments", m), 0)) for m, cap in most.items()}
        left -= (taken := min(left, sum(most.values())))
        for m, part in split(taken, most).items():
            self.cash[self.members[m]] -= part
            self._bear("assessments", m, part)
        most = {
            account: max(0, won - self.used.get(("haircuts", account), 0))
            for account, won in gains.items()
            if account not in self.estate
        }
        left -= (taken := min(left, sum(most.values())))
        for a, part in split(taken, most).items():
            self.cash[a] -= part
            self._bear("haircuts", a, part)
        self._level(owed - left)
        return left

    def _fund_used(self, member: int) -> int:
        return sum(self.used.get((layer, member), 0) for layer in ("junior_fund", "survivors_fund"))

    def end(self) -> None:
        """The estate pays back who bore the last loss first; what it owes is written off."""
        self.cash[self.estate[0]] += self.fund[self.defaulter]
        self.fund[self.defaulter] = 0
        if self.net < 0:
            written_off = -self.net
            self.capital -= written_off
            self._level(written_off)
            self._bear("written_off", HOUSE, written_off)
            return
        owe = -sum(self.cash[a] for a in self.estate if self.cash[a] < 0)
        have = {a: self.cash[a] for a in self.estate if self.cash[a] > 0}
        left = sum(have.values()) - owe
        for layer in ("written_off", "haircuts", "assessments", "survivors_fund", "junior_fund",
                      "own_capital"):  # fmt: skip
            owed = self.bore.get(layer, {})
            paid = min(left, sum(owed.values()))
            left -= paid
            for who, part in split(paid, owed).items():
                owed[who] -= part
                if layer in ("written_off", "own_capital"):
                    self.capital += part
                else:
                    self.cash[who if layer == "haircuts" else self.members[who]] += part
        gone = sum(have.values()) - left
        for account, part in split(gone, have).items():
            self.cash[account] -= part
        for account in self.estate:
            self.cash[account] = max(0, self.cash[account])
