"""Drops blocks that the device could not read."""

from collections.abc import Sequence
from typing import Any

from vllm.logger import init_logger

from hearth.vllm.options import REFUSALS

logger = init_logger("vllm.hearth.connector")


def drop_unreadable(queue: Any, space: Any, keys: Sequence[bytes]) -> None:
    """Deletes blocks that are still listed: or they would be found again and again. The batch's
    completion comes through the queue; nobody needs it."""
    if not keys:
        return
    try:
        queue.submit_delete(space, keys)
    except REFUSALS as error:
        logger.warning("Hearth: blocks that do not load stay listed: %s", error)
