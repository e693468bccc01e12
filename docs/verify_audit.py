"""Verify an exported audit trail on its own: python docs/verify_audit.py FILE.csv [BULLETIN.csv]

Needs nothing but Python. Written from docs/reference/audit.md: rows and sequences without gaps,
every match joined by exactly two orders of opposite sides, the orders of a trade through implied
prices to legs of the same accounts, every order's lots accounted for, every bust or adjustment
joined to both sides of its trade, and the volumes of a bulletin of `hourbook log bulletin DIR
--csv`, if one is given, of every instrument that traded. Any doubt is a line and exit code 1.
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
    # Answers by record type and match; lots entered, executed, cancelled by order id
    joined, orders = defaultdict(list), defaultdict(Counter)
    for number, row in enumerate(rows_of(trail), 1):
        place, sequence, kind = f"row {row['row']}", int(row["sequence"]), row["record_type"]
        check(int(row["row"]) == number, place, f"row {number} was to come next")
        if row["direction"] == "IN":
            check(sequence == last + 1, place, f"sequence {last + 1} was to come next")
            last, commands = sequence, commands + 1
        check(sequence == last, place, "an answer to another command")
        check(row["time"].endswith("Z") and len(row["time"]) == 24, place, "time is not UTC ms")
        if row["direction"] == "OUT" and row["match_number"]:
            joined[kind, row["match_number"]].append(row)
        if row["direction"] == "IN" or not row["order_id"] or row["duplicate"]:
            continue
        order, lots = orders[row["order_id"]], row["quantity"]
        if kind in ("TRADE", "ORDER_EXECUTED"):  # the latter through an implied price
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
    check(number, trail, "it has no row")
    for (kind, match), rows in joined.items():
        place = f"match {match}"
        if kind == "TRADE":
            check(len(rows) == 2, place, f"{len(rows)} executions, not two")
            for name, distinct in (("order_id", 2), ("side", 2), ("execution_id", 2),
                                   ("last_price", 1), ("last_quantity", 1), ("instrument", 1),
                                   ("time", 1)):  # fmt: skip
                check(len({row[name] for row in rows}) == distinct, place, name)
            check(sorted(row["aggressor"] for row in rows) in (["N", "Y"], ["", ""]), place,
                  "aggressor")  # none in an auction  # fmt: skip
            volume[rows[0]["business_date"], rows[0]["instrument"]] += int(rows[0]["last_quantity"])
        elif kind == "ORDER_EXECUTED":  # through an implied price
            legs = {row["account"] for row in joined.get(("LEG_TRADE", match), ())}
            check(legs == {row["account"] for row in rows}, place, "its legs are of others")
        elif kind in CORRECTIONS:
            check([[row[name] for name in JOINED] for row in joined.get(("TRADE", match), ())]
                  == [[row[name] for name in JOINED] for row in rows], place,
                  "its correction is not of both its sides, once")  # fmt: skip
            if kind == "TRADE_BUSTED":
                volume[rows[0]["business_date"], rows[0]["instrument"]] -= int(
                    rows[0]["last_quantity"])  # fmt: skip
    for row in (told := list(rows_of(bulletin)) if bulletin else []):
        traded = volume.pop((row["business_date"], row["instrument"]), 0)
        check(traded == int(row["volume"]), row["instrument"], f"trades sum to {traded} lots")
    for (date, code), lots in volume.items():
        check(not lots or all(date != row["business_date"] for row in told), code, f"{lots} lots"
              f" traded on {date}, and no row of the bulletin")  # fmt: skip
    print(f"verified: {number} rows, {commands} commands,"
          f" {sum(kind == 'TRADE' for kind, _ in joined)} matches")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
