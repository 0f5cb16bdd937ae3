//! The nodes as they are now, and their declarations in ComfyUI's shape.

use std::io::Read as _;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use paraflow_engine::Registry;

use crate::object_info;

/// The registries of one moment.
pub(crate) struct Snapshot {
    /// Whose samplers draw no previews.
    pub(crate) plain: Registry,
    /// Whose samplers do.
    pub(crate) previewing: Registry,
    /// Whose samplers draw them with a tiny autoencoder.
    pub(crate) previewing_sharply: Registry,
    object_info: OnceLock<(Bytes, String)>,
    packed: OnceLock<Bytes>,
}

impl Snapshot {
    /// `GET /object_info`, as it is sent, and the tag of its content.
    pub(crate) fn object_info(&self) -> &(Bytes, String) {
        self.object_info.get_or_init(|| {
            let body: Bytes = object_info::all(&self.plain).to_string().into();
            let tag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..32]);
            (body, tag)
        })
    }

    /// The same as gzip has it: a tenth of its size.
    pub(crate) fn packed_object_info(&self) -> &Bytes {
        self.packed.get_or_init(|| {
            let mut packed = Vec::new();
            // Reading from memory into memory does not fail.
            let _ = GzEncoder::new(&*self.object_info().0, Compression::default()).read_to_end(&mut packed);
            packed.into()
        })
    }
}

/// The nodes, renewed when a folder changes.
pub(crate) struct Nodes {
    now: RwLock<Arc<Snapshot>>,
}

impl Nodes {
    pub(crate) fn new(plain: Registry, previewing: Registry, previewing_sharply: Registry) -> Self {
        let now =
            Snapshot { plain, previewing, previewing_sharply, object_info: OnceLock::new(), packed: OnceLock::new() };
        Self { now: RwLock::new(Arc::new(now)) }
    }

    pub(crate) fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the folders for their lists again.
    pub(crate) fn refresh(&self) {
        let now = self.now();
        let (plain, previewing) = (now.plain.refreshed(), now.previewing.refreshed());
        let previewing_sharply = now.previewing_sharply.refreshed();
        let renewed = Arc::new(Snapshot {
            plain,
            previewing,
            previewing_sharply,
            object_info: OnceLock::new(),
            packed: OnceLock::new(),
        });
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = renewed;
    }
}
