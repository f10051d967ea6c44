"""A kept market is the one that would be made, or is not used; it holds no test bar."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from ppo_workbench import plugins
from ppo_workbench.cli.main import compose
from ppo_workbench.config import Config
from ppo_workbench.market import prepared as kept
from ppo_workbench.trading import experiment
from ppo_workbench.trading.experiment import Experiment, prepare, prepared, split_bars


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PPO_WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(kept, "LEAST_BARS", 1)
    return tmp_path / "ppo_workbench" / "markets"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Write 1,000 daily bars with a column of the user's and notes to tell."""
    days = np.arange("2018-01-01", "2024-01-01", dtype="datetime64[D]")
    days = days[np.is_busday(days)][:1000]
    close = 90 + np.cumsum(np.random.default_rng(4).standard_normal(1000))
    rows = [
        f"{day},{c},{c + 1:.2f},{c - 1:.2f},{c:.2f},{1000 + k},{k % 7}"
        for k, (day, c) in enumerate(zip(days, close.round(2), strict=True))
    ]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["date,open,high,low,close,volume,mood", *rows]), encoding="utf-8")
    return path


def _config(csv: Path, *more: str) -> Config:
    own = [
        "data=file",
        "market=us_equity",
        f"data.path={csv}",
        "data.calendar=24/7",
        "data.feature_columns=[mood]",
    ]
    return compose([*own, "env.episode_bars=20", "splits.gap_bars=0", *more])


def _equal(one: Experiment, other: Experiment) -> None:
    for pair in ((one.bars, other.bars), (one.table, other.table), (one.market, other.market)):
        for item in fields(pair[0]):
            mine, others = (getattr(each, item.name) for each in pair)
            if isinstance(mine, np.ndarray):
                assert mine.dtype == others.dtype
                assert mine.flags.carray  # writeable, as kernels are compiled for
                assert mine.tobytes() == others.tobytes(), item.name
            elif item.name not in ("space", "scaler"):
                assert mine == others
    assert one.bars.fingerprint == other.bars.fingerprint
    assert (one.splits, one.test_range, one.config) == (
        other.splits,
        other.test_range,
        other.config,
    )


def _forbidden(*_: object) -> None:
    raise AssertionError("the bars were read again")


@pytest.mark.parametrize("source", ["file", "synthetic", "sp500"])
def test_market_from_the_cache_is_the_one_that_is_made(
    source: str, csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "file": lambda: _config(csv),
        "synthetic": lambda: compose(["data.synthetic.sessions=30"]),
        "sp500": lambda: compose(["experiment=sp500"]),
    }[source]()
    made = prepare(config, *split_bars(config))
    _equal(prepared(config), made)
    monkeypatch.setattr(experiment, "split_bars", _forbidden)
    again = prepared(config)
    _equal(again, made)
    again.bars.close[:] = 0.0  # private: the file and the next process keep theirs
    _equal(prepared(config), made)


def test_rules_costs_and_learner_share_one_market_and_files_have_their_own(
    csv: Path, folder: Path
) -> None:
    prepared(_config(csv))
    prepared(_config(csv, "risk=aggressive", "costs.half_spread_bps=7", "model.learning_rate=0.1"))
    assert len(list(folder.iterdir())) == 1
    prepared(_config(csv, "features.names=[return_1]"))
    prepared(_config(csv, "splits.gap_bars=1"))
    assert len(list(folder.iterdir())) == 3
    text = csv.read_text(encoding="utf-8")
    csv.write_text(text.replace(",3\n", ",4\n", 1), encoding="utf-8")
    changed = prepared(_config(csv))
    assert len(list(folder.iterdir())) == 4
    assert changed.bars.extra[4, 0] == 4.0


def test_kept_market_ends_with_the_validation(csv: Path, folder: Path) -> None:
    config = _config(csv)
    bars, splits = split_bars(config)
    prepared(config)
    (path,) = folder.iterdir()
    content, test = path.read_bytes(), splits["test"]
    assert (
        bars.close[splits["validation"].stop - 20 : splits["validation"].stop].tobytes() in content
    )
    closes = bars.close[test.start : test.stop]
    assert not any(closes[k : k + 3].tobytes() in content for k in range(len(closes) - 2))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 50)


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _garbage])
def test_damaged_market_is_made_again(
    damage: Callable[[Path], None], csv: Path, folder: Path
) -> None:
    config = _config(csv)
    made = prepared(config)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    damage(path)
    _equal(prepared(config), made)
    assert path.read_bytes() == whole


def test_where_nothing_can_be_kept_markets_are_made(
    csv: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(csv)
    folder.parent.mkdir()
    folder.write_text("a file where the folder would be", encoding="utf-8")
    _equal(prepared(config), prepare(config, *split_bars(config)))
    folder.unlink()

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "write_whole", full)
    _equal(prepared(config), prepare(config, *split_bars(config)))
    assert not list(folder.iterdir())


def test_oldest_markets_make_room(csv: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = range(4)
    for gap in gaps[:3]:
        prepared(_config(csv, f"splits.gap_bars={gap}"))
    first = folder / f"{kept.market_key(_config(csv))}.market"
    size = first.stat().st_size
    prepared(_config(csv))  # the oldest, used again
    monkeypatch.setattr(kept, "MOST_BYTES", 3 * size + 100)
    prepared(_config(csv, "splits.gap_bars=3"))
    left = [
        gap
        for gap in gaps
        if (folder / f"{kept.market_key(_config(csv, f'splits.gap_bars={gap}'))}.market").exists()
    ]
    assert left == [0, 2, 3]


def test_small_markets_are_not_kept(
    csv: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LEAST_BARS", 20_000)
    prepared(_config(csv))
    assert not folder.exists()


def test_beside_a_plugin_bars_are_read_each_time(
    csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(csv)
    monkeypatch.setattr(plugins, "active", lambda: ("mine",))
    assert kept.market_key(config) is None
    monkeypatch.undo()
    assert kept.market_key(config) is not None
    assert kept.market_key(replace(config, data=replace(config.data, source="mine"))) is None
