//! A checkpoint for tests: Stable Diffusion 1.x with the narrowest of everything and drawn numbers.

use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Keys and shapes of a checkpoint.
pub(crate) type Tensors = BTreeMap<String, Vec<usize>>;

/// A whole checkpoint, as a file.
pub(crate) fn checkpoint() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| file(&tensors(), |_, values| values))
}

/// A file of drawn numbers, which `change` may alter, tensor by tensor.
pub(crate) fn file(tensors: &Tensors, change: impl Fn(&str, Vec<f32>) -> Vec<f32>) -> Vec<u8> {
    let bytes = |(key, shape): (&String, &Vec<usize>)| {
        let values = change(key, draw(key, shape));
        (key.clone(), shape.clone(), values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
    };
    let tensors: Vec<_> = tensors.iter().map(bytes).collect();
    let views =
        tensors.iter().map(|(key, shape, bytes)| (key, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// Numbers that keep the variance of what passes them: scales near 1, biases near 0.
fn draw(key: &str, shape: &[usize]) -> Vec<f32> {
    let fan_in: usize = shape.iter().skip(1).product();
    let seed = u64::from_le_bytes(blake3::hash(key.as_bytes()).as_bytes()[..8].try_into().unwrap()) | 1;
    let mut state = seed;
    let mut uniform = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    let shaped = |u: f32| match shape {
        _ if key.ends_with("bias") => 0.1 * u,
        [_] => 1.0 + 0.1 * u,
        _ => u * (3.0 / fan_in as f32).sqrt(),
    };
    (0..shape.iter().product::<usize>()).map(|_| shaped(uniform())).collect()
}

/// A file of numbers drawn by their names as `tests/golden/networks.py` draws them.
pub(crate) fn drawn_by_name(tensors: &Tensors) -> Vec<u8> {
    drawn_as(tensors, 1.0, &BTreeMap::new())
}

/// The same times a factor, under other names where there are any.
pub(crate) fn drawn_as(tensors: &Tensors, factor: f32, names: &BTreeMap<String, String>) -> Vec<u8> {
    let bytes = |(key, shape): (&String, &Vec<usize>)| {
        let fan_in: usize = shape.iter().skip(1).product();
        let shaped = |u: f64| match shape.as_slice() {
            _ if key.ends_with("bias") => 0.1 * u,
            [_] => 1.0 + 0.1 * u,
            _ => u * (3.0 / fan_in as f64).sqrt(),
        };
        let drawn = uniform(key, shape.iter().product());
        let bytes: Vec<u8> = drawn.into_iter().flat_map(|u| (factor * shaped(u) as f32).to_le_bytes()).collect();
        (names.get(key).unwrap_or(key).clone(), shape.clone(), bytes)
    };
    let tensors: Vec<_> = tensors.iter().map(bytes).collect();
    let views =
        tensors.iter().map(|(key, shape, bytes)| (key, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// The same file with words beside its tensors.
pub(crate) fn told(file: &[u8], words: &[(&str, &str)]) -> Vec<u8> {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    let words = words.iter().map(|(key, word)| ((*key).to_owned(), (*word).to_owned())).collect();
    safetensors::serialize(tensors.tensors(), Some(words)).unwrap()
}

/// Numbers in [-1, 1): a splitmix64 stream seeded by the FNV-1a hash of a key.
pub(crate) fn uniform(key: &str, count: usize) -> Vec<f64> {
    let seed = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let draw = |index: u64| {
        let z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        2.0 * ((z ^ (z >> 31)) >> 11) as f64 * 2_f64.powi(-53) - 1.0
    };
    (1..=count as u64).map(draw).collect()
}

/// Keys and shapes of the whole checkpoint.
pub(crate) fn tensors() -> Tensors {
    let mut add = Adder(Tensors::new());
    add.unet();
    add.text();
    add.vae();
    add.0
}

/// Width of the text encoder.
const TEXT: usize = 64;
/// Widths of the UNet's two levels.
const LEVELS: [usize; 2] = [32, 64];
/// Width of the timestep's embedding.
const TIME: usize = 4 * LEVELS[0];
/// Widths of the autoencoder's four levels, the pictures' first.
const VAE: [usize; 4] = [32, 64, 64, 64];

struct Adder(Tensors);

impl Adder {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.insert(name.to_owned(), shape.to_vec());
    }

    fn pair(&mut self, name: &str, shape: &[usize]) {
        self.add(&format!("{name}.weight"), shape);
        self.add(&format!("{name}.bias"), &shape[..1]);
    }

    fn unet(&mut self) {
        let unet = "model.diffusion_model";
        let [small, large] = LEVELS;
        self.pair(&format!("{unet}.time_embed.0"), &[TIME, small]);
        self.pair(&format!("{unet}.time_embed.2"), &[TIME, TIME]);
        self.pair(&format!("{unet}.input_blocks.0.0"), &[small, 4, 3, 3]);
        self.block(&format!("{unet}.input_blocks.1"), small, small);
        self.pair(&format!("{unet}.input_blocks.2.0.op"), &[small, small, 3, 3]);
        self.block(&format!("{unet}.input_blocks.3"), small, large);
        self.residual(&format!("{unet}.middle_block.0"), large, large);
        self.transformer(&format!("{unet}.middle_block.1"), large);
        self.residual(&format!("{unet}.middle_block.2"), large, large);
        self.block(&format!("{unet}.output_blocks.0"), large + large, large);
        self.block(&format!("{unet}.output_blocks.1"), large + small, large);
        self.pair(&format!("{unet}.output_blocks.1.2.conv"), &[large, large, 3, 3]);
        self.block(&format!("{unet}.output_blocks.2"), large + small, small);
        self.block(&format!("{unet}.output_blocks.3"), small + small, small);
        self.pair(&format!("{unet}.out.0"), &[small]);
        self.pair(&format!("{unet}.out.2"), &[4, small, 3, 3]);
    }

    fn block(&mut self, name: &str, from: usize, to: usize) {
        self.residual(&format!("{name}.0"), from, to);
        self.transformer(&format!("{name}.1"), to);
    }

    fn residual(&mut self, name: &str, from: usize, to: usize) {
        self.pair(&format!("{name}.in_layers.0"), &[from]);
        self.pair(&format!("{name}.in_layers.2"), &[to, from, 3, 3]);
        self.pair(&format!("{name}.emb_layers.1"), &[to, TIME]);
        self.pair(&format!("{name}.out_layers.0"), &[to]);
        self.pair(&format!("{name}.out_layers.3"), &[to, to, 3, 3]);
        if from != to {
            self.pair(&format!("{name}.skip_connection"), &[to, from, 1, 1]);
        }
    }

    fn transformer(&mut self, name: &str, width: usize) {
        self.pair(&format!("{name}.norm"), &[width]);
        self.pair(&format!("{name}.proj_in"), &[width, width, 1, 1]);
        self.pair(&format!("{name}.proj_out"), &[width, width, 1, 1]);
        let block = format!("{name}.transformer_blocks.0");
        for (attention, context) in [("attn1", width), ("attn2", TEXT)] {
            self.add(&format!("{block}.{attention}.to_q.weight"), &[width, width]);
            self.add(&format!("{block}.{attention}.to_k.weight"), &[width, context]);
            self.add(&format!("{block}.{attention}.to_v.weight"), &[width, context]);
            self.pair(&format!("{block}.{attention}.to_out.0"), &[width, width]);
        }
        for norm in ["norm1", "norm2", "norm3"] {
            self.pair(&format!("{block}.{norm}"), &[width]);
        }
        self.pair(&format!("{block}.ff.net.0.proj"), &[8 * width, width]);
        self.pair(&format!("{block}.ff.net.2"), &[width, 4 * width]);
    }

    fn text(&mut self) {
        let text = "cond_stage_model.transformer.text_model";
        self.add(&format!("{text}.embeddings.token_embedding.weight"), &[49_408, TEXT]);
        self.add(&format!("{text}.embeddings.position_embedding.weight"), &[77, TEXT]);
        let layer = format!("{text}.encoder.layers.0");
        for norm in [format!("{layer}.layer_norm1"), format!("{layer}.layer_norm2"), format!("{text}.final_layer_norm")]
        {
            self.pair(&norm, &[TEXT]);
        }
        for linear in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            self.pair(&format!("{layer}.self_attn.{linear}"), &[TEXT, TEXT]);
        }
        self.pair(&format!("{layer}.mlp.fc1"), &[4 * TEXT, TEXT]);
        self.pair(&format!("{layer}.mlp.fc2"), &[TEXT, 4 * TEXT]);
    }

    fn vae(&mut self) {
        let vae = "first_stage_model";
        self.pair(&format!("{vae}.quant_conv"), &[8, 8, 1, 1]);
        self.pair(&format!("{vae}.post_quant_conv"), &[4, 4, 1, 1]);
        let (first, last) = (VAE[0], VAE[3]);
        self.pair(&format!("{vae}.encoder.conv_in"), &[first, 3, 3, 3]);
        self.pair(&format!("{vae}.decoder.conv_in"), &[last, 4, 3, 3]);
        self.pair(&format!("{vae}.encoder.norm_out"), &[last]);
        self.pair(&format!("{vae}.decoder.norm_out"), &[first]);
        self.pair(&format!("{vae}.encoder.conv_out"), &[8, last, 3, 3]);
        self.pair(&format!("{vae}.decoder.conv_out"), &[3, first, 3, 3]);
        for half in ["encoder", "decoder"] {
            for block in ["block_1", "block_2"] {
                self.vae_block(&format!("{vae}.{half}.mid.{block}"), last, last);
            }
            self.pair(&format!("{vae}.{half}.mid.attn_1.norm"), &[last]);
            for linear in ["q", "k", "v", "proj_out"] {
                self.pair(&format!("{vae}.{half}.mid.attn_1.{linear}"), &[last, last, 1, 1]);
            }
        }
        for (level, &width) in VAE.iter().enumerate() {
            let finer = VAE[level.saturating_sub(1)];
            let coarser = VAE[(level + 1).min(3)];
            self.vae_block(&format!("{vae}.encoder.down.{level}.block.0"), finer, width);
            self.vae_block(&format!("{vae}.decoder.up.{level}.block.0"), coarser, width);
            self.vae_block(&format!("{vae}.decoder.up.{level}.block.1"), width, width);
            if level < 3 {
                self.pair(&format!("{vae}.encoder.down.{level}.downsample.conv"), &[width, width, 3, 3]);
            }
            if level > 0 {
                self.pair(&format!("{vae}.decoder.up.{level}.upsample.conv"), &[width, width, 3, 3]);
            }
        }
    }

    fn vae_block(&mut self, name: &str, from: usize, to: usize) {
        self.pair(&format!("{name}.norm1"), &[from]);
        self.pair(&format!("{name}.norm2"), &[to]);
        self.pair(&format!("{name}.conv1"), &[to, from, 3, 3]);
        self.pair(&format!("{name}.conv2"), &[to, to, 3, 3]);
        if from != to {
            self.pair(&format!("{name}.nin_shortcut"), &[to, from, 1, 1]);
        }
    }
}
