//! What runs side by side, and what must not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use paraflow_engine::*;

use crate::toys::read;

/// How many are inside now, and the most there ever were: of all, and of those on the compute lane.
#[derive(Default)]
struct Inside {
    now: [AtomicUsize; 2],
    most: [AtomicUsize; 2],
}

impl Inside {
    /// Stays until so many were inside at once, or for a while if they never are.
    fn stay(&self, lane: usize, company: usize, longest: Duration) {
        let now = self.now[lane].fetch_add(1, Ordering::SeqCst) + 1;
        self.most[lane].fetch_max(now, Ordering::SeqCst);
        let start = Instant::now();
        while self.most[lane].load(Ordering::SeqCst) < company && start.elapsed() < longest {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.now[lane].fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits, as for a disk.
#[derive(Node)]
#[node(category = "toys")]
struct Wait {
    /// Which of several.
    number: i64,
}

impl Run for Wait {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64> {
        cx.service::<Inside>().stay(0, 2, Duration::from_secs(10));
        Ok(self.number)
    }
}

/// Computes, and wants the machine for itself.
#[derive(Node)]
#[node(category = "toys", compute)]
struct Compute {
    /// Which of several.
    number: i64,
}

impl Run for Compute {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64> {
        cx.service::<Inside>().stay(1, 2, Duration::from_millis(10));
        Ok(self.number)
    }
}

/// Takes them all.
#[derive(Node)]
#[node(category = "toys", sink)]
struct Gather {
    /// All.
    #[input(rest)]
    all: Rest,
}

impl Run for Gather {
    type Output = Sink;

    fn run(self, _: &Context) -> Result<Sink> {
        let all = self.all.0.iter().flat_map(|(_, values)| values).filter_map(Value::to_json);
        Ok(Sink(Json::Array(all.collect())))
    }
}

#[test]
fn independent_nodes_overlap_but_one_at_a_time_computes() {
    let nodes = [NodeDef::of::<Wait>(), NodeDef::of::<Compute>(), NodeDef::of::<Gather>()];
    let registry = Registry::new(nodes, Services::new().with(Inside::default()));
    let graph = "
        1 Wait number=1
        2 Wait number=2
        3 Wait number=3
        4 Compute number=4
        5 Compute number=5
        6 Compute number=6
        7 Gather a=@1 b=@2 c=@3 d=@4 e=@5 f=@6";
    let plan = Plan::new(read(graph), &registry).unwrap();
    let executor = Executor::new(Cache::new(1 << 20).into()).with_workers(4);
    let shown = Mutex::new(None);
    let order = Mutex::new(Vec::new());
    let ended = executor.run(&plan, &Cancel::new(), &|event| match event {
        Event::Output { ui, .. } => *shown.lock().unwrap() = Some(ui.to_string()),
        Event::Started { node } => order.lock().unwrap().push(format!("start {node}")),
        Event::Finished { node, elapsed, .. } => {
            order.lock().unwrap().push(format!("finish {node}"));
            assert!(!["4", "5", "6"].contains(&&*node) || elapsed >= Duration::from_millis(10));
        }
        _ => {}
    });
    assert_eq!(ended, Ended::Done);
    assert_eq!(shown.into_inner().unwrap().unwrap(), "[1,2,3,4,5,6]");
    let most = registry.services().expect::<Inside>().most.each_ref().map(|most| most.load(Ordering::SeqCst));
    assert!(most[0] >= 2, "waiting nodes overlap: {most:?}");
    assert_eq!(most[1], 1);
    // What it reads has finished before it starts, in the events too.
    let order = order.into_inner().unwrap();
    assert_eq!(order[order.len() - 2..], ["start 7", "finish 7"]);
}

/// Writes files, say.
#[derive(Node)]
#[node(category = "toys", sink)]
struct Put {
    /// What.
    value: i64,
}

impl Run for Put {
    type Output = Sink;

    fn run(self, cx: &Context) -> Result<Sink> {
        cx.service::<Inside>().stay(1, 2, Duration::from_millis(5));
        Ok(Sink(Json::from(self.value)))
    }
}

/// So that the files of one batch have numbers in a row, in the same order at every run.
#[test]
fn sinks_run_one_after_another_in_their_order() {
    let nodes = [NodeDef::of::<Wait>(), NodeDef::of::<Put>()];
    let registry = Registry::new(nodes, Services::new().with(Inside::default()));
    let graph = "1 Wait number=1\n2 Wait number=2\n3 Put value=1\n4 Put value=2\n5 Put value=3\n6 Put value=4\n7 Put value=@1\n8 Put value=@2";
    let plan = Plan::new(read(graph), &registry).unwrap();
    for _ in 0..20 {
        let executor = Executor::new(Cache::new(1 << 20).into()).with_workers(4);
        let order = Mutex::new(Vec::new());
        let ended = executor.run(&plan, &Cancel::new(), &|event| {
            if let Event::Output { ui, .. } = event {
                order.lock().unwrap().push(ui.to_string());
            }
        });
        assert_eq!(ended, Ended::Done);
        assert_eq!(order.into_inner().unwrap()[..4], ["1", "2", "3", "4"]);
    }
    let most = registry.services().expect::<Inside>().most.each_ref().map(|most| most.load(Ordering::SeqCst));
    assert_eq!(most, [2, 1]);
}

#[test]
fn two_runs_at_once_share_a_cache() {
    let nodes = [NodeDef::of::<Wait>(), NodeDef::of::<Gather>()];
    let registry = Registry::new(nodes, Services::new().with(Inside::default()));
    let executor = Executor::new(Cache::new(1 << 20).into());
    let plan = |last| {
        Plan::new(read(&format!("1 Wait number=1\n2 Wait number={last}\n3 Gather a=@1 b=@2")), &registry).unwrap()
    };
    std::thread::scope(|scope| {
        for last in 0..4 {
            let (executor, plan) = (&executor, plan(last));
            scope.spawn(move || assert_eq!(executor.run(&plan, &Cancel::new(), &|_| {}), Ended::Done));
        }
    });
    let ran = AtomicUsize::new(0);
    for last in 0..4 {
        let ended = executor.run(&plan(last), &Cancel::new(), &|event| {
            ran.fetch_add(usize::from(matches!(event, Event::Started { .. })), Ordering::Relaxed);
        });
        assert_eq!(ended, Ended::Done);
    }
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[test]
fn one_at_a_time_computes_over_all_runs() {
    let nodes = [NodeDef::of::<Compute>(), NodeDef::of::<Gather>()];
    let registry = Registry::new(nodes, Services::new().with(Inside::default()));
    let executor = Executor::new(Cache::new(0).into());
    std::thread::scope(|scope| {
        for number in 0..4 {
            let plan = Plan::new(read(&format!("1 Compute number={number}\n2 Gather a=@1")), &registry).unwrap();
            let executor = &executor;
            scope.spawn(move || assert_eq!(executor.run(&plan, &Cancel::new(), &|_| {}), Ended::Done));
        }
    });
    assert_eq!(registry.services().expect::<Inside>().most[1].load(Ordering::SeqCst), 1);
}

#[test]
fn a_run_that_waits_for_its_turn_can_be_cancelled() {
    let nodes = [NodeDef::of::<Compute>(), NodeDef::of::<Gather>()];
    let registry = Registry::new(nodes, Services::new().with(Inside::default()));
    let executor = Executor::new(Cache::new(0).into());
    let plan = |number| Plan::new(read(&format!("1 Compute number={number}\n2 Gather a=@1")), &registry).unwrap();
    let (first, second) = (plan(1), plan(2));
    // The second run begins while the first has the lane, which gives it up only when the second has ended.
    let ended = executor.run(&first, &Cancel::new(), &|event| {
        if let Event::Started { node } = event
            && node == "1"
        {
            let cancel = Cancel::new();
            std::thread::scope(|scope| {
                let second = scope.spawn(|| executor.run(&second, &cancel, &|_| {}));
                cancel.cancel();
                assert_eq!(second.join().unwrap(), Ended::Cancelled);
            });
        }
    });
    assert_eq!(ended, Ended::Done);
}

#[test]
fn a_listener_that_panics_ends_the_run_for_all_workers() {
    let nodes = [NodeDef::of::<Wait>(), NodeDef::of::<Gather>()];
    let registry = Registry::new(nodes, Services::new().with(Inside::default()));
    let plan = Plan::new(read("1 Wait number=1\n2 Wait number=2\n3 Gather a=@1 b=@2"), &registry).unwrap();
    let executor = Executor::new(Cache::new(0).into()).with_workers(2);
    let run = std::panic::AssertUnwindSafe(|| {
        executor.run(&plan, &Cancel::new(), &|event| {
            assert!(!matches!(event, Event::Finished { .. }), "nobody listens any more");
        })
    });
    assert!(std::panic::catch_unwind(run).is_err());
}
