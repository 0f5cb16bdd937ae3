"""Checks of the statistics and the graphs that need no model: `python check.py`."""

import tempfile
from pathlib import Path

import numpy as np

import charts
import graphs
import plan
from intervals import difference, interval, spearman
from judges import ssim


def check_intervals():
    """A known share lies in about 95 % of the intervals, over trainings that differ and pictures that do."""
    chance, inside = np.random.default_rng(1), 0
    for trial in range(60):
        shares = np.clip(0.6 + 0.1 * chance.standard_normal(12), 0, 1)
        groups = [chance.random(16) < share for share in shares]
        _, low, high = interval(groups, seed=trial)
        inside += low <= 0.6 <= high
    assert 50 <= inside <= 60, inside
    mean, low, high = interval([[1.0] * 5])
    assert (mean, low, high) == (1.0, 1.0, 1.0)
    assert interval([]) is None and interval([[]]) is None


def check_differences():
    """Pairing takes out what groups share, and only common groups count."""
    chance = np.random.default_rng(2)
    level = chance.random(8)
    first = {("a", i): level[i] + 0.1 + 0.01 * chance.standard_normal(16) for i in range(8)}
    second = {("a", i): level[i] + 0.01 * chance.standard_normal(16) for i in range(8)}
    second["elsewhere", 1] = np.zeros(4)
    mean, low, high = difference(first, second)
    assert abs(mean - 0.1) < 0.01 and 0.08 < low < high < 0.12, (mean, low, high)
    assert difference(first, {("b", 1): [1.0]}) is None


def check_spearman():
    assert spearman([1, 2, 4, 8], [0.1, 0.2, 0.5, 0.6]) == 1
    assert spearman([1, 2, 4, 8], [4, 3, 2, 1]) == -1
    assert abs(spearman([1, 2, 3, 4], [1, 1, 2, 2]) - 0.894427) < 1e-6


def check_ssim():
    """Equal pictures, and a value worked out by hand: one window, two constants."""
    picture = np.random.default_rng(3).random((16, 16))
    assert abs(ssim(picture, picture) - 1) < 1e-12
    light, dark = np.full((7, 7), 0.5), np.full((7, 7), 0.25)
    assert abs(ssim(light, dark) - (2 * 0.5 * 0.25 + 1e-4) / (0.25 + 0.0625 + 1e-4)) < 1e-9


def check_graphs():
    """Links lead to nodes, names follow from content, and unknown settings are refused."""
    options = plan.Options(seeds=2)
    names = {}
    for make in plan.EXPERIMENTS.values():
        for _, _, cell in make(options):
            name = graphs.key(cell)
            assert names.setdefault(name, cell) == cell
            nodes = graphs.cell_graph(cell, name)
            for node in nodes.values():
                for value in node["inputs"].values():
                    assert not isinstance(value, list) or value[0] in nodes, node
            assert sum(node["class_type"] == "SaveImage" for node in nodes.values()) == len(cell["prompts"])
    assert graphs.key(graphs.training("para", "captain")) != graphs.key(graphs.training("para", "captain", seed=2))
    try:
        graphs.training("para", "captain", learning_rate=1.0)
    except ValueError:
        return
    raise AssertionError("a PaRa has no learning rate")


def check_charts():
    text = charts.lines("by rank", [1, 2], {"found": [(0.5, 0.4, 0.6), None], "place": [(1.0, 1.0, 1.0), (0.9, 0.8, 1.0)]})
    assert text.count("<circle") == 3 and text.rstrip().endswith("</svg>")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.png"
        charts.grid(path, [("nothing", [None, None])], ["a", "b"])
        assert path.stat().st_size > 0


if __name__ == "__main__":
    for name, check in sorted(list(globals().items())):
        if name.startswith("check_"):
            check()
            print(name, "ok")
