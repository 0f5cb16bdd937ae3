"""Runs graphs through the program, and keeps every result: what is there already is not run again."""

import json
import shutil
import struct
import subprocess
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import graphs

REPOSITORY = Path(__file__).resolve().parents[3]


class Runner:
    def __init__(self, binary, work, dry=False):
        self.binary, self.work, self.dry = Path(binary), Path(work), dry
        self.output = self.work / "output"
        self.locks = defaultdict(threading.Lock)
        for folder in ["graphs", "results", "output/states"]:
            (self.work / folder).mkdir(parents=True, exist_ok=True)
        subjects = self.work / "graphs" / "subjects"
        for folder in (REPOSITORY / "graphs" / "subjects").iterdir():
            shutil.copytree(folder, subjects / folder.name, dirs_exist_ok=True)

    def train(self, spec):
        """What a training's state tells, `None` where it was not run."""
        name = graphs.key(spec)
        state = self.output / "states" / f"{name}.para-state.safetensors"
        with self.locks[name]:
            done = state.exists() and told(state)["step"] == spec["steps"]
            if not done and not self.dry:
                self.run("train-" + name, graphs.train_graph(spec))
                done = True
        return told(state) if done else None

    def cell(self, cell):
        """The pictures of a cell, a list of files a prompt, `None` where it was not run."""
        name = graphs.key(cell)
        kept = self.work / "results" / f"{name}.json"
        with self.locks[name]:
            if not kept.exists():
                if self.dry:
                    return None
                shutil.rmtree(self.output / "cells" / name, ignore_errors=True)
                for spec in cell["trainings"]:
                    self.train(spec)
                self.run("cell-" + name, graphs.cell_graph(cell, name))
                kept.write_text(json.dumps(cell, indent=1))
        folder = self.output / "cells" / name
        return [sorted(folder.glob(f"{index:02}_*.png")) for index in range(len(cell["prompts"]))]

    def all(self, trainings, cells, jobs):
        """Runs trainings, then cells, a few at a time; the first failure is raised after the others have ended."""
        with ThreadPoolExecutor(jobs) as pool:
            ends = [pool.submit(self.train, spec) for spec in trainings] + [pool.submit(self.cell, cell) for cell in cells]
        for end in ends:
            end.result()

    def run(self, name, graph):
        path = self.work / "graphs" / f"{name}.json"
        path.write_text(json.dumps(graph, indent=1))
        started = time.time()
        command = [self.binary, "run", path, "--out", self.output, "--json"]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode != 0:
            raise RuntimeError(f"{path} failed:\n{ended.stderr.strip()[-2000:]}")
        print(f"{name} in {time.time() - started:.0f} s", flush=True)


def told(state):
    """The header of a state file, its losses, and how many numbers were trained: `step`, `losses`, `validation`, `numbers`."""
    with open(state, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        begin, end = header["losses"]["data_offsets"]
        file.seek(8 + length + begin)
        values = struct.unpack(f"<{(end - begin) // 4}f", file.read(end - begin))
    slots = [row for name, row in header.items() if name + ".mean" in header]
    return dict(
        step=json.loads(header["__metadata__"]["para-state"])["step"],
        losses=list(values[::2]),
        validation={i + 1: v for i, v in enumerate(values[1::2]) if v == v},
        numbers=sum(row["shape"][0] for row in slots),
    )
