//! `paraflow adapter`: what adapters' files are, and the nodes' operations on them for scripts.

use clap::{Args, Subcommand, ValueEnum};
use paraflow_assets::Assets;
use paraflow_diffusion::adapters::{
    AnyAdapter, Boundary, Common, Comparison, Excess, LoraModel, Merge, Names, Para, Store, Summary, SvDiff,
    check_base, compare, fingerprint, merge, relative_changes, table, to_lora,
};
use paraflow_diffusion::checkpoint::Checkpoint;
use paraflow_diffusion::unet::UNet;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use super::models::{embedded, excerpt, resolve};
use super::{Exit, Places, base, report};

/// Arguments of `paraflow adapter`.
#[derive(Args)]
pub(crate) struct AdapterArgs {
    #[command(subcommand)]
    command: AdapterCommand,
}

#[derive(Subcommand)]
enum AdapterCommand {
    /// Tell what adapters are: kind, layers, ranks, and what was written about their making
    Info {
        /// A .safetensors file, a folder of PEFT's, or the name of an adapter in models/loras; several may be named
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// A checkpoint: tell how much of its weights each adapter changes (for a PaRa: the energy that it takes out)
        #[arg(long, value_name = "CHECKPOINT")]
        base: Option<PathBuf>,
        /// Print one JSON object a file, with every layer
        #[arg(long)]
        json: bool,
    },
    /// Make one PaRa of several, or one SVDiff by adding shifts
    Merge {
        /// The .safetensors file to write
        output: PathBuf,
        /// Two or more PaRas in their order, or two or more SVDiffs of one checkpoint
        #[arg(required = true, num_args = 2..)]
        inputs: Vec<PathBuf>,
        /// Of PaRas: each on what the one before left, or all that any of them takes out at once
        #[arg(long, value_enum, default_value = "sequential")]
        how: How,
        /// The part of its outputs that a layer may lose at most
        #[arg(long, default_value_t = 1.0)]
        gamma: f64,
        /// What to do with directions beyond gamma
        #[arg(long, value_enum, default_value = "error")]
        rank_boundary: Beyond,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the LoRA that does to one checkpoint what a PaRa does, for programs that know no PaRa
    Export {
        /// The checkpoint that the PaRa is for: a file, or the name of one in models/checkpoints
        base: PathBuf,
        /// The PaRa
        para: PathBuf,
        /// The .safetensors file to write
        output: PathBuf,
        /// The type of its numbers
        #[arg(long, value_enum, default_value = "f32")]
        dtype: Numbers,
        /// Print JSON, with every layer's error
        #[arg(long)]
        json: bool,
    },
    /// Write the LoRA that a file of the PaRa authors' own program comes to: its keys are a LoRA's and mean the opposite
    Import {
        /// The authors' file: a .pt of theirs, of which nothing is run, or its tensors as .safetensors
        released: PathBuf,
        /// The .safetensors file to write
        output: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare two adapters layer by layer
    Diff {
        /// The first
        first: PathBuf,
        /// The second
        second: PathBuf,
        /// Print JSON, with every layer
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Sequential,
    Union,
}

#[derive(Clone, Copy, ValueEnum)]
enum Beyond {
    Error,
    Truncate,
    Ignore,
}

#[derive(Clone, Copy, ValueEnum)]
enum Numbers {
    F32,
    F16,
}

/// A fault that is told, with the way out on a second line.
type Told<T> = Result<T, String>;

fn told(error: impl Display) -> String {
    error.to_string()
}

/// Runs the operation and reports what fails.
pub(crate) fn adapter(args: &AdapterArgs, places: &Places) -> Exit {
    let Some(base) = base::open(places, None, None) else { return Exit::Failed };
    let assets = &base.assets;
    let outcome = match &args.command {
        AdapterCommand::Info { files, base, json } => return info(assets, files, base.as_deref(), *json),
        AdapterCommand::Merge { output, inputs, how, gamma, rank_boundary, json } => {
            merge_into(assets, output, inputs, *how, *gamma, *rank_boundary, *json)
        }
        AdapterCommand::Export { base, para, output, dtype, json } => export(assets, base, para, output, *dtype, *json),
        AdapterCommand::Import { released, output, json } => import(released, output, *json),
        AdapterCommand::Diff { first, second, json } => diff(assets, first, second, *json),
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(fault) => {
            report::error(fault, None);
            Exit::Failed
        }
    }
}

/// Opens a file, a folder, or the adapter of that name.
fn open(assets: &Assets, name: &Path) -> Told<(PathBuf, AnyAdapter)> {
    let path = if name.exists() { name.to_owned() } else { named(assets, name)? };
    if path.is_dir() {
        return Err(format!("{} is a folder\nhint: name a .safetensors file in it", path.display()));
    }
    let (adapter, unknown) = AnyAdapter::open(&path).map_err(|error| in_file(&path, &error.to_string()))?;
    if !unknown.is_empty() {
        let path = path.display();
        report::warning(format_args!("{path}: {} tensors are not used:\n{}", unknown.len(), table(&unknown)));
    }
    Ok((path, adapter))
}

/// A fault of a file, which says what is wrong and may not say where.
fn in_file(path: &Path, fault: &str) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if fault.contains(&*name) { fault.to_owned() } else { format!("{}: {fault}", path.display()) }
}

fn named(assets: &Assets, name: &Path) -> Told<PathBuf> {
    let find = |key| assets.models().find(key, &name.to_string_lossy());
    let found = find("loras").or_else(|error| find("para").map_err(|_| error));
    found.map(|model| model.path).map_err(|error| match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    })
}

fn open_para(assets: &Assets, name: &Path) -> Told<Para> {
    match open(assets, name)? {
        (_, AnyAdapter::Para(para)) => Ok(para),
        (path, AnyAdapter::Lora(lora)) => Err(no_para(&path, &lora)),
        (path, AnyAdapter::Shifts(_)) => {
            let path = path.display();
            Err(format!("{path}: it holds an SVDiff, not a PaRa\nhint: name a file whose keys end in `.para_q`"))
        }
    }
}

fn no_para(path: &Path, lora: &LoraModel) -> String {
    let path = path.display();
    match lora.metadata.get("para.mode") {
        Some(mode) => format!(
            "{path}: a PaRa of mode `{mode}` adds directions as well and is kept as a LoRA\nhint: train with mode `projection`"
        ),
        None => format!("{path}: it holds a LoRA, not a PaRa\nhint: name a file whose keys end in `.para_q`"),
    }
}

fn require_absent(output: &Path) -> Told<()> {
    if output.exists() {
        return Err(format!("`{}` is there already\nhint: name another output, or remove it", output.display()));
    }
    Ok(())
}

/// Writes beside the path, then renames: the file is whole or absent.
fn write(output: &Path, bytes: &[u8]) -> Told<()> {
    let mut beside = output.as_os_str().to_owned();
    beside.push(".part");
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, output));
    written.map_err(|error| {
        // A half-written file is of no use to anyone.
        let _ = fs::remove_file(&beside);
        format!("cannot write `{}`: {}", output.display(), base::plain(&error))
    })
}

/// How much of each layer's weight an adapter changes, by the layers' names.
type Changes = BTreeMap<String, f64>;

fn info(assets: &Assets, files: &[PathBuf], base: Option<&Path>, as_json: bool) -> Exit {
    let unet = match base.map(|base| open_unet(assets, base)).transpose() {
        Ok(unet) => unet,
        Err(fault) => {
            report::error(fault, None);
            return Exit::Failed;
        }
    };
    let mut exit = Exit::Done;
    for file in files {
        if let Err(fault) = tell_one(assets, file, unet.as_ref(), as_json) {
            report::error(fault, None);
            exit = Exit::Failed;
        }
    }
    exit
}

fn tell_one(assets: &Assets, file: &Path, unet: Option<&UNet>, as_json: bool) -> Told<()> {
    let (path, adapter) = open(assets, file)?;
    let names = unet.map(|unet| Names::of(unet, None));
    let layers = adapter.layers(names.as_ref()).map_err(told)?;
    let changes = unet.map(|unet| relative_changes(&adapter, unet)).transpose().map_err(told)?;
    if as_json {
        report::data(to_json(&path, &adapter, &layers, changes.as_ref()));
    } else {
        describe(&path, &adapter, &layers, changes.as_ref());
    }
    Ok(())
}

fn open_unet(assets: &Assets, base: &Path) -> Told<UNet> {
    let path = resolve(assets, base);
    let opened = match embedded(&path) {
        Some(bytes) => Checkpoint::from_bytes(path.to_string_lossy(), bytes),
        None => Checkpoint::open(&path),
    };
    opened.and_then(|checkpoint| checkpoint.unet()).map_err(told)
}

/// SHA-256 of a checkpoint, remembered beside the models.
fn hash(assets: &Assets, base: &Path) -> Told<String> {
    let path = resolve(assets, base);
    match embedded(&path) {
        Some(bytes) => Ok(paraflow_assets::sha256(&bytes)),
        None => assets.models().hashes().of(&path).map(|hashes| hashes.sha256).map_err(told),
    }
}

fn describe(path: &Path, adapter: &AnyAdapter, layers: &BTreeMap<String, Summary>, changes: Option<&Changes>) {
    report::data(path.display());
    let mut kinds = BTreeMap::<&str, Vec<Option<usize>>>::new();
    layers.values().for_each(|layer| kinds.entry(layer.kind).or_default().push(layer.rank));
    for (kind, ranks) in kinds {
        report::data(format_args!("  {kind} on {}{}", layers_of(ranks.len()), span_of(&ranks)));
    }
    if let AnyAdapter::Para(para) = adapter
        && para.depth() > 1
    {
        report::data(format_args!("  {} stages, one after another", para.depth()));
    }
    report::data(format_args!("  {} parameters", adapter.parameters()));
    for (key, value) in adapter.metadata() {
        report::data(format_args!("  {key}: {}", excerpt(value)));
    }
    let Some(changes) = changes else { return };
    report::data("  part of each weight that it changes, by squared length:");
    for (layer, change) in changes {
        report::data(format_args!("    {layer}  {:.2} %", 100.0 * change));
    }
}

/// `, rank 4` or `, ranks 1 to 8`.
fn span_of(ranks: &[Option<usize>]) -> String {
    let known = || ranks.iter().copied().flatten();
    match known().min().zip(known().max()) {
        None => String::new(),
        Some((least, most)) if least == most => format!(", rank {least}"),
        Some((least, most)) => format!(", ranks {least} to {most}"),
    }
}

fn to_json(path: &Path, adapter: &AnyAdapter, layers: &BTreeMap<String, Summary>, changes: Option<&Changes>) -> Json {
    let layer = |(name, layer): (&String, &Summary)| {
        let mut told = json!({"kind": layer.kind, "rank": layer.rank, "outputs": layer.outputs});
        if let Some(change) = changes.and_then(|changes| changes.get(name)) {
            told["change"] = json!(change);
        }
        (name.clone(), told)
    };
    json!({
        "path": path.to_string_lossy(), "kind": adapter.kind(),
        "parameters": adapter.parameters(), "metadata": adapter.metadata(),
        "layers": layers.iter().map(layer).collect::<Map<_, _>>(),
    })
}

fn merge_into(
    assets: &Assets,
    output: &Path,
    inputs: &[PathBuf],
    how: How,
    gamma: f64,
    beyond: Beyond,
    as_json: bool,
) -> Told<()> {
    require_absent(output)?;
    if matches!(open(assets, &inputs[0])?.1, AnyAdapter::Shifts(_)) {
        if matches!(how, How::Union) || gamma < 1.0 {
            return Err(
                "spectral shifts are added: they have no subspaces\nhint: leave out `--how` and `--gamma`".to_owned()
            );
        }
        return add_shifts(assets, output, inputs, as_json);
    }
    let paras = inputs.iter().map(|input| open_para(assets, input)).collect::<Told<Vec<_>>>()?;
    let boundary = Boundary::new(gamma).map_err(told)?;
    let (how, excess) = (
        match how {
            How::Sequential => Merge::Sequential,
            How::Union => Merge::Union,
        },
        match beyond {
            Beyond::Error => Excess::Refuse,
            Beyond::Truncate => Excess::Truncate,
            Beyond::Ignore => Excess::Ignore,
        },
    );
    let mut merged = merge(&paras.iter().collect::<Vec<_>>(), how, None, boundary, excess).map_err(told)?;
    merged.metadata.insert("paraflow.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    write(output, &merged.to_file(Store::F32).map_err(told)?)?;
    let (layers, rank, stages) = (merged.layers.len(), merged.rank(), merged.depth());
    if as_json {
        report::data(json!({"path": output.to_string_lossy(), "layers": layers, "rank": rank, "stages": stages}));
    } else {
        report::note(format_args!("{layers} layers, at most {rank} directions in each of {stages} stages"));
        report::data(output.display());
    }
    Ok(())
}

/// Adds the shifts of several SVDiffs.
fn add_shifts(assets: &Assets, output: &Path, inputs: &[PathBuf], as_json: bool) -> Told<()> {
    let mut all = Vec::new();
    for input in inputs {
        match open(assets, input)? {
            (_, AnyAdapter::Shifts(shifts)) => all.push(shifts),
            (path, other) => {
                let (path, kind) = (path.display(), other.kind());
                return Err(format!(
                    "{path}: it holds a {kind}, and the first file an SVDiff\nhint: only adapters of one kind become one"
                ));
            }
        }
    }
    let mut added = SvDiff::added(&all.iter().collect::<Vec<_>>(), None).map_err(told)?;
    added.metadata.insert("paraflow.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    write(output, &added.to_file(Store::F32).map_err(told)?)?;
    let layers = added.layers.len();
    if as_json {
        report::data(json!({"path": output.to_string_lossy(), "layers": layers, "parameters": added.parameters()}));
    } else {
        report::note(format_args!("{}, their shifts added", layers_of(layers)));
        report::data(output.display());
    }
    Ok(())
}

fn export(assets: &Assets, base: &Path, para: &Path, output: &Path, dtype: Numbers, as_json: bool) -> Told<()> {
    require_absent(output)?;
    let para = open_para(assets, para)?;
    let (unet, base_hash) = (open_unet(assets, base)?, hash(assets, base)?);
    let print = fingerprint(&unet).map_err(told)?;
    if let Err(fault) = check_base(&para.metadata, &print) {
        let fault = fault.to_string();
        report::warning(fault.lines().next().unwrap_or_default());
    }
    let store = match dtype {
        Numbers::F32 => Store::F32,
        Numbers::F16 => Store::F16,
    };
    let (mut lora, errors) = to_lora(&para, &unet, store).map_err(told)?;
    let name = base.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    lora.metadata.insert("para.base_name".to_owned(), name);
    lora.metadata.insert("para.base_sha256".to_owned(), base_hash);
    lora.metadata.insert("paraflow.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    write(output, &lora.to_file(None, store).map_err(told)?)?;
    if as_json {
        let of_layers: Map<_, _> = errors.iter().map(|error| (error.layer.clone(), json!(error.relative))).collect();
        report::data(json!({"path": output.to_string_lossy(), "errors": of_layers}));
        return Ok(());
    }
    if let Some(worst) = errors.iter().max_by(|a, b| a.relative.total_cmp(&b.relative)) {
        let (relative, layer) = (worst.relative, &worst.layer);
        report::note(format_args!("{}, the greatest error is {relative:.1e} in {layer}", layers_of(errors.len())));
    }
    report::data(output.display());
    Ok(())
}

fn import(released: &Path, output: &Path, as_json: bool) -> Told<()> {
    require_absent(output)?;
    let (lora, unknown) = LoraModel::read_released(released).map_err(told)?;
    if !unknown.is_empty() {
        let path = released.display();
        report::warning(format_args!("{path}: {} tensors are not used:\n{}", unknown.len(), table(&unknown)));
    }
    let mut lora = lora.of_one_rank().map_err(told)?;
    let bytes = fs::read(released).map_err(|error| format!("cannot read `{}`: {error}", released.display()))?;
    let name = released.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let source = json!([{"file": name, "sha256": paraflow_assets::sha256(&bytes)}]);
    lora.metadata.insert("para.sources".to_owned(), source.to_string());
    lora.metadata.insert("paraflow.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    write(output, &lora.to_file(None, Store::F32).map_err(told)?)?;
    let (layers, rank) = (lora.modules.len(), lora.rank());
    if as_json {
        report::data(json!({"path": output, "layers": layers, "rank": rank}));
    } else {
        report::note(format_args!(
            "{}, rank {rank}: a PaRa of mode `release`, which every program loads as a LoRA",
            layers_of(layers)
        ));
        report::data(output.display());
    }
    Ok(())
}

fn diff(assets: &Assets, first: &Path, second: &Path, as_json: bool) -> Told<()> {
    let ((first, a), (second, b)) = (open(assets, first)?, open(assets, second)?);
    let compared = compare(&a, &b, None).map_err(told)?;
    if as_json {
        let layer = |(name, common): (&String, &Common)| {
            (name.clone(), json!({"ranks": common.ranks, "overlap": common.overlap}))
        };
        report::data(json!({
            "first": first, "second": second, "only_first": compared.only_first, "only_second": compared.only_second,
            "common": compared.common.iter().map(layer).collect::<Map<_, _>>(),
            "metadata": metadata(&a, &b),
        }));
        return Ok(());
    }
    tell(&compared, &first, &second);
    for (key, [one, other]) in metadata(&a, &b) {
        let shown = |value: Option<&String>| value.map_or("-".to_owned(), |value| excerpt(value));
        report::data(format_args!("{key}: {} | {}", shown(one), shown(other)));
    }
    Ok(())
}

/// That many layers, in words.
fn layers_of(count: usize) -> String {
    format!("{count} layer{}", if count == 1 { "" } else { "s" })
}

fn tell(compared: &Comparison, first: &Path, second: &Path) {
    for (names, path) in [(&compared.only_first, first), (&compared.only_second, second)] {
        if !names.is_empty() {
            report::data(format_args!("{} only in {}", layers_of(names.len()), path.display()));
            names.iter().for_each(|name| report::data(format_args!("  {name}")));
        }
    }
    if compared.common.is_empty() {
        report::data("no layer in common");
        return;
    }
    report::data(format_args!("{} in both: ranks, overlap of their spaces", layers_of(compared.common.len())));
    let width = compared.common.keys().map(String::len).max().unwrap_or(0);
    for (name, common) in &compared.common {
        let [one, other] = common.ranks.map(|rank| rank.map_or("-".to_owned(), |rank| rank.to_string()));
        let overlap = common.overlap.map_or("-".to_owned(), |overlap| format!("{overlap:.3}"));
        report::data(format_args!("  {name:width$}  {one:>3} {other:>3}  {overlap}"));
    }
}

/// What the two headers say differently.
fn metadata<'a>(a: &'a AnyAdapter, b: &'a AnyAdapter) -> BTreeMap<&'a String, [Option<&'a String>; 2]> {
    let (a, b) = (a.metadata(), b.metadata());
    let keys = a.keys().chain(b.keys());
    keys.map(|key| (key, [a.get(key), b.get(key)])).filter(|(_, [one, other])| one != other).collect()
}
