//! Stopping from outside.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use paraflow_engine::*;

use crate::toys::{Room, Show, line, read};

const STEPS: &str = "
    1 Number value=1
    2 Steps value=@1 steps=1000
    3 Show value=@2";

#[test]
fn a_node_stops_at_its_next_step_and_what_finished_is_kept() {
    let room = Room::new();
    let third_step = |event: &Event| matches!(event, Event::Progress { done: 3, .. });
    room.check_cancelled(
        STEPS,
        &Cancel::new(),
        third_step,
        "planned 3, 0 cached
         ran 1
         progress 2 1/1000
         progress 2 2/1000
         progress 2 3/1000
         cancelled",
    );
    room.check(
        &STEPS.replace("1000", "1"),
        "planned 3, 1 cached
         cached 1
         progress 2 1/1
         warning 2 that was all
         ran 2
         shown 3 1
         ran 3
         done",
    );
}

#[test]
fn nothing_starts_after_the_run_was_stopped() {
    let after_first = |event: &Event| matches!(event, Event::Finished { .. });
    Room::new().check_cancelled(STEPS, &Cancel::new(), after_first, "planned 3, 0 cached\nran 1\ncancelled");
    let stopped_before = Cancel::new();
    stopped_before.cancel();
    Room::new().check_cancelled(STEPS, &stopped_before, |_| false, "planned 3, 0 cached\ncancelled");
}

#[test]
fn what_is_done_is_not_cancelled() {
    let room = Room::new();
    let at_the_end = |event: &Event| matches!(event, Event::Finished { node, .. } if node == "2");
    let graph = "1 Number value=1\n2 Show value=@1";
    room.check_cancelled(graph, &Cancel::new(), at_the_end, "planned 2, 0 cached\nran 1\nshown 2 1\nran 2\ndone");
    let stopped_before = Cancel::new();
    stopped_before.cancel();
    let all = "planned 2, 2 cached\ncached 1\ncached 2\nshown 2 1\ndone";
    room.check_cancelled(graph, &stopped_before, |_| false, all);
}

/// Sleeps until it is stopped, and then fails in its own way.
#[derive(Node)]
#[node(category = "toys")]
struct Sleep {
    /// Which of several.
    number: i64,
    /// Whether it says that it was stopped, or that something else went wrong then.
    #[input(default = true)]
    obeys: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the sampler was interrupted")]
struct Interrupted;

impl Run for Sleep {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(600) {
            if let Err(stopped) = cx.check() {
                return if self.obeys { Err(stopped) } else { Err(Interrupted.into()) };
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(self.number)
    }
}

/// Fails once another node sleeps.
#[derive(Node)]
#[node(category = "toys", sink)]
struct FailLater {}

impl Run for FailLater {
    type Output = ();

    fn run(self, _: &Context) -> Result<()> {
        std::thread::sleep(Duration::from_millis(20));
        Err(std::io::Error::other("too late").into())
    }
}

fn sleepers() -> Registry {
    Registry::new([NodeDef::of::<Sleep>(), NodeDef::of::<FailLater>(), NodeDef::of::<Show>()], Services::new())
}

#[test]
fn all_that_run_side_by_side_are_stopped_at_once() {
    let plan = Plan::new(
        read("1 Sleep number=1\n2 Sleep number=2 obeys=false\n3 Show value=@1\n4 Show value=@2"),
        &sleepers(),
    )
    .unwrap();
    let executor = Executor::new(Cache::new(0).into()).with_workers(2);
    let cancel = Cancel::new();
    let (started, log) = (Mutex::new(0), Mutex::new(Vec::new()));
    let stopped_at = Mutex::new(None);
    let ended = executor.run(&plan, &cancel, &|event| {
        log.lock().unwrap().extend(line(&event));
        if let Event::Started { .. } = event {
            *started.lock().unwrap() += 1;
            if *started.lock().unwrap() == 2 {
                cancel.cancel();
                *stopped_at.lock().unwrap() = Some(Instant::now());
            }
        }
    });
    assert_eq!(ended, Ended::Cancelled);
    assert_eq!(*log.lock().unwrap(), ["planned 4, 0 cached", "cancelled"]);
    // A hundredth of a second, on a machine that has nothing else to do; half of their sleep proves that they were stopped.
    assert!(stopped_at.lock().unwrap().unwrap().elapsed() < Duration::from_secs(300));
}

#[test]
fn a_failure_stops_those_that_run_beside_it() {
    let plan = Plan::new(read("1 Sleep number=1\n2 FailLater\n3 Show value=@1"), &sleepers()).unwrap();
    let executor = Executor::new(Cache::new(0).into()).with_workers(2);
    let log = Mutex::new(Vec::new());
    let start = Instant::now();
    let ended = executor.run(&plan, &Cancel::new(), &|event| log.lock().unwrap().extend(line(&event)));
    assert_eq!(ended, Ended::Failed);
    assert_eq!(*log.lock().unwrap(), ["planned 3, 0 cached", "failed 2 FailLater: too late"]);
    assert!(start.elapsed() < Duration::from_secs(300));
}
