"""How long one decision takes, from bar to decision, beside stable-baselines3's `predict`.

    python benchmarks/decider_speed.py --json docs/results/decider_speed.json

One core.  A bar and an account go in, a decision comes out: features, market rules, account,
masks, network and message are all in it.  SB3's `predict` is given the finished observation
and mask of the same model, so it does less.  Other work on the machine adds time to single
decisions, never takes any away: the table shows the percentiles over all decisions of every
pass, and those of the fastest of the passes of each decision.  Garbage collection stays on.
Load and warm-up are timed in fresh processes whose kernels are in the jit cache; CPU time is
what can be compared on a machine that has other work.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

os.environ.update(harness.ONE_THREAD)

import numpy as np

LOAD = """
import json, sys, time
began = time.perf_counter()
from pathlib import Path
from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.messages import Account, Bar
imported = time.perf_counter()
folder = Path(sys.argv[1])
bars = [Bar.model_validate_json(x) for x in (folder / "bars.jsonl").read_text().splitlines()]
read, cpu = time.perf_counter(), time.process_time()
decider = Decider(load_artifact(folder, "m"))
loaded = time.perf_counter()
decider.warm_up(bars[:-1])
warm, cpu = time.perf_counter(), time.process_time() - cpu
decision = decider.decide(bars[-1], Account(cash=100000.0, shares=0.0))
done = time.perf_counter()
print(json.dumps({
    "imports": imported - began, "load": loaded - read, "warm_up": warm - loaded,
    "first_decision": done - warm, "load_and_warm_up": warm - read,
    "load_and_warm_up_cpu": cpu,
    "status": decision.status.value, "warm_up_bars": len(bars) - 1,
}))
"""


def microseconds(values: Any) -> dict[str, float]:
    """Return percentiles of nanoseconds in microseconds."""
    points = (50, 90, 99, 99.9)
    found = np.percentile(np.asarray(values) / 1000, points)
    return {f"p{point:g}": round(float(x), 2) for point, x in zip(points, found, strict=True)}


def passes(decide: Any, count: int, repeats: int) -> dict[str, Any]:
    """Time `decide(pass, i)` for every i and pass; percentiles of all and of the fastest."""
    times = np.zeros((repeats, count), np.int64)
    for k in range(repeats):
        run = decide()
        for i in range(count):
            began = time.perf_counter_ns()
            run(i)
            times[k, i] = time.perf_counter_ns() - began
    return {"all": microseconds(times), "fastest": microseconds(times.min(axis=0))}


def main() -> None:
    flags = {"decisions": 3900, "passes": 7, "starts": 5, "json": Path}
    arguments = harness.parser(__doc__, **flags).parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments)
    print(f"{'':30s}{'p50':>9s}{'p90':>9s}{'p99':>9s}{'p99.9':>9s}  microseconds")
    for what in ("decider", "sb3_predict"):
        for kind in ("all", "fastest"):
            row = result[what][kind].values()
            print(f"{what + ', ' + kind:30s}" + "".join(f"{x:9.1f}" for x in row))
    print(f"sb3 predict / decider, p50: {result['ratio_p50']:.1f}")
    print(f"load and warm-up ({result['start']['warm_up_bars']} bars), median of fresh processes:")
    for key, value in result["start"].items():
        if key not in ("warm_up_bars", "status"):
            print(f"  {key:22s}{value:7.2f} s")
    harness.write(arguments.json, result, indent=2)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a model for a moment and time everything about it."""
    import torch
    from sb3_contrib import MaskablePPO

    from ppo_workbench.delivery.decider import Decider
    from ppo_workbench.delivery.golden import POLICY_PREFIX
    from ppo_workbench.delivery.live.account import SimulatedAccount
    from ppo_workbench.delivery.messages import bar_messages
    from ppo_workbench.learning.vec_env import TradingVecEnv

    torch.set_num_threads(1)
    artifact, experiment = harness.quick_model(folder, "data.synthetic.sessions=60")
    config, models = experiment.config, folder / "trained_models"
    start = experiment.splits["train"].start
    history = list(bar_messages(experiment.bars.slice(0, start)))
    bars = list(bar_messages(experiment.bars.slice(start, start + arguments.decisions)))
    reports, rows = accounts(Decider(artifact), SimulatedAccount, history, bars)

    def decider_pass() -> Any:
        decider = Decider(artifact)
        decider.warm_up(history)
        return lambda i: decider.decide(bars[i], reports[i])

    model = MaskablePPO("MlpPolicy", TradingVecEnv(experiment.batch()), device="cpu",
                        policy_kwargs={"net_arch": list(config.model.net_arch)})  # fmt: skip
    state = {
        key.removeprefix(POLICY_PREFIX): value
        for key, value in artifact.tensors.items()
        if key.startswith(POLICY_PREFIX)
    }
    model.policy.load_state_dict(state)

    def predict_pass() -> Any:
        return lambda i: model.predict(rows[i][0], action_masks=rows[i][1], deterministic=True)

    predict = predict_pass()
    same = sum(int(predict(i)[0]) == row[2] for i, row in enumerate(rows))
    found = passes(decider_pass, len(bars), arguments.passes)
    sb3 = passes(predict_pass, min(len(bars), 1000), arguments.passes)
    (models / "bars.jsonl").write_text(
        "\n".join(bar.model_dump_json() for bar in [*history[-artifact.metadata.warmup_bars :],
                                                    bars[0]])
    )  # fmt: skip
    load = [sys.executable, "-c", LOAD, str(models)]
    starts = [harness.answer(load) for _ in range(arguments.starts + 1)][1:]  # the first: caches
    statuses = [row.pop("status") for row in starts]
    return {
        "cpu": artifact.metadata.cpu,
        "net_arch": list(config.model.net_arch),
        "features": len(artifact.metadata.feature_names),
        "decisions": len(bars),
        "passes": arguments.passes,
        "decider": found,
        "sb3_predict": sb3,
        "sb3_same_actions": f"{same} of {len(rows)}",
        "ratio_p50": round(sb3["fastest"]["p50"] / found["fastest"]["p50"], 1),
        "start": harness.medians(starts, 3) | {"status": statuses[0]},
        "load_average": os.getloadavg()[0],
    }


def accounts(decider: Any, simulated: Any, history: Any, bars: Any) -> tuple[Any, Any]:
    """Return the account at each bar, and (observation, mask, action) of each decision."""
    decider.warm_up(history)
    account, reports, rows = simulated(decider), [], []
    for bar in bars:
        reports.append(account.step(bar))
        decision = decider.decide(bar, reports[-1])
        account.take(decision)
        rows.append((decider.observation.copy(), decider.mask.copy(), decision.action_index))
    return reports, rows


if __name__ == "__main__":
    main()
