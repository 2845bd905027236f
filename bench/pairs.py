"""Ratios of paired runs: ABBA order, the bootstrap interval of the median, and the verdict.

A bar holds when the whole interval lies on its right side. Beside the ratios of Hearth to the
baseline stands the A/A run, the baseline against itself: where its interval is wider than 0.06 the
machine is too restless to tell, and the row is inconclusive.
"""

import random

CONFIDENCE = 0.95
RESAMPLES = 4000
RESTLESS = 0.06

PASS, FAIL, INCONCLUSIVE, ABSENT = "pass", "FAIL", "inconclusive", "not run"


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def interval(values, seed=1):
    """The bootstrap interval of the median; the same values give the same interval."""
    generator = random.Random(seed)
    medians = sorted(
        median(generator.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    low = medians[int(tail * RESAMPLES)]
    high = medians[min(RESAMPLES - 1, int((1 - tail) * RESAMPLES))]
    return low, high


def holds(low, high, bar, at_least):
    """True or False where the interval tells, None where the bar lies inside of it."""
    if at_least:
        return True if low >= bar else False if high < bar else None
    return True if high <= bar else False if low > bar else None


def run_pairs(baseline, hearth, pairs, most, progress):
    """Runs pairs in ABBA order; adds pairs up to `most` while the A/A interval is too wide. Returns
    (ratios, A/A ratios), the latter of each run of the baseline to the one before it."""
    ratios, again = [], []
    before = None
    wanted = pairs
    while len(ratios) < wanted:
        progress(len(ratios), wanted)
        if len(ratios) % 2 == 0:
            base = baseline()
            mine = hearth()
        else:
            mine = hearth()
            base = baseline()
        ratios.append(mine / base)
        if before is not None:
            again.append(base / before)
        before = base
        if len(ratios) == wanted and wanted < most:
            low, high = interval(again)
            if high - low > RESTLESS:
                wanted = min(most, wanted + max(2, pairs // 2))
    return ratios, again


def ratio_verdict(ratios, again, bar, at_least):
    low, high = interval(ratios)
    result = {
        "median": median(ratios), "low": low, "high": high, "pairs": len(ratios),
        "ratios": ratios, "aa_ratios": again,
    }
    result["aa_median"] = median(again)
    result["aa_low"], result["aa_high"] = interval(again)
    told = holds(low, high, bar, at_least)
    if result["aa_high"] - result["aa_low"] > RESTLESS:
        result["verdict"] = INCONCLUSIVE
    else:
        # A bar holds only when it is shown to hold.
        result["verdict"] = PASS if told else FAIL
    return result


def value_verdict(values, bar, at_least=False):
    low, high = interval(values)
    good = low >= bar if at_least else high <= bar
    return {
        "median": median(values), "low": low, "high": high, "runs": len(values),
        "values": values, "verdict": PASS if good else FAIL,
    }
