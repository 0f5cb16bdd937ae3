//! From text to CLIP's tokens: normalisation and the split into words. The words' tokens are `bpe`'s.
//!
//! Follows the tokenizer that current versions of transformers run (`CLIPTokenizer`, normaliser NFC and lower case by
//! character). The older one in pure Python differs where a text has control characters, ideographs, a final sigma or
//! ` <|EndOfText|>` in capitals.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::bpe;

/// The token before every text.
pub const BEGIN: u32 = 49_406;
/// The token after it.
pub const END: u32 = 49_407;
/// How many tokens the encoder reads at once, [`BEGIN`] and [`END`] included.
pub const CONTEXT: usize = 77;

/// The two special tokens, as somebody may spell them in a text.
const SPECIAL: [(&str, u32); 2] = [("<|startoftext|>", BEGIN), ("<|endoftext|>", END)];
/// What is cut off the end of an English word.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// The tokens of a text of any length, without [`BEGIN`] and [`END`] around it.
///
/// Canonical composition, lower case, then words: runs of letters, single digits, runs of anything else that is no space.
#[must_use]
pub fn tokens(text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((at, name, token)) = first_special(rest) {
        append_plain(&rest[..at], &mut tokens);
        tokens.push(token);
        rest = &rest[at + name.len()..];
    }
    append_plain(rest, &mut tokens);
    tokens
}

/// What a token stands for, a space after the end of a word; `<|…|>` for the two special tokens, nothing for numbers that are no
/// token.
#[must_use]
pub fn spell(token: u32) -> String {
    if let Some((name, _)) = SPECIAL.iter().find(|(_, special)| *special == token) {
        return (*name).to_owned();
    }
    let (bytes, ends_word) = bpe::spell(token).unwrap_or_default();
    let end = if ends_word { " " } else { "" };
    format!("{}{end}", String::from_utf8_lossy(&bytes))
}

fn first_special(text: &str) -> Option<(usize, &'static str, u32)> {
    let found = SPECIAL.iter().filter_map(|&(name, token)| Some((text.find(name)?, name, token)));
    found.min_by_key(|(at, ..)| *at)
}

fn append_plain(text: &str, tokens: &mut Vec<u32>) {
    let normal: String = text.nfc().flat_map(char::to_lowercase).collect();
    for_each_word(&normal, |word| bpe::append_word(word, tokens));
}

/// Cuts a normalised text into words and leaves spaces out.
fn for_each_word<'a>(text: &'a str, mut each: impl FnMut(&'a str)) {
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        // A special token that was spelled with capitals is not one, yet its brackets stay apart from what surrounds it.
        let lengths = match SPECIAL.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, _)) => [2, name.len() - 4, 2],
            None => [word_length(rest), 0, 0],
        };
        for length in lengths.into_iter().filter(|&length| length > 0) {
            let (word, after) = rest.split_at(length);
            each(word);
            rest = after;
        }
        rest = rest.trim_start();
    }
}

/// How many bytes the first word of a text has that starts with one.
fn word_length(text: &str) -> usize {
    if let Some(contraction) = CONTRACTIONS.iter().find(|end| text.starts_with(**end)) {
        return contraction.len();
    }
    let first = text.chars().next().map_or(Kind::Space, kind);
    let mut run = text.char_indices().skip(1);
    let end = if first == Kind::Number { run.next() } else { run.find(|(_, c)| kind(*c) != first) };
    end.map_or(text.len(), |(at, _)| at)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Number,
    Space,
    Other,
}

fn kind(c: char) -> Kind {
    match c.general_category_group() {
        GeneralCategoryGroup::Letter => Kind::Letter,
        GeneralCategoryGroup::Number => Kind::Number,
        _ if c.is_whitespace() => Kind::Space,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for_each_word(text, |word| words.push(word));
        words
    }

    #[test]
    fn cuts_letters_digits_and_signs_apart() {
        assert_eq!(words("it's 24 h!?"), ["it", "'s", "2", "4", "h", "!?"]);
        assert_eq!(words("  we'll\tdon't 'round "), ["we", "'ll", "don", "'t", "'", "round"]);
        assert_eq!(words("x<|endoftext|>!"), ["x", "<|", "endoftext", "|>", "!"]);
        assert_eq!(words("!<|endoftext|>!"), ["!<|", "endoftext", "|>!"]);
        assert_eq!(words(" \n "), [""; 0]);
    }

    #[test]
    fn spells_what_it_reads() {
        let text = "a photo of a cat , été 漢字 🙂 ";
        let spelled: Vec<u8> = tokens(text).iter().flat_map(|&token| bpe::spell(token).unwrap().0).collect();
        assert_eq!(String::from_utf8(spelled).unwrap(), text.replace(' ', ""));
        assert_eq!(tokens("a photo of a cat"), [320, 1125, 539, 320, 2368]);
        assert_eq!(tokens("a photo").iter().map(|&token| spell(token)).collect::<String>(), "a photo ");
        assert_eq!(spell(END), "<|endoftext|>");
        assert_eq!(spell(60_000), "");
    }
}
