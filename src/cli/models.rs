//! `paraflow models`: what lies in the model folders, and what a file is.

use clap::{Args, Subcommand};
use paraflow_assets::{Assets, hash_file};
use paraflow_diffusion::adapters::{self, Names, Style};
use paraflow_diffusion::checkpoint::{self, Checkpoint, Summary};
use paraflow_diffusion::nn::{Prepacked, Usage, Weights};
use paraflow_diffusion::vision::PhotoMaker;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Exit, Places, base, report};

/// Arguments of `paraflow models`.
#[derive(Args)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    command: Option<ModelsCommand>,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// Tell what a model file is: architecture, parts, sizes, what was written about its making
    Inspect {
        /// A .safetensors file, or the name of a model in the folders
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a checkpoint in another layout, one file or a folder as diffusers keeps it, or a LoRA in another program's names;
    /// no number changes
    Convert {
        /// A .safetensors checkpoint or LoRA, the name of one in the folders, or a folder of diffusers
        input: PathBuf,
        /// A .safetensors file, or a folder to make
        output: PathBuf,
        /// Of a LoRA: whose names the new file gets
        #[arg(long, value_name = "NAMES", value_parser = ["kohya", "diffusers", "checkpoint"])]
        to: Option<String>,
        /// Of a LoRA: the checkpoint that it is for, if it is of no usual size
        #[arg(long, value_name = "CHECKPOINT")]
        base: Option<PathBuf>,
    },
    /// Print a file's SHA-256 and BLAKE3
    Hash {
        /// Any file, or the name of a model in the folders
        file: PathBuf,
    },
    /// Tell how much a folder of packed weights holds that `--prepacked` names
    Prepacked {
        /// The folder
        folder: PathBuf,
        /// Remove every packed weight from it
        #[arg(long)]
        empty: bool,
    },
}

/// Lists the models, or tells about one.
pub(crate) fn models(args: &ModelsArgs, places: &Places) -> Exit {
    let Some(base) = base::open(places, None, None) else { return Exit::Failed };
    match &args.command {
        None => list(&base.assets),
        Some(ModelsCommand::Inspect { file, json }) => inspect(&base.assets, file, *json),
        Some(ModelsCommand::Hash { file }) => hash(&base.assets, file),
        Some(ModelsCommand::Prepacked { folder, empty }) => prepacked(folder, *empty),
        Some(ModelsCommand::Convert { input, output, to, base: of }) => {
            convert(&base.assets, input, output, to.as_deref(), of.as_deref())
        }
    }
}

fn list(assets: &Assets) -> Exit {
    let models = assets.models();
    for folder in models.keys() {
        let mut names = models.list(folder).unwrap_or_default();
        for (at, embedded) in paraflow_nodes::embedded_names(folder).enumerate() {
            if !names.iter().any(|name| name == embedded) {
                names.insert(at, format!("{embedded} (embedded)"));
            }
        }
        for name in names {
            report::data(format_args!("{folder}/{name}"));
        }
    }
    Exit::Done
}

fn hash(assets: &Assets, file: &Path) -> Exit {
    let path = resolve(assets, file);
    if is_missing(assets, &path) {
        return Exit::Failed;
    }
    match hash_file(&path) {
        Ok(hash) => {
            report::data(format_args!("sha256 {}", hash.sha256));
            report::data(format_args!("blake3 {}", hash.blake3));
            Exit::Done
        }
        Err(error) => {
            report::error(&error, error.hint().as_deref());
            Exit::Failed
        }
    }
}

fn prepacked(folder: &Path, empty: bool) -> Exit {
    let outcome = if empty { Prepacked::empty(folder) } else { Prepacked::usage(folder) };
    match outcome {
        Ok(Usage { weights, bytes }) => {
            let word = if empty { "removed: " } else { "" };
            #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
            let gigabytes = bytes as f64 / 1e9;
            report::data(format_args!("{word}{weights} packed weights, {gigabytes:.2} GB"));
            Exit::Done
        }
        Err(error) => {
            report::error(&error, None);
            Exit::Failed
        }
    }
}

/// The path itself where there is such a file, else the model of that name in any folder.
pub(super) fn resolve(assets: &Assets, file: &Path) -> PathBuf {
    if file.exists() {
        return file.to_owned();
    }
    let name = file.to_string_lossy();
    let models = assets.models();
    let bare = name.split_once('/').filter(|(folder, _)| models.keys().any(|key| key == *folder));
    let found = match bare {
        Some((folder, rest)) => models.find(folder, rest).ok(),
        None => models.keys().find_map(|folder| models.find(folder, &name).ok()),
    };
    found.map_or_else(|| file.to_owned(), |model| model.path)
}

/// Reports a name that neither a file nor a model has.
fn is_missing(assets: &Assets, path: &Path) -> bool {
    if path.exists() || embedded(path).is_some() {
        return false;
    }
    let models = assets.models();
    let of_folder = |folder| models.list(folder).unwrap_or_default();
    let names: Vec<String> = models.keys().flat_map(of_folder).collect();
    let nearest = paraflow_assets::nearest(&path.to_string_lossy(), names.iter().map(String::as_str));
    let hint = match nearest.first() {
        Some(name) => format!("the nearest model is `{name}`"),
        None => "`paraflow models` lists those that there are".to_owned(),
    };
    report::error(format_args!("there is no file `{}`, and no model of that name", path.display()), Some(&hint));
    true
}

fn inspect(assets: &Assets, file: &Path, as_json: bool) -> Exit {
    let path = resolve(assets, file);
    if is_missing(assets, &path) {
        return Exit::Failed;
    }
    let opened = match embedded(&path) {
        Some(bytes) => Weights::from_bytes(path.to_string_lossy(), bytes),
        // Of pickles, one kind is read.
        None => Weights::open(&path).or_else(|fault| PhotoMaker::open(&path).map_err(|_| fault)),
    };
    let weights = match opened {
        Ok(weights) => weights,
        Err(error) => {
            report::error(&error, None);
            return Exit::Failed;
        }
    };
    let summary = checkpoint::inspect(&weights);
    // A model that comes with the program has no file.
    let sha256 = hash_file(&path).ok().map(|hash| hash.sha256);
    if as_json {
        report::data(to_json(&path, &summary, sha256.as_deref()));
    } else {
        describe(&path, &summary, sha256.as_deref());
    }
    Exit::Done
}

/// Writes a checkpoint in the layout that the output's name asks for, or a LoRA in the names of `to`, and prints what was written.
fn convert(assets: &Assets, input: &Path, output: &Path, to: Option<&str>, of: Option<&Path>) -> Exit {
    if output.exists() {
        report::error(
            format_args!("`{}` is there already", output.display()),
            Some("name another output, or remove it"),
        );
        return Exit::Failed;
    }
    let path = resolve(assets, input);
    if is_missing(assets, &path) {
        return Exit::Failed;
    }
    let written = match to.and_then(|to| Style::NAMES.into_iter().find(|(name, _)| *name == to)) {
        Some((_, style)) => convert_lora(assets, &path, output, style, of),
        None => convert_checkpoint(&path, output),
    };
    match written {
        Ok(paths) => {
            paths.iter().for_each(|path| report::data(path.display()));
            Exit::Done
        }
        Err(error) => {
            let is_lora = to.is_none() && checkpoint::is_adapter(&path);
            report::error(
                &error,
                is_lora.then_some("say whose names a LoRA is to get: --to kohya, diffusers or checkpoint"),
            );
            Exit::Failed
        }
    }
}

fn open(path: &Path) -> paraflow_diffusion::Result<Checkpoint> {
    match embedded(path) {
        Some(bytes) => Checkpoint::from_bytes(path.to_string_lossy(), bytes),
        None if path.is_dir() => checkpoint::open_folder(path),
        None => Checkpoint::open(path),
    }
}

fn convert_checkpoint(input: &Path, output: &Path) -> paraflow_diffusion::Result<Vec<PathBuf>> {
    let checkpoint = open(input)?;
    if output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
        checkpoint::write_single(&checkpoint, output)?;
        return Ok(vec![output.to_owned()]);
    }
    checkpoint::write_folder(&checkpoint, output)
}

fn convert_lora(
    assets: &Assets,
    input: &Path,
    output: &Path,
    style: Style,
    of: Option<&Path>,
) -> paraflow_diffusion::Result<Vec<PathBuf>> {
    let file = Weights::open(input)?;
    let names = match of {
        Some(base) => Names::of_checkpoint(&open(&resolve(assets, base))?),
        None => Names::guessed(&file).1,
    };
    let converted = adapters::convert(&file, &names, style)?;
    if !converted.left.is_empty() {
        report::warning(format_args!(
            "{} tensors or modules were left out:\n{}",
            converted.left.len(),
            adapters::table(&converted.left)
        ));
    }
    converted.write(output)?;
    Ok(vec![output.to_owned()])
}

/// The model that the program brings under this name, unless a file of the name is at hand.
pub(super) fn embedded(path: &Path) -> Option<Arc<[u8]>> {
    let name = path.to_str().filter(|_| !path.exists())?;
    paraflow_nodes::embedded_file("checkpoints", name.trim_start_matches("checkpoints/")).ok().flatten()
}

fn describe(path: &Path, summary: &Summary, sha256: Option<&str>) {
    report::data(path.display());
    report::data(format_args!("  {}", summary.architecture));
    for part in &summary.parts {
        let dtypes: Vec<&str> = part.numbers.keys().map(String::as_str).collect();
        let detail = if part.detail.is_empty() { String::new() } else { format!("; {}", part.detail) };
        report::data(format_args!(
            "  {:12}  {:>8} parameters in {} tensors, {}{detail}",
            part.name,
            short(part.parameters),
            part.tensors,
            dtypes.join(" and ").to_lowercase(),
        ));
    }
    for (key, value) in &summary.metadata {
        report::data(format_args!("  {key}: {}", excerpt(value)));
    }
    if let Some(sha256) = sha256 {
        report::data(format_args!("  sha256 {sha256}"));
    }
    match summary.loader {
        Some(loader) => report::data(format_args!("  load it {loader}")),
        None => report::data("  nothing in this build loads it"),
    }
}

/// `859.5 M`: enough to recognise a model by.
fn short(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let count = count as f64;
    match count {
        c if c >= 1e9 => format!("{:.2} G", c / 1e9),
        c if c >= 1e6 => format!("{:.1} M", c / 1e6),
        c if c >= 1e3 => format!("{:.1} k", c / 1e3),
        c => format!("{c}"),
    }
}

/// A workflow in the metadata would fill screens.
pub(super) fn excerpt(value: &str) -> String {
    const SHOWN: usize = 160;
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} characters; --json prints all)", &value[..end], value.chars().count()),
        None => value.to_owned(),
    }
}

fn to_json(path: &Path, summary: &Summary, sha256: Option<&str>) -> Json {
    let part = |part: &checkpoint::Part| {
        json!({"name": part.name, "prefix": part.prefix, "tensors": part.tensors, "parameters": part.parameters,
               "numbers": part.numbers, "detail": part.detail})
    };
    json!({"path": path.to_string_lossy(), "architecture": summary.architecture, "loads": summary.loads,
           "loader": summary.loader, "sha256": sha256,
           "parts": summary.parts.iter().map(part).collect::<Vec<_>>(), "metadata": summary.metadata})
}
