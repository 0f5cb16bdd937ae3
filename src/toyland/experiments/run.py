"""Runs the experiments and writes their page: `docs/experiments.md`.

    python run.py JUDGES WORK --binary ../../../target/release/paraflow

JUDGES is the folder that `judges.sh` fills. WORK keeps graphs, trainings and pictures: what is there is not run again, so
a run that was stopped goes on, and more seeds add to what there is.
"""

import argparse
from pathlib import Path

import plan
from graphs import CLASSES, STYLE_SET
from judges import Judges, style_pictures
from page import Page
from runner import REPOSITORY, Runner

ALL = ["sweep", *plan.EXPERIMENTS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judges", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/paraflow")
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL, help="these experiments, in this order")
    parser.add_argument("--seeds", type=int, default=1, help="trainings a subject and method")
    parser.add_argument("--steps", type=int, default=100, help="steps a training")
    parser.add_argument("--subjects", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--jobs", type=int, default=1, help="how many graphs run at a time")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page from what there is")
    args = parser.parse_args()
    options = plan.Options(args.seeds, args.steps, args.subjects)
    runner = Runner(args.binary.resolve(), args.work.resolve(), dry=args.page)
    style_pictures(args.judges / "world", runner.work / "graphs/subjects" / STYLE_SET)
    if not args.page:
        everything(args.only, runner, options, args.jobs)
    runner.dry = True
    Page(runner, Judges(args.judges), options, REPOSITORY / "docs", ALL if args.page else args.only).write()


def everything(names, runner, options, jobs):
    """Runs the experiments' cells, each after the base's pictures of the same prompts."""
    sweep = [spec for _, _, spec in plan.sweep(options)] if "sweep" in names else []
    cells = []
    for name in names:
        for _, _, cell in plan.EXPERIMENTS[name](options) if name in plan.EXPERIMENTS else []:
            for wanted in (plan.cell([], cell["prompts"]), cell):
                if wanted not in cells:
                    cells.append(wanted)
    runner.all(sweep, cells, jobs)


if __name__ == "__main__":
    main()
