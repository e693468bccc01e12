"""What is listed on the machine's own date: for tests that start a market without a clock."""

import re
from datetime import UTC, datetime

from contracts import registry

WRITTEN = ("Z26", "F27", "G27")  # the months that the documents name
MONTH = re.compile(r"(?<=\d)P?(Z26|F27|G27)\b")


def listed(product: str = "H100") -> list[str]:
    """The product's expiries that a market opens by itself, the front month first."""
    today = datetime.now(UTC).date()
    return [one.code for one in registry.load().opening(today) if one.product == product]


def code(product: str = "H100") -> str:
    """The product's expiry of the month after next: listed, and far from its spot month."""
    return listed(product)[2]


def dated(text: str) -> str:
    """A document's text; once its first month is the front month, or over, with later months. What
    runs in a virtual sandbox has a date of its own."""
    codes = listed()
    if f"H100{WRITTEN[0]}" in codes[1:] or "--clock virtual" in text:
        return text
    later = dict(zip(WRITTEN, (one.removeprefix("H100") for one in codes[2:]), strict=False))
    return MONTH.sub(lambda found: found[0].replace(found[1], later[found[1]]), text)
