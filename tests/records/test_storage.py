"""A database server that ends connections or starts anew costs a study nothing."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from ppo_workbench.records import storage as module
from ppo_workbench.records.storage import _outlasting

ENDED = OperationalError("SELECT 1", {}, Exception("terminating connection"))


def _failing(call: Callable[..., Any], *errors: Exception) -> Callable[..., Any]:
    """Return what raises these errors, one a call, before it does its work."""
    left = list(errors)

    def asked(*arguments: Any, **named: Any) -> Any:
        if left:
            raise left.pop(0)
        return call(*arguments, **named)

    return asked


@pytest.fixture
def storage() -> Any:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return RDBStorage("sqlite://")


@pytest.mark.parametrize("error", [ENDED, StorageInternalError("the commit failed")])
def test_call_on_an_ended_connection_is_made_once_more(storage: Any, error: Exception) -> None:
    storage.get_all_studies = _failing(storage.get_all_studies, error)
    assert _outlasting(storage).get_all_studies() == []


def test_database_that_fails_twice_is_told(storage: Any) -> None:
    storage.get_all_studies = _failing(storage.get_all_studies, ENDED, ENDED)
    with pytest.raises(OperationalError):
        _outlasting(storage).get_all_studies()


def test_end_of_a_trial_whose_answer_was_lost_counts_once(storage: Any) -> None:
    lost = storage.set_trial_state_values

    def tell(trial_id: int, state: Any, values: Any = None) -> Any:
        lost(trial_id, state, values)
        raise ENDED

    storage.set_trial_state_values = tell
    study = optuna.create_study(storage=_outlasting(storage))
    trial = study.ask()
    study.tell(trial, 1.0)
    assert [one.value for one in study.trials] == [1.0]
    with pytest.raises(UpdateFinishedTrialError):
        lost(trial._trial_id, optuna.trial.TrialState.FAIL)


@pytest.mark.parametrize(("patience", "reached"), [(60.0, True), (-1.0, False)])
def test_server_that_starts_anew_is_waited_for(
    storage: Any, monkeypatch: pytest.MonkeyPatch, patience: float, reached: bool
) -> None:
    dialect = storage.engine.dialect
    refused = dialect.loaded_dbapi.OperationalError("connection refused")
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", patience)
    monkeypatch.setattr(f"{module.__name__}.time.sleep", lambda seconds: None)
    _outlasting(storage)
    monkeypatch.setattr(dialect, "connect", _failing(dialect.connect, refused, refused))
    storage.engine.dispose()
    if reached:
        storage.engine.connect().close()
    else:
        with pytest.raises(OperationalError):
            storage.engine.connect()
