"""The Decider in a process of its own against the backtest: are all numbers the same bits?

    python benchmarks/decider_parity.py --json docs/results/decider_parity.json
    python benchmarks/decider_parity.py --spy FILE    # real minutes too
    python benchmarks/decider_parity.py --python VENV/bin/python --bars 1950    # base, a week

Trains a model for a moment on each market, then decides on it twice: here with the
backtest's step, and in a fresh process that imports `ppo_workbench.delivery` alone, bar by
bar with an account that fills as the backtest does.  Compared as bytes: observations, masks,
reasons, logits, actions, fills, prices, costs, carry, equity.  Ends with exit code 1 if a bit
differs or the fresh process has loaded a package of the research stack.  `--python` is the
interpreter of the fresh process: of an environment with the base install alone it cannot load
one (`benchmarks/base_install.py` makes such an environment).
"""

import importlib.util
import json
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import harness
import numpy as np

YEAR = 252 * 390
HEAVY = ("mlflow", "hydra", "omegaconf", "optuna", "stable_baselines3", "sb3_contrib", "gymnasium")
OUTCOMES = ("fill_quantity", "fill_price", "cost", "carry", "equity", "exposure")
MARKETS: dict[str, tuple[str, ...]] = {
    "synthetic minutes, 1 year": ("data.synthetic.sessions=440",),
    "synthetic, next close, 5 levels": (
        *("data.synthetic.sessions=440", "env.fill=next_close", "risk=conservative", "seed=1"),
        "env.exposure_levels=[-1,-0.5,0,0.5,1]",
    ),
    "sp500, daily": ("experiment=sp500",),
}


def write_bars(bars: Any, path: Path) -> None:
    """Write the bars, but for how they were read, without pickle: arrays, the rest as JSON."""
    values = {f.name: getattr(bars, f.name) for f in fields(bars) if f.name != "conventions"}
    arrays: Any = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    rest = json.dumps({name: value for name, value in values.items() if name not in arrays})
    np.savez(path, rest=np.frombuffer(rest.encode(), np.uint8), **arrays)


def read_bars(path: Path) -> Any:
    """Read what `write_bars` wrote."""
    from ppo_workbench.market.bars import Bars

    with np.load(path, allow_pickle=False) as stored:
        rest = json.loads(stored["rest"].tobytes())
        arrays: Any = {name: stored[name] for name in stored.files if name != "rest"}
    plain: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in rest.items()}
    return Bars(**arrays, **plain)


def decide(folder: Path, start: int, stop: int) -> None:
    """Decide in this process, with nothing but the delivery package."""
    from ppo_workbench.delivery.artifact import load_artifact
    from ppo_workbench.delivery.decider import Decider
    from ppo_workbench.delivery.live.account import SimulatedAccount
    from ppo_workbench.delivery.messages import bar_messages

    bars = read_bars(folder / "bars.npz")
    decider = Decider(load_artifact(folder, "m"))
    decider.warm_up(bars.slice(0, start))
    account = SimulatedAccount(decider)
    names = ("observation", "mask", "reasons", "logits")
    rows: dict[str, list[Any]] = {name: [] for name in (*names, "action", *OUTCOMES)}
    for i, bar in enumerate(bar_messages(bars.slice(start, stop))):
        report = account.step(bar)
        if i > 0:
            for name in OUTCOMES:
                rows[name].append(float(account.outcome[name]))
        if i == stop - 1 - start or account.ruined:
            break
        decision = decider.decide(bar, report)
        account.take(decision)
        rows["action"].append(decision.action_index)
        for name in names:
            rows[name].append(getattr(decider, name).copy())
    found: Any = {name: np.array(values) for name, values in rows.items()}
    np.savez(folder / "found.npz", **found)
    loaded = [name for name in HEAVY if name in sys.modules]
    installed = [name for name in HEAVY if importlib.util.find_spec(name)]
    print(json.dumps({"loaded": loaded, "installed": installed}))


def reference(experiment: Any, artifact: Any, split: Any) -> dict[str, Any]:
    """Decide here with the step of the backtest, writing down everything."""
    from ppo_workbench.delivery.golden import stored_weights, uses_mask
    from ppo_workbench.delivery.network import best_allowed, forward_row
    from ppo_workbench.pipeline.models.stored import rescaled
    from ppo_workbench.trading.account import OUTCOME_DTYPE
    from ppo_workbench.trading.chance import seed_accounts
    from ppo_workbench.trading.step import begin_episode, refresh, step_one

    market = rescaled(experiment, artifact.tensors)
    weights = stored_weights(artifact.metadata, artifact.tensors)
    count, size, p = split.stop - 1 - split.start, market.space.size, market.params[0]
    a = seed_accounts(1, 0)[0]
    begin_episode(a, market.bars, split.start, split.stop, p)
    observation = np.zeros((count, market.observation_size), np.float32)
    mask, reasons = np.zeros((count, size), np.bool_), np.zeros((count, size), np.int64)
    logits, action = np.zeros((count, size), np.float32), np.zeros(count, np.int64)
    outcomes = np.zeros(count, OUTCOME_DTYPE)
    scratch = weights.scratch()
    free = np.ones(size, np.bool_)
    for i in range(count):
        refresh(a, market.inputs, observation[i], mask[i], reasons[i])
        logits[i] = forward_row(observation[i], weights, scratch)
        allowed = mask[i] if uses_mask(artifact.metadata.model_type) else free
        action[i] = best_allowed(logits[i], allowed)
        bits = reasons[i, action[i]]
        if step_one(a, market.bars, market.space.levels, p, action[i], bits, outcomes[i]):
            raise SystemExit("the reference account was ruined; choose another seed")
    found = {"observation": observation, "mask": mask, "reasons": reasons, "logits": logits}
    return found | {"action": action} | {name: outcomes[name].copy() for name in OUTCOMES}


def fresh(python: Path | None, *arguments: str) -> list[str]:
    """Return the command of a process of its own; another interpreter has its own packages."""
    return [str(python), "-E", "-s", *arguments] if python else [sys.executable, *arguments]


def compare(
    name: str, overrides: tuple[str, ...], folder: Path, python: Path | None, bars: int
) -> dict[str, Any]:
    """Train, decide twice on `bars` bars or fewer, and count the differing values of each array.

    What was compared stays in `folder`/trained_models: the model `m`, bars.npz, found.npz.
    """
    from ppo_workbench.market.splits import Split
    from ppo_workbench.pipeline.models.stored import rescaled, stored_policy
    from ppo_workbench.scoring.backtest import backtest

    artifact, experiment = harness.quick_model(folder, *overrides)
    models = folder / "trained_models"
    start = experiment.splits["train"].start
    split = Split("part", start, min(start + bars + 1, experiment.splits["validation"].stop))
    expected = reference(experiment, artifact, split)
    market = rescaled(experiment, artifact.tensors)
    policy = stored_policy(artifact.metadata, artifact.tensors, replace(experiment, market=market))
    trace = backtest(policy, experiment.bars, market, split, experiment.config)
    assert np.array_equal(trace.action, expected["action"])
    assert np.array_equal(trace.equity_usd, expected["equity"])
    write_bars(experiment.bars.slice(0, split.stop), models / "bars.npz")
    began = time.perf_counter()
    command = fresh(python, __file__, "--decide", str(models), str(start), str(split.stop))
    research = harness.answer(command)
    seconds = time.perf_counter() - began
    with np.load(models / "found.npz") as stored:
        found = {key: stored[key] for key in stored.files}
    differing = {
        key: int((found[key] != value).sum()) if found[key].shape == value.shape else -1
        for key, value in expected.items()
    }
    same_bytes = all(
        found[key].astype(value.dtype).tobytes() == value.tobytes()
        for key, value in expected.items()
    )
    return {
        "market": name,
        "decisions": len(expected["action"]),
        "fills": int((expected["fill_quantity"] != 0).sum()),
        "rows_with_a_mask": int((~expected["mask"]).any(axis=1).sum()),
        "differing_values": differing,
        "same_bytes": same_bytes,
        "research_packages_loaded": research["loaded"],
        "research_packages_installed": research["installed"],
        "seconds": round(seconds, 1),
    }


def main() -> None:
    flags = {"bars": (YEAR, "at most, on each market"), "json": Path}
    files = {"spy": (Path, "minute bars, for example SPY"), "python": (Path, "that decides")}
    parser = harness.parser(__doc__, **files, **flags)
    parser.add_argument("--decide", nargs=3, help=harness.HIDDEN)
    arguments = parser.parse_args()
    if arguments.decide:
        folder, start, stop = arguments.decide
        decide(Path(folder), int(start), int(stop))
        return
    markets = dict(MARKETS)
    if arguments.spy:
        path = arguments.spy.resolve()
        markets[path.name] = ("experiment=us_minute_short", f"data.path={path}")
    results = []
    for name, overrides in markets.items():
        with tempfile.TemporaryDirectory() as folder:
            results.append(compare(name, overrides, Path(folder), arguments.python, arguments.bars))
        row = results[-1]
        differing = sum(abs(n) for n in row["differing_values"].values())
        print(
            f"{name:34s} {row['decisions']:7,d} decisions {row['fills']:6,d} fills "
            f"{row['rows_with_a_mask']:7,d} masked rows: {differing} values differ, same bytes: "
            f"{row['same_bytes']}, research packages: {row['research_packages_loaded'] or 'none'}",
            flush=True,
        )
    harness.write(arguments.json, results, indent=2)
    wrong = [r for r in results if not r["same_bytes"] or r["research_packages_loaded"]]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
