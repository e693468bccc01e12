"""Types of ``page.pyx``."""

from exchange.marketdata.stream import Row

class Page:
    count: int
    def accepted(
        self, row: Row, time: int, text: str, code: str, price: str | None, tokens: int
    ) -> None: ...
    def execution(
        self, row: Row, time: int, made: bool, text: str, code: str, price: str, fee: str
    ) -> None: ...
    def cancelled(
        self, row: Row, time: int, text: str, code: str, price: str, request_id: str | None
    ) -> None: ...
    def add(self, report: bytes) -> None: ...
    def take(self) -> bytes: ...
