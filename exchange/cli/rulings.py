"""The clearing house's rulings, as people read them."""

from typing import Any, Final

from exchange.cli.output import dollars, show_facts, show_json

# Facts in micro-dollars, and in nanoseconds of log time (docs/reference/clearing.md)
DOLLARS: Final = frozenset((
    "amount", "assessments", "called", "called_off", "calls", "capital", "cash", "charged", "fund",
    "haircuts", "layers", "left", "loss", "margin", "missing", "owed", "paid", "price", "reference",
    "repaid", "replaces", "returned", "size", "survivors_fund", "total", "uncovered", "unpaid",
    "written_off",
))  # fmt: skip
TIMES: Final = frozenset((
    "allocate_by", "close_by", "deadline", "deadlines", "next", "port_by", "replenish_by", "stamp",
))  # fmt: skip
# Facts of these names are lots, counts or cents in their rulings
OTHERS: Final = frozenset(("assignment", "delivery", "intraday_cycle"))


def show_rulings(result: dict[str, Any], as_json: bool) -> None:
    """Show the clearing house's rulings, and what the engine refused of them."""
    if as_json:
        show_json(result)
        return
    if result.get("recorded_before"):
        print("recorded before; what was ruled then:")
    for ruling in result["rulings"]:
        operation = ruling["operation"]
        print(operation, ruling["outcome"])
        show_facts(readable(operation, ruling["facts"]), False)
    for id, why in result.get("dues_refused", {}).items():
        print(f"not done yet: {id}: {why}")


def show_proposed(result: dict[str, Any], as_json: bool) -> None:
    """Show what was done or proposed, and then who has to approve it; of what was done with an
    approval, also what was ruled besides."""
    if as_json:
        show_json(result)
        return
    operation = result.get("operation", "")
    facts = {name: fact for name, fact in result.items() if name not in ("rulings", "dues_refused")}
    show_facts(readable(operation, facts), False)
    if "proposal" in result and "approved_by" not in result:
        print("another person has to approve it: hourbook admin approve", result["proposal"])
    others = [one for one in result.get("rulings", ()) if one["operation"] != operation]
    show_rulings({**result, "rulings": others}, False)


def readable(operation: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return a ruling's facts with amounts in dollars and times in UTC."""
    if operation in OTHERS:
        return facts
    return {name: _readable(name, fact) for name, fact in facts.items()}


def _readable(name: str, fact: Any) -> Any:
    from exchange.history.walk import time_text  # noqa: PLC0415

    if isinstance(fact, dict):
        return {key: _readable(name, one) for key, one in fact.items()}
    if isinstance(fact, int) and name in DOLLARS:
        return f"{dollars(fact)} USD"
    if name in TIMES and not fact:
        return None  # there is none
    return time_text(fact) if name in TIMES else fact
