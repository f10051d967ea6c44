"""What a sweep asks of its bars before the first trial."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.e2e.workbench import TINY

from ppo_workbench import compose
from ppo_workbench.config import BarsError, Config
from ppo_workbench.pipeline.sweep import trial
from ppo_workbench.pipeline.sweep.trial import check_market
from ppo_workbench.trading.experiment import prepared, split_bars


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Count the configurations whose bars are loaded."""
    seen: list[Config] = []

    def spy(config: Config):  # type: ignore[no-untyped-def]
        seen.append(config)
        return prepared(config)

    monkeypatch.setattr(trial, "prepared", spy)
    monkeypatch.setattr(trial, "_LAID_OUT", set())
    return seen


def test_samples_that_share_their_bars_load_them_once(loaded: list[Config]) -> None:
    shared = [*TINY, "objective.windows=1"]
    for changed in ("model.learning_rate=0.1", "env.gamma=0.5", "costs.fee_bps=3"):
        check_market(compose([*shared, changed]))
    assert len(loaded) == 1

    check_market(compose([*shared, "data.synthetic.seed=4"]))

    assert len(loaded) == 2


def test_file_that_has_gone_since_it_was_checked_is_refused(
    loaded: list[Config], tmp_path: Path
) -> None:
    path = tmp_path / "bars.csv"
    config = compose([*TINY, "objective.windows=1"])
    bars, _ = split_bars(config)
    rows = ["timestamp,open,high,low,close,volume"]
    for i, start in enumerate(bars.start_ns):
        values = (bars.open[i], bars.high[i], bars.low[i], bars.close[i], bars.volume[i])
        stamp = datetime.fromtimestamp(int(start) // 10**9, UTC).isoformat()
        rows.append(f"{stamp},{','.join(repr(float(value)) for value in values)}")
    path.write_text("\n".join(rows), encoding="utf-8")
    own = compose(
        [*TINY, "objective.windows=1", "data=file", "market=synthetic", f"data.path={path}"]
    )
    check_market(own)
    path.unlink()

    with pytest.raises(BarsError, match=r"bars\.csv"):
        check_market(own)

    assert len(loaded) == 2
