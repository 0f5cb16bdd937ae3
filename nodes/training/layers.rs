//! Which layers of a UNet are trained, by the name of a subset or by patterns.

use crate::error::Error;
use paraflow_diffusion::nn::layers;
use paraflow_diffusion::unet::UNet;

/// Names of the subsets.
const NAMED: [&str; 10] = ["exca", "exsa", "sao", "cao", "cao_qkv", "full", "mid", "mid_last", "wide", "all"];

/// Names of the layers that a subset's name, or patterns divided by commas, choose.
///
/// # Errors
/// A text that is neither, and one that chooses nothing.
pub(crate) fn chosen(text: &str, unet: &UNet) -> Result<Vec<String>, Error> {
    let text = text.trim();
    let patterns: Vec<&str> = text.split(',').map(str::trim).collect();
    let named = NAMED.contains(&text);
    let unfit = |found: String| {
        let expected = format!("one of {}, or patterns such as `*attn1.to_q`", NAMED.join(", "));
        Err(Error::Unfit { what: "`layers`", expected, found })
    };
    if !named && !patterns.iter().all(|pattern| pattern.contains(['*', '.'])) {
        return unfit(format!("`{text}`"));
    }
    let names: Vec<String> = layers(unet).into_iter().map(|(name, _)| name).collect();
    let last = names.iter().rfind(|name| name.starts_with("middle_block.") && name.ends_with(".out_layers.3")).cloned();
    let belongs = |name: &String| match named {
        true if text == "mid_last" => Some(name) == last.as_ref(),
        true => is_in(text, name),
        false => patterns.iter().any(|pattern| matches(pattern, name)),
    };
    let chosen: Vec<String> = names.iter().filter(|name| belongs(name)).cloned().collect();
    if chosen.is_empty() { unfit(format!("`{text}`, which no layer of this model matches")) } else { Ok(chosen) }
}

/// Whether a layer is in a named subset. All but `wide` and `all` choose from attention, residual blocks, and what changes the
/// size between levels, as the paper's program does.
fn is_in(subset: &str, name: &str) -> bool {
    let (own, cross) = (name.contains(".attn1."), name.contains(".attn2."));
    let residual = ["in_layers.2", "out_layers.3", "emb_layers.1", "skip_connection"];
    let resized = name.ends_with(".op") || name.ends_with(".conv");
    let listed = own || cross || resized || residual.iter().any(|end| name.ends_with(end));
    match subset {
        "exca" => listed && !cross,
        "exsa" => listed && !own,
        "sao" => own,
        "cao" => cross,
        "cao_qkv" => cross && !name.ends_with(".to_out.0"),
        "full" => listed,
        "mid" => listed && !cross && name.starts_with("middle_block."),
        "wide" => !cross && !name.starts_with("time_embed.") && !name.starts_with("label_emb.") && name != "out.2",
        _ => true,
    }
}

/// Whether a text matches a pattern in which `*` stands for any characters, none included.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            // The rest may begin anywhere behind.
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paraflow_diffusion::checkpoint::Checkpoint;

    #[test]
    fn subsets_choose_by_kind_of_layer() {
        let unet = Checkpoint::from_bytes("tiny", crate::tiny::checkpoint().to_vec()).unwrap().unet().unwrap();
        let count = |text: &str| chosen(text, &unet).unwrap().len();
        let (full, cross, own) = (count("full"), count("cao"), count("sao"));
        assert_eq!((cross, own), (28, 28), "four linears in each of seven transformers");
        assert_eq!(count("exca"), full - cross);
        assert_eq!(count("exsa"), full - own);
        assert_eq!(count("cao_qkv"), 21);
        assert_eq!(chosen("mid_last", &unet).unwrap(), ["middle_block.2.out_layers.3"]);
        assert!(count("all") > count("wide") && count("wide") > count("exca"));
        assert!(chosen("wide", &unet).unwrap().contains(&"input_blocks.0.0".to_owned()));
        assert!(chosen("mid", &unet).unwrap().iter().all(|name| name.starts_with("middle_block.")));
        assert_eq!(count("*attn1.to_q, middle_block.0.*"), 7 + 3);
        for wrong in ["", "exac", "*attn3*"] {
            let error = chosen(wrong, &unet).unwrap_err().to_string();
            assert!(error.starts_with("`layers` expects one of exca, exsa"), "{error}");
        }
    }
}
