"""Paged histories as iterators, with cursors to continue from."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic, TypeAlias, TypeVar

from clients.loop import LoopThread

_T = TypeVar("_T")
# Fetches one page: its items, and the cursor of the next one or None.
Turn: TypeAlias = Callable[[str], Awaitable[tuple[list[_T], str | None]]]


class Pages(Generic[_T]):
    """The items of a history, oldest first, fetched page by page.

    ``after`` is the cursor behind the last complete page taken, also at the end: another iterator
    can continue from it. For items with a position in the log (trades, fills, events) it stays
    valid for ever and no item comes twice; for candles and settlement prices the last items may
    come again.
    """

    def __init__(
        self,
        turn: "Turn[_T]",
        after: str,
        behind: Callable[[_T], str] | None = None,
    ) -> None:
        """``behind`` returns the cursor behind an item, since the last page has none."""
        self.after = after
        self.at_end = False
        self._turn, self._behind = turn, behind
        self._items: list[_T] = []

    async def page(self) -> list[_T]:
        """Return the next page's items; a page may be empty although more follow.

        Raises as ``AsyncRest`` does; StopAsyncIteration at the end.
        """
        if self.at_end:
            raise StopAsyncIteration
        items, following = await self._turn(self.after)
        if following is not None:
            self.after = following
            return items
        self.at_end = True
        if items and self._behind is not None:
            self.after = self._behind(items[-1])
        return items

    def __aiter__(self) -> AsyncIterator[_T]:
        return self

    async def __anext__(self) -> _T:
        while not self._items:
            self._items = (await self.page())[::-1]
        return self._items.pop()


class BlockingPages(Generic[_T]):
    """``Pages`` for programs without an event loop."""

    def __init__(self, loop: LoopThread, pages: Pages[_T]) -> None:
        self._loop = loop
        self._pages = pages

    @property
    def after(self) -> str:
        """The cursor behind the last complete page taken."""
        return self._pages.after

    @property
    def at_end(self) -> bool:
        """Whether that page was the last."""
        return self._pages.at_end

    def __iter__(self) -> Iterator[_T]:
        return self

    def __next__(self) -> _T:
        found = self._loop.wait(self._take())
        if not found:
            raise StopIteration
        return found[0]

    async def _take(self) -> list[_T]:
        async for item in self._pages:
            return [item]
        return []
