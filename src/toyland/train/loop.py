"""What every training here shares: its state survives a kill, and a resumed run goes on as if it had never stopped.

The parts (networks, optimisers) are saved with the step and the loss curve in one file, which is replaced whole. Together
with batches that follow from seed and step (`data.generator`), the same machine, threads and versions give the same
weights however often a run was stopped.
"""

import csv
import math
import time
from pathlib import Path

import torch

ROW = 50  # steps that a row of the curve is the mean of


def save(path, state):
    """Replaces a file whole, so that a kill leaves the old one or the new one."""
    torch.save(state, f"{path}.new")
    Path(f"{path}.new").replace(path)


class Loop:
    """Counts the steps of one training, and keeps its parts and its curve (`.csv` beside the state: step, mean loss since
    the last row, seconds of work so far)."""

    def __init__(self, path, steps, parts, save_seconds=120):
        self.path, self.steps, self.parts, self.save_seconds = Path(path), steps, parts, save_seconds
        self.step, self.total, self.seconds, self.rows = 0, 0.0, 0.0, []
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(saved["parts"][name])
            self.step, self.total, self.seconds, self.rows = (saved[key] for key in ("step", "total", "seconds", "rows"))
        self.began = self.saved = time.time()

    def left(self):
        """The steps that are still to do. A loss is due ([`note`]) before the next one is asked for."""
        while self.step < self.steps:
            yield self.step
            if self.step == self.steps or time.time() - self.saved > self.save_seconds:
                self.keep()

    def note(self, loss):
        assert math.isfinite(loss), f"the loss left the numbers at step {self.step} of {self.path}"
        self.step, self.total = self.step + 1, self.total + loss
        since = self.step % ROW or ROW
        if since == ROW or self.step == self.steps:
            mean, spent = self.total / since, self.seconds + time.time() - self.began
            self.rows.append([self.step, round(mean, 5), round(spent)])
            print(f"{self.path.stem}: step {self.step} of {self.steps}, loss {mean:.4f}, {spent:.0f} s", flush=True)
            self.total = 0.0

    def keep(self):
        now = time.time()
        self.seconds, self.began, self.saved = self.seconds + now - self.began, now, now
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        save(self.path, dict(parts=parts, step=self.step, total=self.total, seconds=self.seconds, rows=self.rows))
        with open(self.path.with_suffix(".csv"), "w", newline="") as out:
            csv.writer(out).writerows([["step", "loss", "seconds"], *self.rows])
