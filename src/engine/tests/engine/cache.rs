//! What is not done again.

use std::collections::BTreeMap;

use crate::toys::Room;

const SUM: &str = "
    1 Number value=1
    2 Number value=2
    3 Add a=@1 b=@2
    4 Show value=@3";

#[test]
fn the_same_graph_again_runs_nothing_and_shows_everything() {
    let room = Room::new();
    room.check(
        SUM,
        "planned 4, 0 cached
         ran 1
         ran 2
         ran 3
         shown 4 3
         ran 4
         done",
    );
    room.check(
        SUM,
        "planned 4, 4 cached
         cached 1
         cached 2
         cached 3
         cached 4
         shown 4 3
         done",
    );
}

#[test]
fn one_changed_literal_runs_what_depends_on_it() {
    let room = Room::new();
    room.log(&room.plan(SUM), &Default::default(), |_| false);
    room.check(
        &SUM.replace("value=2", "value=5"),
        "planned 4, 1 cached
         cached 1
         ran 2
         ran 3
         shown 4 6
         ran 4
         done",
    );
}

#[test]
fn ids_titles_spellings_and_defaults_are_no_change() {
    let room = Room::new();
    room.log(&room.plan("1 Number value=0\n2 Add a=@1 b=1\n3 Show value=@2"), &Default::default(), |_| false);
    room.check(
        "x Show value=@y
         y Add a=@z
         z Number",
        "planned 3, 3 cached
         cached x
         shown x 1
         cached y
         cached z
         done",
    );
    room.check("1 Number value=\"0\"\n3 Show value=@1", "planned 2, 1 cached\ncached 1\nshown 3 0\nran 3\ndone");
}

#[test]
fn equal_subtrees_of_one_graph_run_once() {
    Room::new().check(
        "1 Number value=2
         2 Number value=2
         3 Add a=@1
         4 Add a=@2
         5 Add a=@3 b=@4
         6 Show value=@5
         7 Show value=@5",
        "planned 7, 0 cached
         ran 1
         cached 2
         ran 3
         cached 4
         ran 5
         shown 6 6
         ran 6
         cached 7
         shown 7 6
         done",
    );
}

#[test]
fn a_file_that_changes_on_disk_is_read_again_and_nothing_else() {
    let room = Room::new();
    *room.disk.0.lock().unwrap() = BTreeMap::from([("a".into(), "one".into()), ("b".into(), "two".into())]);
    let graph = "
        1 ReadFile file=a
        2 Show value=@1
        3 ReadFile file=b
        4 Show value=@3";
    room.log(&room.plan(graph), &Default::default(), |_| false);
    room.disk.0.lock().unwrap().insert("a".into(), "new".into());
    room.check(
        graph,
        "planned 4, 2 cached
         cached 3
         cached 4
         shown 4 \"two\"
         ran 1
         shown 2 \"new\"
         ran 2
         done",
    );
}

#[test]
fn a_file_that_is_gone_since_the_plan_fails_its_node_only_when_it_runs() {
    let room = Room::new();
    room.disk.0.lock().unwrap().insert("a".into(), "one".into());
    let used = room.plan("1 ReadFile file=a\n2 Show value=@1");
    let unused = room.plan("1 ReadFile file=a\n2 Switch pick=true on_true=1 on_false=@1\n3 Show value=@2");
    room.disk.0.lock().unwrap().clear();
    assert_eq!(
        room.log(&used, &Default::default(), |_| false),
        ["planned 2, 0 cached", "failed 1 ReadFile: the file is gone"]
    );
    assert_eq!(
        room.log(&unused, &Default::default(), |_| false),
        ["planned 2, 0 cached", "ran 2", "shown 3 1", "ran 3", "done"]
    );
}

#[test]
fn a_volatile_node_and_what_reads_it_run_every_time() {
    let room = Room::new();
    let graph = "
        1 Now
        2 Now
        3 Number value=5
        4 Sum a=@1 b=@2 c=@3
        5 Show value=@4";
    room.check(
        graph,
        "planned 5, 0 cached
         ran 1
         ran 2
         ran 3
         ran 4
         shown 5 6
         ran 5
         done",
    );
    room.check(
        graph,
        "planned 5, 1 cached
         cached 3
         ran 1
         ran 2
         ran 4
         shown 5 10
         ran 5
         done",
    );
    assert_eq!(room.executor.cache.len(), 1);
}

/// Two large values, of which a budget of 5,000 bytes holds one.
const LARGE: &str = "
    1 Inflate value=1 bytes=3000
    2 Deflate blob=@1
    3 Show value=@2";

#[test]
fn beyond_the_budget_the_longest_unused_goes() {
    let room = Room::with_budget(5000);
    let run = |value: &str| room.log(&room.plan(&LARGE.replace("value=1", value)), &Default::default(), |_| false);
    run("value=1");
    assert_eq!((room.executor.cache.len(), room.executor.cache.bytes()), (3, 3000 + 3 * 256));
    // The second large value drives out the first, and what is made of it stays.
    run("value=2");
    assert_eq!((room.executor.cache.len(), room.executor.cache.bytes()), (5, 3000 + 5 * 256));
    room.check(LARGE, "planned 2, 2 cached\ncached 2\ncached 3\nshown 3 1\ndone");
    // Now the first graph is the one last used, so the second one's goes first.
    room.executor.cache.set_budget(3 * 256);
    room.check(LARGE, "planned 2, 2 cached\ncached 2\ncached 3\nshown 3 1\ndone");
}

#[test]
fn what_is_larger_than_the_budget_is_used_and_not_kept() {
    let room = Room::with_budget(1000);
    let first = "planned 3, 0 cached\nran 1\nran 2\nshown 3 1\nran 3\ndone";
    room.check(LARGE, first);
    assert_eq!((room.executor.cache.len(), room.executor.cache.bytes()), (2, 512));
    // What it was for is there, so nobody misses it.
    room.check(LARGE, "planned 2, 2 cached\ncached 2\ncached 3\nshown 3 1\ndone");
    // What is missing is made again for another reader.
    let other = LARGE.replace("3 Show", "4 Show value=@1\n    3 Show");
    room.check(
        &other,
        "planned 4, 2 cached
         cached 2
         cached 3
         shown 3 1
         ran 1
         shown 4 <BLOB>
         ran 4
         done",
    );
}

#[test]
fn a_value_that_is_handed_on_counts_once() {
    let room = Room::with_budget(5000);
    let graph = LARGE.replace("2 Deflate blob=@1", "s Switch pick=true on_true=@1\n    2 Deflate blob=@s");
    room.log(&room.plan(&graph), &Default::default(), |_| false);
    assert_eq!((room.executor.cache.len(), room.executor.cache.bytes()), (4, 3000 + 4 * 256));
    // It goes with the last that hands it on.
    room.executor.cache.set_budget(3 * 256);
    assert_eq!((room.executor.cache.len(), room.executor.cache.bytes()), (2, 2 * 256));
}

#[test]
fn without_a_budget_everything_runs_every_time() {
    let room = Room::with_budget(0);
    for _ in 0..2 {
        room.check(SUM, "planned 4, 0 cached\nran 1\nran 2\nran 3\nshown 4 3\nran 4\ndone");
    }
    assert!(room.executor.cache.is_empty());
}

#[test]
fn clearing_forgets_everything() {
    let room = Room::new();
    room.log(&room.plan(SUM), &Default::default(), |_| false);
    room.executor.cache.clear();
    assert_eq!((room.executor.cache.len(), room.executor.cache.bytes()), (0, 0));
    room.check(SUM, "planned 4, 0 cached\nran 1\nran 2\nran 3\nshown 4 3\nran 4\ndone");
}
