"""The tutorial's Python runs as it stands, block after block, against a real market."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import market_in

from exchange.app.requests import Deposit
from exchange.gateway.auth import create_key

PAGE = Path(__file__).parents[1] / "docs/tutorial.md"
ADDRESS = "ws://localhost:8000"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A market served from a thread, with the tutorial's account and key."""
    ready, done = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with market_in(tmp_path / "market") as market:
            await market.operations.perform(Deposit(account=1, amount="5000000"))
            key_id, secret = create_key(tmp_path / "market", 1, "trade")
            (tmp_path / "key.json").write_text(json.dumps({"key_id": key_id, "secret": secret}))
            found.append((await market.listen("127.0.0.1", 0)).ws)
            ready.set()
            while not done.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield found[0]
    finally:
        done.set()
        thread.join()


def test_every_block_runs(
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) >= 5
    for block in blocks:
        exec(compile(block.replace(ADDRESS, address), PAGE.name, "exec"), names)
    said = capsys.readouterr().out
    assert "Accepted(" in said and "PRICE_LIMIT price" in said and "enough" in said
