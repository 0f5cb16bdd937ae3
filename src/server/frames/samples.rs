//! Sample pictures of a training: kept in files, in the books, told to whoever follows. What fails there is a warning.

use paraflow_engine::ImageFormat;

use super::Report;
use crate::artefacts;
use crate::protocol::answers::FileRef;
use crate::protocol::{Message, Sample};
use crate::queue::Artefact;

impl Report<'_> {
    /// Puts a sample picture where clients can fetch it, and tells of it.
    pub(super) fn sample(&self, node: &str, step: u32, image: &[u8], format: ImageFormat) {
        let ending = match format {
            ImageFormat::Jpeg => "jpg",
            ImageFormat::Png => "png",
        };
        let saved = self.assets.previews().series("samples/sample", (0, 0));
        match saved.and_then(|mut series| series.save(ending, |file| file.write_all(image))) {
            Ok(saved) => {
                let file = artefacts::sample(node, step, &saved, image);
                let message = self.sample_message(&file);
                // In the books before it is told, so that whoever is told of it finds it after any end of the process.
                if let Err(error) = self.queue.show(&self.job.id, file).wait() {
                    let fate = "a restart forgets it";
                    self.warn(node.to_owned(), format!("the sample picture of step {step}: {error}; {fate}"));
                }
                self.ours(&message);
            }
            Err(error) => {
                let fate = "the training goes on";
                self.warn(
                    node.to_owned(),
                    format!("the sample picture of step {step} cannot be kept: {error}; {fate}"),
                );
            }
        }
    }

    /// What a process before, that died or was stopped, had told of sample pictures.
    pub(super) fn samples_of_before(&self) -> Vec<Message> {
        if !self.job.begun {
            return Vec::new();
        }
        let files = self.queue.artefacts(&self.job.id).wait().unwrap_or_default();
        files.iter().filter(|file| file.kind == artefacts::SAMPLES).map(|file| self.sample_message(file)).collect()
    }

    fn sample_message(&self, file: &Artefact) -> Message {
        let image =
            FileRef { filename: file.filename.clone(), subfolder: file.subfolder.clone(), place: file.place.clone() };
        let step = file.step.unwrap_or_default();
        Message::Sample(Sample { node: file.node.clone(), step, image, prompt_id: self.id() })
    }
}
