//! What a file says of the training that it came from.

use super::common::Common;
use crate::error::Error;
use paraflow_diffusion::adapters::fingerprint;
use paraflow_diffusion::nn::Precision;
use paraflow_diffusion::train::{Init, Method, ParaMode, Trained};
use paraflow_engine::Services;
use serde_json::json;
use std::collections::BTreeMap;

/// Strings by their keys.
pub(crate) type Header = BTreeMap<String, String>;

/// The strings of the header: `para.*` for a PaRa of any mode, `paraflow.*` for others, and those that other programs show.
///
/// There is no date among them, so that equal trainings give equal files.
pub(crate) fn header(common: &Common<'_>, trained: &Trained, services: &Services) -> Result<Header, Error> {
    let (model, settings, subject) = (common.model, &common.settings, common.subject);
    let mut header = BTreeMap::new();
    let own = if matches!(trained.method, Method::Para { .. }) { "para" } else { "paraflow" };
    let mut say = |key: &str, value: String| header.insert(format!("{own}.{key}"), value);
    let base = model.origin.sha256(services)?;
    say("arch", model.layout.id.to_owned());
    say("subset", common.layers.trim().to_owned());
    say("seed", settings.seed.to_string());
    say("trigger", subject.unique.clone());
    say("class", subject.class.clone());
    say("base_name", model.origin.name.to_string());
    say("base_sha256", base.clone());
    say("base_print", fingerprint(&model.unet)?.to_string());
    say("train", train(common, trained).to_string());
    let mut rank = 0;
    match trained.method {
        Method::Para { mode, rank: asked, gamma, init, .. } => {
            say("mode", mode_name(mode).to_owned());
            say("gamma", gamma.to_string());
            say("init", init_name(init).to_owned());
            rank = asked;
        }
        Method::Lora { rank: asked, .. } => rank = asked,
        Method::SvDiff { .. } | Method::Weights { .. } => {}
    }
    if rank > 0 {
        say("rank", rank.to_string());
        header.insert("ss_network_dim".to_owned(), rank.to_string());
    }
    let family = family(model.layout.id);
    let title = [subject.unique.trim(), subject.class.trim()].join(" ");
    let kind = match trained.method {
        Method::Para { .. } => "para",
        Method::SvDiff { .. } => "svdiff",
        Method::Lora { .. } | Method::Weights { .. } => "lora",
    };
    for (key, value) in [
        ("ss_base_model_version", family.kohya.to_owned()),
        ("ss_sd_model_name", model.origin.name.to_string()),
        ("ss_new_sd_model_hash", base),
        ("modelspec.sai_model_spec", "1.0.1".to_owned()),
        ("modelspec.architecture", format!("{}/{kind}", family.modelspec)),
        ("modelspec.title", title.trim().to_owned()),
    ] {
        header.insert(key.to_owned(), value);
    }
    Ok(header)
}

/// All about the training, as JSON.
fn train(common: &Common<'_>, trained: &Trained) -> serde_json::Value {
    let subject = common.subject;
    let mut settings = serde_json::to_value(&common.settings).expect("settings are numbers and names");
    // Which layers there are, the file's tensors say.
    settings.as_object_mut().map(|settings| settings.remove("layers"));
    let pictures = subject.pictures.iter();
    let pictures = pictures.map(|picture| json!({"blake3": picture.hash, "caption": picture.caption}));
    let losses = |of: Option<&(f32, Option<f32>)>| of.map(|(loss, validation)| json!([loss, validation]));
    let precision = match common.precision {
        None => "as the program draws",
        Some(Precision::Single) => "f32",
        Some(Precision::Bf16) => "bf16",
    };
    json!({
        "settings": settings,
        "precision": precision,
        "pictures": pictures.collect::<Vec<_>>(),
        "class_pictures": common.class_images.map_or(0, |images| images.dims().0),
        "first_loss": losses(trained.losses.first()),
        "last_loss": losses(trained.losses.last()),
        "program": concat!("paraflow ", env!("CARGO_PKG_VERSION")),
    })
}

/// What others call a family of models.
struct Family {
    kohya: &'static str,
    modelspec: &'static str,
}

fn family(layout: &str) -> Family {
    let (kohya, modelspec) = match layout {
        "sdxl" => ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
        "sdxl-refiner" => ("sdxl_refiner_v1-0", "stable-diffusion-xl-v1-refiner"),
        "sd2" => ("sd_v2", "stable-diffusion-v2"),
        _ => ("sd_v1", "stable-diffusion-v1"),
    };
    Family { kohya, modelspec }
}

fn mode_name(mode: ParaMode) -> &'static str {
    match mode {
        ParaMode::Projection => "projection",
        ParaMode::Release => "release",
        ParaMode::Deft => "deft",
    }
}

fn init_name(init: Init) -> &'static str {
    match init {
        Init::Random => "random",
        Init::MinEnergy => "min_energy",
        Init::Unit => "unit",
    }
}
