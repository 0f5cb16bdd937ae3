//! "Did you mean": the names close to a wrong one.

use strsim::{jaro_winkler, normalized_damerau_levenshtein};

/// How alike two names must be, from 0 to 1, before one is offered for the other.
const ALIKE: f64 = 0.6;

/// The candidate most like `name`, if any is alike. Case and what joins words count for nothing; of equals, the first.
///
/// ```
/// let samplers = ["euler", "heun", "dpmpp_2m"];
/// assert_eq!(paraflow_engine::nearest("dpm++_2m", samplers), Some("dpmpp_2m"));
/// assert_eq!(paraflow_engine::nearest("Euler", samplers), Some("euler"));
/// assert_eq!(paraflow_engine::nearest("zebra", samplers), None);
/// ```
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    nearest_few(name, candidates, 1).pop()
}

/// Up to `most` candidates that are alike, the most alike first.
pub fn nearest_few<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>, most: usize) -> Vec<&'c str> {
    let wanted = plain(name);
    let mut alike: Vec<(f64, &str)> = candidates
        .into_iter()
        .map(|candidate| (likeness(&wanted, &plain(candidate)), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0));
    alike.into_iter().take(most).map(|(_, candidate)| candidate).collect()
}

/// The letters of a name: `DPM++ 2M` and `dpmpp_2m` are one.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(|letter| !matches!(letter, ' ' | '_' | '-' | '.'));
    letters.map(|letter| if letter == '+' { 'p' } else { letter }).flat_map(char::to_lowercase).collect()
}

/// Slips of the finger, with a lift for names that begin alike, as an abbreviation does.
fn likeness(wanted: &str, candidate: &str) -> f64 {
    let slips = normalized_damerau_levenshtein(wanted, candidate);
    let begins_alike = !wanted.is_empty() && (candidate.starts_with(wanted) || wanted.starts_with(candidate));
    if begins_alike { slips.max(ALIKE) + 0.1 } else { (slips + jaro_winkler(wanted, candidate)) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_abbreviations_and_case_are_forgiven() {
        let classes = ["CheckpointLoaderSimple", "KSampler", "KSamplerAdvanced", "VAEDecode", "VAEEncode"];
        assert_eq!(nearest("Ksampler", classes), Some("KSampler"));
        assert_eq!(nearest("VAEDecoder", classes), Some("VAEDecode"));
        assert_eq!(nearest("CheckpointLoader", classes), Some("CheckpointLoaderSimple"));
        assert_eq!(nearest_few("KSampler2", classes, 2), ["KSampler", "KSamplerAdvanced"]);
        assert_eq!(nearest("DPM++ 2M", ["euler", "dpmpp_2m", "dpmpp_2m_sde"]), Some("dpmpp_2m"));
        assert_eq!(nearest("Frobnicate", classes), None);
        assert_eq!(nearest("", classes), None);
    }
}
