//! What ends a training, or keeps it from starting.

/// A situation of its own, told as a part of [`Error`](crate::Error).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is nothing to learn from.
    #[error("there is no picture to train on")]
    EmptyDataset,
    /// The model was trained to say something that this trainer does not teach.
    #[error(
        "this model predicts neither noise nor velocity, and cannot be trained on\nhint: take a Stable Diffusion 1, 2 or SDXL checkpoint"
    )]
    Prediction,
    /// A rank of zero changes nothing.
    #[error("a rank of 0 trains nothing\nhint: choose a rank from 1 on")]
    InvalidRank,
    /// A projection of that rank would erase the layer.
    #[error(
        "layer `{layer}` has {outputs} outputs, rank {rank} would erase it\nhint: choose a smaller rank, or let gamma bound it"
    )]
    RankTooLarge {
        /// The layer.
        layer: String,
        /// The rank asked for.
        rank: usize,
        /// Its outputs.
        outputs: usize,
    },
    /// The rank boundary is no share.
    #[error("gamma is {gamma}\nhint: choose a share above 0 and up to 1, such as 0.125")]
    InvalidGamma {
        /// What was asked for.
        gamma: f64,
    },
    /// Layers and rank boundary leave nothing to train.
    #[error("none of the {layers} chosen layers is trained{}", if *layers == 0 { "" } else { ": each is too narrow for gamma" })]
    NothingToAdapt {
        /// How many layers were chosen.
        layers: usize,
    },
    /// A number of the settings is none that training can work with.
    #[error("`{setting}` is {value}, which training cannot work with\nhint: {expected}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What was asked for.
        value: f64,
        /// What would do.
        expected: &'static str,
    },
    /// The loss is no number any more.
    #[error(
        "the training diverged at step {step}: {what} of layer `{layer}` is NaN or infinite\nhint: lower the learning rate; the state before this step is kept"
    )]
    Diverged {
        /// The step, from 1.
        step: usize,
        /// `the output` or `the gradient`.
        what: &'static str,
        /// The first layer where it shows.
        layer: String,
    },
    /// The loss of a training that keeps no state is no number any more.
    #[error("the training diverged in batch {batch}: its loss is {loss}\nhint: lower the learning rate")]
    Lost {
        /// The batch, from 1.
        batch: usize,
        /// What it came to.
        loss: f32,
    },
    /// An adapter that a training is to go on with cannot be trained.
    #[error(
        "the adapter of `{module}` cannot be trained on: {fact}\nhint: begin with another file, or without one: `existing_lora` [None]"
    )]
    Existing {
        /// The layer, as the file names it.
        module: String,
        /// What is wrong with it.
        fact: String,
    },
    /// There are not as many prompts as pictures.
    #[error("there are {prompts} prompts for {pictures} pictures\nhint: give one prompt for all, or one for each")]
    Prompts {
        /// How many prompts came.
        prompts: usize,
        /// How many pictures.
        pictures: usize,
    },
    /// A trained tensor has no part in the result: a fault of the model or of this program.
    #[error("layer `{layer}` gets no gradient")]
    NoGradient {
        /// The layer.
        layer: String,
    },
    /// A state file is of another training.
    #[error(
        "`{file}` is the state of another training: {differs}\nhint: give this training another name for its state, or do not resume"
    )]
    OtherTraining {
        /// The file.
        file: String,
        /// What differs, in words.
        differs: String,
    },
    /// A state file holds numbers that no training left there.
    #[error(
        "`{file}`: `{tensor}` of the training's state holds NaN or infinite numbers\nhint: remove the file, or do not resume: the training then begins anew"
    )]
    BrokenState {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// The state cannot be written.
    #[error("`{file}`: the training's state cannot be written: {source}")]
    Unwritable {
        /// The file.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
}
