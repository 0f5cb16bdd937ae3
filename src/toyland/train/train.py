"""The training of Toyland's model: `all` carries out the recipe, `measure` judges any checkpoint of Toyland's."""

import argparse
import os

# Idle threads must not spin: the machine usually has something else to do.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch  # noqa: E402

import identity  # noqa: E402
import judge  # noqa: E402
from data import Renders  # noqa: E402
from recipe import Judge, Recipe, Workshop  # noqa: E402


def everything(args):
    workshop = workshop_of(args)
    workshop.world()
    workshop.networks()
    rows = workshop.quality("this model", workshop.path("models/checkpoints/new.safetensors"))
    workshop.report("A Toyland model", rows)


def measure(args):
    workshop = workshop_of(args)
    workshop.world()
    samplers = [tuple(pair.split("/")) for pair in args.samplers]
    rows = workshop.quality(args.name, os.path.abspath(args.checkpoint), args.cfg, samplers)
    workshop.report(f"Quality of {args.name}", rows)


def individuals(args):
    for name, share in identity.train(Judge(args.steps, seed=5), args.data, args.fresh, args.out).items():
        print(f"{name}: {share:.1%} right on fresh renders")


def classes(args):
    judge.train(Judge(args.steps), args.data, args.out)
    model, (alone, wanted) = judge.load(args.out), judge.singles(Renders(args.fresh))
    print(judge.shares(judge.verdicts(model, Renders(args.fresh).pixels(alone.numpy())), wanted))


def workshop_of(args):
    recipe = Recipe() if args.scale == 1 else Recipe().scaled(args.scale)
    return Workshop(args.out, recipe, args.toyland, args.paraflow)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    commands = parser.add_subparsers(required=True)
    workshop = argparse.ArgumentParser(add_help=False)
    workshop.add_argument("out", help="the folder to work in; the same command given again goes on where it stopped")
    workshop.add_argument("--scale", type=float, default=1.0, help="the share of pictures and steps: 0.01 takes minutes and learns nothing")
    workshop.add_argument("--toyland", help="a built `toyland`; by default cargo builds it")
    workshop.add_argument("--paraflow", help="a built `paraflow`; by default cargo builds it")

    p = commands.add_parser("all", parents=[workshop], help="train a model from nothing, judge it, write report.md")
    p.set_defaults(run=everything)

    p = commands.add_parser("measure", parents=[workshop], help="train the judge, and judge what a checkpoint draws")
    p.set_defaults(run=measure)
    p.add_argument("checkpoint", help="a file in some folder's `models/checkpoints`")
    p.add_argument("--name", default="the checkpoint")
    p.add_argument("--cfg", type=float, nargs="+", default=[4.0])
    p.add_argument("--samplers", nargs="+", default=["dpmpp_2m/karras"])

    judges = argparse.ArgumentParser(add_help=False)
    judges.add_argument("data")
    judges.add_argument("fresh")
    judges.add_argument("out")
    judges.add_argument("--steps", type=int, default=400)

    p = commands.add_parser("judge-train", parents=[judges], help="train the judge of classes on `toyland dataset` alone")
    p.set_defaults(run=classes)

    p = commands.add_parser(
        "identity-train", parents=[judges], help="train the judge of individuals on what `toyland identity` draws"
    )
    p.set_defaults(run=individuals)

    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    torch.set_num_threads(args.threads)
    args.run(args)
