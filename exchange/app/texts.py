"""Records as people write them: codes and dollars become the numbers that the log holds."""

from typing import Final

import msgspec

from exchange.app import wishes
from exchange.app.desk import Desk
from exchange.app.wishes import RequestRefused
from exchange.clearing import Clearing
from exchange.clearing.records import kinds

VARIATION: Final = "variation"  # of ``gains``: what variation has paid since the default


def resolve(text: str, desk: Desk, clearing: Clearing) -> str:
    """The record with its ``instrument`` as a number where it is a code, its ``price`` and
    ``amount`` in micro-dollars where they are text, its ``gains`` where they are "variation".

    RequestRefused for what is no JSON object or nested too deep, and for a name or a figure that
    nobody knows.
    """
    facts = wishes.record_facts(text)
    kind = kinds().get(str(facts.get("operation")))
    fields = () if kind is None else msgspec.structs.fields(kind)
    for name in (field.name for field in fields if field.type is int):
        if not isinstance(facts.get(name), str):
            continue
        if name == "instrument":
            facts[name] = desk.instrument(facts[name]).id
        elif name in ("price", "amount"):
            facts[name] = wishes.micros(facts[name])
    if facts.get("gains") == VARIATION:
        try:
            facts["gains"] = clearing.gains(int(facts.get("default", 0)))
        except (LookupError, TypeError, ValueError):
            raise RequestRefused("no such default; `clear default show` lists them") from None
    return msgspec.json.encode(facts).decode()
