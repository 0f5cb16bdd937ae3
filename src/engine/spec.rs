//! What a node is, as plain data: everything that the checks, the reference, the editor and the file formats know of
//! it.
//!
//! A [`NodeSpec`] is written by `#[derive(Node)]` from a node's struct, and a test may build one by hand. It names no
//! Rust type and holds no code.

use serde_json::Value as Json;

/// Where a node's work happens, which decides what may run beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Lane {
    /// Any number side by side.
    #[default]
    Any,
    /// One at a time: the node keeps the processor or the accelerator busy by itself.
    Compute,
}

/// How an input is drawn, and which literals it takes. A socket takes none.
#[derive(Clone, Debug, PartialEq)]
pub enum Widget {
    /// Only a wire fits.
    Socket,
    /// `true` or `false`.
    Toggle,
    /// A whole number between `min` and `max`, both included (`INT`). Wide enough for every seed, which an `f64` is
    /// not.
    Integer {
        /// Smallest value.
        min: i128,
        /// Largest value.
        max: i128,
        /// What one click of the arrow adds, where the node says it: 1 where it does not.
        step: Option<i128>,
    },
    /// A number between `min` and `max`, both included (`FLOAT`).
    Number {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
        /// What one click of the arrow adds.
        step: f64,
        /// What the editor rounds to, where that differs from `step`.
        round: Option<f64>,
    },
    /// Words.
    Text {
        /// Drawn as a box of several lines.
        multiline: bool,
        /// The client replaces `{a|b}` by one branch before it submits.
        dynamic_prompts: bool,
    },
    /// One of a list.
    Choice(Vec<String>),
}

impl Widget {
    /// Whether the editor draws a field for it (a socket has none), so that `widgets_values` holds a value for it.
    #[must_use]
    pub fn has_value(&self) -> bool {
        *self != Self::Socket
    }
}

/// What makes an input more than one value of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    /// As many wires as there are: a graph binds `NAME.PREFIX0`, `NAME.PREFIX1` and so on (`COMFY_AUTOGROW_V3`).
    Grows {
        /// What stands before the number.
        prefix: &'static str,
        /// How many an editor draws at first.
        min: u32,
        /// How many there may be.
        max: u32,
    },
    /// Only there while the choice that its name begins with, `CHOICE.NAME`, is one of these (`COMFY_DYNAMICCOMBO_V3`).
    With(&'static [&'static str]),
    /// Of one kind with the node's other inputs of this template, and with its output (`COMFY_MATCHTYPE_V3`).
    Matches(&'static str),
}

/// One input of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Its name on the wire, ComfyUI's.
    pub name: &'static str,
    /// What both ends of a wire must agree on: `LATENT`, `MODEL`, `INT`; `COMBO` for a list; `*` for anything;
    /// several joined by commas where any of them will do.
    pub kind: &'static str,
    /// For someone making a picture: the tooltip and the reference.
    pub doc: &'static str,
    /// Whether it must be wired or given. An optional input may be left out.
    pub required: bool,
    /// The literal that an editor starts with, and that a hand-written graph may leave out.
    pub default: Option<Json>,
    /// How it is drawn and bounded.
    pub widget: Widget,
    /// Only evaluated when the node asks for it.
    pub lazy: bool,
    /// A wire only, although the kind has a widget (ComfyUI's `forceInput`).
    pub force_input: bool,
    /// The editor draws a second field after it that says how the value moves between runs (`control_after_generate`).
    pub control_after_generate: bool,
    /// A choice among uploaded pictures (`image_upload`): the editor stores a second value, `"image"`, after it.
    pub image_upload: bool,
    /// The folder that those pictures lie in, where it is not the one of inputs: `output` (`image_folder`).
    pub image_folder: Option<&'static str>,
    /// How the editor is to draw it, where that is not as usual: `color`, `number`, `slider` (`display`).
    pub display: Option<&'static str>,
    /// Seldom set: the editor folds it away while it stands at its default (`advanced`).
    pub advanced: bool,
    /// Names a file whose content is part of the node's signature, and is checked by the node itself, not by its list.
    pub names_file: bool,
    /// The folder of models that it names a file in, so that the editor finds the files' pictures.
    pub folder: Option<&'static str>,
    /// How it changes with others.
    pub dynamic: Option<Dynamic>,
}

impl InputSpec {
    /// Whether the input is there at all, where `choice` tells what a choice of the node stands at.
    pub(crate) fn is_there(&self, choice: impl FnOnce(&str) -> Option<Json>) -> bool {
        let (Some(Dynamic::With(keys)), Some((of, _))) = (self.dynamic, self.name.split_once('.')) else { return true };
        choice(of).and_then(|it| it.as_str().map(|it| keys.contains(&it))).unwrap_or(false)
    }
}

/// One output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its kind, as [`InputSpec::kind`].
    pub kind: &'static str,
    /// Its name: the kind, unless the node gives another.
    pub name: &'static str,
    /// The node returns a list here, one element a consumer's call.
    pub is_list: bool,
}

/// All that the editor, the checks and the documentation know about a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    /// Its class name on the wire, ComfyUI's: `KSampler`.
    pub name: &'static str,
    /// Its title in the editor, where that differs from the class name.
    pub display_name: Option<&'static str>,
    /// Its place in the menu: `sampling`, `loaders`.
    pub category: &'static str,
    /// One sentence, then details; the reference's text.
    pub doc: &'static str,
    /// Raised when equal inputs give another result than before, so that nothing old is reused.
    pub version: u32,
    /// What may run beside it.
    pub lane: Lane,
    /// It produces something for the user (a file, a preview): a graph runs for the sake of its sinks.
    pub sink: bool,
    /// It is called once with whole lists, not once an element (ComfyUI's `INPUT_IS_LIST`).
    pub input_is_list: bool,
    /// Still found in workflows, but not offered.
    pub deprecated: bool,
    /// ComfyUI calls it experimental.
    pub experimental: bool,
    /// In the order in which the editor draws them: required inputs first.
    pub inputs: Vec<InputSpec>,
    /// In slot order.
    pub outputs: Vec<OutputSpec>,
}

impl NodeSpec {
    /// The input of that name.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&InputSpec> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// The input that grows a wire of that name: `images` for `images.image7`.
    #[must_use]
    pub fn growing(&self, name: &str) -> Option<&InputSpec> {
        let (of, place) = name.split_once('.')?;
        let input = self.input(of)?;
        let Some(Dynamic::Grows { prefix, max, .. }) = input.dynamic else { return None };
        let place: u32 = place.strip_prefix(prefix)?.parse().ok()?;
        (place < max).then_some(input)
    }

    /// The inputs that are there only with some of a choice's values.
    pub fn parts_of<'s>(&'s self, choice: &'s str) -> impl Iterator<Item = (&'s InputSpec, &'static [&'static str])> {
        self.inputs.iter().filter_map(move |input| match input.dynamic {
            Some(Dynamic::With(keys)) if input.name.split_once('.').is_some_and(|(of, _)| of == choice) => {
                Some((input, keys))
            }
            _ => None,
        })
    }
}

/// Where the file formats look a class up; a registry is one, a test's list of specs another.
pub trait Specs {
    /// The node of that class, if there is one.
    fn spec(&self, class: &str) -> Option<&NodeSpec>;
    /// Every class name, sorted, for suggestions.
    fn names(&self) -> Vec<&str>;
}
