"""Two people who want a settlement price."""

from exchange.app import requests
from exchange.app.operations import Operations


async def override(operations: Operations, code: str, price: str, correction: bool = False) -> None:
    """Propose a price and approve it by somebody else."""
    request = requests.ProposePrice(code=code, price=price, reason="a test", correction=correction)
    proposed = await operations.perform(request, "ann")
    await operations.perform(requests.Approve(proposal=proposed["proposal"]), "bob")
