"""How many shares an order asks for."""

from typing import Any

from ppo_workbench.jit import kernel
from ppo_workbench.trading.account import cost_rate, sized_shares, too_small


@kernel
def desired_shares(
    a: Any, decided: Any, exposure: float, closer: bool, price: float, p: Any
) -> float:
    """Return the target shares of an order at its fill price.

    Sized after every cost: the impact of the largest order it can be, and on a flip what
    closing the other side costs, so that an unlevered order never makes cash negative.
    A step towards flat never adds shares and a step away never sheds them, whatever the
    price did since the last fill.  What would be less than the minimum order is none; a flip
    that is too small closes.
    """
    if exposure == 0.0:
        return 0.0
    equity = a.cash + a.shares * price
    rate = cost_rate(decided, p, 0.0)
    if p.impact_volatility_frac > 0.0:
        largest = abs(sized_shares(exposure, equity, price, rate, p) - a.shares)
        rate = cost_rate(decided, p, largest * price)
    if exposure * a.shares < 0.0:
        equity -= abs(a.shares) * (price * rate + p.fee_per_share)
    shares = sized_shares(exposure, equity, price, rate, p)
    if shares * a.shares > 0.0:
        held, wanted = abs(a.shares), abs(shares)
        wanted = min(wanted, held) if closer else max(wanted, held)
        shares = wanted if shares > 0 else -wanted
    if too_small(a.shares, shares, p):
        return a.shares if a.shares * shares > 0.0 else 0.0
    return shares
