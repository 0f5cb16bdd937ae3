//! Which layers of a UNet are trained, by the name of a subset or by patterns.

use crate::error::Error;
use paraflow_diffusion::adapters::{Fault, Names, Part, Subset};
use paraflow_diffusion::unet::UNet;

/// Names of the layers that a subset's name, or patterns divided by commas, choose.
///
/// # Errors
/// A text that is neither, and one that chooses nothing.
pub(crate) fn chosen(text: &str, unet: &UNet) -> Result<Vec<String>, Error> {
    let fault = |fault: Fault| Error::from(paraflow_diffusion::Error::from(fault));
    let subset = Subset::parse(text).map_err(fault)?;
    let names = Names::of(unet, None);
    let belongs = names.layers().iter().filter(|layer| layer.part == Part::Unet && subset.contains(layer));
    let chosen: Vec<String> = belongs.map(|layer| layer.name.clone()).collect();
    if chosen.is_empty() {
        return Err(fault(Fault::NothingToAdapt { why: format!("the model has none of `{}`", subset.text()) }));
    }
    Ok(chosen)
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
        for wrong in ["", "exac"] {
            let error = chosen(wrong, &unet).unwrap_err();
            assert!(error.to_string().contains("is not understood"), "{error}");
            assert!(error.hint().unwrap().starts_with("there are exca, exsa"), "{:?}", error.hint());
        }
        let none = chosen("*attn3*", &unet).unwrap_err().to_string();
        assert_eq!(none, "no layer is left to adapt: the model has none of `*attn3*`");
    }
}
