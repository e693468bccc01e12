"""Two people, and a settlement price that they want."""

from contextlib import closing
from pathlib import Path

from exchange.app import requests
from exchange.app.operations import Operations
from exchange.gateway import auth

_INSERT = "INSERT OR IGNORE INTO keys (key_id, secret, account, scope, created)"


def people(directory: Path, *names: str) -> None:
    """Give each an admin key, whose id is the name."""
    with closing(auth._open(directory)) as database:
        rows = [(name,) for name in names]
        database.executemany(f"{_INSERT} VALUES (?, '00', 0, 'admin', 0)", rows)


async def override(operations: Operations, code: str, price: str, correction: bool = False) -> None:
    """Propose a price and approve it by somebody else."""
    people(operations._directory, "ann", "bob")
    request = requests.ProposePrice(code=code, price=price, reason="a test", correction=correction)
    proposed = await operations.perform(request, "ann")
    await operations.perform(requests.Approve(proposal=proposed["proposal"]), "bob")
