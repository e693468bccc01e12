"""Verify an exported audit trail on its own: python docs/verify_audit.py FILE.csv [BULLETIN.csv]

Needs nothing but Python. Written from docs/reference/audit.md: rows and sequences without gaps,
every match joined by exactly two orders of opposite sides, every order's lots accounted for, every
bust or adjustment joined to both sides of its trade, and the volumes of a bulletin of `hourbook log
bulletin DIR --csv`, if one is given. Any doubt is a line and exit code 1.
"""

import csv
import sys
from collections import Counter, defaultdict

CORRECTIONS = ("TRADE_BUSTED", "TRADE_ADJUSTED")
JOINED = ("account", "side", "instrument", "last_quantity", "aggressor", "business_date")


def check(holds, place, what):
    if not holds:
        sys.exit(f"NOT VERIFIED: {place}: {what}")


def rows_of(path):
    with open(path, newline="") as file:
        yield from csv.DictReader(file)


def main(trail, bulletin=None):
    last, commands, matches, volume = 0, 0, defaultdict(list), Counter()
    corrections = defaultdict(list)
    orders = defaultdict(Counter)  # lots entered, executed, cancelled, left, by order id
    for number, row in enumerate(rows_of(trail), 1):
        place, sequence, lots = f"row {row['row']}", int(row["sequence"]), row["quantity"]
        check(int(row["row"]) == number, place, f"row {number} was to come next")
        if row["direction"] == "IN":
            check(sequence == last + 1, place, f"sequence {last + 1} was to come next")
            last, commands = sequence, commands + 1
        check(sequence == last, place, "an answer to another command")
        check(row["time"].endswith("Z") and len(row["time"]) == 24, place, "time is not UTC ms")
        if row["record_type"] in CORRECTIONS:
            corrections[row["match_number"]].append(row)
            if row["record_type"] == "TRADE_BUSTED" and row["aggressor"] == "Y":
                volume[row["business_date"], row["instrument"]] -= int(row["last_quantity"])
        if row["direction"] == "IN" or not row["order_id"] or row["duplicate"]:
            continue
        order, kind = orders[row["order_id"]], row["record_type"]
        if kind == "TRADE":
            matches[row["match_number"]].append(row)
            order["executed"] += int(row["last_quantity"])
            check(order["executed"] == int(row["cumulative"]), place, "cumulative is off")
            if row["aggressor"] == "Y":
                volume[row["business_date"], row["instrument"]] += int(row["last_quantity"])
        elif kind == "ORDER_EXECUTED":  # through an implied price
            order["executed"] += int(row["last_quantity"])
            check(order["executed"] == int(row["cumulative"]), place, "cumulative is off")
        elif kind == "ORDER_ACCEPTED":
            order["entered"] = int(lots)
        elif kind in ("ORDER_CANCELLED", "ORDER_REDUCED"):
            order["cancelled"] += int(lots)
        elif kind == "ORDER_REPLACED":  # a new total, executed lots included
            order["entered"] = int(lots) + order["cancelled"]
        if kind in ("TRADE", "ORDER_EXECUTED", "ORDER_CANCELLED", "ORDER_REDUCED"):
            left = order["entered"] - order["executed"] - order["cancelled"]
            check(left == int(row["leaves"]), place, f"{left} lots should be left")
    for match, rows in matches.items():
        place = f"match {match}"
        check(len(rows) == 2, place, f"{len(rows)} executions, not two")
        for name, distinct in (("order_id", 2), ("side", 2), ("aggressor", 2), ("last_price", 1),
                               ("last_quantity", 1), ("instrument", 1), ("time", 1)):  # fmt: skip
            check(len({row[name] for row in rows}) == distinct, place, name)
    for match, rows in corrections.items():
        named = [[row[name] for name in JOINED] for row in rows]
        original = [[row[name] for name in JOINED] for row in matches.get(match, ())]
        check(named == original, f"match {match}", "its correction is not of both its sides, once")
    for row in rows_of(bulletin) if bulletin else ():
        traded = volume.get((row["business_date"], row["instrument"]), 0)
        check(traded == int(row["volume"]), row["instrument"], f"trades sum to {traded} lots")
    print(f"verified: {number} rows, {commands} commands, {len(matches)} matches")


if __name__ == "__main__":
    main(*sys.argv[1:])
