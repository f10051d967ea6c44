"""The last checkpoint is kept, unless an earlier one is better by a paired standard error."""

import numpy as np
import pytest
from tests.scoring.conftest import TraceMaker

from ppo_workbench.learning.training import Validation
from ppo_workbench.pipeline.train.scores import clearly_better, validated
from ppo_workbench.scoring.metrics import RATIO_CAP, scorecard

SESSIONS = 2_000
NOISE = np.random.default_rng(4).standard_normal((3, SESSIONS)).astype(np.float32)


def _found(score: float, parts: object) -> Validation:
    return Validation(score, {}, np.asarray(parts, np.float32))


@pytest.mark.parametrize(("factor", "kept"), [(0.8, False), (1.2, True)])
def test_what_both_share_does_not_blur_the_comparison(factor: float, kept: bool) -> None:
    """Days that move both alike say nothing of the difference, whose own error is small."""
    shared, error = 100.0 * NOISE[0], 0.45 * np.sqrt(2.0 / SESSIONS)
    earlier, last = shared + 0.45 * NOISE[1], shared + 0.45 * NOISE[2]
    found = clearly_better(_found(1.0 + factor * error, earlier), _found(1.0, last))
    assert found is kept


def test_copies_and_worse_ones_are_not_clearly_better() -> None:
    assert not clearly_better(_found(1.0, NOISE[0]), _found(1.0, NOISE[0]))
    assert not clearly_better(_found(0.5, NOISE[0]), _found(1.0, NOISE[0]))


def test_ruin_is_kept_of_no_training_that_has_something_else(make_trace: TraceMaker) -> None:
    closes = [10_000 + 10 * k for k in range(30)]
    sound, ruined = (
        validated(trace, scorecard(trace)) for trace in (make_trace(closes), make_trace([50, -10]))
    )
    assert sound.score == sound.metrics["sharpe_annual"]
    assert ruined.score == -RATIO_CAP
    assert clearly_better(sound, ruined)
    assert not clearly_better(ruined, sound)
    assert not clearly_better(ruined, ruined)
