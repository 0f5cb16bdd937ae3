//! CLIP's byte-pair vocabulary: which tokens make up a word.
//!
//! Sennrich et al. 2016, arXiv:1508.07909, on bytes. A word's bytes are tokens, its last one marked as an end; as long as two
//! neighbours are a pair of the vocabulary, the pair that was learned first becomes one token.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::LazyLock;

/// The pairs in the order in which they were learned, each as its left and right token; `vocabulary.py` makes the file.
static PAIRS: &[u8] = include_bytes!("vocabulary.bin");

/// How many tokens are a single byte inside a word; as many again are one at its end.
const BYTES: u16 = 256;
/// The first token that joins two others.
const FIRST_PAIR: u16 = 2 * BYTES;

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(Vocabulary::new);

struct Vocabulary {
    /// The token of each byte inside a word.
    byte_tokens: [u16; BYTES as usize],
    /// The token that joins two.
    joins: HashMap<(u16, u16), u16>,
}

/// Appends the tokens of one word, given as text without spaces.
pub(super) fn append_word(word: &str, tokens: &mut Vec<u32>) {
    let vocabulary = &*VOCABULARY;
    let mut pieces = vocabulary.pieces(word.as_bytes());
    vocabulary.join(&mut pieces);
    let mut place = (!pieces.is_empty()).then_some(0);
    while let Some(index) = place {
        tokens.push(u32::from(pieces[index].token));
        place = pieces[index].right;
    }
}

/// The bytes that a token stands for, and whether a word ends with it. Nothing for the two tokens around a text and for
/// numbers beyond the vocabulary.
pub(super) fn spell(token: u32) -> Option<(Vec<u8>, bool)> {
    let mut open = vec![u16::try_from(token).ok()?];
    let (mut bytes, mut ends) = (Vec::new(), false);
    while let Some(token) = open.pop() {
        if let Some(pair) = token.checked_sub(FIRST_PAIR) {
            let (left, right) = pair_at(usize::from(pair))?;
            open.extend([right, left]);
        } else {
            let order = usize::from(token % BYTES);
            bytes.push(byte_order().nth(order).expect("there are 256 bytes"));
            ends = token >= BYTES;
        }
    }
    Some((bytes, ends))
}

/// The vocabulary as transformers reads it: the number of every token by its spelling (`vocab.json`), and the pairs in the order
/// in which they were learned (`merges.txt`).
#[must_use]
pub fn vocabulary() -> (serde_json::Map<String, serde_json::Value>, String) {
    let mut numbers: serde_json::Map<_, _> =
        (0..u32::MAX).map_while(|token| Some((written(token)?, token.into()))).collect();
    for name in ["<|startoftext|>", "<|endoftext|>"] {
        let next = numbers.len();
        numbers.insert(name.to_owned(), next.into());
    }
    let pair = |index: usize| {
        let (left, right) = pair_at(index)?;
        Some(format!("{} {}\n", written(left.into())?, written(right.into())?))
    };
    (numbers, std::iter::once("#version: 0.2\n".to_owned()).chain((0..).map_while(pair)).collect())
}

/// A token in letters: bytes that do not print are letters beyond Latin-1, and `</w>` says that a word ends.
fn written(token: u32) -> Option<String> {
    let (bytes, ends) = spell(token)?;
    let letters = bytes.into_iter().map(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            let hidden = (0..byte).filter(|byte| !matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)).count();
            char::from_u32(256 + hidden as u32).expect("these are letters of Latin Extended-A")
        }
    });
    Some(letters.chain(if ends { "</w>" } else { "" }.chars()).collect())
}

fn pair_at(index: usize) -> Option<(u16, u16)> {
    let (pairs, _) = PAIRS.as_chunks::<4>();
    pairs.get(index).map(|&[a, b, c, d]| (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
}

/// The bytes in the order of their tokens: those that print in Latin-1 first, then the others.
fn byte_order() -> impl Iterator<Item = u8> {
    let prints = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    (0..=255).filter(prints).chain((0..=255).filter(move |byte| !prints(byte)))
}

/// One token of a word on its way to longer ones, in a list whose entries know their neighbours.
struct Piece {
    token: u16,
    left: Option<usize>,
    right: Option<usize>,
    /// False once it is part of its left neighbour.
    alive: bool,
}

impl Vocabulary {
    fn new() -> Self {
        let mut byte_tokens = [0; BYTES as usize];
        for (token, byte) in (0..).zip(byte_order()) {
            byte_tokens[usize::from(byte)] = token;
        }
        let pairs = (0..).map_while(pair_at).zip(FIRST_PAIR..);
        Self { byte_tokens, joins: pairs.collect() }
    }

    /// One piece a byte.
    fn pieces(&self, word: &[u8]) -> Vec<Piece> {
        let last = word.len().saturating_sub(1);
        let piece = |(index, &byte): (usize, &u8)| {
            let end = if index == last { BYTES } else { 0 };
            Piece {
                token: self.byte_tokens[usize::from(byte)] + end,
                left: index.checked_sub(1),
                right: (index < last).then_some(index + 1),
                alive: true,
            }
        };
        word.iter().enumerate().map(piece).collect()
    }

    /// Joins neighbours until no two are a pair, the pair learned first first and, among equals, from the left. The queue
    /// makes a word of any length cost n log n.
    fn join(&self, pieces: &mut [Piece]) {
        let mut queue: BinaryHeap<Reverse<(u16, usize)>> = BinaryHeap::new();
        queue.extend((0..pieces.len()).filter_map(|index| self.joined(pieces, index)).map(Reverse));
        while let Some(Reverse((token, index))) = queue.pop() {
            // What was queued may be outdated by a join on either side of it.
            if self.joined(pieces, index) != Some((token, index)) {
                continue;
            }
            let absorbed = pieces[index].right.expect("a pair has a right half");
            let right = pieces[absorbed].right;
            pieces[absorbed].alive = false;
            pieces[index].token = token;
            pieces[index].right = right;
            if let Some(right) = right {
                pieces[right].left = Some(index);
            }
            let changed = [pieces[index].left, Some(index)];
            queue.extend(changed.into_iter().flatten().filter_map(|index| self.joined(pieces, index)).map(Reverse));
        }
    }

    /// The token that a piece would make with its right neighbour, and the piece's place.
    fn joined(&self, pieces: &[Piece], index: usize) -> Option<(u16, usize)> {
        let piece = &pieces[index];
        let right = pieces[piece.right.filter(|_| piece.alive)?].token;
        self.joins.get(&(piece.token, right)).map(|&token| (token, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        append_word(text, &mut tokens);
        tokens
    }

    #[test]
    fn the_vocabulary_has_every_token_once() {
        assert_eq!(PAIRS.len(), 4 * (49_406 - 512));
        assert_eq!(VOCABULARY.joins.len(), 49_406 - 512);
        let mut spellings: Vec<_> = (0..49_406).map(|token| spell(token).unwrap()).collect();
        spellings.sort();
        spellings.dedup();
        assert_eq!(spellings.len(), 49_406);
        assert_eq!(spell(49_406), None);
        assert_eq!(spell(70_000), None);
    }

    #[test]
    fn the_vocabulary_is_written_as_transformers_reads_it() {
        let (numbers, merges) = vocabulary();
        assert_eq!(numbers.len(), 49_408);
        for (word, token) in
            [("!", 0), ("!</w>", 256), ("photo</w>", 1125), ("\u{120}", 220), ("<|endoftext|>", 49_407)]
        {
            assert_eq!(numbers[word], token, "{word}");
        }
        assert_eq!(merges.lines().count(), 1 + 49_406 - 512);
        assert!(merges.starts_with("#version: 0.2\ni n\nt h\na n\n"), "{}", &merges[..40]);
    }

    #[test]
    fn a_word_becomes_its_tokens_and_back() {
        assert_eq!(word("photo"), [1125]);
        assert_eq!(word("a"), [320]);
        assert_eq!(word(""), [0; 0]);
        assert_eq!(spell(1125), Some((b"photo".to_vec(), true)));
        assert_eq!(spell(64), Some((b"a".to_vec(), false)));
    }

    #[test]
    fn a_word_of_a_million_letters_is_read() {
        // Were the cost quadratic, this would not come to an end.
        let tokens = word(&"abc".repeat(333_333));
        let spelled: Vec<u8> = tokens.iter().flat_map(|&token| spell(token).unwrap().0).collect();
        assert_eq!(spelled.len(), 999_999);
    }
}
