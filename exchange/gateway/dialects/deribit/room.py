"""The dialect's routes: ``/api/v2`` over HTTP, and the WebSocket ``/ws/api/v2``."""

from functools import partial
from typing import Any, Final

from aiohttp import web

from exchange.gateway.access import Key
from exchange.gateway.dialects.deribit import params as take
from exchange.gateway.dialects.deribit import rpc
from exchange.gateway.dialects.deribit.blotter import Blotter
from exchange.gateway.dialects.deribit.calls import Later, Wish
from exchange.gateway.dialects.deribit.codes import TIMED_OUT, UNKNOWN, refusal
from exchange.gateway.dialects.deribit.lines import Lines
from exchange.gateway.dialects.deribit.methods import PRIVATE, Methods
from exchange.gateway.dialects.deribit.peer import PeerLink
from exchange.gateway.dialects.deribit.rpc import Call, Failure
from exchange.gateway.http import BAD_REQUEST, STATUS, json_answer
from exchange.gateway.hub import Hub
from exchange.gateway.rest import Rest
from exchange.gateway.server import Gateway
from exchange.messages import Reason

API: Final = "/api/v2"
WS: Final = "/ws/api/v2"
GATEWAY_TIMEOUT: Final = 504
_BY_NAME: Final = {reason.name: status for reason, status in STATUS.items()}


class Room:
    """Adds the dialect's routes to a gateway that has not started, and keeps the blotter."""

    def __init__(self, gateway: Gateway, hub: Hub, rest: Rest, *, apart: bool = False) -> None:
        """``apart``: other processes are gateways of the same market."""
        self._gateway = gateway
        blotter = Blotter(hub)
        blotter.read_back()
        gateway.watchers.append(blotter.take)
        self._methods = Methods(hub, blotter, rest.candle_rows, apart=apart)
        self._lines = Lines(hub)
        router = gateway.app.router
        router.add_get(WS, self._websocket, allow_head=False)
        for path in (API, API + "/{method:.*}"):
            router.add_get(path, self._get, allow_head=False)  # HEAD must change nothing
            router.add_post(path, self._post)
        gateway.app.on_shutdown.append(self._shut)

    async def _shut(self, application: web.Application) -> None:
        self._lines.close()

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        return await self._gateway.upgrade(request, partial(PeerLink, self._methods))

    async def _get(self, request: web.Request) -> web.Response:
        taken = rpc.now_us()
        params = dict(request.query)
        method = request.match_info.get("method", "")
        call = Call(None, method, params, taken)
        if len(params) != len(request.query):
            return self._failed(call, refusal(Reason.DUPLICATE_FIELD, "a parameter twice"))
        return await self._serve(request, call, b"")

    async def _post(self, request: web.Request) -> web.Response:
        taken, value = rpc.now_us(), None
        try:
            body = await request.read()
            value = rpc.read(body)
            if isinstance(value, dict) and request.match_info.get("method"):
                value.setdefault("method", request.match_info["method"])
            call = rpc.call_of(value, taken)
        except web.HTTPRequestEntityTooLarge:
            return self._failed(Call(None, "", {}, taken), rpc.too_large())
        except Failure as failure:
            return self._failed(Call(rpc.id_of(value), "", {}, taken), failure)
        return await self._serve(request, call, body)

    async def _serve(self, request: web.Request, call: Call, body: bytes) -> web.Response:
        self._gateway.check_origin(request)
        try:
            outcome = await self._answer(request, call, body)
        except Failure as failure:
            return self._failed(call, failure)
        return json_answer(rpc.answer(call.id, call.taken_us, outcome))

    async def _answer(self, request: web.Request, call: Call, body: bytes) -> Any:
        methods, address = self._methods, request.remote or ""
        methods.count(address)
        if call.method == "public/auth":
            auth = take.convert(call.params, take.Auth)
            return methods.gate.issue(methods.gate.grant(auth, address), auth)
        key: Key | None = None
        if call.method.startswith(PRIVATE):
            header = request.headers.get("Authorization", "")
            target = f"{request.method}\n{request.raw_path}"
            key = methods.gate.admit(header, target, body, address)
        outcome = methods.answer(call, key)
        if isinstance(outcome, Later):
            outcome = await outcome.done(address)
        if key is not None and isinstance(outcome, Wish):
            return await self._lines.carry_out(outcome, key, address)
        return outcome

    def _failed(self, call: Call, failure: Failure) -> web.Response:
        told = failure.data or {}
        status = _BY_NAME.get(told.get("reason", ""), BAD_REQUEST)
        if failure.code == TIMED_OUT[0]:
            status = GATEWAY_TIMEOUT if told["outcome"] == UNKNOWN else BAD_REQUEST
        return json_answer(rpc.error(call.id, call.taken_us, failure), status)
