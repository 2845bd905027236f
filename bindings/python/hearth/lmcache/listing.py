"""Listings of keys, page by page. A page's token names a walk through the store that waits for the
next call; a few walks are kept, the one unused for longest goes first. The last page of a walk is
kept with it, so that a repeated request is answered again.
"""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator

WALKS = 16
PAGE_LIMIT = 10_000


class _Walk:
    def __init__(self, entries: Iterator):
        self.entries = entries
        self.page = 0
        self.last: tuple[list, bool] = ([], True)
        self.mutex = threading.Lock()


class Listings:
    """Walks under way. Safe from any thread."""

    def __init__(self):
        self._mutex = threading.Lock()
        self._walks: OrderedDict[str, _Walk] = OrderedDict()

    def page(self, start, size: int, token: str | None) -> tuple[list, str | None]:
        """The next entries, at most `size`, and the token of the page after; `start()` begins a
        walk where there is no token yet."""
        if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
            raise ValueError(f"page_size must be positive (got {size!r})")
        size = min(size, PAGE_LIMIT)
        if token is None:
            name, wanted = secrets.token_hex(8), 0
            walk = _Walk(start())
        else:
            name, _, number = token.partition(".")
            walk = self._walks.get(name)
            if walk is None or not number.isdigit():
                raise ValueError(
                    f"cursor {token!r} is not one of a listing under way (they end when "
                    f"{WALKS} newer ones begin): start again without one")
            wanted = int(number)
        with walk.mutex:
            if wanted == walk.page - 1:
                entries, more = walk.last
            elif wanted == walk.page:
                entries = []
                for entry in walk.entries:
                    entries.append(entry)
                    if len(entries) == size:
                        break
                more = len(entries) == size
                walk.last, walk.page = (entries, more), walk.page + 1
            else:
                raise ValueError(f"cursor {token!r}: that page has gone by; start again")
        with self._mutex:
            if more or token is not None:
                self._walks[name] = walk
                self._walks.move_to_end(name)
            while len(self._walks) > WALKS:
                self._walks.popitem(last=False)
        return entries, f"{name}.{wanted + 1}" if more else None
