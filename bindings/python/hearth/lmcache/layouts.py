"""What an object's bytes mean: the data types and shapes of its parts, as text for a namespace.

Objects of one length can mean different numbers (bfloat16 and float16, heads before or after
tokens), and their keys do not tell which. So the layout chooses the namespace: one of another
layout is not found. LMCache tells it with the objects of a store and of a load, and with a lookup.

Three names are no such text. BYTES is that of bare bytes, as a serde makes them of an object, and
NATIVE of what the native connector passes on: what these mean, `namespace` of the configuration has
to tell. UNKNOWN is a lookup's that was told none; the load that follows knows it.
"""

import hashlib
import logging
from collections.abc import Sequence
from functools import lru_cache

logger = logging.getLogger(__name__)

BYTES = "bytes"
NATIVE = "native"
UNKNOWN = ""


def of_description(description) -> str:
    """The layout of a MemoryLayoutDesc. None and an empty one (a placeholder) tell nothing."""
    if description is None or not description.shapes:
        return UNKNOWN
    return _of(description.shapes, description.dtypes)


def of_object(item) -> str:
    """The layout of a MemoryObj."""
    told = item.meta
    # The two pairs are LMCache's; what is not allocated by its L1 can lack the newer one.
    if told.shapes is not None and told.dtypes is not None:
        return _of(told.shapes, told.dtypes)
    return _of((told.shape,), (told.dtype,))


def _of(shapes: Sequence, dtypes: Sequence) -> str:
    return _named(tuple(tuple(shape) for shape in shapes), tuple(dtypes))


@lru_cache(maxsize=4096)
def _named(shapes: tuple, dtypes: tuple) -> str:
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    # A flat row of bytes has no more structure than its length, which each read is held to.
    if dtypes == (None,) or (names == ["uint8"] and len(shapes[0]) == 1):
        return BYTES
    text = ";".join(
        f"{name}[{','.join(str(int(extent)) for extent in shape)}]"
        for name, shape in zip(names, shapes))
    name = hashlib.sha256(text.encode()).hexdigest()
    logger.info("Hearth: layout %s is %s", name[:16], text)
    return name
