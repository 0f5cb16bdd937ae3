//! All of the outside that a running node may reach.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value as Json;

use crate::cancel::Cancel;
use crate::error::{Result, RunError};
use crate::event::{Emit, Event, ImageFormat, LossPoint};
use crate::plan::Plan;
use crate::services::Services;

/// Who a node is in this run, and its ways to the outside: progress, previews, warnings, cancellation, services.
pub struct Context<'r> {
    pub(crate) node: &'r str,
    pub(crate) class: &'r str,
    pub(crate) title: Option<&'r str>,
    pub(crate) plan: Option<&'r Plan>,
    pub(crate) services: &'r Services,
    pub(crate) cancel: &'r Cancel,
    pub(crate) stopping: &'r AtomicBool,
    pub(crate) emit: Emit<'r>,
    pub(crate) signature: Option<[u8; 32]>,
    pub(crate) afterwards: Option<&'r Afterwards>,
}

/// What is to be done once every output is made.
pub(crate) type Afterwards = Mutex<Vec<Box<dyn FnOnce() + Send>>>;

static NOT_STOPPING: AtomicBool = AtomicBool::new(false);

impl<'r> Context<'r> {
    /// A context outside of any run, for the test of one node.
    #[must_use]
    pub fn alone(services: &'r Services, cancel: &'r Cancel, emit: Emit<'r>) -> Self {
        let stopping = &NOT_STOPPING;
        let (title, plan, signature, afterwards) = (None, None, None, None);
        Self { node: "0", class: "", title, plan, services, cancel, stopping, emit, signature, afterwards }
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> &str {
        self.node
    }

    /// The node's class name.
    #[must_use]
    pub fn class(&self) -> &str {
        self.class
    }

    /// What the user calls the node.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.title
    }

    /// The service of type `T` that `main` put there.
    ///
    /// # Panics
    ///
    /// Where there is none, as [`Services::expect`].
    #[must_use]
    pub fn service<T: Any>(&self) -> &T {
        self.services.expect()
    }

    /// All services.
    #[must_use]
    pub fn services(&self) -> &Services {
        self.services
    }

    /// The API prompt of this run, literals coerced and defaults filled, for saving into pictures.
    #[must_use]
    pub fn prompt(&self) -> &Json {
        self.plan.map_or(&Json::Null, Plan::prompt)
    }

    /// The UI workflow that the graph was made from, if it was, for saving into pictures.
    #[must_use]
    pub fn workflow(&self) -> Option<&Json> {
        self.plan.and_then(Plan::workflow)
    }

    /// What files carry of where they come from, by keyword: the prompt, the workflow, and what else the client gave for that.
    /// Nothing outside of a run.
    #[must_use]
    pub fn provenance(&self) -> Vec<(&str, &Json)> {
        let Some(plan) = self.plan else { return Vec::new() };
        let workflow = plan.workflow().map(|workflow| ("workflow", workflow));
        let extra = plan.extra().iter().map(|(keyword, value)| (keyword.as_str(), value));
        std::iter::once(("prompt", plan.prompt())).chain(workflow).chain(extra).collect()
    }

    /// All that the node's result depends on, as one hash: the same for equal work, in this process and in the next.
    /// `None` where no work is ever equal, and outside of a run.
    #[must_use]
    pub fn signature(&self) -> Option<[u8; 32]> {
        self.signature
    }

    /// Does that once every output of the run is made; never if the run fails, is stopped or dies. For what a node left
    /// aside so that it could go on after such an end.
    pub fn when_done(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(afterwards) = self.afterwards {
            afterwards.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(work));
        }
    }

    /// Whether to go on. To be asked wherever stopping is possible, at least every tenth of a second.
    ///
    /// # Errors
    ///
    /// [`RunError::Stopped`] once the run is to stop; hand it on with `?`.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() || self.stopping.load(Ordering::Relaxed) {
            return Err(RunError::Stopped.into());
        }
        Ok(())
    }

    /// Reports `done` of `total` steps, then checks as [`Context::check`].
    ///
    /// # Errors
    ///
    /// [`RunError::Stopped`] once the run is to stop.
    pub fn progress(&self, done: u32, total: u32) -> Result<()> {
        (self.emit)(Event::Progress { node: self.node.into(), done, total });
        self.check()
    }

    /// Shows an encoded picture of the work so far.
    pub fn preview(&self, image: impl Into<Arc<[u8]>>, format: ImageFormat) {
        (self.emit)(Event::Preview { node: self.node.into(), image: image.into(), format });
    }

    /// Reports a point of a training's loss curve.
    pub fn loss(&self, point: LossPoint) {
        (self.emit)(Event::Loss { node: self.node.into(), point });
    }

    /// Shows an encoded picture of what was learnt in `step` steps.
    pub fn sample(&self, step: u32, image: impl Into<Arc<[u8]>>, format: ImageFormat) {
        (self.emit)(Event::Sample { node: self.node.into(), step, image: image.into(), format });
    }

    /// Tells the user something that stops nothing. Lower case, no full stop.
    pub fn warn(&self, text: impl Into<String>) {
        (self.emit)(Event::Warning { node: self.node.into(), text: text.into() });
    }
}
