//! Which layers of a UNet an adapter is put on, and how many directions a layer may lose.

use super::fault::Fault;
use super::names::{Layer, Part};

/// A named set of layers, or a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subset {
    /// One of [`NAMED`].
    Named(&'static str),
    /// Layers whose checkpoint or diffusers name matches one of these patterns, in which `*` stands for anything.
    Pattern(Vec<String>),
}

/// Names of the subsets, the default first. All but `wide` and `all` choose from the layers of attention, of residual blocks and of the
/// changes of size between levels, which are those that the authors' code adapts.
pub const NAMED: [(&str, &str); 10] = [
    ("exca", "all but cross-attention"),
    ("exsa", "all but self-attention"),
    ("sao", "self-attention only"),
    ("cao", "cross-attention only"),
    ("cao_qkv", "cross-attention without its output"),
    ("full", "attention, residual blocks, and what lies between levels"),
    ("mid", "`exca` in the middle block"),
    ("mid_last", "the last convolution of the middle block"),
    ("wide", "every layer but cross-attention, embeddings of time and label, and the last convolution"),
    ("all", "every layer of the UNet"),
];

impl Subset {
    /// Reads the name of a subset, or patterns divided by commas: `*attn1.to_q, mid_block.*`.
    ///
    /// # Errors
    /// [`Fault::BadSubset`] for an empty text, or a word that is neither a name nor has a `*` or a `.`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let text = text.trim();
        if let Some((name, _)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Named(name));
        }
        let bad = |why: &str| Fault::BadSubset {
            pattern: text.to_owned(),
            why: why.to_owned(),
            known: NAMED.map(|(name, _)| name).join(", "),
        };
        let patterns: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        if patterns.iter().any(String::is_empty) {
            return Err(bad("a pattern is empty"));
        }
        match patterns.iter().find(|pattern| !pattern.contains(['*', '.'])) {
            Some(word) => Err(bad(&format!("`{word}` is no name of a subset and no pattern"))),
            None => Ok(Self::Pattern(patterns)),
        }
    }

    /// Its name, or its patterns.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Named(name) => (*name).to_owned(),
            Self::Pattern(patterns) => patterns.join(", "),
        }
    }

    /// Whether a layer belongs to it.
    #[must_use]
    pub fn contains(&self, layer: &Layer) -> bool {
        match self {
            Self::Pattern(patterns) => {
                patterns.iter().any(|pattern| matches(pattern, &layer.name) || matches(pattern, &layer.diffusers))
            }
            Self::Named("all") => layer.part == Part::Unet,
            Self::Named(name) => layer.part == Part::Unet && named(name, &layer.diffusers),
        }
    }
}

/// Membership by diffusers' name.
fn named(subset: &str, name: &str) -> bool {
    let (own, cross) = (name.contains(".attn1."), name.contains(".attn2."));
    let listed = is_listed(name);
    match subset {
        "exca" => listed && !cross,
        "exsa" => listed && !own,
        "sao" => listed && own,
        "cao" => listed && cross,
        "cao_qkv" => listed && cross && !name.ends_with(".to_out.0"),
        "full" => listed,
        "mid" => listed && !cross && name.starts_with("mid_block."),
        "mid_last" => name == "mid_block.resnets.1.conv2",
        "wide" => {
            let embedding =
                ["time_embedding.", "add_embedding.", "class_embedding."].iter().any(|place| name.starts_with(place));
            !cross && !embedding && name != "conv_out"
        }
        _ => unreachable!("`parse` gives names of the table only"),
    }
}

/// The authors' list: attention, residual blocks, downsamplers and upsamplers.
fn is_listed(name: &str) -> bool {
    let last = ["to_q", "to_k", "to_v", "to_out.0"].iter().any(|end| name.ends_with(end));
    let attention = (name.contains(".attn1.") || name.contains(".attn2.")) && last;
    let residual = name.contains(".resnets.")
        && ["conv1", "conv2", "time_emb_proj", "conv_shortcut"].iter().any(|end| name.ends_with(end));
    attention || residual || name.contains(".downsamplers.") || name.contains(".upsamplers.")
}

/// Whether a text matches a pattern in which `*` stands for any characters, none included.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// How many directions a layer may lose: a part `gamma` of its outputs, and never all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Boundary(f64);

impl Boundary {
    /// The paper's, stable for wide models.
    pub const PAPER: Self = Self(1.0 / 40.0);
    /// No boundary but that a layer keeps one direction.
    pub const NONE: Self = Self(1.0);

    /// A part above 0 and at most 1.
    ///
    /// # Errors
    /// [`Fault::InvalidGamma`].
    pub fn new(gamma: f64) -> Result<Self, Fault> {
        if gamma > 0.0 && gamma <= 1.0 { Ok(Self(gamma)) } else { Err(Fault::InvalidGamma { gamma }) }
    }

    /// The part.
    #[must_use]
    pub fn gamma(self) -> f64 {
        self.0
    }

    /// The greatest rank for a layer of that many outputs; 0 when the layer has to be left alone.
    #[must_use]
    pub fn cap(self, outputs: usize) -> usize {
        // 1/40 of 320 is 8 and not 7.999…: the product is rounded up by less than any real boundary could be off.
        let part = (self.0 * outputs as f64 * (1.0 + 1e-12)).floor() as usize;
        part.min(outputs.saturating_sub(1))
    }

    /// The rank that a layer gets when `rank` is asked for.
    #[must_use]
    pub fn clamp(self, rank: usize, outputs: usize) -> usize {
        rank.min(self.cap(outputs))
    }

    /// # Errors
    /// [`Fault::RankBoundary`] when a layer would lose more than it may.
    pub fn check(self, layer: &str, rank: usize, outputs: usize) -> Result<(), Fault> {
        let cap = self.cap(outputs);
        if rank <= cap {
            return Ok(());
        }
        Err(Fault::RankBoundary { layer: layer.to_owned(), rank, cap, gamma: self.0, outputs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_with_stars() {
        for (pattern, text, expected) in [
            ("*attn1.to_q", "a.attn1.to_q", true),
            ("*attn1.to_q", "a.attn1.to_q.b", false),
            ("mid_block.*", "mid_block.resnets.0.conv1", true),
            ("*.resnets.*.conv1", "mid_block.resnets.0.conv1", true),
            ("*a*a", "a", false),
            ("*", "", true),
            ("conv_in.", "conv_in", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn words_that_are_no_subset_are_refused() {
        assert_eq!(Subset::parse(" exca ").unwrap(), Subset::Named("exca"));
        assert_eq!(Subset::parse("*to_q, mid_block.*").unwrap().text(), "*to_q, mid_block.*");
        let message = Subset::parse("excc").unwrap_err().to_string();
        assert!(message.contains("`excc` is no name of a subset") && message.contains("exca, exsa"), "{message}");
        assert!(Subset::parse("").is_err() && Subset::parse("*a,").is_err());
    }

    #[test]
    fn the_boundary_is_the_paper_s() {
        let caps = [320, 640, 1280, 2560, 5120, 10240, 4].map(|outputs| Boundary::PAPER.cap(outputs));
        assert_eq!(caps, [8, 16, 32, 64, 128, 256, 0]);
        assert_eq!(Boundary::NONE.cap(64), 63);
        assert_eq!(Boundary::new(0.125).unwrap().clamp(16, 64), 8);
        for gamma in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(Boundary::new(gamma), Err(Fault::InvalidGamma { .. })), "{gamma}");
        }
        let message = Boundary::PAPER.check("conv_out", 1, 4).unwrap_err().to_string();
        assert!(
            message.starts_with("layer `conv_out`: 1 directions would be removed, gamma 0.025 allows 0 of 4"),
            "{message}"
        );
    }
}
