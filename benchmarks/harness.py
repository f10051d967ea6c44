"""What benchmarks share: flags, cells that are kept, commands, pairs, tables, whole results."""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
WORK = Path("benchmarks/.work")
HIDDEN = argparse.SUPPRESS
TREE = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
T = TypeVar("T")


def parser(doc: str | None, **flags: Any) -> argparse.ArgumentParser:
    """Return a parser with a flag for each keyword.

    A flag is its default (False: a switch, []: may be repeated), or the type of one that is None
    where it is left out; a pair adds what the help says.
    """
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=doc, formatter_class=raw)
    for name, told in flags.items():
        value, text = told if isinstance(told, tuple) else (told, None)
        made.add_argument(f"--{name.replace('_', '-')}", help=text, **_kind(value))
    return made


def _kind(value: Any) -> dict[str, Any]:
    if value is False:
        return {"action": "store_true"}
    if value == []:
        return {"action": "append", "default": value, "metavar": "KEY=VALUE"}
    return {"type": value} if isinstance(value, type) else {"type": type(value), "default": value}


def read(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; its folder is made."""
    from ppo_workbench.config import files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, content)


def write(path: Path | None, document: Any, indent: int | None = 1) -> None:
    """Write a document as JSON, or bytes as they are, whole; without a path do nothing."""
    if path is not None:
        plain = isinstance(document, bytes)
        write_whole(path, document if plain else json.dumps(document, indent=indent) + "\n")


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a page.

    Raises:
        SystemExit: The marks are not there.
    """
    head, marked, rest = page.read_text(encoding="utf-8").partition(begin)
    if not marked or end not in rest:
        raise SystemExit(f"{page}: has no lines {begin.strip()} and {end}; add them")
    page.write_text(head + begin + text + end + rest.partition(end)[2], encoding="utf-8")


def computed(
    run: Callable[..., T], calls: Iterable[tuple[Any, ...]], jobs: int
) -> Iterator[tuple[tuple[Any, ...], T]]:
    """Yield arguments and result of each call as it ends, in `jobs` processes of one thread.

    The first call that fails ends it: those that have not begun are left out.
    """
    os.environ.update(ONE_THREAD)  # before the processes load numpy: they are not forks
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _end_with_parent) as pool:
        waiting = {pool.submit(run, *each): each for each in calls}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """End with the process that started this one, also where that is killed."""

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def kept(
    run: Callable[..., Any],
    cells: Mapping[Path, tuple[Any, ...]],
    jobs: int,
    load: Callable[[Path], Any] = read,
) -> list[Any]:
    """Compute the cells whose files are missing and return all in order: killed, it goes on.

    What `run` returns is written to the cell's file, what it prints to a log beside it.
    """
    missing = [(run, arguments, path) for path, arguments in cells.items() if not path.exists()]
    for (_, _, path), _ in computed(_keep, missing, jobs):
        print(f"{path.stem}: done", flush=True)
    return [load(path) for path in cells]


def _keep(run: Callable[..., Any], arguments: tuple[Any, ...], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".log").open("w", encoding="utf-8")
    with beside as log, redirect_stdout(log), redirect_stderr(log):
        found = run(*arguments)
    write(path, found, None)


def home(work: Path) -> Path:
    """Make a work folder and have trainings write into it; return it, whole."""
    work = work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["PPO_WORKBENCH_HOME"] = str(work)
    return work


def start(
    home: Path | str,
    *arguments: str,
    module: str = "ppo_workbench",
    changes: Mapping[str, str] = MappingProxyType({}),
    **named: Any,
) -> "subprocess.Popen[str]":
    """Start a command of the workbench, or another module, with a home of its own."""
    environment = os.environ | {"PPO_WORKBENCH_HOME": str(home)} | dict(changes)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, env=environment, text=True, **named)


def piped(home: Path, *arguments: str, **named: Any) -> "subprocess.Popen[str]":
    """Start a command of this tree in its home, its output to be read from a pipe."""
    return start(home, *arguments, changes=TREE, cwd=home, stdout=subprocess.PIPE, **named)


def said(process: "subprocess.Popen[str]", words: str) -> list[str]:
    """Read the lines of a pipe up to one with these words, or to the end.

    Words behind a line break are those that a line begins with.
    """
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in f"\n{line}":
            break
    return lines


def workbench(home: Path, *arguments: str, log: str = "log.txt", **named: Any) -> int:
    """Run one command of the workbench; return its code, append its output to a log of the home."""
    with (home / log).open("a", encoding="utf-8") as file:
        return start(home, *arguments, stdout=file, stderr=file, **named).wait()


def promotion(home: Path, sweep: Sequence[str], promote: Sequence[str], **named: Any) -> Any:
    """Sweep and promote in a home, which is made, or return the verdict of an earlier start."""
    home.mkdir(parents=True, exist_ok=True)
    verdict, told = "promotions/*/promotion.json", f"see {home / 'log.txt'}"
    found = sorted(home.glob(verdict))
    if not found:
        study = ("--multirun", "sweep=lr_entropy", "hydra.sweeper.study_name=study")
        assert workbench(home, *study, "tracking=none", *sweep, **named) == 0, told
        task = ("task=promote", "promote.study=study", "tracking=none")
        code = workbench(home, *task, *promote, **named)
        found = sorted(home.glob(verdict))
        assert found, told
        assert read(found[-1])["promoted"] == {0: True, 3: False}.get(code), told
    return read(found[-1])


def answer(command: Sequence[str], **named: Any) -> Any:
    """Run a command and return the JSON that it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, **named)
    return json.loads(done.stdout)


def alternated(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call every side in turn, so that a busy machine disturbs all of them alike."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return found


def medians(rows: Sequence[Mapping[str, float]], digits: int | None = None) -> dict[str, float]:
    """Return the median over rows of each of their keys, rounded if asked."""
    found = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return found if digits is None else {key: round(x, digits) for key, x in found.items()}


def spread(values: Iterable[float]) -> tuple[float, float]:
    """Return a mean and its standard error, which is nan of one value."""
    import numpy as np

    array = np.array([*values], dtype=np.float64)
    error = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else math.nan
    return float(array.mean()), float(error)


def shown(values: Iterable[float], sign: str = "") -> str:
    """Return mean and standard error in words, `3.10 (0.21)`."""
    mean, error = spread(values)
    return f"{mean:{sign}.2f} ({error:.2f})"


def paired(one: Iterable[float], other: Iterable[float]) -> str:
    """Return mean and standard error of a paired difference in words, `+0.12 (0.03)`."""
    return shown((a - b for a, b in zip(one, other, strict=True)), "+")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], rule: str = "---") -> str:
    """Return a table in Markdown; `rule` is drawn under every column but the first."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], f"|---|{f'{rule}|' * (len(head) - 1)}", *lines[1:]])


def trials(home: Path, study: str, storage: str | None = None) -> list[Any]:
    """Return the trials of a study."""
    from ppo_workbench.records.storage import open_storage
    from ppo_workbench.records.studies.session import load_study

    return load_study(open_storage(storage, home, study), study).trials


def last_policy(experiment: Any) -> Any:
    """Train without a look at validation and return the policy of the last weights."""
    from ppo_workbench.delivery.network import policy_weights
    from ppo_workbench.learning.training import Hooks, Validation, train_model
    from ppo_workbench.learning.vec_env import TradingVecEnv
    from ppo_workbench.scoring.backtest import NETWORK, Policy

    config = experiment.config
    blind = Hooks(lambda weights: Validation(0.0, {}), lambda earlier, last: False)
    result = train_model(config, TradingVecEnv(experiment.batch()), 1, blind)
    return Policy("last", NETWORK, policy_weights(result.last_tensors, config.model.activation))


def quick_model(home: Path, *overrides: str) -> tuple[Any, Any]:
    """Train the model `m` for a moment in a home; return its artefact and its experiment."""
    from ppo_workbench import compose, train
    from ppo_workbench.delivery.artifact import load_artifact
    from ppo_workbench.learning.progress import WorkbenchConsole
    from ppo_workbench.trading.experiment import prepare, split_bars

    os.environ["PPO_WORKBENCH_HOME"] = str(home)
    config = compose(["budget.timesteps=16384", "tracking=none", "output=m", *overrides])
    with Path(os.devnull).open("w") as silence:
        train(config, console=WorkbenchConsole(silence))
    experiment = prepare(config, *split_bars(config))
    return load_artifact(home / "trained_models", "m"), experiment


def silent_model(experiment: Any, config: Any) -> Any:
    """Return a learner on an experiment's data, in one thread of torch, that logs nothing."""
    import torch
    from stable_baselines3.common.logger import Logger

    from ppo_workbench.config import BudgetConfig
    from ppo_workbench.learning.budget import Budget
    from ppo_workbench.learning.models import build_model
    from ppo_workbench.learning.vec_env import TradingVecEnv
    from ppo_workbench.market.horizons import derived

    torch.set_num_threads(1)
    config = derived(config, experiment.bars)
    budget = Budget(BudgetConfig(timesteps=2**40))
    model = build_model(config.model, TradingVecEnv(experiment.batch()), budget, config.seed)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def every_rule(config: Any) -> Any:
    """Switch every rule of a configuration on and return it."""
    for rule in config.risk.rules().values():
        rule.enabled = True
    config.risk.halt.market_wide = True
    config.risk.regime.blocked = ["trend_high_volatility"]
    return config


def whole_market(config: Any) -> tuple[Any, Any, int]:
    """Return the market of all bars, its legal starts and the length of an episode."""
    from ppo_workbench.config import settled
    from ppo_workbench.market.features import compute_market
    from ppo_workbench.market.horizons import derived
    from ppo_workbench.market.sources import load_bars
    from ppo_workbench.market.splits import Split, legal_starts
    from ppo_workbench.trading.observation import Scaler
    from ppo_workbench.trading.rewards import with_volatility
    from ppo_workbench.trading.table import trading_market

    bars = load_bars(config.data)
    config = derived(config, bars)
    table = compute_market(bars, config.features)
    scaler = Scaler.fit(table.features[table.warmup_bars :], config.features.clip)
    whole = (Split("all", table.warmup_bars, len(bars)),)
    market = trading_market(bars, table, with_volatility(config, bars, whole), scaler)
    length = settled(config.env.episode_bars)
    return market, legal_starts(bars, whole, length), length
