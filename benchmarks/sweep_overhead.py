"""What a trial costs beside its training, MLflow included, and whether two workers halve the time.

    python benchmarks/sweep_overhead.py [--trials 16] [--rounds 3] [--json FILE]

Overhead: trials whose training sleeps 0.3 s, reports three times and leaves the files of a real
one (sweep_task.py), one worker, from the first trial's end to the last one's; what is not
sleep is overhead.  `wall` is that, a trial; `cpu` is what parent and job computed meanwhile.
Shares of the wall time: `begin` from the trial's start to its training (process, Hydra's
composition, opening the storage), `told` from its last report to its end in the study,
`parent` from there to the next start (settling, asking, the screen).  The record runs beside
the trials on a thread of its own: what it costs is in `cpu`, and in `close`, seconds from the
last trial's end to the program's.

Beside it the stock pattern: Hydra's basic sweeper with the joblib launcher (one worker, which
joblib runs in the same process: no isolation, no pruning, no study) and a script that logs to
MLflow itself.  Rounds alternate the cases, so that a busy machine hits all of them.

Cores: 16 trials of mixed lengths that sleep, with one worker and two, start-up included; idle
is the share of the time, from the first start to the last trial's start, in which fewer than
two trials ran.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import harness
import psutil

PAUSES = 0.3  # seconds that a trial of sweep_task.py sleeps
BARS = {"journal": 0.250, "sqlite": 0.500}
TASK: dict[str, Any] = {"module": "benchmarks.sweep_task", "stderr": subprocess.DEVNULL}
ONE = ["hydra.launcher.n_jobs=1", "sweep=smoke", "hydra.sweeper.pruner.name=none"]


def ours(home: Path, uri: str | None, trials: int, *overrides: str) -> dict[str, float]:
    """Sweep with this project; return seconds a trial."""
    arguments = [*ONE, f"hydra.sweeper.n_trials={trials}", "hydra.sweeper.study_name=o", *overrides]
    if uri is not None:
        arguments.append(f"hydra.sweeper.storage='{uri}'")
    sweep = harness.piped(home, "--multirun", *arguments, **TASK)
    parent, spent = psutil.Process(sweep.pid), list[float]()
    assert sweep.stdout is not None
    for line in sweep.stdout:
        if line.startswith("trial "):
            spent.append(sum(parent.cpu_times()[:2]))
    ended = time.time()
    assert sweep.wait() == 0
    found = harness.trials(home, "o", uri)
    starts = [one.datetime_start.timestamp() for one in found if one.datetime_start]
    ends = [one.datetime_complete.timestamp() for one in found if one.datetime_complete]
    facts = [one.user_attrs for one in found]
    per = trials - 1
    slept = sum(one["ended"] - one["began"] for one in facts[1:])
    return {
        "wall": (ends[-1] - ends[0] - per * PAUSES) / per,
        "cpu": (spent[-1] - spent[0]) / per + fmean(one["cpu"] for one in facts[1:]),
        "begin": _mean(one["began"] - start for one, start in zip(facts, starts, strict=True)),
        "reports": slept / per - PAUSES,
        "told": _mean(end - one["ended"] for one, end in zip(facts, ends, strict=True)),
        "parent": sum(start - end for start, end in zip(starts[1:], ends, strict=False)) / per,
        "close": ended - ends[-1],
    }


def _mean(seconds: Iterable[float]) -> float:
    """Average over all trials but the first, which waits for the imports of the fork server."""
    return fmean(list(seconds)[1:])


def stock(home: Path, trials: int) -> dict[str, float]:
    """Sweep with Hydra's own pattern; return seconds a trial."""
    points = ",".join(f"{1e-4 * (k + 1):.4f}" for k in range(trials))
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    arguments = ["stock", "--multirun", *launcher, f"model.learning_rate={points}"]
    sweep = harness.piped(home, *arguments, **TASK)
    sweep.communicate()
    assert sweep.returncode == 0
    rows = list(map(json.loads, (home / "stock.jsonl").read_text().splitlines()))
    (first, cpu_first), (last, cpu_last) = rows[0], rows[-1]
    per = trials - 1
    return {"wall": (last - first - per * PAUSES) / per, "cpu": (cpu_last - cpu_first) / per}


def overhead(trials: int, rounds: int) -> dict[str, Any]:
    def once(case: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            if case == "stock":
                return stock(home, trials)
            uri = f"sqlite:///{home}/s.db" if case == "sqlite" else None
            return ours(home, uri, trials, *["tracking=none"] * ("no MLflow" in case))

    cases = ("journal", "sqlite", "journal, no MLflow", "stock")
    result: dict[str, Any] = {}
    sides = {case: partial(once, case) for case in cases}
    for case, rows in harness.alternated(sides, rounds).items():
        middle = harness.medians(rows, 4)
        walls = [round(row["wall"], 4) for row in rows]
        result[case] = {**middle, "wall_of_each_round": walls}
        bar = BARS.get(case)
        words = "" if bar is None else f" (bar {1000 * bar:.0f})"
        shares = ", ".join(
            f"{key} {100 * middle[key] / middle['wall']:.0f} %"
            for key in ("begin", "reports", "told", "parent")
            if key in middle
        )
        print(
            f"{case}: {1000 * middle['wall']:.0f} ms a trial{words}, CPU "
            f"{1000 * middle['cpu']:.0f} ms; {shares}",
            flush=True,
        )
    return result


def cores(home: Path) -> dict[str, Any]:
    times, spans, idle = [], list[float](), 0.0
    for jobs in (1, 2):
        began = time.monotonic()
        grid = ["mode=doze", "x=range(0.5,4.5,0.25)", "hydra.sweeper.sampler.name=grid"]
        fixed = ["hydra.sweeper.n_trials=16", f"hydra.sweeper.study_name=cores_{jobs}"]
        fixed += [f"hydra.launcher.n_jobs={jobs}", "hydra.launcher.preload=[]"]
        toy = TASK | {"module": "tests.sweeps.toy"}
        sweep = harness.piped(home, "--multirun", *fixed, *grid, **toy)
        sweep.communicate()
        assert sweep.returncode == 0
        times.append(time.monotonic() - began)
        found = harness.trials(home, f"cores_{jobs}")
        first = min(one.datetime_start for one in found if one.datetime_start)
        last = max(one.datetime_complete for one in found if one.datetime_complete)
        spans.append((last - first).total_seconds())
        idle = _idle(found)
    print(
        f"16 mixed trials: {times[0]:.1f} s with 1 worker, {times[1]:.1f} s with 2, "
        f"{times[0] / times[1]:.2f} x "
        f"({spans[0] / spans[1]:.2f} x from first start to last end); "
        f"a worker idle for {100 * idle:.1f} % of the time"
    )
    return {
        "seconds": times,
        "ratio": times[0] / times[1],
        "ratio_without_start": spans[0] / spans[1],
        "idle_share": idle,
    }


def _idle(trials: list[Any]) -> float:
    """Return the share of worker time, up to the last start, that no trial used."""
    spans = [(t.datetime_start.timestamp(), t.datetime_complete.timestamp()) for t in trials]
    first, last = min(start for start, _ in spans), max(start for start, _ in spans)
    used = float(sum(min(end, last) - start for start, end in spans))
    return 1.0 - used / (2.0 * float(last - first))


def main() -> None:
    options = harness.parser(__doc__, trials=16, rounds=3, json=Path).parse_args()
    load = os.getloadavg()[0]
    print(f"load {load:.1f} on {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "load": load,
            "trials": options.trials,
            "rounds": options.rounds,
            "overhead_seconds_a_trial": overhead(options.trials, options.rounds),
            "cores": cores(Path(folder)),
        }
    harness.write(options.json, result)
    costs = result["overhead_seconds_a_trial"]
    missed = [case for case, bar in BARS.items() if costs[case]["wall"] > bar]
    sys.exit(bool(missed) or result["cores"]["ratio"] < 1.8)


if __name__ == "__main__":
    main()
