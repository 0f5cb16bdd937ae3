//! Whole models by their measures alone: which layers they have, what they are called, and which subsets choose them.

use super::*;
use crate::unet::{Config, Down, Up};

/// Layers of a UNet as [`crate::nn::layers`] lists them, from its measures.
pub(super) fn layers_of(config: &Config) -> Vec<(String, Vec<usize>)> {
    let mut listing = Listing { layers: Vec::new(), time: 4 * config.channels, config };
    for place in ["time_embed", "label_emb.0"] {
        let input = if place == "time_embed" { Some(config.channels) } else { config.label };
        if let Some(input) = input {
            listing.add(format!("{place}.0"), &[listing.time, input]);
            listing.add(format!("{place}.2"), &[listing.time, listing.time]);
        }
    }
    listing.add("input_blocks.0.0".to_owned(), &[config.channels, config.input, 3, 3]);
    let mut widths = vec![config.channels];
    for (index, block) in config.down.iter().enumerate() {
        let input = widths[index];
        let width = match *block {
            Down::Residual { width, depth } => {
                listing.block(&format!("input_blocks.{}", index + 1), input, width, depth);
                width
            }
            Down::Halve => {
                listing.add(format!("input_blocks.{}.0.op", index + 1), &[input, input, 3, 3]);
                input
            }
        };
        widths.push(width);
    }
    let mut width = *widths.last().unwrap();
    listing.block("middle_block", width, width, config.middle);
    listing.residual(&format!("middle_block.{}", if config.middle > 0 { 2 } else { 1 }), width, width);
    for (index, block) in config.up.iter().enumerate() {
        let name = format!("output_blocks.{index}");
        listing.block(&name, width + widths.pop().unwrap(), block.width, block.depth);
        width = block.width;
        if block.double {
            let unit = if block.depth > 0 { 2 } else { 1 };
            listing.add(format!("{name}.{unit}.conv"), &[width, width, 3, 3]);
        }
    }
    listing.add("out.2".to_owned(), &[config.output, width, 3, 3]);
    listing.layers
}

struct Listing<'a> {
    layers: Vec<(String, Vec<usize>)>,
    time: usize,
    config: &'a Config,
}

impl Listing<'_> {
    fn add(&mut self, name: String, shape: &[usize]) {
        self.layers.push((name, shape.to_vec()));
    }

    fn block(&mut self, name: &str, input: usize, width: usize, depth: usize) {
        self.residual(&format!("{name}.0"), input, width);
        if depth == 0 {
            return;
        }
        self.add(format!("{name}.1.proj_in"), &[width, width]);
        for index in 0..depth {
            let block = format!("{name}.1.transformer_blocks.{index}");
            for (attention, context) in [("attn1", width), ("attn2", self.config.context.unwrap_or(width))] {
                self.add(format!("{block}.{attention}.to_q"), &[width, width]);
                self.add(format!("{block}.{attention}.to_k"), &[width, context]);
                self.add(format!("{block}.{attention}.to_v"), &[width, context]);
                self.add(format!("{block}.{attention}.to_out.0"), &[width, width]);
            }
            self.add(format!("{block}.ff.net.0.proj"), &[8 * width, width]);
            self.add(format!("{block}.ff.net.2"), &[width, 4 * width]);
        }
        self.add(format!("{name}.1.proj_out"), &[width, width]);
    }

    fn residual(&mut self, name: &str, input: usize, output: usize) {
        self.add(format!("{name}.in_layers.2"), &[output, input, 3, 3]);
        self.add(format!("{name}.emb_layers.1"), &[output, self.time]);
        self.add(format!("{name}.out_layers.3"), &[output, output, 3, 3]);
        if input != output {
            // Held as the matrix that it is, though files have a convolution of one pixel.
            self.add(format!("{name}.skip_connection"), &[output, input]);
        }
    }
}

/// A UNet of these widths and depths with that many residual blocks a level on the way down.
pub(super) fn config(widths: &[usize], depths: &[usize], middle: usize, blocks: usize) -> Config {
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for (level, (&width, &depth)) in widths.iter().zip(depths).enumerate() {
        down.extend(vec![Down::Residual { width, depth }; blocks]);
        if level + 1 < widths.len() {
            down.push(Down::Halve);
        }
    }
    for (level, (&width, &depth)) in widths.iter().zip(depths).enumerate().rev() {
        up.extend((0..=blocks).map(|block| Up { width, depth, double: block == blocks && level > 0 }));
    }
    Config {
        channels: widths[0],
        input: 4,
        output: 4,
        context: Some(768),
        label: None,
        classes: None,
        temporal: false,
        linear_projection: false,
        down,
        middle,
        up,
    }
}

pub(super) fn sd1() -> Config {
    config(&[320, 640, 1280, 1280], &[1, 1, 1, 0], 1, 2)
}

pub(super) fn sdxl() -> Config {
    Config {
        context: Some(2048),
        label: Some(2816),
        linear_projection: true,
        ..config(&[320, 640, 1280], &[0, 2, 10], 10, 2)
    }
}

pub(super) fn names(config: &Config) -> Names {
    let text = vec![
        ("encoder.layers.0.mlp.fc1".to_owned(), vec![256, 64]),
        ("encoder.layers.0.self_attn.q_proj".to_owned(), vec![64, 64]),
    ];
    let mut encoders = vec![(Part::TextL, text.clone())];
    if config.label.is_some() {
        let projection = ("text_projection".to_owned(), vec![64, 64]);
        encoders.push((Part::TextG, [text, vec![projection]].concat()));
    }
    Names::new(config, layers_of(config), encoders)
}

/// SD 2's UNet is SD 1's but for a linear projection and a wider context.
fn sd2() -> Names {
    let config = Config { context: Some(1024), linear_projection: true, ..sd1() };
    let text = ["encoder.layers.0.mlp.fc1", "text_projection"].map(|name| (name.to_owned(), vec![64, 64]));
    Names::new(&config, layers_of(&config), vec![(Part::TextH, text.to_vec())])
}

fn chosen<'a>(names: &'a Names, subset: &str) -> Vec<&'a Layer> {
    let subset = Subset::parse(subset).unwrap();
    names.layers().iter().filter(|layer| subset.contains(layer)).collect()
}

/// The table of the paper's subsets: how many layers each has.
#[test]
fn subsets_have_as_many_layers_as_the_authors() {
    let (sd1, sdxl) = (names(&sd1()), names(&sdxl()));
    assert_eq!((chosen(&sd1, "all").len(), chosen(&sdxl, "all").len()), (282, 794));
    for (subset, of_sdxl, of_sd1) in [
        ("exca", 346, 150),
        ("exsa", 346, 150),
        ("sao", 280, 64),
        ("cao", 280, 64),
        ("cao_qkv", 210, 48),
        ("full", 626, 214),
        ("mid", 46, 10),
        ("mid_last", 1, 1),
        ("wide", 509, 215),
        ("*attn1.to_q", 70, 16),
        ("middle_block.*, mid_block.*", 108, 18),
    ] {
        assert_eq!((chosen(&sdxl, subset).len(), chosen(&sd1, subset).len()), (of_sdxl, of_sd1), "{subset}");
    }
    let text = |layer: &&Layer| layer.part != Part::Unet;
    assert_eq!(chosen(&sdxl, "all").into_iter().filter(text).count(), 0);
}

/// Numbers of parameters at the paper's boundary.
#[test]
fn the_boundary_leaves_as_many_parameters_as_it_should() {
    let parameters = |names: &Names, rank: usize, subset: &str| -> usize {
        let of = |layer: &&Layer| layer.shape[0] * Boundary::PAPER.clamp(rank, layer.shape[0]);
        chosen(names, subset).iter().map(of).sum()
    };
    let (sd1, sdxl) = (names(&sd1()), names(&sdxl()));
    let millions = |count: usize| (count as f64 / 1e4).round() / 100.0;
    let of_sdxl = [4, 8, 16, 64].map(|rank| millions(parameters(&sdxl, rank, "exca")));
    assert_eq!(of_sdxl, [1.54, 3.08, 6.12, 11.57]);
    assert_eq!([4, 8, 16].map(|rank| millions(parameters(&sd1, rank, "exca"))), [0.51, 1.03, 1.95]);
    let lora = |rank: usize| -> usize {
        let of = |layer: &&Layer| rank * (layer.shape[0] + layer.shape[1..].iter().product::<usize>());
        chosen(&sdxl, "exca").iter().map(of).sum()
    };
    assert_eq!([4, 16].map(|rank| millions(lora(rank))), [4.32, 17.28]);
}

#[test]
fn a_layer_is_found_under_every_name() {
    for (config, spelling, layer) in [
        (
            sd1(),
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
            "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
        ),
        (
            sd1(),
            "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn2.processor.to_out",
            "output_blocks.5.1.transformer_blocks.0.attn2.to_out.0",
        ),
        (sd1(), "unet.up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
        (sd1(), "up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        (sd1(), "base_model.model.mid_block.resnets.1.conv2", "middle_block.2.out_layers.3"),
        (
            sdxl(),
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
            "input_blocks.4.1.transformer_blocks.0.attn1.to_q",
        ),
        (
            sdxl(),
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_ff_net_0_proj",
            "input_blocks.4.1.transformer_blocks.1.ff.net.0.proj",
        ),
        (sdxl(), "diffusion_model.output_blocks.2.2.conv", "output_blocks.2.2.conv"),
        (sdxl(), "lycoris_up_blocks_2_resnets_0_conv_shortcut", "output_blocks.6.0.skip_connection"),
        (sdxl(), "unet.add_embedding.linear_1", "label_emb.0.0"),
        (sdxl(), "lora_te2_text_model_encoder_layers_0_mlp_fc1", "encoder.layers.0.mlp.fc1"),
        (sd1(), "text_encoder.text_model.encoder.layers.0.self_attn.q_proj", "encoder.layers.0.self_attn.q_proj"),
        (sd1(), "lora_te1_text_model_encoder_layers_0_mlp_fc1", "encoder.layers.0.mlp.fc1"),
        (sd1(), "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1", "encoder.layers.0.mlp.fc1"),
    ] {
        let names = names(&config);
        let (_, found) = names.find(spelling).unwrap_or_else(|| panic!("{spelling}: {:?}", names.unmatched(spelling)));
        assert_eq!(found.name, layer, "{spelling}");
    }
    let (sd1, sdxl) = (names(&sd1()), names(&sdxl()));
    assert_eq!(sdxl.find("lora_te2_text_model_encoder_layers_0_mlp_fc1").unwrap().1.part, Part::TextG);
    assert_eq!(sdxl.find("lora_te1_text_model_encoder_layers_0_mlp_fc1").unwrap().1.part, Part::TextL);
    assert!(sd1.find("lora_te2_text_model_encoder_layers_0_mlp_fc1").is_none());
    for (spelling, part) in [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", Part::TextH),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", Part::TextH),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1", Part::TextH),
        ("text_encoders.clip_h.transformer.text_model.encoder.layers.0.mlp.fc1", Part::TextH),
    ] {
        assert_eq!(sd2().find(spelling).unwrap_or_else(|| panic!("{spelling}")).1.part, part);
    }
    assert!(sd2().find("text_encoders.clip_l.encoder.layers.0.mlp.fc1").is_none(), "SD 2 has no such encoder");
    for spelling in ["lora_te2_text_projection", "lora_prior_te_text_projection", "text_encoder_2.text_projection"] {
        let (_, layer) = sdxl.find(spelling).unwrap_or_else(|| panic!("{spelling}"));
        assert_eq!((layer.part, layer.name.as_str()), (Part::TextG, "text_projection"), "{spelling}");
    }
    assert_eq!(sdxl.find("lora_prior_te_text_model_encoder_layers_0_mlp_fc1").unwrap().1.part, Part::TextG);
    for names in [&sd1, &sd2(), &sdxl] {
        for layer in names.layers() {
            assert_eq!(names.find(&names.kohya(layer)).map(|(_, found)| found), Some(layer), "written and read back");
        }
    }
}

#[test]
fn modules_that_fit_nothing_come_with_the_nearest_names() {
    let names = names(&sd1());
    let (q, twin) = (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    );
    let wrong = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_w";
    let (paired, unmatched) = names.pair([wrong, q].into_iter()).unwrap();
    assert_eq!(paired.len(), 1);
    assert_eq!((unmatched.len(), unmatched[0].nearest[0].as_str()), (1, q.replace("to_q", "to_k").as_str()));
    assert!(matches!(names.pair([q, twin].into_iter()), Err(Fault::DuplicateModule { .. })));
    let fault = Fault::UnmatchedKeys { table: unmatched, of: 2 };
    assert_eq!(
        fault.to_string(),
        format!(
            "1 of 2 parts of the adapter fit no layer of the model:\n  `{wrong}`: the model has no such layer; the nearest is \
             `{}`\nhint: set `unmatched` to `ignore` to use the rest without them",
            q.replace("to_q", "to_k")
        )
    );
}
