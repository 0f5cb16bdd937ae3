"""Writes `vocabulary.bin`, CLIP's byte-pair vocabulary as pairs of token numbers.

    python vocabulary.py PATH/TO/bpe_simple_vocab_16e6.txt.gz

The input is OpenAI's merge list as it ships in the Python package open_clip_torch 3.3.0 (`open_clip/`), whose first
48,894 merges make CLIP's vocabulary; `vocabulary.LICENSE` is its licence. Tokens 0 to 255 are single bytes in the order of
`byte_order`, 256 to 511 the same bytes at the end of a word, and token 512 + i joins the two tokens of merge i. So the whole
vocabulary follows from the pairs: the output holds, for each merge in order, the left and the right token as little-endian
16-bit numbers, 195,576 bytes in all. Tokens 49406 and 49407 begin and end a text; no merge makes them.
"""

import gzip
import pathlib
import struct
import sys

MERGES = 49408 - 512 - 2


def byte_order():
    """The 256 bytes in the order of their tokens: those that print in Latin-1 first, then the others."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return printing + [byte for byte in range(256) if byte not in printing]


def spelling():
    """How the merge list spells each byte: as itself in Latin-1 if it prints, else as the next character from U+0100 on."""
    order = byte_order()
    printing = 256 - (0x21 + 0x22 + 1)
    return [chr(byte) if index < printing else chr(0x100 + index - printing) for index, byte in enumerate(order)]


def main(source):
    lines = gzip.open(source, "rt", encoding="utf-8").read().split("\n")[1 : 1 + MERGES]
    tokens = spelling()
    numbers = {token: number for number, token in enumerate(tokens + [token + "</w>" for token in tokens])}
    packed = bytearray()
    for line in lines:
        left, right = line.split()
        packed += struct.pack("<HH", numbers[left], numbers[right])
        assert left + right not in numbers, "two merges make one token"
        numbers[left + right] = len(numbers)
    assert len(numbers) == 49406
    pathlib.Path(__file__).with_name("vocabulary.bin").write_bytes(packed)


if __name__ == "__main__":
    main(sys.argv[1])
