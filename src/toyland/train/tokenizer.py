"""CLIP's byte-pair tokenizer, for the plain lower-case words of Toyland's captions. The program has the complete one."""

import gzip
import html
import re
from functools import lru_cache

BEGIN, END, LENGTH = 49406, 49407, 77
# The whole of CLIP's pattern is longer; letters, digits and punctuation are what captions have.
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def byte_symbols():
    """The printable characters that stand for the 256 bytes, in the order of the vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


class Tokenizer:
    def __init__(self, vocabulary):
        lines = gzip.open(vocabulary).read().decode("utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
        symbols = byte_symbols()
        words = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges]
        self.ids = {word: index for index, word in enumerate(words)}
        self.ranks = {merge: rank for rank, merge in enumerate(merges)}

    @lru_cache(maxsize=4096)
    def word(self, word):
        parts = list(word[:-1]) + [word[-1] + "</w>"]
        while len(parts) > 1:
            rank, at = min((self.ranks.get(pair, 1 << 30), i) for i, pair in enumerate(zip(parts, parts[1:])))
            if rank == 1 << 30:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.ids[part] for part in parts]

    def words(self, text):
        """The ids of a text without begin, end and padding."""
        return [i for word in WORDS.findall(html.unescape(text).lower()) for i in self.word(word)]

    def __call__(self, text):
        """The 77 ids of a text, padded as Stable Diffusion 1 pads."""
        ids = [BEGIN] + self.words(text)[: LENGTH - 2]
        return ids + [END] * (LENGTH - len(ids))
