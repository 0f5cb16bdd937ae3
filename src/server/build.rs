//! Lists the files that the program carries: the editor, if it was built, and the example graphs. Needs no Node.js.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let top = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?).join("../..");
    let (editor, graphs) = (top.join("web/dist"), top.join("graphs"));
    println!("cargo::rerun-if-changed={}", graphs.display());
    // A path that does not exist would make every build run this again.
    let watched = if editor.is_dir() { &editor } else { &top.join("web") };
    if watched.is_dir() {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let mut text = String::new();
    list(&mut text, "EDITOR", &editor, |_| true)?;
    pack(&mut text, "PACKED", &editor, &PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?))?;
    list(&mut text, "GRAPHS", &graphs, |name| name.ends_with(".json") && !name.contains('/'))?;
    list(&mut text, "EXAMPLES", &graphs, |name| name.starts_with("input/") || name.starts_with("subjects/"))?;
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("embedded.rs");
    fs::write(out, text)
}

/// `pub(super) static NAME: &[(&str, &[u8])]`, sorted.
fn list(text: &mut String, name: &str, root: &Path, takes: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut files = Vec::new();
    collect(root, "", &mut files)?;
    files.sort();
    let _ = writeln!(text, "pub(super) static {name}: &[(&str, &[u8])] = &[");
    for (file, path) in files.iter().filter(|(file, _)| takes(file)) {
        let _ = writeln!(text, "    ({file:?}, include_bytes!({:?})),", path.canonicalize()?);
    }
    let _ = writeln!(text, "];");
    Ok(())
}

/// The same of the texts among the files, as gzip has them.
fn pack(text: &mut String, name: &str, root: &Path, out: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    collect(root, "", &mut files)?;
    files.sort();
    let _ = writeln!(text, "pub(super) static {name}: &[(&str, &[u8])] = &[");
    let is_text = |file: &str| [".js", ".css", ".html", ".svg", ".json"].iter().any(|ending| file.ends_with(ending));
    for (number, (file, path)) in files.iter().filter(|(file, _)| is_text(file)).enumerate() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&fs::read(path)?)?;
        let packed = out.join(format!("{number}.gz"));
        fs::write(&packed, encoder.finish()?)?;
        let _ = writeln!(text, "    ({file:?}, include_bytes!({packed:?})),");
    }
    let _ = writeln!(text, "];");
    Ok(())
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else {
            files.push((format!("{prefix}{name}"), entry.path()));
        }
    }
    Ok(())
}
