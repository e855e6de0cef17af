"""What a person watching a run sees: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from code_repair_rl.runs import STEP_SECONDS, RolloutRow, RunDir, RunListener, training_seconds

_BLOCKS = "▁▂▃▄▅▆▇█"
_SHOWN_METRICS = ("loss", "kl", "entropy")
_SHOWN_STEPS = 40
_STEPS_FOR_ESTIMATE = 8
"""Time left is told from the last steps: they say more about the next ones than the first, cold ones."""


def sparkline(values: Sequence[float], low: float | None = None, high: float | None = None) -> str:
    """One block character per value, from `low` to `high` (by default their own range)."""
    if not values:
        return ""
    bottom = min(values) if low is None else low
    top = max(values) if high is None else high
    if top <= bottom:
        return _BLOCKS[0 if top <= 0 else 3] * len(values)
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[max(0, min(steps, round(steps * (v - bottom) / (top - bottom))))] for v in values)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class LiveDisplay(RunListener):
    """Progress with an honest time left, pass rate, reward, verdicts and speed of a run.

    In a terminal one block that is drawn in place; elsewhere one plain line for each finished step.
    """

    def __init__(self, title: str = "training", console: Console | None = None) -> None:
        """Show under `title`, on standard error unless a console is given."""
        self._title = title
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._total = 0
        self._step = 0
        self._phase = ""
        self._step_began = time.monotonic()
        self._step_seconds: deque[float] = deque(maxlen=_STEPS_FOR_ESTIMATE)
        self._pass_rates: deque[float] = deque(maxlen=_SHOWN_STEPS)
        self._rewards: deque[float] = deque(maxlen=_SHOWN_STEPS)
        self._outcomes: Counter[str] = Counter()
        self._tokens_per_second = 0.0
        self._metrics: dict[str, float] = {}
        self._done = 0
        self._samples = False
        self._used_seconds = 0.0
        self._recipe: dict[str, Any] = {}
        self._evaluations: list[str] = []

    def on_start(self, run_dir: RunDir, total_steps: int) -> None:
        """Begin to draw."""
        self._total = total_steps
        self._recipe = run_dir.recipe()
        self._used_seconds = training_seconds(run_dir.metrics())
        self._step_began = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=2, transient=False)
            self._live.start()
        else:
            self._line(f"{self._title}: {total_steps} steps into {run_dir.path}")

    def on_phase(self, step: int, phase: str) -> None:
        """Show the phase. Where nothing said that the step before is done, its successor's first phase does."""
        if step > self._step > self._done:
            self._finish_step(None)
        self._step, self._phase = step, phase
        self._samples = self._samples or phase == "sample"

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the latest figures; the duration of a step among them says that it is done."""
        self._metrics.update(metrics)
        if STEP_SECONDS in metrics and step > self._done:
            self._step = step
            self._used_seconds += metrics[STEP_SECONDS]
            self._finish_step(metrics[STEP_SECONDS])

    def on_rollouts(self, step: int, rows: Sequence[RolloutRow]) -> None:
        """Take in the verdicts of a step."""
        if step != self._step:
            self.on_phase(step, self._phase)
        graded = [row for row in rows if row.score is not None]
        rewards = [row.reward for row in graded if row.reward is not None]
        self._outcomes = Counter(row.outcome for row in rows)
        if graded:
            self._pass_rates.append(sum(row.passed for row in graded) / len(graded))
        if rewards:
            self._rewards.append(sum(rewards) / len(rewards))
        elapsed = time.monotonic() - self._step_began
        self._tokens_per_second = sum(row.sampled_tokens for row in rows) / elapsed if elapsed > 0 else 0.0

    def on_eval(self, name: str, result: Mapping[str, Any]) -> None:
        """Say that an evaluation ended, with its pass@1 where it has one."""
        text = f"evaluated {name}"
        try:
            one = result["summary"]["pass_at"]
            found = one[1] if 1 in one else one["1"]
            text += f": pass@1 {100 * found['value']:.1f} % [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
        except (KeyError, TypeError):
            pass
        self._evaluations.append(text)
        if self._live is None:
            self._line(text)

    def on_end(self, status: str) -> None:
        """Draw for the last time."""
        if self._step > self._done:
            self._finish_step(None)
        self._phase = status
        if self._live is None:
            self._line(f"{self._title}: {status} after {self._done} of {self._total} steps")
        self.close()

    def close(self) -> None:
        """Give the terminal back; for a run that ended without saying so."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def seconds_left(self) -> float | None:
        """From the mean of the last steps, less what the current one has taken; None before the first has ended.

        Where the recipe allows a number of minutes, no more than is left of them.
        """
        if not self._step_seconds:
            return None
        each = sum(self._step_seconds) / len(self._step_seconds)
        current = min(each, time.monotonic() - self._step_began)
        by_steps = each * (self._total - self._done_before()) - current
        minutes = (self._recipe.get("grpo" if self._samples else "sft") or {}).get("max_minutes")
        by_budget = math.inf if minutes is None else 60 * minutes - self._used_seconds - current
        return max(0.0, min(by_steps, by_budget))

    def _done_before(self) -> int:
        """Steps that lie behind, those of an earlier session of a resumed run included."""
        return max(self._done, self._step - 1)

    def _finish_step(self, own_seconds: float | None) -> None:
        """Note the step as done; `own_seconds` is what it says of itself.

        Steps are timed from end to end, because validation and checkpoints between them take time, too. The first is
        not: loading came before it.
        """
        now = time.monotonic()
        first = not self._step_seconds and own_seconds is not None
        self._step_seconds.append(own_seconds if first and own_seconds is not None else now - self._step_began)
        self._step_began = now
        self._done = self._step
        if self._live is None:
            self._line(self._summary_line())

    def _summary_line(self) -> str:
        parts = [f"step {self._step}/{self._total}"]
        if self._pass_rates:
            parts.append(f"pass {100 * self._pass_rates[-1]:.0f} %")
        if self._rewards:
            parts.append(f"reward {self._rewards[-1]:.3f}")
        if "train/loss" in self._metrics:
            parts.append(f"loss {self._metrics['train/loss']:.4g}")
        if self._tokens_per_second:
            parts.append(f"{self._tokens_per_second:.0f} tokens/s")
        left = self.seconds_left()
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        left = self.seconds_left()
        done = self._done_before()
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self._title, style="bold"),
            ProgressBar(total=max(1, self._total), completed=done, width=30),
            Text(f"{done}/{self._total}"),
            Text(self._phase, style="cyan"),
            Text(f"about {duration(left)} left" if left is not None else "time left not known yet", style="dim"),
        )
        body = Table.grid(padding=(0, 2))
        if self._pass_rates:
            body.add_row("pass rate", Text(sparkline(list(self._pass_rates), 0, 1), style="green"), self._last_rate())
        if self._rewards:
            body.add_row("reward", Text(sparkline(list(self._rewards)), style="blue"), f"{self._rewards[-1]:.3f}")
        if self._outcomes:
            mix = "  ".join(f"{name} {count}" for name, count in self._outcomes.most_common())
            body.add_row("verdicts", Text(mix), "")
        if self._tokens_per_second:
            body.add_row("speed", Text(f"{self._tokens_per_second:.0f} sampled tokens/s, grading included"), "")
        shown = [(name, self._metrics[f"train/{name}"]) for name in _SHOWN_METRICS if f"train/{name}" in self._metrics]
        if shown:
            body.add_row("metrics", Text("  ".join(f"{name} {value:.4g}" for name, value in shown)), "")
        return Group(head, body, *(Text(line, style="dim") for line in self._evaluations[-3:]))

    def _last_rate(self) -> str:
        return f"{100 * self._pass_rates[-1]:.0f} %"
