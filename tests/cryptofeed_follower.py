"""Follows one instrument's book with cryptofeed's Deribit feed, and prints what it makes of it.

A process of its own: cryptofeed has its event loop and reads its instruments while it waits.
Arguments: REST address, WebSocket address, key id, secret, instrument. A line of JSON per book:
``change_id``, whether it was a snapshot, and both sides.
"""

import json
import sys
from decimal import Decimal
from typing import Any, ClassVar

from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import L2_BOOK
from cryptofeed.exchanges import Deribit


def follow(rest: str, websocket: str, key_id: str, secret: str, instrument: str) -> None:
    """Follow until killed."""

    routes = [f"/api/v2/public/get_instruments?currency={base}" for base in ("H100", "A100")]

    class Here(Deribit):  # type: ignore[misc]
        websocket_endpoints: ClassVar = [WebsocketEndpoint(websocket)]
        rest_endpoints: ClassVar = [RestEndpoint(rest, routes=Routes(routes))]

    async def tell(book: Any, received: float) -> None:
        sides = {
            name: [[str(Decimal(price)), str(side[price])] for price in side]
            for name, side in (("bids", book.book.bids), ("asks", book.book.asks))
        }
        fresh = book.delta is None
        print(
            json.dumps({"change_id": book.sequence_number, "snapshot": fresh, **sides}), flush=True
        )

    config = {"log": {"disabled": True}, "deribit": {"key_id": key_id, "key_secret": secret}}
    names = {code: name for name, code in Here.symbol_mapping().items()}
    handler = FeedHandler(config=config)
    feed = Here(
        symbols=[names[instrument]], channels=[L2_BOOK], callbacks={L2_BOOK: tell}, config=config
    )
    handler.add_feed(feed)
    handler.run(install_signal_handlers=False)


if __name__ == "__main__":
    follow(*sys.argv[1:])
