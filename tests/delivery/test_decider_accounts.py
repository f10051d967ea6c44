"""Accounts as brokers report them: partial fills, dust, money, restarts, exchanged models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.delivery.builders import experiment_of, small_config, store_model
from tests.delivery.followed import differing, write_minutes

from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.decider_state import DeciderState
from ppo_workbench.delivery.messages import Account, bar_messages
from ppo_workbench.delivery.messages import Split as ShareSplit
from ppo_workbench.market.splits import Split
from ppo_workbench.trading.experiment import Experiment

FIVE = "env.exposure_levels=[-1,-0.5,0,0.5,1]"
LADDER = (
    "risk.drawdown.caution_frac=0.01",
    "risk.drawdown.flatten_frac=0.02",
    "risk.drawdown.pause_bars=60",
    "risk.cooldown.enabled=true",
    "risk.halt.enabled=true",
)


def _models(experiment: Experiment, folder: Path) -> tuple[Artifact, Artifact]:
    return (
        store_model(experiment, folder, "one", seed=3),
        store_model(experiment, folder, "other", seed=4),
    )


_MARKETS: dict[str, tuple[str, ...]] = {
    "minutes": (*LADDER, FIVE, "env.fill=next_open"),
    "coins": (*LADDER, "market.lot=0", "market.minimum_order=0", "env.action_set=target", FIVE),
    "bits": (*LADDER, FIVE, "env.action_set=target", "env.observe_mask=true"),
    "sized": (*LADDER, FIVE, "env.sizing=volatility", "risk.stop_loss.enabled=true"),
    "long only": ("env.allow_short=false", "env.exposure_levels=[0,1]", *LADDER),
}


@pytest.mark.parametrize("market", _MARKETS)
def test_decider_equals_the_batch_kernels_fed_the_same_reports(tmp_path: Path, market: str) -> None:
    path = tmp_path / "autumn.csv"
    write_minutes(path, "XNYS", "2023-10-02", "2023-12-06")  # end of summer time, a half day
    own = ("data=file", "market=us_etf", f"data.path={path}", *_MARKETS[market])
    experiment = experiment_of(small_config(*own))
    start = experiment.splits["train"].start
    part = Split("part", start, start + 3000)
    found = differing(experiment, _models(experiment, tmp_path), part, seed=1)
    wrong = ("observations", "masks", "reasons", "logits", "actions", "orders")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0), found
    assert min(found["short"], found["flows"], found["gap"], found["swaps"]) > 0, found
    assert found["dust"] > 0 or market != "coins"


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Artifact, Artifact, int]:
    """Return an experiment without lots, two models and the first bar decided on."""
    experiment = experiment_of(small_config("market.lot=0", *LADDER[:4]))
    models = _models(experiment, tmp_path_factory.mktemp("models"))
    return experiment, *models, experiment.splits["train"].start


Coins = tuple[Experiment, Artifact, Artifact, int]


def test_dust_and_a_partial_fill_can_be_topped_up(coins: Coins) -> None:
    experiment, artifact, _, start = coins
    bars = list(bar_messages(experiment.bars.slice(0, start + 60)))
    close = float(bars[start + 1].close or 0)
    for part, short in ((1e-11, False), (0.01, True)):
        decider = Decider(artifact)
        decider.warm_up(bars[:start])
        decider.decide(bars[start], Account(cash=1e5, shares=0.0))
        held = part * 1e5 / close
        report = Account(cash=1e5 - held * close, shares=held)
        for bar in bars[start + 1 :]:
            decision = decider.decide(bar, report)
            if decision.action == "BUY" and decision.mask["BUY"]:
                break
        assert (decision.action, decider._short) == ("BUY", short)
        assert decision.target_quantity is not None
        assert decision.target_quantity > 0.9 * 1e5 / close
        assert decision.order_quantity == decision.target_quantity - held
        assert decision.held_quantity == held


def test_split_changes_nothing_but_the_number_of_shares(coins: Coins) -> None:
    experiment, artifact, _, start = coins
    bars = list(bar_messages(experiment.bars.slice(0, start + 300)))
    plain, split = Decider(artifact), Decider(artifact)
    for decider in (plain, split):
        decider.warm_up(bars[:start])
    held = [Account(cash=1e5, shares=0.0)] * 300
    price = float(bars[start + 100].open or 0)
    held[100:] = [Account(cash=0.0, shares=1e5 / price)] * 200
    for i, (bar, account) in enumerate(zip(bars[start:], held, strict=True)):
        expected = plain.decide(bar, account)
        if i >= 150:
            halved = {name: getattr(bar, name) / 2 for name in ("open", "high", "low", "close")}
            bar = bar.model_copy(update=halved | {"volume": float(bar.volume or 0) * 2})
            told = [ShareSplit(ratio=2.0)] if i == 150 else []
            account = account.model_copy(update={"shares": account.shares * 2, "splits": told})
        found = split.decide(bar, account)
        assert found.action == expected.action
        assert split.observation.tobytes() == plain.observation.tobytes()
        assert np.array_equal(split.reasons, plain.reasons)
        factor = 2.0 if i >= 150 else 1.0
        assert found.order_quantity == pytest.approx(expected.order_quantity * factor, rel=1e-2)
    assert int(split.accounts["rung"][0]) == int(plain.accounts["rung"][0])


def test_pause_and_anchor_survive_restart_exchange_and_rollback(
    coins: Coins, tmp_path: Path
) -> None:
    experiment, one, other, start = coins
    bars = list(bar_messages(experiment.bars.slice(0, start + 30)))
    decider = Decider(one)
    decider.warm_up(bars[:start])
    decider.decide(bars[start], Account(cash=1e5, shares=0.0))
    lost = Account(cash=97_000.0, shares=0.0)  # the ladder pauses
    decider.decide(bars[start + 1], lost)
    left = []
    for i, model in enumerate((one, other, one), start + 2):
        decider.state().save(tmp_path / "state.npz")
        stored = DeciderState.load(tmp_path / "state.npz")
        assert stored.account == decider.account_memory()
        decider = Decider(model)
        if stored.belongs_to(model):
            decider.restore(stored)
        else:
            decider.take_over(stored)
            decider.warm_up(bars[:i])
        decision = decider.decide(bars[i], lost)
        assert "drawdown" in decision.blocked_by["BUY"]
        memory = decider.account_memory()
        assert memory is not None
        left.append((memory.pause_left, memory.anchor, memory.recovery_equity > 0))
    assert left == [(59, 1e5, True), (58, 1e5, True), (57, 1e5, True)]


@pytest.mark.parametrize("told", [True, False])
def test_withdrawal_flattens_only_where_it_is_not_told(coins: Coins, told: bool) -> None:
    experiment, artifact, _, start = coins
    bars = list(bar_messages(experiment.bars.slice(0, start + 3)))
    decider = Decider(artifact)
    decider.warm_up(bars[:start])
    decider.decide(bars[start], Account(cash=1e5, shares=0.0))
    flows: Any = [{"kind": "withdrawal", "amount": 5e4}] if told else []
    close = float(bars[start + 1].close or 0)
    left = Account.model_validate({"cash": 4e4, "shares": 1e4 / close, "cash_flows": flows})
    clock = decider.on_clock(bars[start + 1].start, left)
    decision = decider.decide(bars[start + 1], left)
    blocked = any("drawdown" in rules for rules in decision.blocked_by.values())
    assert (clock.status.value == "flatten", blocked) == (not told, not told)
