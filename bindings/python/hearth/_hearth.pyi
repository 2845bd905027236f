# The extension, as the package's own Python sees it; hearth/__init__.pyi is the interface.

from collections.abc import Sequence

from hearth import Namespace as Namespace
from hearth import Queue as Queue
from hearth import Region as Region
from hearth import Store as Store
from hearth import version as version

def _open(endpoint: str, options: tuple[str, ...], /) -> Store: ...
def _close_all() -> None: ...
def _lmcache_keys(keys: Sequence[str], /) -> tuple[str, int, list[bytes]] | None: ...
