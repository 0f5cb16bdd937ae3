//! Vector graphics on wires.

use paraflow_engine::Port;

/// Vector graphics, each the text of an SVG file. No node of this program draws any; those of other crates may.
#[derive(Clone, Debug)]
pub struct Svg(pub Vec<String>);

impl Port for Svg {
    const KIND: &'static str = "SVG";
}
