//! From text to CLIP's tokens: normalisation and the split into words. The words' tokens are `bpe`'s.
//!
//! Follows the tokenizer of transformers 5 (`CLIPTokenizer`). The one in pure Python that came before it reads four things
//! otherwise: control and format characters (also the joiners inside an emoji), ideographs, `Σ`, and `<|endoftext|>` spelled
//! with capitals.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::bpe;

/// The token before every text.
pub const BEGIN: u32 = 49_406;
/// The token after it.
pub const END: u32 = 49_407;
/// How many tokens the encoder reads at once, [`BEGIN`] and [`END`] included.
pub const CONTEXT: usize = 77;

/// The special tokens as somebody may spell them in a text.
const BEGIN_NAME: &str = "<|startoftext|>";
const END_NAME: &str = "<|endoftext|>";
/// What is cut off the end of an English word.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// The tokens of a text of any length, without [`BEGIN`] and [`END`] around it.
///
/// Canonical composition, lower case, then words: runs of letters, single digits, runs of anything else that is no space.
#[must_use]
pub fn tokens(text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    // The original looks for its end before it normalises and for its beginning after, so only the latter has capitals.
    join(text.split(END_NAME), END, &mut tokens, |part, tokens| {
        let normal: String = part.nfc().flat_map(char::to_lowercase).collect();
        join(normal.split(BEGIN_NAME), BEGIN, tokens, |part, tokens| {
            for_each_word(part, |word| bpe::append_word(word, tokens));
        });
    });
    tokens
}

/// Appends what `append` makes of each part, and `separator` between them.
fn join<'a>(
    parts: impl Iterator<Item = &'a str>,
    separator: u32,
    tokens: &mut Vec<u32>,
    append: impl Fn(&str, &mut Vec<u32>),
) {
    for (index, part) in parts.enumerate() {
        if index > 0 {
            tokens.push(separator);
        }
        append(part, tokens);
    }
}

/// What a token stands for, a space after the end of a word; `<|…|>` for the two special tokens, nothing for numbers that
/// are no token.
#[must_use]
pub fn spell(token: u32) -> String {
    match token {
        BEGIN => return BEGIN_NAME.to_owned(),
        END => return END_NAME.to_owned(),
        _ => {}
    }
    let (bytes, ends_word) = bpe::spell(token).unwrap_or_default();
    let end = if ends_word { " " } else { "" };
    format!("{}{end}", String::from_utf8_lossy(&bytes))
}

/// Cuts a normalised text into words and leaves spaces out.
fn for_each_word<'a>(text: &'a str, mut each: impl FnMut(&'a str)) {
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        // An end that was spelled with capitals is none, yet its brackets stay apart from what surrounds it.
        let lengths = if rest.starts_with(END_NAME) { [2, END_NAME.len() - 4, 2] } else { [word_length(rest), 0, 0] };
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
    use super::super::testing;
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for_each_word(text, |word| words.push(word));
        words
    }

    #[test]
    fn agrees_with_transformers() {
        let cases = testing::cases("tokens.json");
        assert!(cases.len() > 400);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            assert_eq!(serde_json::json!(tokens(text)), case["tokens"], "{text:?}");
            if !case["slow"].is_null() {
                assert!(text.chars().any(older_differs) || text.contains("<|"), "{text:?}");
            }
        }
    }

    /// The characters that this file's documentation says the older tokenizer reads otherwise.
    fn older_differs(c: char) -> bool {
        let ideograph = matches!(c, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2ffff}');
        let other = c.general_category_group() == GeneralCategoryGroup::Other && !"\t\n\r".contains(c);
        ideograph || other || c == 'Σ' || c == char::REPLACEMENT_CHARACTER
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
