"""asyncio: futures of the running loop, cancelled at any time, in several loops at once."""

import asyncio
import gc
import threading

import pytest

import hearth
from conftest import BLOCK, SMALL, Space


def test_put_get_delete(space):
    async def main():
        keys = space.keys(40)
        results = await space.ns.aput(keys, [space.payload(key) for key in keys],
                                      durability="durable")
        assert [r.status for r in results] == ["stored"] * 40
        buffers = [bytearray(BLOCK) for _ in keys]
        space.check(keys, buffers, await space.ns.aget(keys, buffers, mode="cached"))
        space.check(keys, buffers, await space.ns.aget(keys=keys, buffers=buffers, timeout=60))
        assert await space.ns.aget([], []) == []
        assert [r.status for r in await space.ns.adelete(keys)] == ["deleted"] * 40

    asyncio.run(main())


def test_many_at_once(space):
    async def main():
        keys = space.fill(64, length=1000)
        buffers = [bytearray(1000) for _ in keys]
        many = await asyncio.gather(*(
            space.ns.aget([key], [buffer]) for key, buffer in zip(keys, buffers)))
        space.check(keys, buffers, [results[0] for results in many], 1000)
        big = await asyncio.gather(*(
            space.ns.aget(keys * 100, [bytearray(1000) for _ in range(6400)]) for _ in range(3)))
        assert all({r.status for r in results} == {"hit"} for results in big)

    asyncio.run(main())


def test_the_loop_runs_meanwhile(space):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticker = asyncio.ensure_future(tick())
        keys = space.keys(64)
        values = [space.payload(key, length=1 << 20) for key in keys]
        await space.ns.aput(keys, values, durability="durable")
        ticker.cancel()
        assert ticks > 10

    asyncio.run(main())


def test_cancellation_keeps_the_memory(space):
    """The task is over at once; the buffers are held until the store has let go of them, and then
    they are free."""

    async def main():
        keys = space.fill(256)
        buffers = [bytearray(BLOCK) for _ in keys]
        task = asyncio.ensure_future(space.ns.aget(keys, buffers))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(2000):
            try:
                for buffer in buffers:
                    buffer.append(0)
                    buffer.pop()
                break
            except BufferError:  # still held
                await asyncio.sleep(0.001)
        else:
            pytest.fail("the memory was never let go")
        before = [bytes(buffer) for buffer in buffers]
        await asyncio.sleep(0.05)
        assert before == [bytes(buffer) for buffer in buffers]
        # The lane works on.
        space.check(keys, buffers, await space.ns.aget(keys, buffers))

    asyncio.run(main())


def test_timeouts_of_asyncio(space):
    async def main():
        keys = space.fill(64)
        for _ in range(20):
            buffers = [bytearray(BLOCK) for _ in keys]
            try:
                results = await asyncio.wait_for(space.ns.aget(keys, buffers), 0.0005)
            except asyncio.TimeoutError:
                continue
            space.check(keys, buffers, results)
        buffers = [bytearray(BLOCK) for _ in keys]
        space.check(keys, buffers, await space.ns.aget(keys, buffers))

    asyncio.run(main())


def test_a_loop_that_ends_with_work_under_way(space):
    keys = space.fill(128)
    buffers = [bytearray(BLOCK) for _ in keys]
    loop = asyncio.new_event_loop()

    async def begin():
        return asyncio.ensure_future(space.ns.aget(keys, buffers))

    task = loop.run_until_complete(begin())
    loop.call_soon(loop.stop)
    loop.run_forever()
    task.cancel()
    loop.close()
    del task, loop
    gc.collect()
    asyncio.run(space.ns.aget(keys[:1], [bytearray(BLOCK)]))  # looks after lanes of closed loops
    gc.collect()
    for buffer in buffers:
        buffer.append(0)  # let go


def test_loops_in_threads(store):
    failures = []

    def work(number):
        async def main():
            space = Space(store)
            keys = space.keys(20)
            await space.ns.aput(keys, [space.payload(key, length=3000) for key in keys])
            for _ in range(10):
                buffers = [bytearray(3000) for _ in keys]
                space.check(keys, buffers, await space.ns.aget(keys, buffers), 3000)
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_errors_are_raised_where_awaited(space):
    async def main():
        with pytest.raises(ValueError, match="0 bytes"):
            await space.ns.aget([b""], [bytearray(1)])
        with pytest.raises(BufferError):
            await space.ns.aget([b"k"], [b"read-only"])
        with pytest.raises(TypeError, match="tiemout"):
            await space.ns.adelete([b"k"], tiemout=1)
        [result] = await space.ns.aget([b"absent"], [bytearray(1)])
        assert (result.status, result.reason) == ("miss", "never-put")

    asyncio.run(main())


@pytest.mark.parametrize("where", ["loop", "thread"])
def test_close_ends_what_is_awaited(tmp_path, where):
    async def main():
        store = hearth.open(tmp_path, **SMALL)
        space = Space(store)
        keys = space.fill(64)
        tasks = [asyncio.ensure_future(space.ns.aget(keys, [bytearray(BLOCK) for _ in keys]))
                 for _ in range(8)]
        await asyncio.sleep(0)
        if where == "loop":
            store.close()
        else:
            await asyncio.get_running_loop().run_in_executor(None, store.close)
        for done in await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30):
            # What was drained before is right; the rest says why it is not there.
            assert isinstance(done, hearth.ClosedError) or {r.status for r in done} == {"hit"}
        with pytest.raises(hearth.ClosedError):
            await space.ns.aget(keys, [bytearray(BLOCK) for _ in keys])

    asyncio.run(main())
