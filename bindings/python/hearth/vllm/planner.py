"""The scheduler's side of HearthConnector: which blocks a request gets from the store, and which of
a step's blocks are saved.

It asks the worker, which holds the store, what is there, and hands it a plan with every step. All
of it is bookkeeping over block hashes: a block is keyed by the hash that vLLM chains over the
tokens up to its end, so equal keys mean equal prefixes.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata
from vllm.v1.core.kv_cache_utils import resolve_block_hashes

from hearth.vllm.lookups import Client


@dataclass
class Load:
    """Blocks to be read into the paged cache before a request's step."""

    request: str
    keys: list[bytes]
    blocks: list[int]


@dataclass
class Save:
    """Blocks that are whole after this step."""

    request: str
    keys: list[bytes]
    blocks: list[int]
    parent: Optional[bytes]  # the key before the first one


@dataclass
class Plan(KVConnectorMetadata):
    """What the worker does with a step."""

    loads: list[Load] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)
    # Blocks that this step may write: saves that still read them must end first.
    written: list[int] = field(default_factory=list)
    # How often the cache had been reset when the step was planned: see Worker.renew.
    epoch: int = 0


@dataclass
class Tracked:
    """A request that has blocks."""

    request: Any
    blocks: list[int] = field(default_factory=list)
    saved: int = 0          # blocks, from the first on, that are saved or need not be
    holes: list[int] = field(default_factory=list)  # blocks before `saved` that the store lacks


class Planner:
    """One engine's plans. Not thread safe: vLLM's scheduler is one thread."""

    def __init__(self, client: Client, block_tokens: int, hash_tokens: int, *, load: bool,
                 save: bool, save_decoded: bool) -> None:
        self._client = client
        self._block_tokens, self._hash_tokens = block_tokens, hash_tokens
        self._load, self._save, self._save_decoded = load, save, save_decoded
        self._tracked: dict[str, Tracked] = {}
        self._found: dict[str, tuple[int, Sequence[int]]] = {}  # of the last lookup of a request
        self._loads: dict[str, Load] = {}
        self._epoch = 0

    def keys(self, request: Any) -> list[bytes]:
        """The keys of the request's whole blocks, in order."""
        hashes = resolve_block_hashes(
            request.block_hashes, self._hash_tokens, self._block_tokens)
        return [bytes(hashes[index]) for index in range(len(hashes))]

    def matched(self, request: Any, computed: int) -> int:
        """Tokens beyond the first `computed` that the store has. The last token of a request is
        always computed, since it gives the first new one."""
        first = computed // self._block_tokens
        most = (request.num_tokens - 1) // self._block_tokens
        keys = self.keys(request)[:most]
        if computed % self._block_tokens or not keys:
            return 0
        # The blocks that the engine has already are asked for too: those that the store has lost
        # meanwhile are saved again, or a chain without its head would be of no use.
        there = self._client.contains_many(keys)
        self._found[request.request_id] = (first, there)
        if not self._load:
            return 0
        count = 0
        while first + count < len(keys) and there[first + count]:
            count += 1
        return count * self._block_tokens

    def allocated(self, request: Any, blocks: Any, external: int) -> None:
        """The request has blocks now, `external` tokens of which are to be loaded."""
        name = request.request_id
        ids = blocks.get_block_ids()
        first, there = self._found.pop(name, (0, ()))
        tracked = self._tracked.get(name)
        if tracked is None or tracked.request is not request:
            tracked = self._tracked[name] = Tracked(request)
        tracked.blocks = list(ids[0]) if ids else []
        count = external // self._block_tokens
        known = first + count
        tracked.saved = max(tracked.saved, known)
        tracked.holes = [index for index in range(min(first, len(there))) if not there[index]]
        if count > 0:
            keys = self.keys(request)[first:known]
            self._loads[name] = Load(name, keys, tracked.blocks[first:known])
            self._client.hint_chain(number(name), keys)

    def plan(self, output: Any) -> Plan:
        """The plan of a step that vLLM has just put together."""
        plan = Plan(loads=list(self._loads.values()), epoch=self._epoch)
        loading = self._loads
        self._loads = {}
        for new in output.scheduled_new_reqs:
            ids = new.block_ids[0]
            begin = new.num_computed_tokens // self._block_tokens
            if new.req_id in loading:
                begin -= len(loading[new.req_id].keys)
            self._step(plan, output, new.req_id, list(ids), new.num_computed_tokens, begin)
        cached = output.scheduled_cached_reqs
        for index, name in enumerate(cached.req_ids):
            tracked = self._tracked.get(name)
            fresh = cached.new_block_ids[index]
            computed = cached.num_computed_tokens[index]
            if name in cached.resumed_req_ids:
                # After a preemption all blocks are new ones.
                begin, ids = 0, list(fresh[0]) if fresh else []
            else:
                known = tracked.blocks if tracked is not None else []
                more = list(fresh[0]) if fresh else []
                # `allocated` may have told of them already.
                ids = known if more and known[-len(more):] == more else known + more
                begin = len(ids) - len(more)
            self._step(plan, output, name, ids, computed, begin)
        return plan

    def _step(self, plan: Plan, output: Any, name: str, ids: list[int], computed: int,
              begin: int) -> None:
        """Adds one scheduled request: its new blocks from `begin` on, and what it completes."""
        plan.written.extend(ids[max(begin, 0):])
        tracked = self._tracked.get(name)
        if tracked is None:
            return
        tracked.blocks = ids
        # A load that failed sets a request back: what is computed again is saved again.
        tracked.saved = min(tracked.saved, computed // self._block_tokens)
        request = tracked.request
        if not self._save:
            return
        tokens = computed + output.num_scheduled_tokens.get(name, 0)
        if not self._save_decoded:
            tokens = min(tokens, request.num_prompt_tokens)
        whole = tokens // self._block_tokens
        if whole <= tracked.saved and not tracked.holes:
            return
        keys = self.keys(request)  # ends before tokens that are only drafts
        whole = min(whole, len(keys), len(ids))
        wanted = tracked.holes + list(range(tracked.saved, whole))
        tracked.holes = []
        tracked.saved = max(tracked.saved, whole)
        run: list[int] = []
        for index in [*wanted, -1]:
            if run and index != run[-1] + 1:
                plan.saves.append(Save(
                    name, [keys[one] for one in run], [ids[one] for one in run],
                    keys[run[0] - 1] if run[0] > 0 else None))
                run = []
            run.append(index)

    def finished(self, request: Any) -> None:
        """The request has ended; its blocks may go to others in later steps."""
        name = request.request_id
        self._tracked.pop(name, None)
        self._found.pop(name, None)
        if self._loads.pop(name, None) is not None:
            self._client.hint_cancel(number(name))

    def renew(self) -> bool:
        """The engine's weights may have changed: nothing of what is stored is found from now on.
        Plans say so too, so that it holds even where the worker does not answer."""
        self._found.clear()
        self._epoch += 1
        return self._client.renew(self._epoch)


def number(request: str) -> int:
    """A request's number for hints: a hash of its name, never 0."""
    return (zlib.crc32(request.encode()) | zlib.adler32(request.encode()) << 32) or 1
