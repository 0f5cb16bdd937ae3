//! Lists the files that the program carries: the editor, if it was built, and the example graphs. Needs no Node.js.

use std::fmt::Write as _;
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
    list(&mut text, "GRAPHS", &graphs, |name| name.ends_with(".json") && !name.contains('/'))?;
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
