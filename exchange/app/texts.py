"""Translates records as people write them: codes and dollars become the log's numbers."""

from typing import Final

import msgspec

from exchange.app import wishes
from exchange.app.desk import Desk
from exchange.app.wishes import RequestRefused
from exchange.clearing import Clearing
from exchange.clearing.records import kinds

VARIATION: Final = "variation"  # value of ``gains``: what variation has paid since the default


def resolve(text: str, desk: Desk, clearing: Clearing) -> str:
    """Return the record with ``instrument`` as a number if it is a code, ``price`` and ``amount``
    in micro-dollars if they are text, and ``gains`` filled in if it is "variation".

    RequestRefused if the text is no JSON object or nested too deep, or for an unknown name or an
    invalid figure.
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
            facts[name] = wishes.micros(facts[name], name)
    if facts.get("gains") == VARIATION:
        try:
            facts["gains"] = clearing.gains(int(facts.get("default", 0)))
        except (LookupError, TypeError, ValueError):
            raise RequestRefused("no such default; `clear default show` lists them") from None
    return msgspec.json.encode(facts).decode()
