//! Writing checkpoints: tensors from files under other names, into one file or a folder of diffusers. No number changes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::View;

use super::save_parts::write_outputs;
use super::{Checkpoint, pipeline, to_diffusers};
use crate::adapters::ConvertedTensor;
use crate::error::{Error, Result};
use crate::nn::Weights;

/// A tensor to be written.
pub(super) struct Output<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    content: Content<'a>,
}

/// The numbers of a tensor to be written.
enum Content<'a> {
    /// In memory.
    Here(Cow<'a, [u8]>),
    /// Read, or made, when they are written: of merged models only one tensor is in memory at a time.
    There(&'a Weights, String),
}

impl Output<'_> {
    /// The numbers as they are stored.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.content {
            Content::Here(bytes) => Cow::Borrowed(bytes),
            Content::There(weights, name) => weights.bytes(name).expect("`output` found it"),
        }
    }

    /// How many bytes they take.
    pub(super) fn length(&self) -> usize {
        match &self.content {
            Content::Here(bytes) => bytes.len(),
            Content::There(..) => self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8,
        }
    }
}

impl View for &Output<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes()
    }

    fn data_len(&self) -> usize {
        self.length()
    }
}

/// Tensors to be written, by their names.
pub(super) type Outputs<'a> = Vec<(String, Output<'a>)>;

/// Tensors beside the networks: those by which a checkpoint says what its network predicts, and the layer that makes prompts of what
/// a model is told.
pub(super) const MARKERS: [&str; 8] = [
    "v_pred",
    "ztsnr",
    "edm_mean",
    "edm_std",
    "edm_vpred.sigma_max",
    "edm_vpred.sigma_min",
    "cc_projection.weight",
    "cc_projection.bias",
];

/// Writes a checkpoint as one file in the layout of its family's own. Text encoders of OpenCLIP get OpenCLIP's names.
///
/// # Errors
/// [`Error::Unwritable`], and what reading the checkpoint says.
pub fn write_single(checkpoint: &Checkpoint, path: &Path) -> Result<()> {
    let weights = checkpoint.weights();
    let mut outputs = Outputs::new();
    let unet = weights.part(checkpoint.unet_prefix);
    collect(&unet, "model.diffusion_model.", &mut outputs)?;
    let vae = weights.part(checkpoint.layout.vae_prefix);
    collect(&vae, "first_stage_model.", &mut outputs)?;
    let texts: Vec<_> = checkpoint.layout.texts.iter().map(|place| (place, checkpoint.text_weights(place))).collect();
    for (place, text) in &texts {
        let Some(text) = text else { continue };
        match place.open_clip.split_whitespace().next() {
            Some(prefix) => collect_open_clip(text, prefix, &mut outputs)?,
            None => collect(text, place.prefix, &mut outputs)?,
        }
    }
    for marker in MARKERS {
        if weights.contains(marker) {
            outputs.push((marker.to_owned(), output(weights, marker)?));
        }
    }
    write(outputs, weights.metadata(), path)
}

/// Writes a checkpoint as a folder in the layout of diffusers: the parts' weights and what diffusers reads beside them. Tells
/// which files were written.
///
/// # Errors
/// [`Error::Unwritable`], [`Error::Inexpressible`], and what reading the checkpoint says.
pub fn write_folder(checkpoint: &Checkpoint, folder: &Path) -> Result<Vec<PathBuf>> {
    let beside = pipeline::files(checkpoint)?;
    let mut written = Vec::new();
    for part in to_diffusers(checkpoint)? {
        let folder = folder.join(part.folder);
        std::fs::create_dir_all(&folder).map_err(|source| unwritable(&folder, source))?;
        let path = folder.join(part.file);
        let mut outputs = Outputs::new();
        collect(&part.weights, "", &mut outputs)?;
        write(outputs, part.weights.metadata(), &path)?;
        written.push(path);
    }
    for file in beside {
        let path = folder.join(&file.path);
        let within = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(within).map_err(|source| unwritable(within, source))?;
        std::fs::write(&path, file.text).map_err(|source| unwritable(&path, source))?;
        written.push(path);
    }
    Ok(written)
}

pub(super) fn output<'a>(weights: &'a Weights, name: &str) -> Result<Output<'a>> {
    let info = weights.info(name).ok_or_else(|| weights.missing(&weights.key(name)))?;
    let dtype = serde_json::from_value(serde_json::Value::String(info.dtype.clone())).map_err(|_| {
        Error::UnsupportedNumbers { file: weights.file().to_owned(), name: weights.key(name), dtype: info.dtype }
    })?;
    // What cannot be read is told now and not while a file is half written.
    weights.readable(name)?;
    Ok(Output { dtype, shape: info.shape, content: Content::There(weights, name.to_owned()) })
}

pub(super) fn collect<'a>(weights: &'a Weights, prefix: &str, outputs: &mut Outputs<'a>) -> Result<()> {
    for name in weights.names() {
        outputs.push((format!("{prefix}{name}"), output(weights, name)?));
    }
    Ok(())
}

/// An encoder in the names of transformers, written in those of OpenCLIP: queries, keys and values become one matrix.
pub(super) fn collect_open_clip<'a>(weights: &'a Weights, prefix: &str, outputs: &mut Outputs<'a>) -> Result<()> {
    const BLOCK: [(&str, &str); 5] = [
        ("layer_norm1.", "ln_1."),
        ("layer_norm2.", "ln_2."),
        ("mlp.fc1.", "mlp.c_fc."),
        ("mlp.fc2.", "mlp.c_proj."),
        ("self_attn.out_proj.", "attn.out_proj."),
    ];
    for name in weights.names() {
        let renamed = match name {
            "text_model.embeddings.position_embedding.weight" => "positional_embedding".to_owned(),
            "text_model.embeddings.token_embedding.weight" => "token_embedding.weight".to_owned(),
            "text_projection.weight" => {
                outputs.push((format!("{prefix}text_projection"), transposed(output(weights, name)?)));
                continue;
            }
            _ => {
                if let Some(kind) = name.strip_prefix("text_model.final_layer_norm.") {
                    format!("ln_final.{kind}")
                } else {
                    let layer = name.strip_prefix("text_model.encoder.layers.").and_then(|rest| rest.split_once('.'));
                    let Some((block, rest)) = layer else { continue };
                    let place = format!("transformer.resblocks.{block}.");
                    if let Some(kind) = rest.strip_prefix("self_attn.q_proj.") {
                        let joined = joined(weights, &name[..name.len() - "q_proj.".len() - kind.len()], kind)?;
                        outputs.push((format!("{prefix}{place}attn.in_proj_{kind}"), joined));
                        continue;
                    }
                    let renamed = BLOCK.iter().find_map(|(ours, theirs)| Some((theirs, rest.strip_prefix(ours)?)));
                    let Some((theirs, kind)) = renamed else { continue };
                    format!("{place}{theirs}{kind}")
                }
            }
        };
        outputs.push((format!("{prefix}{renamed}"), output(weights, name)?));
    }
    Ok(())
}

/// Queries, keys and values one below the other.
fn joined<'a>(weights: &'a Weights, place: &str, kind: &str) -> Result<Output<'a>> {
    let thirds = ["q_proj", "k_proj", "v_proj"].map(|third| output(weights, &format!("{place}{third}.{kind}")));
    let mut whole: Option<Output<'a>> = None;
    for third in thirds {
        let third = third?;
        match &mut whole {
            None => whole = Some(third),
            Some(whole) => {
                whole.shape[0] += third.shape[0];
                let both = [whole.bytes(), third.bytes()].concat();
                whole.content = Content::Here(Cow::Owned(both));
            }
        }
    }
    Ok(whole.expect("there are three thirds"))
}

fn transposed(output: Output<'_>) -> Output<'_> {
    let &[rows, columns] = output.shape.as_slice() else { return output };
    let stored = output.bytes();
    let width = stored.len() / (rows * columns).max(1);
    let cells = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    let bytes: Vec<u8> = cells.flat_map(|at| stored[at * width..(at + 1) * width].iter().copied()).collect();
    Output { dtype: output.dtype, shape: vec![columns, rows], content: Content::Here(Cow::Owned(bytes)) }
}

/// Writes tensors that are known by the header's words for their types.
pub(crate) fn write_tensors<'a>(
    tensors: &'a [ConvertedTensor<'_>],
    metadata: &BTreeMap<String, String>,
    path: &Path,
) -> Result<()> {
    let output = |tensor: &'a ConvertedTensor<'_>| {
        let dtype = serde_json::from_value(serde_json::Value::String(tensor.dtype.clone())).map_err(|_| {
            let (file, name) = (path.display().to_string(), tensor.name.clone());
            Error::UnsupportedNumbers { file, name, dtype: tensor.dtype.clone() }
        })?;
        let content = Content::Here(Cow::Borrowed(&*tensor.bytes));
        Ok((tensor.name.clone(), Output { dtype, shape: tensor.shape.clone(), content }))
    };
    write(tensors.iter().map(output).collect::<Result<_>>()?, metadata, path)
}

/// Writes beside the path, then renames: the file is whole or absent.
fn write(mut outputs: Outputs<'_>, metadata: &BTreeMap<String, String>, path: &Path) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = File::create(&beside).and_then(|file| {
        let mut file = BufWriter::new(file);
        write_outputs(&mut outputs, metadata, &mut file)?;
        file.flush()
    });
    let renamed = written.and_then(|()| std::fs::rename(&beside, path));
    renamed.map_err(|source| {
        // A half-written file is of no use to anyone.
        let _ = std::fs::remove_file(&beside);
        unwritable(path, source)
    })
}

fn unwritable(path: &Path, source: std::io::Error) -> Error {
    Error::Unwritable { file: path.display().to_string(), source }
}
