"""Verify an exported audit trail on its own: python docs/verify_audit.py FILE.csv [BULLETIN.csv]

Needs nothing but Python. Written from docs/reference/audit.md: rows and sequences without gaps,
every match joined by exactly two orders of opposite sides, every order's lots accounted for, every
bust or adjustment joined to both sides of its trade, and the volumes of a bulletin of `hourbook log
bulletin DIR --csv`, if one is given, of every instrument that traded. Any doubt is a line and exit
code 1.
"""

import csv
import sys
from collections import Counter, defaultdict

CORRECTIONS = ("TRADE_BUSTED", "TRADE_ADJUSTED")
JOINED = ("account", "side", "instrument", "last_quantity", "aggressor", "business_date")


csv.field_size_limit(1 << 24)  # the text of a table of factors is long


def check(holds, place, what):
    if not holds:
        sys.exit(f"NOT VERIFIED: {place}: {what}")


def rows_of(path):
    with open(path, newline="") as file:
        yield from csv.DictReader(file)


def main(trail, bulletin=None):
    number, last, commands, volume = 0, 0, 0, Counter()
    # Rows by match, rows of what corrects one, lots entered, executed, cancelled by order id, and
    # of a trade through implied prices the accounts of its orders and those of its legs
    matches, corrections, orders = defaultdict(list), defaultdict(list), defaultdict(Counter)
    traders, holders = defaultdict(set), defaultdict(set)
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
        if row["record_type"] == "LEG_TRADE":
            holders[row["match_number"]].add(row["account"])
        if row["direction"] == "IN" or not row["order_id"] or row["duplicate"]:
            continue
        order, kind = orders[row["order_id"]], row["record_type"]
        if kind in ("TRADE", "ORDER_EXECUTED"):  # the latter through an implied price
            order["executed"] += int(row["last_quantity"])
            check(order["executed"] == int(row["cumulative"]), place, "cumulative is off")
            if kind == "ORDER_EXECUTED":
                traders[row["match_number"]].add(row["account"])
            else:
                matches[row["match_number"]].append(row)
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
        for name, distinct in (("order_id", 2), ("side", 2), ("execution_id", 2), ("last_price", 1),
                               ("last_quantity", 1), ("instrument", 1), ("time", 1)):  # fmt: skip
            check(len({row[name] for row in rows}) == distinct, place, name)
        came = sorted(row["aggressor"] for row in rows)
        check(came in (["N", "Y"], ["", ""]), place, "aggressor")  # none in an auction
        volume[rows[0]["business_date"], rows[0]["instrument"]] += int(rows[0]["last_quantity"])
    for match, accounts in traders.items():
        check(accounts == holders[match], f"match {match}", "its orders' accounts have other legs")
    for match, rows in corrections.items():
        named, original = ([[row[name] for name in JOINED] for row in some]
                           for some in (rows, matches.get(match, ())))  # fmt: skip
        check(named == original, f"match {match}", "its correction is not of both its sides, once")
        if rows[0]["record_type"] == "TRADE_BUSTED":
            volume[rows[0]["business_date"], rows[0]["instrument"]] -= int(rows[0]["last_quantity"])
    told = list(rows_of(bulletin)) if bulletin else []
    for row in told:
        traded = volume.pop((row["business_date"], row["instrument"]), 0)
        check(traded == int(row["volume"]), row["instrument"], f"trades sum to {traded} lots")
    for (date, code), lots in volume.items():
        check(not lots or all(date != row["business_date"] for row in told), code, f"{lots} lots"
              f" traded on {date}, and no row of the bulletin")  # fmt: skip
    print(f"verified: {number} rows, {commands} commands, {len(matches)} matches")


if __name__ == "__main__":
    main(*sys.argv[1:])
