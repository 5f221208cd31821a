"""Progress of a campaign at the terminal: the cell and phase under way, and the time left by launches so far."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..campaign.estimate import duration_row, estimate
from ..campaign.plan import Plan
from ..campaign.run import Observer
from ..spec import Spec

console = Console(stderr=True, highlight=False)


class Bars:
    """Progress for a person: one bar for the campaign, the cell and phase under way, and the time left by launches so far."""

    def __init__(self, plan: Plan, past: Sequence[Mapping[str, object]]) -> None:
        self._plan = plan
        self._past = list(past)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._progress.add_task("preparing", total=len(plan.order), left="")
        self._remaining = list(plan.order)
        self.campaign_id: str | None = None
        self._interrupted = False
        self.left = 0  # launches, when the time was over
        self.observer = Observer(
            self._began, self._preparing, self._launching, self._phase, self._ended, self._warning, self._stopped
        )
        self._label = ""

    def __enter__(self) -> Bars:
        self._handler = signal.signal(signal.SIGINT, self._interrupt)
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
        signal.signal(signal.SIGINT, self._handler)

    def _interrupt(self, number: int, frame: object) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def _began(self, campaign_id: str) -> None:
        self.campaign_id = campaign_id

    def _preparing(self, label: str) -> None:
        self._progress.update(self._task, description=f"preparing {label}")

    def _launching(self, spec: Spec, index: int, position: int, total: int) -> None:
        if self._interrupted:  # the interrupt met code that cannot pass it on, a finaliser or a library's own
            raise KeyboardInterrupt
        self._label = f"{spec.workload.label} on {spec.target.label}"
        self._remaining = self._remaining[-(total - position) :]
        self._progress.update(self._task, completed=position, total=total, description=self._label, left=self._time_left())

    def _phase(self, name: str) -> None:
        if self._label:
            self._progress.update(self._task, description=f"{self._label} [dim]{name}[/dim]")

    def _ended(self, spec: Spec, problem: tuple[str, str] | None, seconds: float) -> None:
        self._past.append(duration_row(spec, seconds))
        self._progress.update(self._task, advance=1)
        if problem:
            self._progress.console.print(f"  {self._label}: {problem[0]}: {problem[1]}", style="yellow", markup=False)

    def _warning(self, sentence: str) -> None:
        self._progress.console.print(f"  {sentence}", style="yellow", markup=False)

    def _stopped(self, left: int) -> None:
        self.left = left

    def _time_left(self) -> str:
        rest = Plan(self._plan.request, self._plan.specs, {}, (), tuple(self._remaining))
        expected = estimate(rest, self._past)
        if expected.unknown and not expected.seconds:
            return ""
        return f"{duration(expected.seconds)} left" + (f" + {expected.unknown} new" if expected.unknown else "")


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else time.strftime("%H h %M min", time.gmtime(seconds))
