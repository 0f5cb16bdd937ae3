"""The page's prose: what was measured and how, whichever way it falls. Verdicts are the tables' intervals."""

INTRODUCTION = """
# Experiments at Toyland's scale

Does Parameter Rank Reduction do on a small model what its paper (Chen et al., arXiv 2406.05641) says of SDXL? Every claim
is tried here on [Toyland](toyland.md) with graphs of this program, on the four individuals of `graphs/subjects`, with
LoRA and SVDiff beside it. The page is written by a program from whatever was run: no row is here that was not run, and
each row says how many subjects, trainings and pictures it rests on.

Toyland is a model of 8.5 million weights and a world of flat drawings. It can show a direction; it cannot tell what SDXL
would do. Its layers are 64 to 192 wide, so that a rank of 8 takes as large a share of them as a rank of 80 to 160 would
of SDXL's widest.
"""

MEASURES = """
## What is measured

Two judges, both trained on renders only; neither has seen a generated picture.

- **individual found**: a small convolutional network says which of the four individuals a picture shows, alone or in
  pairs. Its opposites are others of the same class in the same colour, so that marks count and colour alone does not. On
  1200 fresh renders it is right for {alone} of individuals alone, {pair} of pairs, {nobody} of pictures without any.
- **likeness**: the mean cosine between a picture and the individual's real pictures, in the features of a second judge,
  which knows classes, colours, places and styles and has never seen an individual (DINO's part in the paper's tables).
  Features are standardised over fresh renders. True renders of the individual in any place, style and pose reach: {renders}.
- **place, style followed**; **class kept** ("a blue bear" is still a bear, and blue); **others kept** ("a red car" is one):
  verdicts of that second judge, right on fresh renders for subject {subject}, colour {colour}, place {place}, style {style}.
- **found in the right place**: both at once.
- **drift**: root mean square difference (0 to 1) to the base's pictures of prompts without the individual, equal noise.

Prompts for an individual: eight places (four or five of them are on its training pictures); two other styles in two
places; four pictures of other subjects, four of others of its class. Four training pictures, 128 x 128, batch 4, `sks` as
the unique word, no class pictures. Sampling: DPM++ 2M, Karras, 12 steps, cfg 4. Square brackets hold 95 % bootstrap
intervals, over trainings first and pictures second: with one training in a row they speak of that training's pictures
alone. An interval without width says that all pictures agreed, no more. `sks` is a word that Toyland's text encoder reads as zeros, as any other it does not know.
"""

MAIN = """
## PaRa against LoRA and SVDiff

Each method for {steps} steps at the best rate tried in the sweep below: PaRa at rank 8 with gamma 1/8, LoRA at rank 4, layers
`exca` throughout. `projection` is the paper's formula; `release` is what the authors' program trains, and `deft` (arXiv
2509.22793) puts something in the place of what it takes out; the last two give a LoRA.
"""

COUNT = """
Half the parameters: at LoRA's rank, {rank}, a projection on the same layers trains {para:,} numbers, and LoRA {ratio:.2f}
times as many.
"""

SWEEP = """
## Settings

The loss on noise that stays the same, after {steps} steps on the first subject, one seed. "First loss" is the training loss of
the first step: the distance of the start from the base shows there.
"""

RANK = """
## Rank

The projection at rank 1 to 16, gamma 1/8 (1/4 at rank 16, which 1/8 would cut to 8 in the narrow layers). The paper's
claim: fidelity rises with the rank and the freedom to edit falls.
"""

SUBSET = """
## Which layers

The projection, rank 8, on other layers than `exca` (all but cross-attention): `full` adds cross-attention, `wide` also
feed-forward and first layers, `sao` is self-attention alone, `cao` cross-attention alone. The paper's claim: `exca` is
best. One training each.
"""

ORDER = """
## With a style's LoRA, in both orders

A LoRA of line drawings (12 renders whose captions do not name the style), and a subject's adapter. The prompts do not name
the style either. The paper's claim: PaRa first and LoRA second keeps both, the other order cancels part of the LoRA.
"""

TWO = """
## Two subjects in one picture

Two adapters trained apart, put on one model, for every pair of three individuals. `sequential` takes them one after the
other, `union` removes all directions of either, `additive` adds both exports. With the colour said, captions and prompts
are "a yellow sks bear on the beach" instead of "a sks bear on the beach". One training a subject. The base's row shows what
the prompts alone give. The individuals have the same word for a name, and differ in class word and colour only. The paper's
claim: two PaRas work together where two LoRAs fail.
"""

EDIT = """
## Learning from one picture

One training picture; its own prompt and two edits under six noises. "Pair SSIM" compares the pictures of one prompt with
each other: high means that noise changes little. The paper's claim: PaRa is steadier than LoRA. A model that ignores
prompts is steady, too, so the edits' success stands beside it.
"""

GAMMA = """
## Gamma

The projection with as many directions as gamma allows (rank 96 asked for), one training each. The paper's claim: a large
share ruins the model, a small one is stable.
"""

EXPORT = """
## Exported to a LoRA

The same PaRa applied, and exported to a LoRA for its base and applied: the greatest difference of any channel of
{pictures} pictures is {most} of 255.
"""

AGAIN = """
## Again, with more

```
pip install -r src/toyland/train/requirements.txt
src/toyland/experiments/judges.sh JUDGES                                  # renders and both judges
python src/toyland/experiments/run.py JUDGES WORK --seeds 3               # everything; goes on where it stopped
python src/toyland/experiments/run.py JUDGES WORK --only main rank        # some of it
python src/toyland/experiments/run.py JUDGES WORK --page                  # only writes the page
```

What people concluded is in `docs/experiments/notes.md`, which the page takes in as it is: read it again after a new run.

Each cell's graph is kept in `WORK/graphs` and opens in the editor. A setting that changes gives new names, and only what it
touches runs again.
"""
