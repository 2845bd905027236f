#!/usr/bin/env python3
"""Random direct gets from Python, on the store that hearth-bench laid out for its own.

The engine's way: a registered region, one queue, and as many gets of one block under way as
--depth says, each row of the region used again when its get has ended. Prints one JSON document
with an object `row`, as hearth-bench row does. Needs the package hearth (tools/python-install).
"""

import argparse
import json
import mmap
import os
import random
import resource
import sys
import time

import hearth


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(queue, space, keys, region, block, depth, seconds):
    """Bytes read, and how long it took: all of it, the gets under way at the end too."""
    dice = random.Random(1)
    pick, count = dice.random, len(keys)
    submit = queue.submit_rows
    rows = {}
    for row in range(depth):
        key = keys[int(pick() * count)]
        rows[submit("get", space, (key,), region, (row,), block, block)] = row
    ended = 0
    begun = time.perf_counter()
    end = begun + seconds
    while rows:
        going = time.perf_counter() < end
        for number, (result,) in queue.wait():
            row = rows.pop(number)
            if result.status != "hit" or result.delivered != block:
                raise SystemExit(f"python.py: a get was no hit of {block} bytes: {result}")
            ended += 1
            if going:
                key = keys[int(pick() * count)]
                rows[submit("get", space, (key,), region, (row,), block, block)] = row
    return ended * block, time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(prog="bench/python.py", description=__doc__.split("\n")[0])
    parser.add_argument("--directory", required=True, help="hearth-bench's, of a job named rows")
    parser.add_argument("--value-bytes", type=int, required=True, help="bytes of all its blocks")
    parser.add_argument("--block-bytes", type=int, default=64 << 10)
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    block = options.block_bytes
    # As hearth-bench opens it: no DRAM tier, so that each get reads the device.
    with hearth.open(
            os.path.join(options.directory, "rows.hearth"), value_bytes=options.value_bytes,
            max_block=max(block, 64 << 10), expected_block=block, staging=0,
            queue_depth=max(256, options.depth)) as store:
        store.wait_recovered()
        space = store.namespace({"bench": "hearth-bench"})
        keys = [entry.key for entry in space.list() if entry.length == block]
        if len(keys) * block < 0.9 * options.value_bytes:
            sys.exit(f"python.py: {len(keys)} blocks of {block} bytes in the store: lay it out "
                     "with hearth-bench --name=rows --rw=randread first")
        memory = mmap.mmap(-1, options.depth * block)
        region = store.register(memory)
        queue = store.queue(options.depth)
        run(queue, space, keys, region, block, options.depth, min(0.2, options.seconds))
        cpu = cpu_seconds()
        read, seconds = run(queue, space, keys, region, block, options.depth, options.seconds)
        cpu = cpu_seconds() - cpu
        queue.close()
        region.unregister()
    print(json.dumps({"row": {"read_bytes": read, "seconds": seconds, "cpu_seconds": cpu}}))


if __name__ == "__main__":
    main()
