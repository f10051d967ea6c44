from ppo_workbench.records.run_notes import COLUMNS, headline_metrics, run_note

CARD = {
    "sharpe_annual": 1.5, "sharpe_low_95": 0.5, "sharpe_high_95": 2.5, "max_drawdown_frac": 0.05,
    "volatility_annual_frac": 0.1, "win_rate_frac": 0.6, "n_trades": 12.0,
    "violations/house": 2.0, "rejections/impossible": 3.0,
}  # fmt: skip
IDLE = CARD | {"n_trades": 0.0, "win_rate_frac": 0.0, "volatility_annual_frac": 0.0}


def test_headline_metrics_are_means_over_seeds_with_every_invalid_trade() -> None:
    found = headline_metrics([CARD, CARD | {"sharpe_annual": 0.5, "violations/house": 0.0}])
    assert found == {
        "sharpe_annual": 1.0, "max_drawdown_frac": 0.05, "win_rate_frac": 0.6,
        "invalid_trades": 4.0,
    }  # fmt: skip
    assert {f"metrics.`{name}`" for name in found} < set(COLUMNS)
    assert headline_metrics([]) == {}


def test_headline_metrics_of_who_never_trades_have_no_win_rate() -> None:
    assert "win_rate_frac" not in headline_metrics([IDLE])
    assert headline_metrics([IDLE, CARD])["sharpe_annual"] == 1.5


def test_run_note_is_a_table_with_intervals_and_then_its_lines() -> None:
    lines = run_note({"validation": CARD, "idle": IDLE}, ["Report: `x`"]).splitlines()
    assert lines[0] == "| (95 % interval over days) | validation | idle |"
    assert "| Sharpe ratio, annual | 1.50 (0.50 to 2.50) | 1.50 |" in lines
    assert "| Win rate | 60.0 % | - |" in lines
    assert "| Invalid trades | 5 | 5 |" in lines
    assert lines[-1] == "Report: `x`"
    assert run_note({}, ["nothing was scored"]).strip() == "nothing was scored"
