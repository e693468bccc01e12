"""The elements of the public view of a book: its levels, and the orders at them."""


class Level:
    """A price of one side, and the quantity in lots at it."""

    def __init__(self, side: int, price: int) -> None:
        self.side = side
        self.price = price
        self.lots = 0
        self.orders = 0  # number of orders, where they are followed
        self.noted = False  # in the list of changes; ``before``: its lots before the change
        self.before = 0


class Order:
    """An order: its level, its rank there, and the lots it shows."""

    level: Level
    rank: int
    lots: int
    noted: bool  # in the list of changes; ``before``: its lots before the change
    before: int


def order_at(level: Level, rank: int, lots: int) -> Order:
    """Return a new order. ``__init__`` is bypassed: its call would cost as much as all the rest."""
    order = Order.__new__(Order)
    order.level, order.rank, order.lots = level, rank, lots
    order.noted, order.before = False, 0
    return order
