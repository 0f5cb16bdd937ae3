"""The training of Toyland's model, step by step. `docs/toyland.md` gives the commands in their order."""

import argparse
import os

# Idle threads must not spin: the machine usually has something else to do.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch  # noqa: E402

import export  # noqa: E402
import identity  # noqa: E402
import judge  # noqa: E402
import text  # noqa: E402
import unet  # noqa: E402
import vae  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    commands = parser.add_subparsers(required=True)

    p = commands.add_parser("vae", help="train the autoencoder")
    p.set_defaults(run=vae.train)
    p.add_argument("data")
    p.add_argument("out")
    p.add_argument("--steps", type=int, default=2600)
    p.add_argument("--crop-steps", type=int, default=1500)
    p.add_argument("--batch", type=int, default=8, help="crops; whole pictures come in half as many")
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--decoder-only", action="store_true")
    p.add_argument("--anchor", type=float, default=0.0, help="weight that holds the latents near those of --start")
    p.add_argument("--latent-noise", type=float, default=0.03)
    p.add_argument("--start", help="the weights to begin with")
    p.add_argument("--colour", action="store_true", help="weigh colours, and step by Muon: the second stage")

    p = commands.add_parser("whiten", help="give the latents mean zero and variance one")
    p.set_defaults(run=vae.whiten)
    p.add_argument("data")
    p.add_argument("vae")
    p.add_argument("out")
    p.add_argument("--count", type=int, default=1000)

    p = commands.add_parser("latents", help="encode a data set")
    p.set_defaults(run=vae.latents)
    p.add_argument("data")
    p.add_argument("vae")
    p.add_argument("out")
    p.add_argument("--count", type=int, default=40000)

    p = commands.add_parser("text", help="warm up the text encoder on what captions name")
    p.set_defaults(run=text.train)
    p.add_argument("data")
    p.add_argument("vocabulary", help="CLIP's bpe_simple_vocab_16e6.txt.gz")
    p.add_argument("out")
    p.add_argument("--steps", type=int, default=600)
    p.add_argument("--batch", type=int, default=48)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--seed", type=int, default=2)

    p = commands.add_parser("unet", help="train the UNet")
    p.set_defaults(run=unet.train)
    p.add_argument("data")
    p.add_argument("latents")
    p.add_argument("vocabulary")
    p.add_argument("text", help="the warmed-up text encoder")
    p.add_argument("out")
    p.add_argument("--steps", type=int, default=4000)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--text-lr", type=float, default=0.0, help="the text encoder's share of the rate; 0 freezes it")
    p.add_argument("--decay", type=float, default=0.5)
    p.add_argument("--ema", type=float, default=0.998)
    p.add_argument("--seed", type=int, default=3)
    p.add_argument("--adam", action="store_true", help="AdamW alone")
    p.add_argument("--resume", action="store_true")

    p = commands.add_parser("export", help="write the checkpoint, f16 and packed")
    p.set_defaults(run=export.export)
    p.add_argument("unet")
    p.add_argument("vae")
    p.add_argument("out")
    p.add_argument("--note", help="kept in the file's metadata")

    p = commands.add_parser("sample", help="draw prompts with a checkpoint")
    p.set_defaults(run=judge.sample)
    p.add_argument("checkpoint")
    p.add_argument("vocabulary")
    p.add_argument("prompts")
    p.add_argument("out")
    p.add_argument("--count", type=int, default=200)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--cfg", type=float, default=4.0)

    p = commands.add_parser("judge-train", help="train the judge on real renders")
    p.set_defaults(run=judge.train)
    p.add_argument("data")
    p.add_argument("fresh")
    p.add_argument("out")
    p.add_argument("--steps", type=int, default=500)
    p.add_argument("--batch", type=int, default=48)
    p.add_argument("--seed", type=int, default=4)

    p = commands.add_parser("judge", help="judge a folder of pictures against prompts")
    p.set_defaults(run=judge.judge)
    p.add_argument("judge")
    p.add_argument("pictures")
    p.add_argument("prompts")
    p.add_argument("--wrong", help="a CSV to write mistakes to")

    p = commands.add_parser("identity-train", help="train the judge of individuals on real renders")
    p.set_defaults(run=identity.train)
    p.add_argument("data")
    p.add_argument("fresh")
    p.add_argument("out")
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--batch", type=int, default=48)
    p.add_argument("--seed", type=int, default=5)

    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    torch.set_num_threads(args.threads)
    args.run(args)
