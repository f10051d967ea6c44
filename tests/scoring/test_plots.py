from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ppo_workbench.reports.plots import (
    MAX_POINTS,
    bucket_edges,
    bucket_means,
    equity_figure,
    mask_figure,
    monthly_returns,
    reward_figure,
    thinned_rows,
    write_plots,
)
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.rewards import REWARD_NAMES

TraceMaker = Callable[..., Trace]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("rows", [1, 400])
def test_write_plots_makes_png_files_for_any_length(
    make_trace: TraceMaker, tmp_path: Path, rows: int
) -> None:
    rng = np.random.default_rng(0)
    trace = make_trace(
        100 * np.exp(np.cumsum(rng.normal(0, 0.01, rows))),
        blocked_by=rng.integers(0, 8, (rows, 3)),
        exposure=rng.choice([-1, 0, 1], rows),
        regime=rng.integers(0, 4, rows),
        reward_components=rng.normal(size=(rows, len(REWARD_NAMES))),
    )
    paths = write_plots(trace, tmp_path / "new", "MaskablePPO, test")
    assert [path.name for path in paths] == [
        "equity.png",
        "drawdown.png",
        "masks.png",
        "rewards.png",
        "monthly_returns.png",
    ]
    assert all(path.read_bytes().startswith(PNG_SIGNATURE) for path in paths)


def test_write_plots_of_an_account_that_never_moves(make_trace: TraceMaker, tmp_path: Path) -> None:
    trace = make_trace([100] * 5, session=[0] * 5, bars_per_session=5)
    assert len(write_plots(trace, tmp_path, "flat")) == 5


def test_equity_figure_of_a_long_trace_draws_at_most_the_allowed_points(
    make_trace: TraceMaker,
) -> None:
    rng = np.random.default_rng(1)
    trace = make_trace(100 + rng.normal(size=20_000), session=np.arange(20_000) // 390)
    for axes in equity_figure(trace, "long").axes:
        assert all(len(np.asarray(line.get_xdata())) <= MAX_POINTS for line in axes.lines)


def test_thinned_rows_keep_ends_and_extremes() -> None:
    values = np.random.default_rng(2).normal(size=100_000)
    rows = thinned_rows(values)
    assert len(rows) <= MAX_POINTS
    assert {0, 99_999, int(values.argmin()), int(values.argmax())} <= set(rows.tolist())
    assert thinned_rows(values[:5]).tolist() == [0, 1, 2, 3, 4]


def test_bucket_means_weighted_by_length_give_the_mean() -> None:
    values = np.random.default_rng(3).normal(size=1_003)
    edges = bucket_edges(len(values), 17)
    weighted = (bucket_means(values, edges) * np.diff(edges)).sum() / len(values)
    assert weighted == pytest.approx(values.mean())


def test_mask_figure_names_blocking_rules_with_their_share(make_trace: TraceMaker) -> None:
    trace = make_trace([100] * 4, blocked_by=[[0, 0, 4], [0, 0, 0], [2, 0, 4], [0, 0, 4]])
    labels = [label.get_text() for label in mask_figure(trace, "x").axes[0].get_yticklabels()]
    assert labels == ["volatility  75.0%", "short sale restriction  25.0%"]


def test_reward_figure_draws_running_sums_of_the_components_in_use(
    make_trace: TraceMaker,
) -> None:
    rewards = np.zeros((3, len(REWARD_NAMES)))
    rewards[:, 1] = [-1, -2, -3]
    (axes,) = reward_figure(make_trace([100] * 3, reward_components=rewards), "x").axes
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [-1, -3, -6]
    assert axes.get_title(loc="left") == "variance: -6.00"


def test_monthly_returns_compound_within_calendar_months(make_trace: TraceMaker) -> None:
    ends = np.array(
        ["2023-12-28", "2023-12-29", "2024-02-01", "2024-02-02"], "datetime64[ns]"
    ).astype(np.int64)
    years, grid = monthly_returns(make_trace([110, 121, 60.5, 121], end_ns=ends))
    assert years == [2023, 2024]
    assert grid[0, 11] == pytest.approx(0.21)
    assert grid[1, 1] == pytest.approx(0.0)
    assert np.isnan(grid).sum() == 22
