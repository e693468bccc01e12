"""Two people who want a settlement price."""

from exchange.app import requests
from exchange.app.operations import Operations


async def override(operations: Operations, code: str, price: str, correction: bool = False) -> None:
    """Propose a price and approve it by somebody else."""
    proposed = await operations.perform(
        requests.ProposePrice(
            code=code, price=price, person="ann", reason="a test", correction=correction
        )
    )
    number = proposed["rulings"][0]["facts"]["proposal"]
    await operations.perform(requests.ApprovePrice(proposal=number, person="bob"))
