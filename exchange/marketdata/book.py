"""What the public's view of a book is made of: its levels, and the orders at them."""


class Level:
    """A price of one side, and the lots at it."""

    def __init__(self, side: int, price: int) -> None:
        self.side = side
        self.price = price
        self.lots = 0
        self.orders = 0  # how many, where they are followed
        self.noted = False  # that it changed; ``before`` it held so many lots
        self.before = 0


class Order:
    """An order at its place in a level, and the lots that it shows."""

    level: Level
    rank: int
    lots: int
    noted: bool  # that it changed; ``before`` it showed so many lots
    before: int


def order_at(level: Level, rank: int, lots: int) -> Order:
    """Return an order at its place: made without a call of ``__init__``, which costs as much as
    all else that is done for it."""
    order = Order.__new__(Order)
    order.level, order.rank, order.lots = level, rank, lots
    order.noted, order.before = False, 0
    return order
