"""The messages and the JSON Schemas that are published of them."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tests.trading.builders import hand_bars

from ppo_workbench.delivery.live.memory import MarketMemory
from ppo_workbench.delivery.messages import (
    Account,
    Bar,
    CashFlow,
    Decision,
    Status,
    bar_messages,
    half_spread_bps,
    schemas,
)
from ppo_workbench.market.calendars.clock import BarClock

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def _bar(**changes: object) -> Bar:
    fields = {"start": "2024-01-02T14:30:00Z", "open": 1, "high": 1, "low": 1, "close": 1}
    return Bar.model_validate({**fields, "volume": 1, **changes})


def test_published_schemas_are_those_of_the_messages() -> None:
    published = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    assert published == schemas()
    assert sorted(published) == [
        "account-v3.json",
        "account_memory-v1.json",
        "bar-v1.json",
        "cash_flow-v1.json",
        "decision-v3.json",
        "split-v1.json",
    ]


@pytest.mark.parametrize(
    "change",
    [{"start": "2024-01-02T14:30:00"}, {"prize": 1.0}, {"version": 2}, {"bars_to_event": -2}],
)
def test_bar_without_zone_with_unknown_field_or_version_is_refused(
    change: dict[str, object],
) -> None:
    with pytest.raises(ValidationError):
        _bar(**change)


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (Account, {"cash": 1.0, "shares": 0.0}),
        (Decision, {"status": "idle", "time": "2024-01-02T14:30:00Z"}),
    ],
)
def test_account_and_decision_of_an_older_version_are_refused(
    message: type[Account | Decision], fields: dict[str, object]
) -> None:
    assert message.model_validate_json(json.dumps({**fields, "version": 3})).version == 3
    for older in (1, 2):
        with pytest.raises(ValidationError, match=r"version\n  Input should be 3"):
            message.model_validate_json(json.dumps({**fields, "version": older}))


@pytest.mark.parametrize(
    ("kind", "signed", "moves"),
    [
        ("deposit", 5.0, True),
        ("withdrawal", -5.0, True),
        ("dividend", 5.0, False),
        ("fee", -5.0, False),
    ],
)
def test_cash_flow_has_the_sign_of_its_kind(kind: str, signed: float, moves: bool) -> None:
    flow = CashFlow.model_validate({"kind": kind, "amount": 5.0})
    assert (flow.signed, flow.is_transfer) == (signed, moves)
    with pytest.raises(ValidationError, match="greater than 0"):
        CashFlow.model_validate({"kind": kind, "amount": -5.0})


def test_account_with_an_undefined_number_is_refused() -> None:
    with pytest.raises(ValidationError):
        Account(cash=float("nan"), shares=0.0)


def test_half_spread_comes_from_a_usable_quote_only() -> None:
    assert half_spread_bps(_bar(bid=99.0, ask=101.0)) == 100.0
    assert half_spread_bps(_bar(half_spread_bps=3.5, bid=99.0, ask=101.0)) == 3.5
    for quote in ({}, {"bid": 99.0}, {"bid": 0.0, "ask": 1.0}, {"bid": 2.0, "ask": 1.0}):
        assert np.isnan(half_spread_bps(_bar(**quote)))


def test_bars_become_messages_and_survive_json_bit_for_bit() -> None:
    bars = hand_bars([100.1, 1 / 3, 2**0.5], 3)
    messages = [Bar.model_validate_json(bar.model_dump_json()) for bar in bar_messages(bars)]
    assert [bar.close for bar in messages] == bars.close.tolist()
    assert [bar.start_ns for bar in messages] == bars.start_ns.tolist()


def test_decision_survives_its_line() -> None:
    decision = Decision(
        status=Status.decided, time=datetime(2024, 1, 2, tzinfo=UTC), logits=[0.1, 1 / 3], mask={}
    )
    assert "\n" not in decision.line()
    assert Decision.model_validate_json(decision.line()) == decision


def test_decision_of_checked_fields_is_the_validated_one() -> None:
    decision = Decision(status=Status.idle, time=datetime(2024, 1, 2, tzinfo=UTC))
    made = Decision.of_checked({name: getattr(decision, name) for name in Decision.model_fields})
    assert made == decision
    assert made.line() == decision.line()
    assert made.model_copy(update={"reason": "x"}).reason == "x"
    with pytest.raises(ValidationError, match="frozen"):
        made.reason = "y"


@pytest.mark.parametrize("start", ["2024-01-10T00:00:00Z", "2024-01-10T00:00:00+09:00"])
def test_daily_bar_that_starts_at_midnight_is_of_that_date(start: str) -> None:
    memory = object.__new__(MarketMemory)
    opened = int(np.datetime64("2024-01-10T14:30", "ns").astype(np.int64))
    memory.clock = BarClock("XNYS", 86_400, opened, opened)
    assert memory.start_of(_bar(start=start)) == opened
