"""The broker's answer to an action: carried out, rejected or closed; `account.fill` books it."""

from typing import Any

from ppo_workbench.jit import kernel
from ppo_workbench.trading.actions import target_rung
from ppo_workbench.trading.rules.names import STOPPED
from ppo_workbench.trading.rules.reasons import flatten_bits


@kernel
def resolve_action(a: Any, bar: Any, action: int, reasons: int, p: Any, out: Any) -> int:
    """Return the rung that will be traded to, after the broker's answer to `action`.

    Forbidden actions: impossible ones are always rejected; regulatory and house rules are
    rejected or executed as configured.  A rejected order leaves the position, but a
    flatten rule in force is carried out by the broker.
    """
    flatten = flatten_bits(a, bar, p)
    target = target_rung(action, a.rung, p.n_levels, p.flat_rung, p.is_step, flatten != 0)
    if reasons == 0:
        return target
    if reasons & p.enforced == 0:
        out.violated = reasons
        return target
    out.rejected = reasons
    if bar.rule_bits & STOPPED & p.enabled != 0 or a.rung == p.flat_rung:
        return a.rung
    if flatten & p.enforced != 0:
        return p.flat_rung
    out.violated = flatten  # not enforced: holding on breaks it, rejected order or not
    return a.rung
