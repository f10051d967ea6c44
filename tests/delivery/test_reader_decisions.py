"""The training's file fed to the Decider as a stream: the decisions of the backtest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.delivery.builders import experiment_of, small_config, store_model, walk

from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.live.lines import read_csv_lines, read_json_lines
from ppo_workbench.delivery.messages import Status
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.reader.rows import RowReader
from ppo_workbench.market.splits import Split

FILE = ("data=file", "market=us_equity", "data.columns={timestamp: When, close: Last}")
LAGGED = ("data.feature_columns=[mood]", "data.feature_lag_bars=2")
CASES = {
    "minute ends in local time, lagged feature, semicolons": (
        *LAGGED, "data.timestamp=bar_end", "data.timezone=Europe/Paris",
    ),
    "days at midnight UTC": (
        "env.exposure_levels=[-1,0,1]", "features.volatility_slow_bars=20",
        "features.volatility_fast_bars=5",
    ),
}  # fmt: skip


def _frame(bars: Bars, stamps: Any) -> pd.DataFrame:
    mood = np.random.default_rng(1).normal(size=len(bars))
    prices = {"Open": bars.open, "HIGH": bars.high, "low": bars.low, "Last": bars.close}
    return pd.DataFrame({"When": stamps, **prices, "volume": bars.volume, "mood": mood})


@pytest.mark.parametrize("name", CASES)
def test_file_as_a_stream_gets_the_decisions_of_the_backtest(tmp_path: Path, name: str) -> None:
    path, daily = tmp_path / "bars.csv", "days" in name
    if daily:
        source = experiment_of(small_config("experiment=sp500")).bars.slice(0, 900)
        days = pd.DatetimeIndex(source.start_ns, tz="UTC").tz_convert("America/New_York")
        frame = _frame(source, [f"{day:%Y-%m-%d}T00:00:00Z" for day in days])
    else:
        source = experiment_of(small_config()).bars
        ends = pd.DatetimeIndex(source.start_ns + 60 * 10**9, tz="UTC").tz_convert("Europe/Paris")
        frame = _frame(source, ends.strftime("%Y-%m-%d %H:%M"))
    text = frame.to_csv(index=False) if daily else frame.to_csv(index=False, sep=";", decimal=",")
    path.write_text(text)
    experiment = experiment_of(small_config(*FILE, *CASES[name], f"data.path={path}"))
    bars, train = experiment.bars, experiment.splits["train"]
    split = Split("part", train.start, min(train.start + 300, train.stop))
    artifact = store_model(experiment, tmp_path, seed=3)
    rows = walk(experiment, artifact, split)
    assert len(np.unique(rows.actions)) > 1

    reader = RowReader(artifact.metadata.data.conventions)  # type: ignore[arg-type]
    if daily:
        lines = read_json_lines(map(json.dumps, frame.to_dict("records")), reader)
    else:
        lines = read_csv_lines(text.splitlines(), reader)
    found = [line.bar for line, _ in zip(lines, range(split.stop), strict=False)]
    assert all(found)
    decider = Decider(artifact)
    decider.warm_up(bar for bar in found[: split.start] if bar)
    names = experiment.market.space.names
    for i in range(len(rows.actions)):
        bar = found[split.start + i]
        assert bar is not None
        decision = decider.decide(bar, rows.account(i))
        assert decision.status is Status.decided, decision.reason
        assert decider.observation.tobytes() == rows.observations[i].tobytes(), i
        assert decider.mask.tobytes() == rows.masks[i].tobytes(), i
        assert decider.logits.tobytes() == rows.logits[i].tobytes(), i
        assert decision.action == names[rows.actions[i]], i
    assert len(bars) > split.stop
