"""What a second core gives: threads within one run, and two runs side by side.

    python benchmarks/two_cores.py [--repeats 7] [--json docs/results/two_cores.json]

Wall time, in alternation: whole rollouts with their updates by one thread and by two; then
one process alone and two at once, each training its own model with one thread.
"""

import multiprocessing
import os
import statistics
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import harness

os.environ.update(harness.ONE_THREAD)

LEAST_GAIN = 1.5
MOST_LOSS = 0.10
SHAPES = ((64, 128, 512), (256, 64, 2048))  # n_envs, n_steps, batch_size


def build_native(n_envs: int, n_steps: int, batch_size: int) -> Any:
    """Return a native model on a small synthetic market, warmed up by one rollout."""
    from ppo_workbench import compose
    from ppo_workbench.trading.experiment import prepare, split_bars

    shape = f"model.n_envs={n_envs}", f"model.n_steps={n_steps}", f"model.batch_size={batch_size}"
    config = compose([*shape, "data.synthetic.sessions=120", "tracking=none"])
    model = harness.silent_model(prepare(config, *split_bars(config)), config)
    model.learn(1)
    return model


def rate(model: Any, rollouts: int) -> float:
    """Return environment steps a second of wall time."""
    steps = rollouts * model.n_steps * model.n_envs
    begun = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    return float(steps / (time.perf_counter() - begun))


def threads_gain(shape: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """Alternate one thread and two in one process."""
    model = build_native(*shape)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for repeat in range(repeats + 1):
        for threads, measured in rates.items():
            model.threads = threads
            value = rate(model, 4)
            if repeat:  # the first round compiles
                measured.append(value)
    gains = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return {
        **dict(zip(("n_envs", "n_steps", "batch_size"), shape, strict=True)),
        "one_thread": statistics.median(rates[1]),
        "two_threads": statistics.median(rates[2]),
        "gain": statistics.median(gains),
    }


def _worker(barrier: Barrier, turns: list[bool], rollouts: int, queue: Any) -> None:
    model = build_native(*SHAPES[0])
    for mine in turns:
        barrier.wait()
        if mine:
            queue.put(rate(model, rollouts))
        barrier.wait()


def side_by_side(repeats: int, rollouts: int = 40) -> dict[str, float]:
    """Alternate one process alone and two at once; return the loss of each."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(3), context.Queue()
    turns = {"first": [True, True] * repeats, "second": [False, True] * repeats}
    workers = [
        context.Process(target=_worker, args=(barrier, mine, rollouts, queue))
        for mine in turns.values()
    ]
    for worker in workers:
        worker.start()
    alone: list[float] = []
    together: list[float] = []
    for turn in range(2 * repeats):
        barrier.wait()
        count = 1 + turn % 2
        rates = [queue.get() for _ in range(count)]
        (together if count == 2 else alone).append(statistics.mean(rates))
        barrier.wait()
    for worker in workers:
        worker.join()
    losses = [1.0 - both / one for one, both in zip(alone, together, strict=True)]
    return {
        "alone": statistics.median(alone),
        "each_of_two": statistics.median(together),
        "loss": statistics.median(losses),
    }


def main() -> None:
    """Print both tables."""
    arguments = harness.parser(__doc__, repeats=7, json=Path).parse_args()
    print(f"{'envs':>5}{'batch':>7}{'1 thread/s':>12}{'2 threads/s':>13}{'gain':>7}{'bar':>6}")
    shared = []
    for shape in SHAPES:
        row = threads_gain(shape, arguments.repeats)
        shared.append(row)
        verdict = "met" if row["gain"] >= LEAST_GAIN else "MISSED"
        print(
            f"{row['n_envs']:>5}{row['batch_size']:>7}{row['one_thread']:>12,.0f}"
            f"{row['two_threads']:>13,.0f}{row['gain']:>7.2f}{LEAST_GAIN:>6.1f}  {verdict}"
        )
    both = side_by_side(arguments.repeats)
    verdict = "met" if both["loss"] < MOST_LOSS else "MISSED"
    print(
        f"alone {both['alone']:,.0f}/s, each of two {both['each_of_two']:,.0f}/s: "
        f"loss {both['loss']:.1%} (bar {MOST_LOSS:.0%})  {verdict}"
    )
    harness.write(arguments.json, {"threads": shared, "side_by_side": both}, indent=2)


if __name__ == "__main__":
    main()
