//! Changes of a UNet's work that are known by name, one file each.

mod free;
mod hyper;
mod merge;
mod shrink;
mod tile;

pub use free::{Free, Version};
pub use hyper::Hyper;
pub use merge::Merge;
pub use shrink::Shrink;
pub use tile::Tile;
