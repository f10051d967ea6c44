"""The Decider against the backtest: the same numbers, bit for bit, bar by bar."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.delivery.builders import Walk, experiment_of, small_config, store_model, walk

from ppo_workbench.config import Config
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.live.account import SimulatedAccount
from ppo_workbench.delivery.messages import Status, bar_messages, moment_of
from ppo_workbench.market.bars import NS_PER_SECOND, Bars
from ppo_workbench.market.splits import Split
from ppo_workbench.pipeline.models.stored import stored_policy
from ppo_workbench.scoring.backtest import backtest
from ppo_workbench.trading.experiment import Experiment, prepare, split_bars
from ppo_workbench.trading.rules.names import RULE_NAMES

SHARED = Path(__file__).parents[3] / "shared" / "data"
SPY = SHARED / "spy_1min_2013-10.csv"


def _agree(
    experiment: Experiment,
    folder: Path,
    split: Split,
    seed: int = 0,
    events_path: str | None = None,
) -> Walk:
    """Decide on every bar of a split with the backtest's own account; compare everything."""
    artifact = store_model(experiment, folder, seed=seed)
    policy = stored_policy(artifact.metadata, artifact.tensors, experiment)
    rows = walk(experiment, artifact, split, policy.use_mask)
    trace = backtest(policy, experiment.bars, experiment.market, split, experiment.config)
    assert np.array_equal(trace.action, rows.actions)
    assert np.array_equal(trace.equity_usd, rows.outcomes["equity"])

    decider = Decider(artifact, events_path=events_path)
    shown = experiment.bars if events_path is None else _without_events(experiment.bars)
    decider.warm_up(shown.slice(0, split.start))
    bars = shown.slice(split.start, split.stop)
    names = experiment.market.space.names
    for i, bar in zip(range(len(rows.actions)), bar_messages(bars), strict=False):
        decision = decider.decide(bar, rows.account(i))
        assert decision.status is Status.decided, (i, decision.reason)
        assert decider.observation.tobytes() == rows.observations[i].tobytes(), i
        assert decider.mask.tobytes() == rows.masks[i].tobytes(), i
        assert decider.reasons.tobytes() == rows.reasons[i].tobytes(), i
        assert decider.logits.tobytes() == rows.logits[i].tobytes(), i
        assert decision.action == names[rows.actions[i]], i
        _memory_agrees(decider, rows, i)
    return rows


def _without_events(bars: Bars) -> Bars:
    """Return the bars as a feed that knows nothing of events sends them."""
    never = np.full(len(bars), -1, np.int64)
    return replace(bars, events=never, events_ahead=never)


# What the reward alone remembers, and the row counters of a backtest.
_NOT_THE_RULES = ("t", "stop", "episode_start", "rng", "session", "opened_session")
_OF_THE_REWARD = ("episode_reward",)


def _memory_agrees(decider: Decider, rows: Walk, i: int) -> None:
    found, expected = decider.accounts[0], rows.accounts[i]
    for name in expected.dtype.names:
        if name not in _NOT_THE_RULES + _OF_THE_REWARD:
            assert found[name].tobytes() == expected[name].tobytes(), (i, name)


def _busy(rows: Walk, fills: int) -> None:
    """The comparison means something: the account traded and rules spoke."""
    assert (rows.outcomes["fill_quantity"] != 0).sum() >= fills
    assert len(np.unique(rows.actions)) > 1
    assert (~rows.masks).any(axis=1).mean() > 0.01


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("risk=conservative", "env.exposure_levels=[-1,-0.5,0,0.5,1]"),
        ("env.action_set=target", "env.exposure_levels=[-1,-0.5,0,0.25,1]"),
        ("model=ppo", "risk.halt.enabled=true", "risk.halt.market_wide=true"),
        ("env.fill=next_close", "costs=us_equity", "market.lot=0"),
        ("model=ppo", "env.observe_mask=true", "env.action_set=target"),
        (
            *("market.contract_multiplier=50", "market.lot=0.1", "market.minimum_order=11"),
            *("market.tick=0.05", "costs=us_futures", "costs.fee_per_share_usd=2.25"),
            *("env.exposure_levels=[-1,-0.5,0,0.5,1]", "env.action_set=target"),
        ),
        (
            "risk.settlement.enabled=true",
            "env.allow_short=false",
            "env.exposure_levels=[0,0.5,1]",
        ),
        (
            "risk.daily_loss.flatten=true",
            *("risk.stop_loss.enabled=true", "risk.stop_loss.loss_frac=0.003"),
            *("risk.take_profit.enabled=true", "risk.take_profit.gain_frac=0.003"),
            *("env.sizing=volatility", "env.volatility_target_annual_frac=0.05"),
            "risk.drawdown.caution_frac=0.01",
            "risk.drawdown.flatten_frac=0.02",
            "risk.drawdown.pause_bars=60",
            "risk.cooldown.enabled=true",
            "risk.order_rate.enabled=true",
            "risk.event.enabled=true",
            "risk.pattern_day_trader.enabled=true",
            "costs.borrow_annual_bps=50",
            "costs.cash_interest_annual_bps=300",
            "costs.margin_interest_annual_bps=500",
        ),
    ],
)
def test_decider_on_synthetic_minutes_equals_the_backtest(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    experiment = experiment_of(small_config(*overrides))
    split = experiment.splits["train"]
    rows = _agree(experiment, tmp_path, Split("part", split.start, split.start + 1600), seed=3)
    _busy(rows, 20)


def test_decider_with_a_file_of_events_equals_the_backtest(tmp_path: Path) -> None:
    plain = small_config()
    bars = experiment_of(plain).bars
    start = experiment_of(plain).splits["train"].start
    moments = [bars.end_ns[start + k] + 20 * NS_PER_SECOND for k in (100, 130, 700, 1100)]
    path = tmp_path / "events.csv"
    lines = [f"{moment_of(int(moment)).isoformat()},CPI" for moment in moments]
    path.write_text("\n".join(["time,kind", *lines]))
    experiment = experiment_of(
        small_config("risk.event.enabled=true", f"data.events_path={path}", "seed=1")
    )

    split = Split("part", start, start + 1300)
    rows = _agree(experiment, tmp_path, split, seed=3, events_path=str(path))

    event = 1 << RULE_NAMES.index("event")
    assert (rows.reasons[96:116] & event).any()  # from 5 bars before to 15 after the first
    _busy(rows, 5)


def _thin(bars: Bars) -> Bars:
    """Return bars a fifth of which traded nothing, and now and then 25 in a row."""
    still = np.random.default_rng(5).random(len(bars)) < 0.2
    for start in range(0, len(bars), 150):
        still[start : start + 25] = True
    return replace(bars, volume=np.where(still, 0.0, bars.volume))


def _thin_experiment(config: Config) -> Experiment:
    bars, splits = split_bars(config)
    return prepare(config, _thin(bars), splits)


_THIN = [
    (),
    ("costs=us_equity", "env.action_set=target", "env.exposure_levels=[-1,-0.5,0,0.5,1]"),
    ("costs=us_etf", "risk.liquidity.enabled=false", "env.exposure_levels=[-1,-0.5,0,0.5,1]"),
    ("env.fill=next_close", "data.volume=none"),
    (
        *("risk=conservative", "env.forbidden_action=execute", "model=ppo"),
        *("market.contract_multiplier=10", "market.lot=0.1", "costs=us_futures"),
    ),
]


@pytest.mark.parametrize("overrides", _THIN)
def test_decider_on_bars_without_volume_equals_the_backtest(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    experiment = _thin_experiment(small_config(*overrides))
    split = experiment.splits["train"]
    split = Split("part", split.start, split.start + 1600)
    rows = _agree(experiment, tmp_path, split, seed=3)
    _busy(rows, 10)
    if experiment.bars.has_volume:
        still = experiment.bars.volume[split.start + 1 : split.stop] == 0
        assert not rows.outcomes["fill_quantity"][still].any()
        assert (still & (rows.actions != experiment.market.space.hold)).sum() > 10


@pytest.mark.parametrize("overrides", _THIN)
def test_simulated_account_on_bars_without_volume_equals_the_backtest(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    experiment = _thin_experiment(small_config(*overrides))
    start = experiment.splits["train"].start
    artifact = store_model(experiment, tmp_path, seed=3)
    use_mask = experiment.config.model.type.value == "maskable_ppo"
    rows = walk(experiment, artifact, Split("part", start, start + 800), use_mask)
    decider = Decider(artifact)
    decider.warm_up(experiment.bars.slice(0, start))
    account = SimulatedAccount(decider)
    bars = experiment.bars.slice(start, start + 800)
    for i, bar in zip(range(len(rows.actions)), bar_messages(bars), strict=False):
        decision = decider.decide(bar, account.step(bar))
        account.take(decision)
        assert decision.action_index == rows.actions[i], i
        for name in ("cash", "shares", "equity", "rung", "bars_held", "session_opens"):
            assert account.record[name] == rows.accounts[name][i], (i, name)
        _memory_agrees(decider, rows, i)


def test_decider_on_daily_bars_equals_the_backtest(tmp_path: Path) -> None:
    experiment = experiment_of(small_config("experiment=sp500"))
    _busy(_agree(experiment, tmp_path, experiment.splits["validation"]), 20)


@pytest.mark.skipif(not SPY.is_file(), reason="real bars are not beside the project")
@pytest.mark.parametrize("make", [experiment_of, _thin_experiment])
def test_decider_on_real_minutes_equals_the_backtest(
    tmp_path: Path, make: Callable[[Config], Experiment]
) -> None:
    experiment = make(small_config("experiment=us_minute_short", f"data.path={SPY}"))
    rows = _agree(experiment, tmp_path, experiment.splits["train"])
    _busy(rows, 20)


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.messages import Account, Bar

folder = Path(sys.argv[1])
lines = (folder / "bars.jsonl").read_text().splitlines()
accounts = (folder / "accounts.jsonl").read_text().splitlines()
bars = [Bar.model_validate_json(line) for line in lines]
decider = Decider(load_artifact(folder, "m"))
decider.warm_up(bars[: len(bars) - len(accounts)])
found = {name: [] for name in ("observation", "mask", "reasons", "logits")}
actions = []
for bar, line in zip(bars[-len(accounts) :], accounts):
    decision = decider.decide(bar, Account.model_validate_json(line))
    actions.append(decision.action_index)
    for name, rows in found.items():
        rows.append(getattr(decider, name).copy())
np.savez(folder / "found.npz", actions=actions, **found)
heavy = {"mlflow", "hydra", "omegaconf", "optuna", "stable_baselines3", "sb3_contrib", "gymnasium"}
print(sorted(heavy & set(sys.modules)))
"""


def test_decider_in_a_fresh_process_equals_the_backtest_without_the_research_stack(
    tmp_path: Path,
) -> None:
    experiment = experiment_of(small_config())
    artifact = store_model(experiment, tmp_path)
    split = Split("part", experiment.splits["train"].start, experiment.splits["train"].start + 400)
    rows = walk(experiment, artifact, split)
    bars = experiment.bars.slice(0, split.stop - 1)
    messages = [bar.model_dump_json() for bar in bar_messages(bars)]
    (tmp_path / "bars.jsonl").write_text("\n".join(messages))
    accounts = [rows.account(i).model_dump_json() for i in range(len(rows.actions))]
    (tmp_path / "accounts.jsonl").write_text("\n".join(accounts))
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    with np.load(tmp_path / "found.npz") as found:
        assert np.array_equal(found["actions"], rows.actions)
        assert found["observation"].tobytes() == rows.observations.tobytes()
        assert found["mask"].tobytes() == rows.masks.tobytes()
        assert found["reasons"].tobytes() == rows.reasons.tobytes()
        assert found["logits"].tobytes() == rows.logits.tobytes()
