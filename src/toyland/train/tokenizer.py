"""CLIP's byte-pair tokenizer, for the plain lower-case words of Toyland's captions. The program has the complete one, and
its vocabulary, `src/diffusion/text/vocabulary.bin`, is read here too; `vocabulary.py` beside it tells the format."""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

BEGIN, END, LENGTH = 49406, 49407, 77
FIRST_MERGE, END_OF_WORD = 512, 256
PAIRS = Path(__file__).resolve().parents[2] / "diffusion/text/vocabulary.bin"
# The whole of CLIP's pattern is longer; letters, digits and punctuation are what captions have.
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")


def byte_numbers():
    """The token of each byte: bytes that print in Latin-1 come first, then the others."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    order = printing + [byte for byte in range(256) if byte not in printing]
    return {byte: number for number, byte in enumerate(order)}


class Tokenizer:
    def __init__(self):
        pairs = np.fromfile(PAIRS, dtype="<u2").reshape(-1, 2).tolist()
        self.merges = {tuple(pair): FIRST_MERGE + rank for rank, pair in enumerate(pairs)}
        self.bytes = byte_numbers()
        self.word = lru_cache(maxsize=4096)(self._word)

    def _word(self, word):
        parts = [self.bytes[byte] for byte in word.encode()]
        parts[-1] += END_OF_WORD
        while True:
            # Merges are numbered by rank: the smallest number is the pair to join first.
            joined, at = min(((self.merges.get(pair, BEGIN), i) for i, pair in enumerate(zip(parts, parts[1:]))), default=(BEGIN, 0))
            if joined == BEGIN:
                return parts
            parts[at : at + 2] = [joined]

    def words(self, text):
        """The ids of a text without begin, end and padding."""
        return [i for word in WORDS.findall(text.lower()) for i in self.word(word)]

    def __call__(self, text):
        """The 77 ids of a text, padded as Stable Diffusion 1 pads."""
        ids = [BEGIN] + self.words(text)[: LENGTH - 2]
        return ids + [END] * (LENGTH - len(ids))
