//! The files of packed weights: a head of 128 bytes, then the packed numbers as they lie in memory.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::Hash;
use paraflow_kernels::{Form, LAYOUT, Matrix};

use super::super::mapping::Mapping;
use super::hash;

/// The first bytes of every file.
const MARK: [u8; 8] = *b"PARAPACK";
/// Raised with every change of the head.
const VERSION: u32 = 1;
/// Mark, version, length of the numbers, and zeros, in 64 bytes; the numbers' hash; the hash of those 96 bytes and of
/// the file's name. So many that the numbers begin where the kernels want them.
const HEAD: usize = 128;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("is cut short or too long: {found} bytes of {expected}")]
    Length { found: u64, expected: u64 },
    #[error("is of another version of this program, or of another kind of machine")]
    Version,
    #[error("has a damaged head")]
    Head,
    #[error("has other numbers than were written")]
    Numbers,
}

/// What the numbers of a file are said to be: this head, this order of them, and in a number the machine's order of bytes.
fn version() -> [u8; 16] {
    let mut version = [0; 16];
    version[..4].copy_from_slice(&VERSION.to_le_bytes());
    version[4..8].copy_from_slice(&LAYOUT.to_le_bytes());
    version[8..].copy_from_slice(&1_u64.to_ne_bytes());
    version
}

/// The head of a file.
fn head(name: &Hash, length: usize, numbers: &Hash) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&MARK);
    head[8..24].copy_from_slice(&version());
    head[24..32].copy_from_slice(&(length as u64).to_le_bytes());
    head[64..96].copy_from_slice(numbers.as_bytes());
    let check = blake3::Hasher::new().update(&head[..96]).update(name.as_bytes()).finalize();
    head[96..].copy_from_slice(check.as_bytes());
    head
}

/// A mapped file's packed numbers.
struct Numbers(Mapping);

impl AsRef<[u8]> for Numbers {
    fn as_ref(&self) -> &[u8] {
        &self.0.as_ref()[HEAD..]
    }
}

/// The packed weight of that name in a file; `None` where there is no such file.
pub(super) fn read(path: &Path, name: &Hash, form: &Form) -> Result<Option<Matrix>, Fault> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (found, expected) = (file.metadata()?.len(), (HEAD + form.bytes()) as u64);
    let length = Fault::Length { found, expected };
    if found < HEAD as u64 {
        return Err(length);
    }
    let mapping = Mapping::of(file)?;
    let all = mapping.as_ref();
    if all[..8] != MARK {
        return Err(Fault::Head);
    }
    if all[8..24] != version() {
        return Err(Fault::Version);
    }
    let numbers = Hash::from_slice(&all[64..96]).expect("as many bytes as a hash has");
    if all[..HEAD] != head(name, form.bytes(), &numbers) {
        return Err(Fault::Head);
    }
    if found != expected {
        return Err(length);
    }
    if hash(&all[HEAD..]) != numbers {
        return Err(Fault::Numbers);
    }
    Matrix::lent(form, Arc::new(Numbers(mapping))).map(Some).ok_or(Fault::Head)
}

/// Writes a packed weight and gives it back mapped.
pub(super) fn write(unfinished: &Path, path: &Path, name: &Hash, form: &Form, matrix: &Matrix) -> io::Result<Matrix> {
    let numbers = matrix.as_bytes();
    let mut unfinished = Unfinished::new(unfinished)?;
    unfinished.file.write_all(&head(name, numbers.len(), &hash(numbers)))?;
    unfinished.file.write_all(numbers)?;
    let file = unfinished.finish(path)?;
    let lent = Matrix::lent(form, Arc::new(Numbers(Mapping::of(file)?)));
    lent.ok_or_else(|| io::Error::other("what was written has another length"))
}

/// The hash that a file remembers under this name; `None` where there is no such file.
pub(super) fn read_hash(path: &Path, name: &Hash) -> Result<Option<Hash>, Fault> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Some((content, check)) = bytes.split_at_checked(32) else { return Err(Fault::Head) };
    let content = Hash::from_slice(content).expect("as many bytes as a hash has");
    if check != checked(&content, name).as_bytes() {
        return Err(Fault::Head);
    }
    Ok(Some(content))
}

/// Remembers a hash under a name.
pub(super) fn write_hash(unfinished: &Path, path: &Path, name: &Hash, content: &Hash) -> io::Result<()> {
    let mut unfinished = Unfinished::new(unfinished)?;
    unfinished.file.write_all(content.as_bytes())?;
    unfinished.file.write_all(checked(content, name).as_bytes())?;
    unfinished.finish(path).map(drop)
}

fn checked(content: &Hash, name: &Hash) -> Hash {
    blake3::Hasher::new().update(content.as_bytes()).update(name.as_bytes()).finalize()
}

/// A file that is being written, removed unless it is finished.
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    /// Makes one in a folder, which is made if it is not there.
    fn new(folder: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        std::fs::create_dir_all(folder)?;
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{count}", std::process::id()));
            match File::options().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path }),
                // Of a process that was killed, or of one in another container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives it its name, in the place of any file that has it.
    fn finish(self, path: &Path) -> io::Result<File> {
        self.file.sync_data()?;
        std::fs::rename(&self.path, path)?;
        self.file.try_clone()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is there no longer if it was finished.
        let _ = std::fs::remove_file(&self.path);
    }
}
