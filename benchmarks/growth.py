"""How do times grow?  Sessions, environments, trials of a study, recorded runs.

    python benchmarks/growth.py [--parts sessions,environments,trials,runs,servers] [--json PATH]

Each part is measured at several sizes; a slope is that of the logarithms between the last but two
of them and the last, so 1 is linear.  `servers` asks instead how many trials a second PostgreSQL
takes from 1, 2 and 4 processes, and how many runs an MLflow server does, both on this machine
(needs root and PostgreSQL's programs): times the seconds of a trial, that is how many workers are
too many.
"""

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import env_speed
import harness
import numpy as np
from several_machines import servers

from ppo_workbench.scoring.trace import Trace

SIZES = {
    "sessions": (252, 1008, 2520, 5040, 10080),
    "environments": (1, 4, 16, 64, 256, 1024, 4096),
    "trials": (100, 300, 1000, 3000),
    "runs": (100, 300, 1000, 3000),
}
LOCAL, PORTS, CLIENTS, SECONDS = "127.0.0.1", (25432, 25000), (1, 2, 4), 15.0
REPORTS, METRICS = 4, 60  # of a trial: reports to its pruner, and keys at each of them


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Return the median time of some calls."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times)


def sessions(size: int) -> dict[str, float]:
    from ppo_workbench import compose
    from ppo_workbench.market.sources import load_bars
    from ppo_workbench.scoring.audit.verdict import audit
    from ppo_workbench.scoring.backtest import RANDOM, Policy, backtest
    from ppo_workbench.scoring.metrics import scorecard
    from ppo_workbench.trading.experiment import prepare, split_bars

    config = compose([f"data.synthetic.sessions={size}", "tracking=none"])
    parts = split_bars(config)
    experiment = prepare(config, *parts)

    def traded() -> Trace:
        train = experiment.splits["train"]
        policy = Policy("random", RANDOM)
        return backtest(policy, experiment.bars, experiment.market, train, experiment.config)

    trace = traded()
    return {
        "bars": seconds(lambda: load_bars(config.data)),
        "features and rules": seconds(lambda: prepare(config, *parts)),
        "backtest": seconds(traded),
        "scorecard": seconds(lambda: scorecard(trace)),
        "audit": seconds(lambda: audit(trace, experiment.bars, experiment.config), 1),
    }


def environments(size: int) -> dict[str, float]:
    from ppo_workbench.trading.batch import TradingBatch

    market, starts, length = _market()
    batch = TradingBatch(market, starts, length, size, 0)
    steps, random = max(20, 200_000 // size), np.random.default_rng(0)
    rate = env_speed.measured(lambda: env_speed.batch_rate(batch, steps, random), 3)
    return {"step of all": size / rate}


_MARKETS: list[tuple[Any, Any, int]] = []


def _market() -> tuple[Any, Any, int]:
    if not _MARKETS:
        _MARKETS.append(env_speed.prepare_market(100_000))
    return _MARKETS[0]


def trials(size: int) -> dict[str, float]:
    import optuna
    from optuna.trial import TrialState, create_trial

    from ppo_workbench.records.storage import open_storage, study_folder
    from ppo_workbench.records.studies.returns import write_returns
    from ppo_workbench.reports.study.analysis import analyse

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng, ranges = np.random.default_rng(0), _ranges()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        storage = open_storage(None, home, "s")
        study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
        study.set_user_attr("sweep", {"pruner": {"name": "asha"}})
        place = study_folder(home, "s")
        for number in range(size):
            params = {"lr": 10 ** rng.uniform(-5, -2), "ent": rng.uniform()}
            score = -((math.log10(params["lr"]) + 3) ** 2) + rng.normal()
            facts = {"standard_error": 0.4, "seeds": [0, 1], "timesteps": 1000, "seconds": 1.0}
            looks = dict.fromkeys(range(REPORTS), score)
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE,
                    value=score,
                    params=params,
                    distributions=ranges,
                    user_attrs=facts,
                    intermediate_values=looks,
                )
            )
            (place / str(number)).mkdir(parents=True)
            days = rng.normal(score * 1e-4, 0.01, (2, 252)).astype(np.float32)
            write_returns(place / str(number), dict(enumerate(days)))
        study.sampler = optuna.samplers.TPESampler(seed=0)
        return {
            "one trial in the study": seconds(lambda: _trial(study), 5),
            "analysis": seconds(lambda: analyse(study, place, objective_names=["bound"]), 1),
        }


def _ranges() -> dict[str, Any]:
    from optuna.distributions import FloatDistribution

    return {"lr": FloatDistribution(1e-5, 1e-2, log=True), "ent": FloatDistribution(0.0, 1.0)}


def _trial(study: Any) -> None:
    """Ask, sign, report and tell as a trial of a sweep does."""
    trial = study.ask(_ranges())
    trial.set_user_attr("sweeper", {"time": time.time()})
    for step in range(REPORTS):
        trial.set_user_attr("last_seen", {"time": time.time()})
        trial.report(0.1 * step, step)
        trial.should_prune()
    study.tell(trial, trial.params["ent"])


def runs(size: int) -> dict[str, float]:
    from ppo_workbench.config import TrackingConfig
    from ppo_workbench.records.mlflow_store import find_runs

    home, config = _store(), TrackingConfig()
    while _store_runs[0] < size:
        _run(config, home)
        _store_runs[0] += 1
    return {
        "one run": seconds(lambda: _run(config, home), 9),
        "find a study's runs": seconds(lambda: find_runs(config, home, {"study": "s"})),
    }


_store_homes: list[Path] = []
_store_runs = [0]


def _store() -> Path:
    if not _store_homes:
        _store_homes.append(Path(tempfile.mkdtemp()))
    return _store_homes[0]


def _run(config: Any, home: Path, study: str = "other") -> None:
    """Record what a trial of a sweep does."""
    from ppo_workbench.records.tracking import open_tracker

    params = {"model": {f"key_{k}": k for k in range(40)}}
    with open_tracker(config, home, "run", params, {"study": study}) as tracker:
        for step in range(REPORTS):
            tracker.log_metrics({f"train/key_{k}": 0.5 * k for k in range(METRICS)}, step)


def database_client(uri: str, home: str) -> int:
    """Return how many trials this process has asked for and ended in some seconds."""
    import optuna

    from ppo_workbench.records.storage import claim_lock, open_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(uri, Path(home), "r")
    study = optuna.create_study(study_name="r", storage=storage, load_if_exists=True)
    count, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        with claim_lock(storage, uri, Path(home), "r"):
            study.get_trials(deepcopy=False)
        _trial(study)
        count += 1
    return count


def record_client(uri: str, home: str) -> int:
    """Return how many runs this process has recorded in some seconds."""
    from ppo_workbench.config import TrackingConfig

    count, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        _run(TrackingConfig(uri=uri), Path(home))
        count += 1
    return count


def server_rates() -> dict[str, dict[str, float]]:
    """Return trials and runs a second by number of clients."""
    database = f"postgresql+psycopg://postgres@{LOCAL}:{PORTS[0]}/postgres"
    kinds = {
        "trials in PostgreSQL": (database_client, database),
        "runs in MLflow": (record_client, f"http://{LOCAL}:{PORTS[1]}"),
    }
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        with servers(folder, LOCAL, PORTS):
            for name, (client, uri) in kinds.items():
                found[name] = {}
                for clients in CLIENTS:
                    homes = [folder / f"{name} {clients} {k}" for k in range(clients)]
                    for home in homes:
                        home.mkdir()
                    calls = [(uri, str(home)) for home in homes]
                    total = sum(count for _, count in harness.computed(client, calls, clients))
                    found[name][str(clients)] = total / SECONDS
                    print(f"{name}, {clients} processes: {total / SECONDS:.1f} a second")
    return found


PARTS: dict[str, Callable[[int], dict[str, float]]] = {
    "sessions": sessions,
    "environments": environments,
    "trials": trials,
    "runs": runs,
}


def slopes(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the exponent of each time between the last but two of the sizes and the last."""
    (one, first), _, (two, second) = [*rows.items()][-3:]
    return {k: math.log(second[k] / first[k]) / math.log(int(two) / int(one)) for k in first}


def table(result: dict[str, Any]) -> str:
    """Return times by size, and their slopes, in Markdown."""
    rows = []
    for name in SIZES:
        found = result[name]
        first, *_, many, most = found
        for key, slope in slopes(found).items():
            times = [f"{int(size):,}: {_told(found[size][key])}" for size in (first, many, most)]
            rows.append((f"{name}: {key}", *times, f"{slope:.2f}"))
    return harness.table(("what", "fewest", "many", "most", "slope"), rows)


def _told(value: float) -> str:
    scale, unit = next(one for one in ((1, "s"), (1e3, "ms"), (1e6, "us")) if value * one[0] >= 1)
    return f"{value * scale:.3g} {unit}"


def rates_table(result: dict[str, Any]) -> str:
    """Return what servers take, in Markdown."""
    rows = [
        (name, *(f"{rate:.1f}" for rate in rates.values()), f"{max(rates.values()) * 6.4:.0f}")
        for name, rates in result["servers"].items()
    ]
    head = [f"{clients} processes" for clients in CLIENTS]
    return harness.table(("a second", *head, "workers at 6.4 s a trial"), rows)


def main() -> None:
    flags = {"parts": ",".join([*PARTS, "servers"]), "json": Path}
    options = harness.parser(__doc__, **flags).parse_args()
    kept = options.json is not None and options.json.is_file() and options.json.stat().st_size
    result: dict[str, Any] = harness.read(options.json) if kept else {}
    for name in options.parts.split(","):
        if name == "servers":
            result[name] = server_rates()
        else:
            result[name] = {}
            for size in SIZES[name]:
                times = result[name][str(size)] = PARTS[name](size)
                told = ", ".join(f"{key} {_told(value)}" for key, value in times.items())
                print(f"{size:,} {name}: {told}", flush=True)
            print(f"slopes: {slopes(result[name])}", flush=True)
        harness.write(options.json, result)


if __name__ == "__main__":
    main()
