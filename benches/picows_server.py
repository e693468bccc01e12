"""The gateway's sessions behind picows, for benches/access.py; not part of a market.

The session code is the gateway's own; only the WebSocket library differs.
"""

import asyncio
import time
from typing import Final

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from exchange.gateway.hub import Hub
from exchange.gateway.session import JSON, Session

HOST: Final = "127.0.0.1"


class Listener(WSListener):
    """One connection and its session."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._waits = False
        self._loop = asyncio.get_running_loop()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.session: Session = self._hub.connect(JSON, self._wake, HOST)
        self.session.send_now = self._send

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.session.receive(frame.get_payload_as_utf8_text(), time.time_ns())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._hub.disconnect(self.session)

    def _wake(self) -> None:
        if not self._waits:
            self._waits = True
            self._loop.call_soon(self._send_later)

    def _send_later(self) -> None:
        self._waits = False
        self._send()

    def _send(self) -> bool:
        frame = self.session.take()
        if frame:
            self._transport.send(WSMsgType.TEXT, frame)
        return True


async def serve(hub: Hub) -> str:
    """Serve sessions of a hub; return the address."""
    server = await ws_create_server(lambda request: Listener(hub), HOST, 0)
    return f"ws://{HOST}:{server.sockets[0].getsockname()[1]}/ws"
