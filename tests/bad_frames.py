"""Frames and orders that are refused, by case of the bad inputs; "" for those that have none."""

import json
from typing import Any, Final

from venue import CODE, OTHER, THIRD, enter

from exchange.messages import Reason

R: Final = Reason


def text(**fields: Any) -> str:
    return json.dumps(enter("x", **fields))


def without(field: str) -> str:
    return json.dumps({key: value for key, value in enter("x").items() if key != field})


CANCEL: Final = {"op": "cancel", "request_id": "r", "client_order_id": "x"}
REPLACE: Final = {"op": "replace", "request_id": "r", "price": "2.6", "quantity": "1"}
FRAMES: Final[list[tuple[str, Any, Reason, str | None]]] = [
    ("B33", "not json", R.SYNTAX, None),
    ("B33", "", R.SYNTAX, None),
    ("B33", "[]", R.SYNTAX, None),
    ("B33", "7", R.SYNTAX, None),
    ("B33", "null", R.SYNTAX, None),
    ("B34", "[" * 8_000 + "]" * 8_000, R.SYNTAX, None),
    ("B34", '{"op":"enter","client_order_id":' + "[" * 8_000, R.SYNTAX, "client_order_id"),
    ("B35", '{"qty":1,"qty":1000}', R.DUPLICATE_FIELD, "qty"),
    ("B35", text()[:-1] + ',"quantity":"1000"}', R.DUPLICATE_FIELD, "quantity"),
    ("B35", text()[:-1] + ',"quantit\\u0079" :"1000"}', R.DUPLICATE_FIELD, "quantity"),
    ("B36", text(colour="red"), R.UNKNOWN_FIELD, "colour"),
    *(("B37", without(field), R.MISSING_FIELD, field)
      for field in ("op", "client_order_id", "instrument", "side", "quantity")),
    ("B37", json.dumps({"op": "cancel", "request_id": "r"}), R.MISSING_FIELD, "order_id"),
    ("B38", '{"op":"enter","quantity":NaN}', R.SYNTAX, None),
    ("B38", '{"op":"enter","quantity":Infinity}', R.SYNTAX, None),
    ("B38", text(quantity="NaN"), R.SYNTAX, "quantity"),
    ("B38", text(quantity="Infinity"), R.SYNTAX, "quantity"),
    ("B38", text(quantity="-0"), R.SYNTAX, "quantity"),
    ("B38", text(quantity="1e400"), R.SYNTAX, "quantity"),
    ("B38", text().replace('"10"', "1e-400"), R.SYNTAX, "quantity"),
    ("B39", text(quantity="1" * 15_000), R.SYNTAX, "quantity"),
    ("B39", text().replace('"10"', "1" * 15_000), R.SYNTAX, "quantity"),
    ("B40", text(price=2.135), R.SYNTAX, "price"),
    *(("B41", text(quantity=quantity), R.SYNTAX, "quantity")
      for quantity in ("1e2", "0x10", " 1", "1_000", "+1", "\uff11\uff10", "")),
    ("B42", text(quantity=True), R.SYNTAX, "quantity"),
    *(("B43", json.dumps(enter(bad)), R.ID_FORMAT, "client_order_id")
      for bad in ("\ud800", "a\0b", "a\u202eb", "a\u200bb", "\U0001f600")),
    *(("B44", json.dumps(enter(bad)), R.ID_FORMAT, "client_order_id")
      for bad in ("caf\u00e9", "cafe\u0301")),
    *(("B45", json.dumps(enter("a" * count)), R.ID_FORMAT, "client_order_id")
      for count in (0, 37, 15_000)),
    *(("B46", json.dumps(enter(bad)), R.ID_FORMAT, "client_order_id")
      for bad in ("'; DROP TABLE", "$(id)", "%s", "a\r\nb", "../x", "a\n")),
    *(("B46", text(instrument=bad), R.ID_FORMAT, "instrument")
      for bad in ("'; DROP TABLE", "%s", "../x", "")),
    ("B46", text(instrument="__proto__"), R.UNKNOWN_INSTRUMENT, "instrument"),
    ("B46", text(__proto__="x"), R.UNKNOWN_FIELD, "__proto__"),
    ("B47", "\ufeff" + text(), R.SYNTAX, None),
    ("B47", text().encode("utf-16").decode("latin-1"), R.SYNTAX, None),
    ("B48", text() + " more", R.SYNTAX, None),
    ("B51", text(quantity="1.5"), R.SYNTAX, "quantity"),
    ("B50", text(quantity="-1"), R.QUANTITY_RANGE, "quantity"),
    *(("B52", text(quantity=str(lots)), R.QUANTITY_RANGE, "quantity")
      for lots in (2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 2**128)),
    ("B56", text(price="2.6515"), R.TICK, "price"),
    ("B56", text(price=str(0.1 + 0.2)), R.TICK, "price"),
    ("B56", text(price="2.65.1"), R.SYNTAX, "price"),
    ("B60", text(type="market"), R.SYNTAX, "price"),
    ("B60", without("price"), R.SYNTAX, "price"),
    ("B61", text(side="BUY "), R.SYNTAX, "side"),
    ("B61", text(side=3), R.SYNTAX, "side"),
    ("B62", text(instrument="NONE"), R.UNKNOWN_INSTRUMENT, "instrument"),
    ("B62", text(instrument=CODE.lower()), R.UNKNOWN_INSTRUMENT, "instrument"),
    ("B63", text(time_in_force="GTX"), R.SYNTAX, "time_in_force"),
    ("B63", text(time_in_force="GTD"), R.MISSING_FIELD, "expires_ms"),
    ("B63", text(expires_ms=9_000), R.COMBINATION, "expires_ms"),
    *(("B63", text(time_in_force="GTD", expires_ms=bad), R.SYNTAX, "expires_ms")
      for bad in (-1, 1 << 62, 1.5, "9000")),
    ("", text(protection="0.010"), R.COMBINATION, "protection"),
    ("", text(minimum_quantity="x"), R.SYNTAX, "minimum_quantity"),
    ("", text(stop_price="x"), R.SYNTAX, "stop_price"),
    ("", text(stop_price="2.6505"), R.TICK, "stop_price"),
    ("", text(display_quantity="x"), R.SYNTAX, "display_quantity"),
    ("", text(stop_price="2.7", display_quantity="1"), R.COMBINATION, "stop_price"),
    ("", text(minimum_quantity="1", display_quantity="1"), R.COMBINATION, "display_quantity"),
    ("B70", text(account=THIRD), R.UNKNOWN_FIELD, "account"),
    ("B71", text(operator=9), R.UNKNOWN_FIELD, "operator"),
    ("B12", '{"op":"halt","instrument":"H100Z26"}', R.UNKNOWN_COMMAND, "op"),
    ("", text(price="9" * 30), R.PRICE_LIMIT, "price"),
    ("", text(price="-" + "9" * 30), R.PRICE_LIMIT, "price"),
    ("", text(price="9" * 40), R.SYNTAX, "price"),
    ("", json.dumps({**CANCEL, "order_id": "1"}), R.COMBINATION, "order_id"),
    ("", json.dumps({**CANCEL, "request_id": "a b"}), R.ID_FORMAT, "request_id"),
    ("", '{"op":"cancel","request_id":"r","order_id":"x"}', R.ID_FORMAT, "order_id"),
    ("", '{"op":"cancel","request_id":"r","order_id":"99999999999999999999"}', R.NOT_FOUND,
     "order_id"),
    ("", json.dumps({**REPLACE, "client_order_id": "unseen"}), R.NOT_FOUND, "order_id"),
    ("", json.dumps({**REPLACE, "order_id": "1" * 9_000}), R.ID_FORMAT, "order_id"),
    ("", json.dumps({**REPLACE, "order_id": "\u0661"}), R.ID_FORMAT, "order_id"),
    ("", b"\x81\xa2op\xa9heartbeat", R.SYNTAX, None),
]  # fmt: skip


ENGINE: Final[list[tuple[str, dict[str, Any], Reason, str | None, str | None]]] = [
    ("B49", {"quantity": "0"}, R.QUANTITY_RANGE, "1000", "0"),
    ("B52", {"quantity": str(2**31)}, R.QUANTITY_RANGE, "1000", str(2**31)),
    ("B54", {"instrument": OTHER, "quantity": "7"}, R.LOT, "5", "7"),
    ("B55", {"price": "0"}, R.PRICE_LIMIT, "2.000", "0.000"),
    ("B55", {"price": "-2.650"}, R.PRICE_LIMIT, "2.000", "-2.650"),
    ("B57", {"price": "3.301"}, R.PRICE_LIMIT, "3.300", "3.301"),
    ("B58", {"price": "9.000"}, R.PRICE_LIMIT, "3.300", "9.000"),
    ("B59", {"price": "99999999", "quantity": "1000"}, R.NOTIONAL, None, None),
    ("B64", {"post_only": True, "time_in_force": "IOC"}, R.COMBINATION, None, None),
    ("B64", {"post_only": True, "time_in_force": "FOK"}, R.COMBINATION, None, None),
    ("B63", {"time_in_force": "GTD", "expires_ms": 9_000}, R.EXPIRY, "1800000000000", "9000"),
    ("", {"quantity": "5", "minimum_quantity": "9"}, R.MINIMUM, "5", "9"),
    ("", {"stop_price": "9.000"}, R.TRIGGER, "3.300", "9.000"),
    ("", {"quantity": "5", "display_quantity": "9"}, R.DISPLAY, "5", "9"),
    ("", {"stop_price": "2.700", "post_only": True}, R.COMBINATION, None, None),
    ("B89", {"price": "1.000", "quantity": "610000"}, R.QUANTITY_RANGE, "1000", "610000"),
]
