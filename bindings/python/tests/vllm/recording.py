"""HearthConnector with a witness: digests of every block's bytes in the paged cache, layer by
layer, as they were when the block was saved and as they are once it was loaded. Tests compare them.

It also plants what must be found: HEARTH_TEST_FAULT is `swap` (two loaded blocks exchange their
bytes), `zero` (one layer of all blocks), or `flip` (a bit, where no check of the store can see it).
"""

import ctypes
import hashlib
import json
import os
from typing import Any

from hearth.vllm.connector import HearthConnector
from hearth.vllm.planner import Plan


class RecordingConnector(HearthConnector):
    def _bytes(self, page: Any, block: int) -> Any:
        return (ctypes.c_char * page.length).from_address(page.address + block * page.stride)

    def _digests(self, block: int) -> list[str]:
        return [hashlib.sha256(bytes(self._bytes(page, block))).hexdigest()
                for page in self._worker.pages.layers]

    def wait_for_layer_load(self, layer_name: str) -> None:
        super().wait_for_layer_load(layer_name)
        plan = self._connector_metadata
        fault = os.environ.get("HEARTH_TEST_FAULT", "")
        if not isinstance(plan, Plan) or not plan.loads or not fault:
            return
        layers = self._worker.pages.layers
        index = next(i for i, page in enumerate(layers) if page.layer == layer_name)
        page, middle = layers[index], index == len(layers) // 2
        pages = [self._bytes(page, block) for load in plan.loads for block in load.blocks]
        if fault == "swap":
            pages[0][:], pages[1][:] = bytes(pages[1]), bytes(pages[0])
        elif fault == "zero" and middle:
            for one in pages:
                one[:] = bytes(page.length)
        elif fault == "flip" and middle:
            whole = bytearray(bytes(pages[0]))
            whole[page.length // 3] ^= 0x40
            pages[0][:] = bytes(whole)

    def wait_for_save(self) -> None:
        plan = self._connector_metadata
        super().wait_for_save()
        if isinstance(plan, Plan) and self._worker is not None:
            with open(os.environ["HEARTH_TEST_RECORD"], "a", encoding="utf-8") as file:
                for what, moves in (("loaded", plan.loads), ("saved", plan.saves)):
                    for move in moves:
                        for key, block in zip(move.keys, move.blocks):
                            file.write(json.dumps([what, key.hex(), self._digests(block)]) + "\n")
