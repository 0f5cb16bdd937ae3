//! What runs, what does not, and what is told of it.

use paraflow_engine::*;

use crate::toys::{Broken, Room, read};

#[test]
fn nodes_run_after_those_they_read_and_only_what_an_output_needs() {
    Room::new().check(
        "sum  Add a=@two b=@three
         two  Number value=2
         idle Number value=9
         three Number value=3
         show Show value=@sum",
        "planned 4, 0 cached
         ran two
         ran three
         ran sum
         shown show 5
         ran show
         done",
    );
}

#[test]
fn one_branch_is_finished_before_the_next_begins() {
    Room::new().check(
        "1 Number value=1
         2 Number value=2
         3 Add a=@1
         4 Add a=@2
         5 Show value=@3
         6 Show value=@4",
        "planned 6, 0 cached
         ran 1
         ran 3
         shown 5 2
         ran 5
         ran 2
         ran 4
         shown 6 3
         ran 6
         done",
    );
}

/// What nodes did, by their number.
#[derive(Clone, Default)]
struct Notes(std::sync::Arc<std::sync::Mutex<Vec<Note>>>);

/// A node's number and its signature.
type Note = (i64, [u8; 32]);

/// Leaves something aside that is to go once all is done.
#[derive(Node)]
#[node(category = "toys", sink)]
struct Aside {
    /// Which of several.
    number: i64,
    /// Whether it fails in the end.
    #[input(default = false)]
    fails: bool,
}

impl Run for Aside {
    type Output = ();

    fn run(self, cx: &Context) -> Result<()> {
        let (notes, number) = (cx.service::<Notes>().clone(), self.number);
        let signature = cx.signature().expect("it depends on literals alone");
        cx.when_done(move || notes.0.lock().unwrap().push((number, signature)));
        if self.fails { Err(std::io::Error::other("no").into()) } else { Ok(()) }
    }
}

#[test]
fn what_is_to_follow_a_run_follows_it_once_all_is_made() {
    let run = |graph: &str| {
        let notes = Notes::default();
        let registry = Registry::new([NodeDef::of::<Aside>()], Services::new().with(notes.clone()));
        let plan = Plan::new(read(graph), &registry).unwrap();
        let executor = Executor::new(Cache::new(0).into()).with_workers(1);
        let done = std::sync::atomic::AtomicUsize::new(0);
        let ended = executor.run(&plan, &Cancel::new(), &|event| {
            if let Event::Done = event {
                done.store(notes.0.lock().unwrap().len(), std::sync::atomic::Ordering::Relaxed);
            }
        });
        let noted = notes.0.lock().unwrap().clone();
        assert_eq!(done.into_inner(), noted.len(), "before the end is told");
        (ended, noted)
    };
    let (ended, first) = run("1 Aside number=1\n2 Aside number=2");
    assert_eq!(ended, Ended::Done);
    assert_eq!(first.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    assert_ne!(first[0].1, first[1].1);
    // Equal work is equal in another run, under another id.
    let (_, again) = run("7 Aside number=2");
    assert_eq!(again[0].1, first[1].1);
    let (ended, none) = run("1 Aside number=1\n2 Aside number=2 fails=true");
    assert_eq!((ended, none), (Ended::Failed, vec![]));
}

#[test]
fn slots_are_told_apart() {
    Room::new().check(
        "1 Divide a=17 b=5
         2 Show value=@1.0
         3 Show value=@1.1",
        "planned 3, 0 cached
         ran 1
         shown 2 3
         ran 2
         shown 3 2
         ran 3
         done",
    );
}

#[test]
fn undeclared_wires_reach_a_node_that_takes_any() {
    Room::new().check(
        "1 Number value=1
         2 Number value=20
         3 Sum x=@1 y=@2 z=300
         4 Show value=@3",
        "planned 4, 0 cached
         ran 1
         ran 2
         ran 3
         shown 4 21
         ran 4
         done",
    );
}

#[test]
fn a_lazy_branch_that_is_not_picked_never_runs() {
    let room = Room::new();
    let graph = "
        1 Number value=1
        2 Break value=2
        3 Switch pick=true on_true=@1 on_false=@2
        4 Show value=@3";
    room.check(
        graph,
        "planned 2, 0 cached
         planned 3, 0 cached
         ran 1
         ran 3
         shown 4 1
         ran 4
         done",
    );
    room.check(
        &graph.replace("pick=true", "pick=false"),
        "planned 3, 1 cached
         cached 1
         planned 4, 1 cached
         failed 2 Break: it broke | mend it",
    );
}

#[test]
fn lazy_inputs_are_all_asked_for_unless_the_node_says_otherwise() {
    Room::new().check(
        "1 Number value=1
         2 Number value=2
         3 Switch pick=true on_true=@2
         4 LazyAdd a=@1 b=@3
         5 Show value=@4",
        "planned 2, 0 cached
         planned 4, 0 cached
         ran 1
         planned 5, 0 cached
         ran 2
         ran 3
         ran 4
         shown 5 3
         ran 5
         done",
    );
}

#[test]
fn a_lazy_input_that_is_not_there_cannot_be_asked_for() {
    Room::new().check(
        "1 Switch pick=false on_true=5
         2 Show value=@1",
        "planned 2, 0 cached
         failed 1 Switch: the node says it needs input `on_false`, but there is no such input in the graph",
    );
}

#[test]
fn a_blocked_branch_is_not_run_and_the_others_are() {
    Room::new().check(
        "1 Gate value=0 message=closed
         2 Add a=@1
         3 Show value=@2
         4 Gate value=7
         5 Add a=@4
         6 Show value=@5",
        "planned 6, 0 cached
         ran 1
         blocked 2 closed
         ran 2
         ran 3
         ran 4
         ran 5
         shown 6 8
         ran 6
         done",
    );
}

#[test]
fn progress_and_warnings_are_told_while_the_node_runs() {
    Room::new().check(
        "1 Steps value=4 steps=2
         2 Show value=@1 noet=x",
        "planned 2, 0 cached
         warning 2 it has no input `noet`; did you mean `note`?
         progress 1 1/2
         progress 1 2/2
         warning 1 that was all
         ran 1
         shown 2 4
         ran 2
         done",
    );
}

#[test]
fn an_error_ends_the_run_and_keeps_what_finished() {
    let room = Room::new();
    let graph = "
        1 Number value=1
        2 Break value=@1
        3 Show value=@2";
    let log = "planned 3, 0 cached
        ran 1
        failed 2 Break: it broke | mend it";
    room.check(graph, log);
    room.check(graph, &log.replace("3, 0 cached\n        ran 1", "3, 1 cached\n        cached 1"));
}

#[test]
fn an_error_keeps_its_type() {
    let room = Room::new();
    let plan = room.plan("1 Break value=1\n2 Show value=@1");
    let ended = room.executor.run(&plan, &Cancel::new(), &|event| {
        if let Event::Failed { error, .. } = event {
            assert!(error.downcast_ref::<Broken>().is_some());
        }
    });
    assert_eq!(ended, Ended::Failed);
}

#[test]
fn a_panic_is_the_nodes_error() {
    for (how, message) in [("panic", "out of cheese"), ("\"formatted panic\"", "3 cheeses too few")] {
        let mut graph = read("1 Break value=3\n2 Show value=@1");
        graph.nodes[0].1.inputs.push(("how".into(), Binding::Literal(how.parse().unwrap_or_else(|_| how.into()))));
        let room = Room::new();
        let plan = Plan::new(&graph, &room.registry).unwrap();
        let log = room.log(&plan, &Cancel::new(), |_| false);
        assert_eq!(log, ["planned 2, 0 cached".into(), format!("failed 1 Break: the node panicked: {message}")]);
    }
}

#[test]
fn a_value_behind_an_asterisk_is_checked_when_it_arrives() {
    Room::new().check(
        "1 Inflate value=1 bytes=9
         2 Switch pick=true on_true=@1
         3 Add a=@2
         4 Show value=@3",
        "planned 3, 0 cached
         planned 4, 0 cached
         ran 1
         ran 2
         failed 3 Add: input `a` expects INT, found BLOB",
    );
}

#[test]
fn a_number_from_a_wire_keeps_to_the_range_too() {
    Room::new().check(
        "1 Number value=999
         2 Add a=@1 b=2
         3 Number value=@2
         4 Show value=@3",
        "planned 4, 0 cached
         ran 1
         ran 2
         failed 3 Number: input `value` expects -1000 to 1000, found 1001",
    );
}

#[test]
fn a_node_sees_the_prompt_as_it_is_saved() {
    let mut graph = read("1 Number value=\"7\"\n2 Show value=@1");
    graph.nodes[0].1.title = Some("seven".into());
    graph.workflow = Some(serde_json::json!({"nodes": []}));
    let room = Room::new();
    let plan = Plan::new(&graph, &room.registry).unwrap();
    assert_eq!(plan.prompt()["1"]["inputs"]["value"], 7);
    assert_eq!(plan.prompt()["1"]["_meta"]["title"], "seven");
    assert_eq!(plan.workflow(), graph.workflow.as_ref());
    assert_eq!(plan.outputs().collect::<Vec<_>>(), ["2"]);
}
