"""What a decode loop that picks pages of its KV cache waits for them, with and without prefetching.

A Llama-shaped model with random weights decodes over a prompt whose keys and values lie in a Hearth
store on the real device, a shard a page and layer; the modes are told in loop.py. Each run opens
the store anew; the modes take turns, round by round, and stall is compared within a round.

It shows that the mechanism works, and what reading ahead is worth on this device for these picks.
It proves no hit rate: random weights pick other pages than trained ones. The picks can be recorded
(--record) and replayed in virtual time: hearth-bench replay --decode FILE.

Run it as: env $(tools/python-test --prepare) bench/decode [options]
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import loop  # noqa: E402
import pairs  # noqa: E402
from model import Shape  # noqa: E402

NAMES = {"memory": "in the process's memory", "off": "no prefetching",
         "layer": "guessed from the layer before", "query": "hinted by the early query",
         "oracle": "hinted by an oracle"}


def parsed():
    parser = argparse.ArgumentParser(
        prog="bench/decode", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192, help="of the prompt")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--picks", type=int, default=32, help="pages a layer attends to")
    parser.add_argument("--page-tokens", type=int, default=32)
    parser.add_argument("--steps", type=int, default=96, help="tokens decoded in a run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dram", type=float, default=0.25,
                        help="DRAM tier, as a share of the prompt's KV (16 MiB at least)")
    parser.add_argument("--modes", default=",".join(loop.MODES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", default=tempfile.gettempdir(),
                        help="a folder on the device; what is made in it is removed")
    parser.add_argument("--record", metavar="FILE", help="writes the picks, a line a layer")
    parser.add_argument("--output", metavar="FILE", help="writes the figures as JSON")
    given = parser.parse_args()
    given.modes = given.modes.split(",")
    unknown = set(given.modes) - set(loop.MODES)
    if unknown:
        parser.error(f"--modes: {', '.join(sorted(unknown))}: known are {', '.join(loop.MODES)}")
    for name in ("tokens", "layers", "picks", "page_tokens", "steps", "rounds"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: 1 or more")
    return given


def measured(prompt, path, given, dram):
    """Rows of each mode, by mode; every run has decoded the same, from right bytes."""
    truth = loop.run(prompt, path, "memory", given.steps, dram)
    rows = {mode: [] for mode in given.modes}
    for number in range(given.rounds):
        for mode in given.modes if number % 2 == 0 else reversed(given.modes):
            row = loop.run(prompt, path, mode, given.steps, dram, truth["picks"])
            if row["wrong"] or row["tokens"] != truth["tokens"]:
                raise SystemExit(f"{mode}: {row['wrong']} wrong pages, "
                                 f"tokens equal: {row['tokens'] == truth['tokens']}")
            rows[mode].append(row)
    return truth["picks"], rows


def told(rows, given):
    """The figures of each mode."""
    figures = []
    for mode in given.modes:
        runs = rows[mode]
        stalls = sorted(stall for run in runs for stall in run["stalls"])
        figure = {
            "mode": mode,
            "stall_mean_s": pairs.median([sum(run["stalls"]) / given.steps for run in runs]),
            "stall_p99_s": stalls[min(len(stalls) - 1, int(0.99 * len(stalls)))],
            "tokens_per_s": pairs.median([given.steps / run["seconds"] for run in runs])}
        if mode != "memory":
            reads = [run["from_memory"] + run["from_device"] for run in runs]
            figure["from_memory"] = pairs.median(
                [run["from_memory"] / count for run, count in zip(runs, reads)])
            for name in ("coverage", "accuracy", "timely"):
                figure[name] = pairs.median([run["prefetch"][name] for run in runs])
            figure["issued_bytes"] = pairs.median(
                [run["prefetch"]["issuedBytes"] for run in runs])
        if mode != "off" and "off" in rows and len(runs) > 1:
            ratios = [sum(run["stalls"]) / sum(base["stalls"])
                      for run, base in zip(runs, rows["off"])]
            figure["over_off"] = pairs.median(ratios)
            figure["over_off_low"], figure["over_off_high"] = pairs.interval(ratios)
        figures.append(figure)
    return figures


def show(figures):
    print(f"{'':32} {'stall a token':>14} {'p99':>9} {'over none (95 %)':>22} "
          f"{'from memory':>12} {'coverage':>9} {'accuracy':>9} {'tokens/s':>9}")
    for one in figures:
        over = ""
        if "over_off" in one:
            over = (f"{one['over_off']:.2f} ({one['over_off_low']:.2f} to "
                    f"{one['over_off_high']:.2f})")
        shares = [f"{one[name]:.0%}" if name in one else ""
                  for name in ("from_memory", "coverage", "accuracy")]
        print(f"{NAMES[one['mode']]:32} {one['stall_mean_s'] * 1e3:11.2f} ms "
              f"{one['stall_p99_s'] * 1e3:6.2f} ms {over:>22} {shares[0]:>12} {shares[1]:>9} "
              f"{shares[2]:>9} {one['tokens_per_s']:9.1f}")


def main():
    given = parsed()
    shape = Shape(layers=given.layers, page_tokens=given.page_tokens)
    os.makedirs(given.directory, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="decode-", dir=given.directory)
    try:
        print(f"a prompt of {given.tokens} tokens through {given.layers} layers ...",
              file=sys.stderr, flush=True)
        prompt = loop.Prompt(shape, given.tokens, given.picks, given.seed)
        path = os.path.join(folder, "store")
        prompt.store(path)
        dram = max(16 << 20, int(prompt.blocks.nbytes * given.dram))
        picks, rows = measured(prompt, path, given, dram)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if given.record:
        with open(given.record, "w", encoding="ascii") as file:
            loop.write_picks(file, picks)
    steps, layers = loop.overlaps(picks)
    figures = told(rows, given)
    print(f"{prompt.pages} pages of {prompt.shard_bytes / 1024:g} KiB a layer, "
          f"{prompt.blocks.nbytes / 2**20:.0f} MiB of KV, DRAM tier {dram / 2**20:.0f} MiB; "
          f"{given.picks} picks a layer, {given.steps} tokens, {given.rounds} rounds\n"
          f"picked again: {steps:.0%} in the next step, {layers:.0%} in the next layer\n")
    show(figures)
    reads = given.rounds * len(given.modes) * given.steps * given.layers * given.picks
    print(f"\n{reads} pages read, 0 wrong; every mode decoded the same tokens.\n"
          "The weights are random: this proves the mechanism, and no hit rate.")
    if given.output:
        with open(given.output, "w", encoding="utf-8") as file:
            json.dump({"pages": prompt.pages, "page_bytes": prompt.shard_bytes,
                       "kv_bytes": prompt.blocks.nbytes, "dram_bytes": dram,
                       "picked_again_next_step": steps, "picked_again_next_layer": layers,
                       "modes": figures}, file, indent=1)


if __name__ == "__main__":
    main()
