"""What an application and the Decider say to each other: bars, accounts and decisions.

docs/schemas/ publishes these models as JSON Schemas, one file for each version; a test
keeps the files equal to the models.  Money is in the currency of the prices, quantities
are signed shares (contracts times their multiplier), times carry an offset.
"""

import math
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ppo_workbench.config import BarsError
from ppo_workbench.market.bars import Bars

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ALL_FIELDS: dict[type, set[str]] = {}
_set = object.__setattr__


class _Message(BaseModel):
    """Closed and immutable: a misspelt or unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def of_checked(cls, values: dict[str, object]) -> Self:
        """Make a message of all its fields, known to be right, in a tenth of the time.

        What pydantic's `model_construct` does after it has looked for aliases and defaults,
        which a decision in microseconds has no time for.  The set of names is made once for all
        of these messages, which are frozen.
        """
        made = cls.__new__(cls)
        if cls not in _ALL_FIELDS:
            _ALL_FIELDS[cls] = set(values)
        _set(made, "__dict__", values)
        _set(made, "__pydantic_fields_set__", _ALL_FIELDS[cls])
        _set(made, "__pydantic_extra__", None)
        _set(made, "__pydantic_private__", None)
        return made


class Bar(_Message):
    """One closed price bar; a missing price (null) is answered with no decision."""

    version: Literal[1] = 1
    start: AwareDatetime = Field(
        description="Start of the bar; of a daily bar any time of its session, where a midnight "
        "as it is written, in whatever zone, is its date"
    )
    open: float | None = Field(description="First price", allow_inf_nan=True)
    high: float | None = Field(description="Highest price", allow_inf_nan=True)
    low: float | None = Field(description="Lowest price", allow_inf_nan=True)
    close: float | None = Field(description="Last price", allow_inf_nan=True)
    volume: float | None = Field(description="Shares or contracts traded", allow_inf_nan=True)
    bid: float | None = Field(default=None, description="Best bid at the close", allow_inf_nan=True)
    ask: float | None = Field(
        default=None, description="Best offer at the close", allow_inf_nan=True
    )
    half_spread_bps: float | None = Field(
        default=None,
        ge=0,
        description="Instead of bid and ask: half spread, basis points of the mid",
    )
    features: dict[str, float | None] = Field(
        default={}, description="The model's own columns, as known at this close (already lagged)"
    )
    bars_since_event: int = Field(
        default=-1, ge=-1, description="Bars since the last listed event, or -1"
    )
    bars_to_event: int = Field(
        default=-1, ge=-1, description="Bars until the next listed event, or -1"
    )

    @property
    def start_ns(self) -> int:
        """UTC nanoseconds of the start."""
        return nanoseconds(self.start)


class Fill(_Message):
    """One execution since the last bar."""

    quantity: float = Field(description="Signed shares")
    price: float = Field(gt=0, description="Price before costs")
    cost: float = Field(
        default=0.0, description="Everything paid beside the price: fees, spread, impact"
    )


class Order(_Message):
    """One order that is not filled yet."""

    quantity: float = Field(description="Signed shares still to be filled")


class CashFlow(_Message):
    """Money that came or went without a trade; what is not told is profit or loss."""

    version: Literal[1] = 1
    kind: Literal["deposit", "withdrawal", "dividend", "fee"] = Field(
        description="Deposits and withdrawals are no profit or loss; a dividend is a profit, a fee "
        "(also interest and a dividend paid on a short position) a loss"
    )
    amount: float = Field(gt=0, description="Currency")

    @property
    def signed(self) -> float:
        """What the cash changed by."""
        return self.amount if self.kind in ("deposit", "dividend") else -self.amount

    @property
    def is_transfer(self) -> bool:
        """Whether it is a deposit or withdrawal."""
        return self.kind in ("deposit", "withdrawal")


class Split(_Message):
    """A split of the shares between the last bar and this one, whose prices are the new ones."""

    version: Literal[1] = 1
    ratio: float = Field(gt=0, description="New shares for an old one: 2 for 2:1, 0.1 for 1:10")


class Account(_Message):
    """The account at the bar's close, as the broker reports it: what it says is believed."""

    version: Literal[3] = 3
    cash: float = Field(description="Cash, short proceeds included, debt negative")
    shares: float = Field(description="Signed position")
    fills: list[Fill] = Field(
        default=[],
        description="Executions since the last bar that was taken; without them prices are taken "
        "from the bar",
    )
    open_orders: list[Order] = Field(default=[], description="Orders still working")
    cash_flows: list[CashFlow] = Field(
        default=[], description="Since the last bar that was taken, in the cash already"
    )
    splits: list[Split] = Field(
        default=[], description="Since the last bar that was taken, in the position already"
    )
    session_pnl: float | None = Field(
        default=None,
        description="Equity less that at the end of the last session, without deposits and "
        "withdrawals; null = as remembered",
    )
    high_water_mark: float | None = Field(
        default=None,
        gt=0,
        description="Highest equity so far, for `drawdown_frac`; where nothing is remembered the "
        "drawdown ladder begins there, later it keeps its own anchor",
    )
    average_price: float | None = Field(
        default=None,
        gt=0,
        description="Entry price of a position that the Decider has not seen opened",
    )


class Status(Enum):
    """What a decision is."""

    decided = "decided"  # by the model, among what the rules allow
    no_decision = "no_decision"  # the reason says why; only what reduces the position is safe
    flatten = "flatten"  # by a rule, without the model: close the position
    ignored = "ignored"  # a late bar: nothing changes, the last decision stands
    idle = "idle"  # on the clock: nothing to do before the next bar


class Decision(_Message):
    """What to do after one bar, or at a moment of the clock."""

    version: Literal[3] = 3
    status: Status
    time: AwareDatetime = Field(description="End of the bar, or the moment of the clock")
    reason: str = Field(default="", description="Why there is no decision by the model")
    action: str | None = Field(
        default=None, description="Name of the action, null without a decision"
    )
    action_index: int | None = Field(
        default=None, ge=0, description="Its index in the stored order"
    )
    target_exposure: float | None = Field(
        default=None, description="Fraction of equity to hold, null without a decision or on HOLD"
    )
    target_quantity: float | None = Field(
        default=None, description="Signed shares to hold, sized at this close; on HOLD as held"
    )
    held_quantity: float | None = Field(
        default=None, description="Signed shares that the account holds"
    )
    order_quantity: float = Field(
        default=0.0,
        description="Signed shares to order now: target less held less open orders; 0 on HOLD",
    )
    drawdown_frac: float | None = Field(
        default=None, description="Fall of the equity from its high-water mark"
    )
    probabilities: dict[str, float] = Field(
        default={},
        description="Of each action under the policy, forbidden ones 0 where it is masked",
    )
    logits: list[float] = Field(
        default=[], description="Of each action, unmasked, in the stored order"
    )
    mask: dict[str, bool] = Field(default={}, description="Which actions the rules allow")
    blocked_by: dict[str, list[str]] = Field(
        default={}, description="For each forbidden action the rules that forbid it"
    )
    regime: str | None = Field(default=None, description="Causal market regime at the close")
    out_of_range: list[str] = Field(
        default=[], description="Features outside of what the model has seen in training"
    )
    reduce_only: bool = Field(
        default=False, description="Nothing may be done at present but reduce the position"
    )
    taken: bool = Field(
        default=False,
        description="Bar and account were taken: fills, cash flows and splits are not to be told "
        "again",
    )

    def line(self) -> str:
        """Return the decision as one line of JSON."""
        return self.model_dump_json()


class AccountMemory(_Message):
    """What the rules remember of an account, whichever model trades it."""

    version: Literal[1] = 1
    session_date: date = Field(description="Session of the last bar that was taken")
    cash: float
    shares: float
    equity: float = Field(description="At the close of that bar")
    average_price: float = Field(description="Of the position, 0 without one")
    bars_held: int
    trip_equity: float = Field(description="Equity when the position was opened")
    opened_in_session: bool
    session_equity: float = Field(description="Equity at the end of the session before")
    session_opens: int = Field(description="Opening orders of the session")
    session_bars: int
    day_trades: list[int] = Field(description="Of the last sessions, this one first")
    unsettled_cash: float
    cooldown_left: int = Field(description="Bars until risk may be added after a loss")
    anchor: float = Field(description="Equity that the drawdown ladder counts from")
    recovery_equity: float = Field(description="Reduced size up to this equity, 0 at full size")
    pause_left: int = Field(description="Bars until the ladder's pause ends")
    flatten_drawdown: bool = Field(description="The ladder wants the position closed")
    high_water_mark: float = Field(description="Highest equity so far")
    return_mean: float = Field(description="Running mean of its returns, in bar volatilities")
    return_square: float = Field(description="Running mean square of its returns")


MESSAGES: tuple[type[_Message], ...] = (Bar, CashFlow, Split, Account, Decision, AccountMemory)


def nanoseconds(moment: datetime) -> int:
    """Return UTC nanoseconds since 1970 of a moment with a zone, exact to the microsecond."""
    return (moment - _EPOCH) // _MICROSECOND * 1000


def moment_of(ns: int) -> datetime:
    """Return the UTC time of nanoseconds since 1970, rounded down to a microsecond."""
    return _EPOCH + ns // 1000 * _MICROSECOND


def check_message(value: object, kind: type[_Message]) -> None:
    """Refuse what is no message of a kind, before anything is remembered of it.

    Raises:
        BarsError: It is not.
    """
    if not isinstance(value, kind):
        name = kind.__name__
        raise BarsError(
            f"{name.lower()}: must be of type {name}, not {type(value).__name__}; make one "
            f"with {name}.model_validate"
        )


def half_spread_bps(bar: Bar) -> float:
    """Return half of ask - bid in basis points of the mid; NaN where there is no usable quote."""
    if bar.half_spread_bps is not None:
        return bar.half_spread_bps
    bid, ask = bar.bid, bar.ask
    if bid is None or ask is None or not (bid > 0 and bid <= ask < math.inf):
        return math.nan
    return (ask - bid) / (ask + bid) * 1e4


def bar_messages(bars: Bars) -> Iterator[Bar]:
    """Yield T bars one by one as messages; their values stay what they are, bit for bit."""
    columns = [getattr(bars, name).tolist() for name in ("open", "high", "low", "close", "volume")]
    spreads, extra = bars.half_spread_bps.tolist(), bars.extra.tolist()
    for t, (open_, high, low, close, volume) in enumerate(zip(*columns, strict=True)):
        known = {name: x for name, x in zip(bars.extra_names, extra[t], strict=True) if x == x}
        yield Bar(
            start=moment_of(int(bars.start_ns[t])),
            open=open_,
            high=high,
            low=low,
            close=close,
            volume=volume,
            half_spread_bps=spreads[t] if spreads[t] == spreads[t] else None,
            features=known,
            bars_since_event=int(bars.events[t]),
            bars_to_event=int(bars.events_ahead[t]),
        )


def schemas() -> dict[str, dict[str, object]]:
    """Return the JSON Schema of each message under the name of its file in docs/schemas/."""
    return {
        f"{_snake(message.__name__)}-v{message.model_fields['version'].default}.json": (
            message.model_json_schema()
        )
        for message in MESSAGES
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
