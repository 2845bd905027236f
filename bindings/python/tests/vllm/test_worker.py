"""The worker's order of things, on fakes of the model and of the mover, and under vLLM's own code
around a forward pass."""

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", exc_type=ImportError)
pytest.importorskip("hearth._hearth", exc_type=ImportError)

from fakes import plan, worker
from vllm.distributed.kv_transfer import kv_transfer_state
from vllm.v1.worker import kv_connector_model_runner_mixin as runner

from hearth.vllm import lookups
from hearth.vllm.connector import HearthConnector
from hearth.vllm.worker import EPOCH_TTL_SECONDS


@pytest.fixture
def connector(monkeypatch):
    """A connector with a worker on fakes, where vLLM looks for it."""
    made = HearthConnector.__new__(HearthConnector)
    made._worker, made._planner, made._begun = worker(), None, None
    made._connector_metadata = None
    monkeypatch.setattr(kv_transfer_state, "_KV_CONNECTOR_AGENT", made)
    monkeypatch.setattr(runner, "get_forward_context", lambda: None)
    return made


def step(connector, of, *, speculative=False, layers=("early", "late"), raises=None):
    """One step of vLLM's model runner; returns what it tells the scheduler."""
    mixin = runner.KVConnectorModelRunnerMixin
    output = SimpleNamespace(kv_connector_metadata=of, has_sync_kv_loads=bool(of.loads),
                             finished_req_ids=set())
    connector.handle_preemptions(of)
    with mixin.maybe_get_kv_connector_output(output, defer_finalize=speculative) as told:
        for layer in layers:
            connector.wait_for_layer_load(layer)
        if raises is not None:
            raise raises
    if speculative:
        connector.wait_for_layer_load("late")  # the draft model's pass
        mixin.finalize_kv_connector()
    return told


@pytest.mark.parametrize("speculative", [False, True])
def test_failed_loads_are_told_in_their_own_step(connector, speculative):
    """With speculative decoding vLLM asks before it calls wait_for_save."""
    mover = connector._worker.mover
    mover.failing = {1: "failed-check"}
    told = step(connector, plan(loads=3, saves=2), speculative=speculative)
    assert told.invalid_block_ids == {1}
    # Nothing computed from it is saved, nor what may have been planned one step ahead.
    told = step(connector, plan(saves=2), speculative=speculative)
    assert told.invalid_block_ids == set() and mover.named("save") == []
    step(connector, plan(saves=2), speculative=speculative)
    assert len(mover.named("save")) == 1
    assert len(mover.named("end")) == 1  # of the one step that loaded


def test_a_forward_pass_that_raises_saves_nothing(connector):
    mover = connector._worker.mover
    with pytest.raises(RuntimeError, match="out of memory"):
        step(connector, plan(loads=2, saves=2), raises=RuntimeError("out of memory"))
    assert len(mover.named("end")) == 1 and mover.named("save") == []  # no read is left under way
    step(connector, plan(saves=2))  # planned before the error was known
    assert mover.named("save") == []


def test_layers_in_any_order_wait_for_their_own_shard(connector):
    mover = connector._worker.mover
    step(connector, plan(loads=2), layers=("late", "early", "late"))
    assert mover.named("wait") == [("wait", 1), ("wait", 0)]
    step(connector, plan(loads=2))  # and so in the next step
    assert mover.named("wait")[2:] == [("wait", 0), ("wait", 1)]


def test_a_shard_whose_wait_was_broken_off_is_waited_for_again(connector):
    made = connector._worker
    made.load(plan(loads=1))
    real, broken = made.mover.wait_shard, [True]

    def wait(shard):
        if broken.pop() if broken else False:
            raise RuntimeError("interrupted")
        real(shard)

    made.mover.wait_shard = wait
    with pytest.raises(RuntimeError):
        made.wait_layer("early")
    made.wait_layer("early")
    assert made.mover.named("wait") == [("wait", 0)]


def test_loads_that_no_layer_waited_for_count_as_failed(connector):
    """A model whose layers have no hook got past the refusals: it read what was not there yet."""
    told = step(connector, plan(loads=2, saves=1), layers=())
    assert told.invalid_block_ids == {0, 1}
    assert connector._worker.mover.named("save") == []


def test_an_epoch_has_a_namespace_of_its_own(connector):
    made = connector._worker
    base = made.space
    assert made.renew(1) and made.space is not base
    assert not base.purged  # it is right for the weights that its fields name
    first = made.space
    assert first.fields["epoch"] and first.ttl == EPOCH_TTL_SECONDS and base.ttl == 0
    assert made.renew(1) and made.space is first  # told twice
    assert made.renew(2) and made.renew(3)
    assert first.purged and not base.purged
    other = worker()
    other.renew(1)  # of another run: never the same
    assert other.space.fields["epoch"] != first.fields["epoch"]


def test_steps_planned_before_a_reset(connector):
    """They load what they were planned with, and save nothing; later ones use the new epoch."""
    made = connector._worker
    base = made.space
    made.renew(1)
    assert step(connector, plan(loads=1, saves=1)).invalid_block_ids == set()
    assert made.mover.named("load") == [("load", base)] and made.mover.named("save") == []
    step(connector, plan(loads=1, saves=1, epoch=1))
    assert made.mover.named("load")[1:] == [("load", made.space)]
    assert made.mover.named("save") == [("save", made.space)]
    made.renew(2)
    made.renew(3)
    assert step(connector, plan(loads=2, epoch=1)).invalid_block_ids == {0, 1}
    assert len(made.mover.named("load")) == 2


def test_a_plan_brings_an_epoch_that_no_message_told(connector):
    made = connector._worker
    step(connector, plan(saves=1, epoch=1))
    assert made.space.fields["epoch"] and made.mover.named("save") == [("save", made.space)]


def test_a_reset_from_the_other_process_leaves_the_mover_alone(tmp_path):
    """The mover belongs to the worker's thread; a reset comes on the one that answers lookups."""
    made = worker()
    server = lookups.Server("engine-reset", [str(tmp_path)], made)
    client = lookups.Client("engine-reset", [str(tmp_path)])
    client._local = lambda: None  # as from another process
    try:
        stop = threading.Event()

        def steps() -> None:
            while not stop.is_set():
                one = plan(loads=1, saves=1, epoch=made._epoch)
                made.begin(one)
                made.load(one)
                made.wait_layer("early")
                made.end(one)

        thread = threading.Thread(target=steps)
        thread.start()
        spaces = [made.space]
        for epoch in range(1, 20):
            assert client.renew(epoch)
            spaces.append(made.space)
        stop.set()
        thread.join()
        assert made.mover.threads == {thread.ident}
        assert len({id(space) for space in spaces}) == 20
    finally:
        client.close()
        server.close()
