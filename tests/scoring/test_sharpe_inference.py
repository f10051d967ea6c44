"""Inference of Sharpe ratios against the paper's example and simulated ratios."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_workbench.scoring.statistics.inference import (
    inference_of,
    sharpe_inference,
    sharpe_variance,
)
from ppo_workbench.scoring.statistics.samples import StatisticsError
from ppo_workbench.scoring.statistics.sharpe import SharpeMoments

# Monthly returns of a hedge fund: mean .036, deviation .079.
FUND = SharpeMoments(0.036 / 0.079, 24, -2.448, 10.164)


def test_example_of_the_paper() -> None:
    found = sharpe_inference(FUND, 0.5, 0.05)
    assert found.probability == pytest.approx(0.987, abs=5e-4)
    assert 1.0 - found.power == pytest.approx(0.315, abs=5e-4)
    assert found.observed_false_discovery == pytest.approx(0.306, abs=5e-4)


@pytest.mark.parametrize(
    ("moments", "expected"), [(FUND, 0.329), (SharpeMoments(0.036 / 0.079, 24), 0.214)]
)
def test_standard_error_at_the_ratio_seen(moments: SharpeMoments, expected: float) -> None:
    error = sharpe_variance(moments, moments.sharpe_per_session) ** 0.5
    assert error == pytest.approx(expected, abs=5e-4)


def test_autocorrelated_returns_have_the_spread_of_simulated_ratios() -> None:
    rng, rho, sessions, runs = np.random.default_rng(0), 0.4, 400, 4000
    noise = rng.normal(size=(runs, sessions + 50))
    x = np.zeros_like(noise)
    for t in range(1, noise.shape[1]):
        x[:, t] = rho * x[:, t - 1] + noise[:, t]
    x = x[:, 50:] + 0.1 * x.std()
    ratios = x.mean(axis=1) / x.std(axis=1, ddof=1)
    expected = sharpe_variance(SharpeMoments(0.1, sessions), 0.1, rho) ** 0.5
    assert ratios.std() == pytest.approx(expected, rel=0.05)


@given(
    seen=st.floats(-0.5, 0.5),
    prior=st.floats(0.01, 0.99),
    alternative=st.floats(0.05, 0.5),
)
def test_shares_are_probabilities(seen: float, prior: float, alternative: float) -> None:
    moments = SharpeMoments(seen, 100)
    found = sharpe_inference(moments, alternative, prior)
    for value in (found.power, found.planned_false_discovery, found.observed_false_discovery):
        assert 0.0 <= value <= 1.0


def test_prior_of_nearly_nothing_makes_every_find_false() -> None:
    assert sharpe_inference(FUND, 0.5, 1e-6).observed_false_discovery > 0.999


def test_inference_of_a_run_takes_its_own_moments_and_autocorrelation() -> None:
    x = np.random.default_rng(8).standard_normal(1_001)
    excess = 0.0006 + 0.01 * (x[1:] + 0.3 * x[:-1])
    rho = float(np.corrcoef(excess[1:], excess[:-1])[0, 1])
    own = sharpe_inference(SharpeMoments.of(excess), 1.5 / np.sqrt(252), 0.05, autocorrelation=rho)
    found = inference_of(excess, 252, 1.5, 0.05)
    assert found.probability == pytest.approx(own.probability, abs=1e-3)
    assert found.observed_false_discovery == pytest.approx(own.observed_false_discovery, abs=5e-3)
    plain = sharpe_inference(SharpeMoments.of(excess), 1.5 / np.sqrt(252), 0.05)
    assert found.probability < plain.probability - 0.005  # it follows its own course


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(StatisticsError, match="must be above the null"):
        sharpe_inference(FUND, 0.0, 0.05)
    with pytest.raises(StatisticsError, match="prior"):
        sharpe_inference(FUND, 0.5, 1.5)
