"""The peer of `jax_peer.py`: market, account, masks, PPO in one jitted JAX program.

It reads a folder that the other side wrote and answers on its standard output; it imports
nothing of the project.  Written for speed on one core: account and learner are float32, all
uniform numbers of a rollout come from one call, values are computed after it in one product,
both networks share the product of their first layer, Adam works on one vector, and the order
of the minibatches comes from numpy, whose shuffle is cheaper than a sort.  Unrolling either
loop by 2, 4 or 8 gained nothing.

Of the step it has what the default rules ask: the account (fills at the next open, costs, the
drawdown ladder), eight account features, the mask of every rule that is on, the reward.  It
has no rejected orders, lots, carry, breaches by price or counts for the record.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_default_prng_impl", "rbg")  # the cheapest one

Tree = dict[str, Any]


def begin(c: Any, start: Any) -> Tree:
    """Return the account of an episode that begins in cash at bar `start`."""
    cash, none = jnp.float32(1.0), jnp.float32(0.0)
    whole = jnp.int32(0)
    return {
        "t": start, "stop": start + c["episode_bars"], "rung": whole, "held": whole,
        "cash": cash, "shares": none, "equity": cash, "price": none,
        "session_equity": cash, "session_bars": whole, "peak": cash, "recovery": none,
        "pause": whole, "flatten": whole, "mean": none, "square": jnp.float32(1.0),
    }  # fmt: skip


def order_size(c: Any, a: Tree) -> Any:
    return jnp.where(a["recovery"] > 0.0, c["reduced_size"], 1.0)


def observe(m: Tree, c: Any, a: Tree) -> Any:
    """Return the scaled observation, float32 (F + 8,)."""
    t, close = a["t"], m["close"][a["t"]]
    sigma = m["sigma"][t]
    gain = jnp.where(a["price"] > 0, (close / a["price"] - 1.0) * jnp.sign(a["shares"]), 0.0)
    deviation = jnp.sqrt(a["square"])
    account = jnp.stack([
        a["shares"] * close / a["equity"],
        gain * lax.rsqrt(jnp.maximum(a["held"], 1).astype(jnp.float32)) / sigma,
        jnp.log1p(a["held"].astype(jnp.float32)),
        (a["equity"] / a["session_equity"] - 1.0)
        * lax.rsqrt(jnp.maximum(a["session_bars"], 1).astype(jnp.float32)) / sigma,
        jnp.maximum(1.0 - a["equity"] / a["peak"], 0.0) / c["annual_volatility"],
        order_size(c, a),
        a["mean"] / jnp.maximum(deviation, 0.1) * c["mean_scale"],
        deviation,
    ])  # fmt: skip
    scaled = jnp.clip((account - m["means"]) / m["stds"], -c["clip"], c["clip"])
    return jnp.concatenate([m["features"][t], scaled])


def allowed(m: Tree, c: Any, a: Tree) -> Any:
    """Return the mask of SELL, HOLD, BUY, bool (3,)."""
    t = a["t"]
    equity, close = a["equity"], m["close"][t]
    flatten = m["flatten"][t] | (a["flatten"] != 0)
    blocked = m["no_increase"][t] | (a["pause"] > 0) | flatten
    blocked |= equity <= a["session_equity"] * (1.0 - c["daily_loss"])
    wanted = a["rung"] + jnp.array([-1, 0, 1], jnp.int32)
    wanted = jnp.where(flatten & (a["rung"] * jnp.array([-1, 0, 1]) < 0), 0, wanted)
    increase = (wanted != 0) & ((a["rung"] * wanted < 0) | (jnp.abs(wanted) > jnp.abs(a["rung"])))
    target = wanted * order_size(c, a) * equity / (1.0 + m["cost_rate"][t])
    order = jnp.abs(target - a["shares"] * close)
    refused = blocked | (order > m["largest_order"][t]) | (equity < c["minimum_equity"])
    refused |= (wanted < 0) & m["no_short"][t]
    ok = ~(increase & refused) & ~(flatten & (a["rung"] != 0) & (wanted != 0))
    ok &= (wanted >= -1) & (wanted <= 1)  # BUY at the top is HOLD's second name
    return ok


def step(m: Tree, c: Any, a: Tree, action: Any) -> tuple[Tree, Any]:
    """Carry out a legal action decided at a["t"]; return the account and the reward."""
    t = a["t"]
    flatten = m["flatten"][t] | (a["flatten"] != 0)
    move = action - 1
    rung = jnp.where(flatten & (a["rung"] * move < 0), 0, jnp.clip(a["rung"] + move, -1, 1))
    begins = m["session"][t + 1] != m["session"][t]
    session_equity = jnp.where(begins, a["equity"], a["session_equity"])
    price, close = m["open"][t + 1], m["close"][t + 1]
    held, cost = a["shares"], m["cost_rate"][t]
    equity = a["cash"] + held * price
    shares = rung * order_size(c, a) * equity / (price * (1.0 + cost))
    shares = jnp.where((rung != a["rung"]) & (m["trades"][t + 1] != 0), shares, held)
    rung = jnp.where(shares != 0.0, jnp.sign(shares).astype(jnp.int32), 0)
    delta = shares - held
    cash = a["cash"] - delta * price - jnp.abs(delta) * price * cost
    opens = (shares != 0.0) & (held * shares <= 0.0)
    closes = (held != 0.0) & (held * shares <= 0.0)
    paid = jnp.where(opens, price, jnp.where(closes, 0.0, a["price"]))
    bars = jnp.where(closes, 0, a["held"]) + (shares != 0.0)
    value = cash + shares * close
    u = jnp.clip(jnp.log(value / a["equity"]) / c["bar_volatility"], -100.0, 100.0)
    counting = a["pause"] > 0
    pause = jnp.where(counting, a["pause"] - 1, a["pause"])
    over = counting & (pause == 0)
    peak = jnp.where(over, value, jnp.where(counting, a["peak"], jnp.maximum(a["peak"], value)))
    fall = jnp.where(counting, 0.0, 1.0 - value / peak)
    back = peak * (1.0 - 0.5 * c["caution"])
    recovery = jnp.where(fall >= c["caution"], jnp.maximum(a["recovery"], back), a["recovery"])
    recovery = jnp.where(~counting & (value >= recovery), 0.0, recovery)
    hit = fall >= c["flatten_at"]
    moved = {
        "t": t + 1, "stop": a["stop"], "rung": rung, "held": bars,
        "cash": cash, "shares": shares, "equity": value, "price": paid,
        "session_equity": session_equity,
        "session_bars": jnp.where(begins, 0, a["session_bars"]) + 1,
        "peak": peak, "recovery": recovery,
        "pause": jnp.where(hit, c["pause_bars"], pause).astype(jnp.int32),
        "flatten": jnp.where(over, 0, jnp.where(hit, 1, a["flatten"])).astype(jnp.int32),
        "mean": a["mean"] + c["decay"] * (u - a["mean"]),
        "square": a["square"] + c["decay"] * (u * u - a["square"]),
    }  # fmt: skip
    return moved, u


def values(p: Tree, observations: Any) -> Any:
    size = p["second"].shape[-1]
    x = jnp.tanh(observations @ p["first"][:, size:] + p["first_bias"][size:])
    x = jnp.tanh(x @ p["second"][1] + p["second_bias"][1])
    return x @ p["value"] + p["value_bias"]


def logits_of(p: Tree, observations: Any) -> Any:
    size = p["second"].shape[-1]
    x = jnp.tanh(observations @ p["first"][:, :size] + p["first_bias"][:size])
    x = jnp.tanh(x @ p["second"][0] + p["second_bias"][0])
    return x @ p["action"] + p["action_bias"]


def both(p: Tree, observations: Any) -> tuple[Any, Any]:
    """Return logits (B, 3) and values (B,); the first layers are one product."""
    size = p["second"].shape[-1]
    x = jnp.tanh(observations @ p["first"] + p["first_bias"])
    one = jnp.tanh(x[:, :size] @ p["second"][0] + p["second_bias"][0])
    two = jnp.tanh(x[:, size:] @ p["second"][1] + p["second_bias"][1])
    return one @ p["action"] + p["action_bias"], two @ p["value"] + p["value_bias"]


def masked(logits: Any, mask: Any) -> Any:
    return jax.nn.log_softmax(jnp.where(mask, logits, -1e8))


def collect(m: Tree, c: Any, h: Any, p: Tree, now: Any, key: Any) -> Any:
    """Play `n_steps` of N environments; return where they stand and the rollout."""
    chance = jax.random.uniform(key, (h["n_steps"], 2, h["n_envs"]), jnp.float32)

    def one(carry: Any, chance: Any) -> Any:
        accounts, seen, masks = carry
        log_p = masked(logits_of(p, seen), masks)
        reached = jnp.cumsum(jnp.exp(log_p), axis=1)
        below = (reached[:, :2] <= chance[0][:, None]) & (reached[:, :2] < reached[:, 2:])
        actions = below.sum(axis=1).astype(jnp.int32)
        kept = jnp.take_along_axis(log_p, actions[:, None], 1)[:, 0]
        moved, rewards = jax.vmap(partial(step, m, c))(accounts, actions)
        done = (moved["t"] >= moved["stop"]) | (moved["equity"] <= 0.0)
        last = jax.vmap(partial(observe, m, c))(moved)
        starts = m["starts"][(chance[1] * m["starts"].shape[0]).astype(jnp.int32)]
        fresh = jax.vmap(partial(begin, c))(starts)
        after = jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, moved)
        following = jnp.where(done[:, None], jax.vmap(partial(observe, m, c))(fresh), last)
        legal = jax.vmap(partial(allowed, m, c))(after)
        found = seen, actions, masks, kept, rewards, done, last
        return (after, following, legal), found

    return lax.scan(one, now, chance)


def gae(h: Any, rewards: Any, done: Any, value: Any, following: Any) -> Any:
    """Return the advantages (T, N); `following` is V of what an action led to."""

    def one(running: Any, row: Any) -> Any:
        reward, ended, here, after = row
        delta = reward + h["gamma"] * after - here
        running = delta + h["gamma"] * h["gae_lambda"] * (1.0 - ended) * running
        return running, running

    rows = rewards, done.astype(jnp.float32), value, following
    return lax.scan(one, jnp.zeros(rewards.shape[1]), rows, reverse=True, unroll=16)[1]


def loss(h: Any, p: Tree, batch: Any) -> Any:
    seen, actions, masks, old, advantage, returns = batch
    logits, value = both(p, seen)
    log_p = masked(logits, masks)
    new = jnp.take_along_axis(log_p, actions[:, None], 1)[:, 0]
    ratio = jnp.exp(new - old)
    advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
    clipped = jnp.clip(ratio, 1.0 - h["clip_range"], 1.0 + h["clip_range"])
    policy = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    entropy = -(jnp.exp(log_p) * jnp.where(masks, log_p, 0.0)).sum(axis=1).mean()
    return policy - h["ent_coef"] * entropy + h["vf_coef"] * ((returns - value) ** 2).mean()


def split(shapes: Any, flat: Any) -> Tree:
    out, at = {}, 0
    for name, shape in shapes:
        size = int(np.prod(shape))
        out[name] = flat[at : at + size].reshape(shape)
        at += size
    return out


def update(h: Any, shapes: Any, learner: Any, rollout: Any, order: Any) -> Any:
    """Take the epochs of one rollout; `order` is int32 (epochs x minibatches, batch)."""

    def one(carry: Any, rows: Any) -> Any:
        flat, first, second, count = carry
        batch = jax.tree.map(lambda x: x[rows], rollout)
        gradients = jax.grad(partial(loss, h))(split(shapes, flat), batch)
        g = jnp.concatenate([gradients[name].ravel() for name, _ in shapes])
        g *= jnp.minimum(1.0, h["max_grad_norm"] / (jnp.sqrt((g * g).sum()) + 1e-6))
        count += 1
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g * g
        size = h["learning_rate"] * jnp.sqrt(1.0 - 0.999**count) / (1.0 - 0.9**count)
        root = jnp.sqrt(1.0 - 0.999**count)
        return (flat - size * first / (jnp.sqrt(second) + 1e-5 * root), first, second, count), None

    return lax.scan(one, learner, order)[0]


def train(
    c: Any, h: Any, shapes: Any, m: Tree, learner: Any, now: Any, key: Any, order: Any
) -> Any:
    """Do one rollout and its update."""
    p = split(shapes, learner[0])
    now, (seen, actions, masks, old, rewards, done, last) = collect(m, c, h, p, now, key)
    rows = h["n_steps"] * h["n_envs"]
    width = seen.shape[-1]
    value = values(p, seen.reshape(rows, width)).reshape(rewards.shape)
    end = values(p, last[-1])  # where the rollout ends within an episode
    following = jnp.concatenate([value[1:], end[None]])
    # Where an episode was cut off, V of its last observation stands in (there are few).
    cut = lax.cond(
        done.any(), lambda: values(p, last.reshape(rows, width)), lambda: jnp.zeros(rows)
    )
    following = jnp.where(done, cut.reshape(rewards.shape), following)
    advantage = gae(h, rewards, done, value, following)
    flat = jax.tree.map(
        lambda x: x.reshape(rows, *x.shape[2:]),
        (seen, actions, masks, old, advantage, advantage + value),
    )
    return update(h, shapes, learner, flat, order), now, rewards.mean()


def network(width: int, hidden: int, seed: int) -> tuple[Any, Any]:
    """Return the shapes and the weights of SB3's default network, orthogonal."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))

    def orthogonal(rows: int, columns: int, gain: float) -> Any:
        made = jax.nn.initializers.orthogonal(gain)(next(keys), (rows, columns), jnp.float32)
        return made

    root = 2**0.5
    p = {
        "first": jnp.concatenate([orthogonal(width, hidden, root) for _ in "av"], axis=1),
        "first_bias": jnp.zeros(2 * hidden),
        "second": jnp.stack([orthogonal(hidden, hidden, root) for _ in "av"]),
        "second_bias": jnp.zeros((2, hidden)),
        "action": orthogonal(hidden, 3, 0.01),
        "action_bias": jnp.zeros(3),
        "value": orthogonal(hidden, 1, 1.0)[:, 0],
        "value_bias": jnp.zeros(()),
    }
    shapes = tuple((name, tuple(x.shape)) for name, x in p.items())
    return shapes, jnp.concatenate([x.ravel() for x in p.values()])


def replay(m: Tree, c: Any, start: int, actions: Any) -> Tree:
    """Play given actions; return what was observed, allowed, got, and the equity."""

    def one(a: Tree, action: Any) -> Any:
        moved, reward = step(m, c, a, action)
        return moved, (observe(m, c, a), allowed(m, c, a), reward, moved["equity"])

    first = begin(c, jnp.int32(start))
    found: Tree = jax.jit(partial(lax.scan, one))(first, jnp.asarray(actions, jnp.int32))[1]
    return found


def main() -> None:
    """Answer the commands of the other side, one a line: `replay`, `run N`."""
    folder = Path(sys.argv[1])
    case = json.loads((folder / "case.json").read_text())
    c, h = case["account"], case["learner"]
    with np.load(folder / "market.npz") as stored:
        m = {name: jnp.asarray(stored[name]) for name in stored.files}
        asked = {"start": int(m.pop("replay_start")), "actions": m.pop("replay_actions")}
    print("ready", jax.__version__, flush=True)
    shapes, flat = network(m["features"].shape[1] + 8, h["hidden"], 0)
    learner = flat, jnp.zeros_like(flat), jnp.zeros_like(flat), jnp.int32(0)
    rng = np.random.default_rng(0)
    starts = m["starts"][rng.integers(0, m["starts"].shape[0], h["n_envs"])]
    accounts = jax.vmap(partial(begin, c))(starts)
    seen = jax.vmap(partial(observe, m, c))(accounts)
    now = accounts, seen, jax.vmap(partial(allowed, m, c))(accounts)
    rows, batch, epochs = h["n_steps"] * h["n_envs"], h["batch_size"], h["n_epochs"]
    loop = jax.jit(partial(train, c, h, shapes))

    def go(times: int) -> Any:
        nonlocal learner, now
        rewards = []
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(times):
            order = np.concatenate([rng.permutation(rows) for _ in range(epochs)])
            order = order.astype(np.int32).reshape(-1, batch)
            key = jax.random.key(int(rng.integers(2**31)))
            learner, now, reward = loop(m, learner, now, key, order)
            rewards.append(float(reward))
        return time.process_time() - cpu, time.perf_counter() - wall, rewards

    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "replay":
            found = replay(m, c, asked["start"], asked["actions"])
            np.savez(folder / "replayed.npz", *map(np.asarray, found))
            print("done", flush=True)
        else:
            print(json.dumps(go(int(rest))), flush=True)


if __name__ == "__main__":
    main()
