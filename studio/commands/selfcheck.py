"""`score-studio selfcheck`: every sampler, the likelihood and every condition against exact answers."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from studio import spec, terminal
from studio.commands import Command, Outcome
from studio.diffusion.laws import Law
from studio.diffusion.posterior_laws import biases, posterior_table
from studio.engine.checks import Checked, SelfCheckJob, table
from studio.engine.events import Note, Progress
from studio.engine.jobs import Setting
from studio.weights.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class SelfCheck(Command):
    """Measure that every sampler, likelihood and condition does what theory says.

    On pictures whose score is known exactly, without a network: orders of convergence, what is wrong
    at the end, bits, guided means, what is drawn given a part. Takes two minutes. The exit code is 1 if
    something is off.
    """

    quick: bool = spec.option(False, help="Each sampler with one SDE instead of all: seconds.")
    posteriors: bool = spec.option(
        False, help="Only the table of how far each way to paint is from Bayes' rule."
    )

    def run(self) -> Outcome:
        if self.posteriors:
            found = list(biases())
            return Outcome(
                {"biases": [dataclasses.asdict(b) for b in found]}, posterior_table(found)
            )
        laws, begun = [], time.monotonic()
        setting = Setting(Shelf(), "cpu", rate=0)
        with terminal.progress("Self-check") as update:
            title = ""
            for event in SelfCheckJob(self.quick).run(setting):
                if isinstance(event, Note):
                    title = event.text
                elif isinstance(event, Checked):
                    laws.append(event.law)
                elif isinstance(event, Progress):
                    update(event.step, event.total, title)
        seconds = time.monotonic() - begun
        failed = [law for law in laws if not law.ok]
        data = {
            "ok": not failed,
            "seconds": round(seconds, 1),
            "laws": [_told(law) for law in laws],
            "failed": [_told(law) for law in failed],
        }
        said = f"{len(laws) - len(failed)} of {len(laws)} laws hold ({seconds:.0f} s)."
        return Outcome(data, f"{table(laws)}\n\n{said}", 1 if failed else 0)


def _told(law: Law) -> dict[str, Any]:
    return dataclasses.asdict(law) | {"ok": law.ok}
