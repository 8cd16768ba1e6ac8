"""One outage under the defaults, with some seeds, and under peers: what experiments 4 and 5 share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import compared
from experiments.runs import run_all, share_of
from resilience.simulation.charts import Line, Panel, Shade, svg
from resilience.simulation.controls import defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from experiments import Mark, Progress
    from experiments.runs import Summary
    from resilience.simulation import Scenario


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Who is compared, in which outage, and for how long.

    Args:
        title: Of the figure.
        outage: The scenario, whose policy, seed and duration are of no account.
        trigger: What goes wrong in it, in words.
        peers: Policies of which nothing is asked; only the long form has them.
        after: Seconds after the trigger for the defaults, in the short form; 40 in the long one.
        theirs_after: The same for the peers.
        undrawn: The peer that the figure leaves out, since it tells six lines apart.
        drawn: Seconds that the figure shows in the short form; 120 in the long one.
    """

    title: str
    outage: Scenario
    trigger: str
    peers: Mapping[str, Any]
    after: float
    theirs_after: float
    undrawn: str
    drawn: float

    def ours(self, long: bool) -> list[Scenario]:
        """Return the runs of the defaults."""
        after = 40.0 if long else self.after
        return [self._scenario(defaults, seed, after) for seed in range(1, 9 if long else 2)]

    def theirs(self, long: bool) -> dict[str, Scenario]:
        """Return those of the peers, by name."""
        if not long:
            return {}
        return {name: self._scenario(policy, 1, self.theirs_after) for name, policy in self.peers.items()}

    def _scenario(self, policy: Any, seed: int, after: float) -> Scenario:
        return self.outage.replace(policy=policy, seed=seed, duration=self.outage.ends + after)

    def run(self, long: bool, progress: Progress) -> tuple[list[Summary], list[Mark]]:
        """Run it; return what the defaults came to, and when the peers recovered."""
        ours, theirs = self.ours(long), self.theirs(long)
        summaries = run_all([*ours, *theirs.values()], progress, workers=None if long else 1)
        others = zip(theirs, summaries[len(ours) :], strict=True)
        recoveries = [compared(f"{name}: recovery", one.recovery_time, " s", 1) for name, one in others]
        return summaries[: len(ours)], recoveries

    def figure(self, long: bool, progress: Progress) -> str:
        """Draw the share of the calls that succeed."""
        chosen = {"defaults": self.ours(long)[0], **self.theirs(long)}
        chosen.pop(self.undrawn, None)
        summaries = run_all(chosen.values(), progress, workers=None if long else 1)
        panel = Panel(
            title="share of the calls that succeed",
            lines=[Line(name, share_of(one)) for name, one in zip(chosen, summaries, strict=True)],
            x_label="seconds",
            most=1.0,
            x_range=(0.0, 120.0 if long else self.drawn),
            shades=[Shade(self.outage.begins, self.outage.ends, self.trigger)],
            form="{:.0%}".format,
        )
        return svg(self.title, [panel])
