"""Size and drawing time of a report in headless Chromium, and whether it fits its window.

    python benchmarks/report_page.py [--loads 5] [--folder PATH] [--json PATH]

The page is of a realistic size: four years of synthetic minutes, eight arms, ten seeds of
training curves, and a document as a full comparison writes it.  Yardsticks stand in for
trained arms, so its figures mean nothing.  Drawing time: from the start of the navigation to
the end of the script that drew the last picture (`performance.now`), for the first page of a
fresh browser and for the next; the frame after shows it.  On a busy machine only the processor
time of the page's main thread is comparable.  Every request is counted; there must be none
beside the page.
"""

import fcntl
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import harness
import numpy as np

from ppo_workbench.cli.main import compose
from ppo_workbench.config import ForbiddenAction
from ppo_workbench.reports.comparison.writing import ReportInput, write_report
from ppo_workbench.scoring.backtest import RANDOM, Policy, backtest
from ppo_workbench.scoring.figures import invalid_trades
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.reference.yardsticks import tuned_threshold, yardsticks
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import prepare_with_test, split_bars
from ppo_workbench.trading.table import trading_market

SEEDS, LOOKS = 10, 40
NEXT_FRAME = "new Promise(r => requestAnimationFrame(() => r(performance.now())))"
TITLES = {
    "masked": "MaskablePPO, masked",
    "execute": "PPO, forbidden actions executed",
    "reject": "PPO, forbidden actions rejected",
    "all_true": "MaskablePPO, all-True mask",
    "threshold": "threshold rule, same masks",
    "random": "random-legal",
    "hold": "buy-and-hold",
    "flat": "flat",
}
TRAINED = ("masked", "execute", "reject", "all_true")
FIGURES = ("sharpe_annual", "max_drawdown_frac", "win_rate_frac", "sortino_annual", "calmar")


def test_traces(sessions: int) -> tuple[dict[str, Trace], Any]:
    """Backtest stand-ins on the test split of the default synthetic market."""
    config = compose([f"data.synthetic.sessions={sessions}", "tracking=none"])
    bars, splits = split_bars(config)
    experiment = prepare_with_test(config, bars, splits)
    rule = tuned_threshold(experiment)
    assert rule is not None
    random, hold, flat = yardsticks(len(bars), 0)
    policies = {
        "masked": (rule, "reject"),
        "execute": (replace(rule, use_mask=False), "execute"),
        "reject": (replace(rule, use_mask=False), "reject"),
        "all_true": (Policy("", RANDOM, seed=3, use_mask=False), "execute"),
        "threshold": (replace(rule, entry=rule.entry * 1.5), "reject"),
        "random": (random, "reject"),
        "hold": (hold, "reject"),
        "flat": (flat, "reject"),
    }
    traces = {}
    for name, (policy, mode) in policies.items():
        env = replace(experiment.config.env, forbidden_action=ForbiddenAction(mode))
        own = replace(experiment.config, env=env)
        market = trading_market(bars, experiment.table, own, experiment.market.scaler)
        traces[name] = backtest(policy, bars, market, splits["test"], own)
    return traces, bars


def stand_in_document(traces: dict[str, Trace]) -> dict[str, Any]:
    """Return a document of the size of a full comparison; only the cards are computed."""
    rng = np.random.default_rng(0)
    cards = {name: scorecard(trace).to_dict() for name, trace in traces.items()}
    figures = {
        name: {key: _summary(card[key] * (1 + 0.2 * rng.normal(size=SEEDS))) for key in FIGURES}
        for name, card in cards.items()
    }
    own = figures["masked"]
    sharpe, fall = ("sharpe_annual", 1.5, "above"), ("max_drawdown_frac", 0.08, "below")
    goals = (sharpe, fall, ("win_rate_frac", 0.6, "above"))
    return {
        "format_version": 1, "name": "stand-in", "created_utc": "2026-01-01T00:00:00Z",
        "git_commit": None, "preset": "full", "protocol": "holdout", "method": "worlds",
        "setup": {
            "timesteps": 2_000_000,
            "seeds": list(range(SEEDS)),
            "markets": [
                {"name": "synthetic", "instrument": "SYNTHETIC", "bar_seconds": 60, "looks": 2,
                 "test_start": "2026-01-02", "test_stop": "2029-12-31", "sessions": 1008,
                 "years": 4.0, "synthetic": True}
            ],
        },
        "arms": [
            {"name": name, "title": title, "overrides": [],
             "kind": "trained" if name in TRAINED else "yardstick"}
            for name, title in TITLES.items()
        ],
        "cards": {"synthetic": {name: [card] for name, card in cards.items()}},
        "figures": figures,
        "targets": [
            {"arm": "masked", "figure": key, "target": goal, "sense": sense,
             "value": own[key]["median"], "low": own[key]["median_low"],
             "high": own[key]["median_high"], "trades_enough": True,
             **_verdict(own[key], goal, sense)}
            for key, goal, sense in goals
        ],
        "differences": [
            _difference(name, key, figures) for key in FIGURES for name in TITLES
            if name != "masked"
        ],
        "selection": {
            "superior_ability": {"benchmark": "hold", "p_value": 0.41, "best": "masked"},
            "confidence_set": {"included": list(TITLES), "confidence": 0.95},
        },
        "invalid_trades": {name: invalid_trades([card]) for name, card in cards.items()},
        "audit": {name: {"violations": 0, "by_rule": {}, "unaudited": []} for name in TITLES},
        "stress": _stress(cards["masked"]),
        "conclusion": ["Yardsticks stand in for trained arms: no figure here means anything."],
    }  # fmt: skip


def stand_in_curves() -> dict[str, list[list[dict[str, float]]]]:
    rng = np.random.default_rng(1)
    keys = (
        *("validation/sharpe_annual", "validation/max_drawdown_frac", "rollout/ep_rew_mean"),
        *("train/explained_variance", "train/entropy_loss", "train/approx_kl", "mask/any"),
        *("train/value_loss", "train/clip_fraction", "rules/rejected"),
    )
    rise = 1 - np.exp(-np.arange(LOOKS) / 10)
    return {
        arm: [
            [
                {"step": 50_000 * (i + 1), **{key: float(rise[i] + noise[i]) for key in keys}}
                for i in range(LOOKS)
            ]
            for noise in rng.normal(0, 0.2, (SEEDS, LOOKS))
        ]
        for arm in TRAINED
    }


def _summary(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    middle, spread = float(np.median(values)), float(np.std(values)) * 0.7
    mean = float(values.mean())
    return {
        "values": values.tolist(), "median": middle, "median_low": middle - spread,
        "median_high": middle + spread, "mean": mean, "low": mean - spread, "high": mean + spread,
    }  # fmt: skip


def _verdict(figure: dict[str, Any], goal: float, sense: str) -> dict[str, Any]:
    sign = 1 if sense == "above" else -1
    low, high = sorted(sign * (figure[key] - goal) for key in ("median_low", "median_high"))
    if low > 0 or high < 0:
        return {"verdict": "met" if low > 0 else "missed", "years_to_decide": None}
    return {"verdict": "not decidable", "years_to_decide": 11.0}


def _difference(name: str, key: str, figures: dict[str, Any]) -> dict[str, Any]:
    one, two = figures["masked"][key], figures[name][key]
    value = one["median"] - two["median"]
    half = max(one["median_high"] - one["median"], two["median_high"] - two["median"], 1e-6) * 1.4
    return {
        "first": "masked", "second": name, "figure": key, "estimate": value,
        "low": value - half, "high": value + half, "p_value": 0.01 if abs(value) > half else 0.4,
        "decided": abs(value) > half, "method": "worlds",
    }  # fmt: skip


def _stress(card: dict[str, float]) -> dict[str, Any]:
    changes = {"costs_x0.5": 0.5, "costs_x1": 0.0, "costs_x2": -1.0, "costs_x3": -2.0}
    changes |= {"latency_1_bar": -0.4, "slippage_x2": -0.3, "borrow": -0.1, "all_together": -3.0}
    return {
        "policy": "masked", "split": "test",
        "scenarios": {
            name: {
                "change": name.replace("_", " "),
                "figures": card | {"sharpe_annual": card["sharpe_annual"] + change},
            }
            for name, change in changes.items()
        },
        "break_even": {
            "cost_bps": 1.9, "verdict": "found", "cap_bps": 100.0, "configured_bps": 1.5,
            "multiple_of_configured": 1.27,
        },
    }  # fmt: skip


class Browser:
    """A headless Chromium, spoken to over its debugging pipe."""

    def __init__(self, profile: Path) -> None:
        to_read, to_write = os.pipe(), os.pipe()  # ours to the browser, the browser's to us
        ends = to_read[0], to_write[1]

        def place() -> None:
            # The browser reads its descriptor 3 and writes 4, which the pipes may occupy.
            reader, writer = (fcntl.fcntl(end, fcntl.F_DUPFD, 16) for end in ends)
            os.dup2(reader, 3)
            os.dup2(writer, 4)

        flags = (
            "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync "
            "--disable-background-networking --disable-component-update --remote-debugging-pipe"
        )
        self.process = subprocess.Popen(
            ["chromium", *flags.split(), f"--user-data-dir={profile}", "about:blank"],
            close_fds=False, preexec_fn=place, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read[0])
        os.close(to_write[1])
        self._in, self._out = os.fdopen(to_read[1], "wb", 0), os.fdopen(to_write[0], "rb", 0)
        self._buffer, self._count, self.events = b"", 0, list[dict[str, Any]]()
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, **params: Any) -> Any:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._in.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self._buffer:
            self._buffer += self._out.read(1 << 20)
        head, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(head)

    def size(self, width: int, height: int) -> None:
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **shape)
        scheme = {"name": "prefers-color-scheme", "value": "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def ask(self, expression: str) -> Any:
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return answer["result"].get("value")

    def processor_ms(self) -> int:
        """Return the processor time of the page's main thread, whatever else the machine does."""
        metrics = self.call("Performance.getMetrics")["metrics"]
        seconds: float = next(m["value"] for m in metrics if m["name"] == "TaskDuration")
        return round(1000 * seconds)

    def requests(self) -> list[str]:
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        urls = [str(event["params"]["request"]["url"]) for event in sent]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(e["params"])[:400] for e in self.events if e.get("method") in kinds]


@contextmanager
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory() as profile:
        found = Browser(Path(profile))
        try:
            yield found
        finally:
            found.call("Browser.close") if found.process.poll() is None else None
            found.process.wait(20)


def measure(page: Path, width: int, loads: int) -> dict[str, Any]:
    """Load a page in fresh browsers, twice in each, and return drawing times in milliseconds."""
    first: list[int] = []
    again: list[int] = []
    framed, busy = [], []
    for _ in range(loads):
        with browser() as chromium:
            chromium.size(width, 900)
            chromium.call("Performance.enable", timeDomain="threadTicks")
            for drawn in (first, again):
                before = chromium.processor_ms()
                chromium.open(page)
                drawn.append(int(chromium.ask("document.documentElement.dataset.milliseconds")))
                framed.append(round(chromium.ask(NEXT_FRAME)))
                busy.append(chromium.processor_ms() - before)
            result = {
                "pictures": int(chromium.ask("document.documentElement.dataset.drawn")),
                "requests_beside_the_page": len(chromium.requests()) - 1,
                "complaints": chromium.complaints(),
                "scroll_width_px": chromium.ask("document.documentElement.scrollWidth"),
            }
    return {
        "width_px": width,
        "first_load_ms": first,
        "first_load_ms_median": median(first),
        "first_load_processor_ms": busy[::2],
        "first_load_processor_ms_median": median(busy[::2]),
        "second_load_ms": again,
        "second_load_ms_median": median(again),
        "frame_after_ms_worst": max(framed),
        "load_average": round(os.getloadavg()[0], 1),
        **result,
    }


def main() -> None:
    flags = {"loads": 5, "sessions": 2520, "folder": Path, "json": Path}
    options = harness.parser(__doc__, **flags).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        traces, bars = test_traces(options.sessions)
        document: Any = stand_in_document(traces)
        source = ReportInput(document, traces, bars, stand_in_curves())
        start = time.perf_counter()
        files = write_report(source, folder, "Stand-ins for a comparison")
        result: dict[str, Any] = {
            "decisions": max(len(trace) for trace in traces.values()),
            "arms": len(traces),
            "write_seconds": round(time.perf_counter() - start, 1),
            "page_mb": round(files.page.stat().st_size / 1e6, 2),
            "widths": [measure(files.page, width, options.loads) for width in (1440, 390)],
        }
    print(json.dumps(result, indent=1))
    harness.write(options.json, result)


if __name__ == "__main__":
    main()
