//! The queue by its answers: order, states, what a new process finds.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;

fn open(dir: &std::path::Path) -> SqliteQueue {
    SqliteQueue::open(&dir.join("user/paraflow.db"), false, Box::new(|_| {})).unwrap()
}

fn job(id: &str) -> NewJob {
    NewJob {
        id: id.to_owned(),
        number: None,
        front: false,
        priority: 0,
        prompt: json!({"1": {"class_type": "Toy", "inputs": {}}}),
        extra: json!({"client_id": "c"}),
        outputs: vec!["1".into()],
        client: Some("c".into()),
        key: None,
        webhook: None,
        timeout_ms: None,
    }
}

fn end(state: State) -> End {
    let artefact = Artefact {
        node: "1".into(),
        kind: "images".into(),
        step: None,
        filename: "a.png".into(),
        subfolder: String::new(),
        place: "output".into(),
        bytes: Some(3),
        blake3: Some("abc".into()),
    };
    End {
        state,
        outputs: json!({"1": {"text": ["x"]}}),
        status: json!({"status_str": "success"}),
        meta: json!({}),
        error: None,
        artefacts: vec![artefact],
    }
}

/// Everything.
const KEEP: Retention = Retention { count: u64::MAX, since: None };

/// Runs the next job and gives its id.
fn run_next(queue: &SqliteQueue) -> String {
    let job = queue.take().unwrap();
    queue.finish(&job, end(State::Done), KEEP).wait().unwrap();
    job.id.clone()
}

fn pending(queue: &SqliteQueue) -> Vec<String> {
    queue.snapshot().pending.iter().map(|job| job.id.clone()).collect()
}

#[test]
fn numbers_priorities_and_the_front_decide_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    for id in ["a", "b"] {
        queue.submit(job(id)).wait().unwrap();
    }
    queue.submit(NewJob { front: true, ..job("front") }).wait().unwrap();
    queue.submit(NewJob { number: Some(0.5), ..job("half") }).wait().unwrap();
    queue.submit(NewJob { priority: 1, ..job("urgent") }).wait().unwrap();
    queue.submit(NewJob { number: Some(0.5), ..job("eager") }).wait().unwrap();
    assert_eq!(pending(&queue), ["urgent", "front", "a", "eager", "half", "b"]);
    let body: Json = serde_json::from_slice(&queue.snapshot().body).unwrap();
    assert_eq!(body["queue_pending"][1][0], -2);
    assert_eq!(body["queue_pending"][3][0], 0.5);
    assert_eq!(body["queue_pending"][2][2]["1"]["class_type"], "Toy");
    assert_eq!(body["queue_pending"][2][4], json!(["1"]));
}

#[test]
fn waiting_jobs_are_moved_and_stay_where_they_are_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let queue = open(dir.path());
        for id in ["a", "b", "c", "d"] {
            queue.submit(job(id)).wait().unwrap();
        }
        assert!(queue.reorder("d", Move::Before("b".into())).wait().unwrap());
        assert!(queue.reorder("a", Move::Last).wait().unwrap());
        assert!(queue.reorder("c", Move::First).wait().unwrap());
        assert!(queue.prioritise("a", 5).wait().unwrap());
        assert!(!queue.reorder("x", Move::First).wait().unwrap());
        assert!(!queue.reorder("a", Move::Before("x".into())).wait().unwrap());
        assert_eq!(pending(&queue), ["a", "c", "d", "b"]);
    }
    assert_eq!(pending(&open(dir.path())), ["a", "c", "d", "b"]);
}

#[test]
fn what_ran_when_the_process_ended_waits_again_and_what_ended_does_not() {
    let dir = tempfile::tempdir().unwrap();
    {
        let queue = open(dir.path());
        for id in ["a", "b", "c"] {
            queue.submit(job(id)).wait().unwrap();
        }
        assert_eq!(run_next(&queue), "a");
        assert_eq!(queue.take().unwrap().id, "b");
        // Dropped without a word, as by a kill.
    }
    let queue = open(dir.path());
    assert_eq!(pending(&queue), ["b", "c"]);
    assert_eq!(queue.snapshot().pending[0].attempts, 1);
    assert_eq!(queue.find("a").wait().unwrap().unwrap().state, State::Done);
    // New numbers come after all that were given before.
    let receipt = queue.submit(job("d")).wait().unwrap();
    assert_eq!(receipt.number.as_i64(), Some(3));
    assert_eq!([run_next(&queue), run_next(&queue), run_next(&queue)], ["b", "c", "d"]);
}

#[test]
fn numbers_that_were_skipped_stay_skipped_while_jobs_wait() {
    let dir = tempfile::tempdir().unwrap();
    let number = |queue: &SqliteQueue, job| queue.submit(job).wait().unwrap().number.to_string();
    {
        let queue = open(dir.path());
        assert_eq!(number(&queue, job("a")), "0");
        queue.skip_number();
        queue.skip_number();
        assert_eq!(number(&queue, job("b")), "3");
        // A client's own number moves no counter.
        assert_eq!(number(&queue, NewJob { number: Some(90.0), ..job("c") }), "90.0");
    }
    let queue = open(dir.path());
    assert_eq!(number(&queue, job("d")), "4");
    assert_eq!(pending(&queue), ["a", "b", "d", "c"]);
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("paraflow.db");
    std::fs::write(&path, "no database ".repeat(100)).unwrap();
    let Err(error) = SqliteQueue::open(&path, false, Box::new(|_| {})) else { panic!("it was opened") };
    assert_eq!(error.to_string(), format!("cannot open `{}`: file is not a database", path.display()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "no database ".repeat(100));
    let hint = crate::Error::from(error).hint().unwrap();
    assert!(hint.starts_with("a file that is damaged may be moved away"), "{hint}");
}

#[test]
fn a_job_that_is_deadly_each_time_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).submit(job("deadly")).wait().unwrap();
    let mut deaths = 0;
    loop {
        let queue = open(dir.path());
        if pending(&queue).is_empty() {
            let record = queue.find("deadly").wait().unwrap().unwrap();
            assert_eq!(record.state, State::Failed);
            assert!(record.error.unwrap().contains("died 10 times"));
            break;
        }
        queue.take().unwrap();
        deaths += 1;
    }
    assert_eq!(deaths, 10);
}

#[test]
fn a_parked_job_has_not_been_tried() {
    let dir = tempfile::tempdir().unwrap();
    {
        let queue = open(dir.path());
        queue.submit(job("a")).wait().unwrap();
        let taken = queue.take().unwrap();
        queue.park(&taken).wait().unwrap();
        assert_eq!(pending(&queue), ["a"]);
    }
    assert_eq!(open(dir.path()).snapshot().pending[0].attempts, 0);
}

#[test]
fn equal_keys_are_one_job_and_equal_ids_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let keyed =
        |id: &str, request: &str| NewJob { key: Some(Key { name: "k".into(), request: request.into() }), ..job(id) };
    assert!(!queue.submit(keyed("a", "1")).wait().unwrap().repeated);
    let again = queue.submit(keyed("b", "1")).wait().unwrap();
    assert_eq!((again.id.as_str(), again.repeated), ("a", true));
    assert!(matches!(queue.submit(keyed("c", "2")).wait(), Err(QueueError::KeyReused(_))));
    assert!(matches!(queue.submit(job("a")).wait(), Err(QueueError::Taken(_))));
    assert_eq!(pending(&queue), ["a"]);
    // Also once it is over, and after a restart.
    run_next(&queue);
    drop(queue);
    assert!(open(dir.path()).submit(keyed("d", "1")).wait().unwrap().repeated);
}

#[test]
fn history_has_windows_and_is_searched_and_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    for number in 0..5 {
        let prompt = json!({"1": {"class_type": format!("Toy{number}"), "inputs": {}}});
        queue.submit(NewJob { prompt, ..job(&number.to_string()) }).wait().unwrap();
        let taken = queue.take().unwrap();
        let state = if number == 3 { State::Failed } else { State::Done };
        queue.finish(&taken, end(state), KEEP).wait().unwrap();
    }
    let ids = |max_items, offset| {
        let records = queue.history(Window { max_items, offset }).wait().unwrap();
        records.into_iter().map(|record| record.id).collect::<Vec<_>>().join("")
    };
    assert_eq!(ids(None, None), "01234");
    assert_eq!(ids(Some(2), None), "34");
    assert_eq!(ids(Some(2), Some(-1)), "34");
    assert_eq!(ids(Some(2), Some(1)), "12");
    assert_eq!(ids(None, Some(3)), "34");
    assert_eq!(ids(Some(2), Some(0)), "01");
    assert_eq!(ids(Some(9), Some(7)), "");

    let found = |search: Search| {
        let (records, total) = queue.search(search).wait().unwrap();
        (records.into_iter().map(|record| record.id).collect::<Vec<_>>().join(""), total)
    };
    let all = Search { limit: 10, ..Search::default() };
    assert_eq!(found(all.clone()), ("43210".into(), 5));
    assert_eq!(found(Search { states: vec![State::Failed], ..all.clone() }), ("3".into(), 1));
    assert_eq!(found(Search { text: Some("Toy2".into()), ..all.clone() }), ("2".into(), 1));
    assert_eq!(found(Search { limit: 2, offset: 1, ..all.clone() }), ("32".into(), 5));
    assert_eq!(found(Search { until: Some(0), ..all }), (String::new(), 0));

    let extra = json!({"extra_pnginfo": {"workflow": {"id": "w"}}});
    queue.submit(NewJob { extra, ..job("5") }).wait().unwrap();
    let listed = |listing: Listing| {
        let (records, total) = queue.list(listing).wait().unwrap();
        (records.into_iter().map(|record| record.id).collect::<Vec<_>>().join(""), total)
    };
    assert_eq!(listed(Listing::default()), ("543210".into(), 6));
    assert_eq!(listed(Listing { ascending: true, offset: 1, limit: Some(2), ..Listing::default() }), ("12".into(), 6));
    let states = vec![State::Queued, State::Failed];
    assert_eq!(listed(Listing { states, ..Listing::default() }), ("53".into(), 2));
    let workflow = Some("w".to_owned());
    assert_eq!(listed(Listing { workflow, by_duration: true, ..Listing::default() }), ("5".into(), 1));
    queue.clear().wait().unwrap();

    assert_eq!(queue.artefacts("0").wait().unwrap(), end(State::Done).artefacts);
    assert_eq!(queue.prune(3, None).wait().unwrap(), 2);
    assert_eq!(ids(None, None), "234");
    assert_eq!(queue.artefacts("0").wait().unwrap(), []);
    assert_eq!(queue.forget(&["3".into(), "nobody".into()]).wait().unwrap(), 1);
    assert_eq!(queue.prune(100, Some(i64::MAX)).wait().unwrap(), 2);
    assert_eq!(queue.forget_all().wait().unwrap(), 0);
}

#[test]
fn a_pause_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).pause(true).wait().unwrap();
    let queue = Arc::new(open(dir.path()));
    assert!(queue.snapshot().paused);
    queue.submit(job("a")).wait().unwrap();
    let taking = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.take().map(|job| job.id.clone())
    });
    assert_eq!(pending(&queue), ["a"]);
    queue.pause(false).wait().unwrap();
    assert_eq!(taking.join().unwrap().as_deref(), Some("a"));
    queue.close();
    assert!(queue.take().is_none());
}

#[test]
fn removed_jobs_are_gone_and_every_change_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let on_change = Box::new(move |remaining| telling.lock().unwrap().push(remaining));
    let queue = SqliteQueue::open(&dir.path().join("q.db"), false, on_change).unwrap();
    for id in ["a", "b", "c"] {
        queue.submit(job(id)).wait().unwrap();
    }
    assert_eq!(queue.remove(&["b".into(), "x".into()]).wait().unwrap(), ["b"]);
    assert_eq!(queue.remove(&["x".into()]).wait().unwrap(), [] as [String; 0]);
    queue.take().unwrap();
    assert_eq!(queue.clear().wait().unwrap(), 1);
    assert_eq!(*told.lock().unwrap(), [1, 2, 3, 2, 2, 1]);
    drop(queue);
    let left: Vec<String> = pending(&SqliteQueue::open(&dir.path().join("q.db"), false, Box::new(|_| {})).unwrap());
    assert_eq!(left, ["a"]);
}

#[test]
fn a_job_that_someone_waits_for_is_begun_with_the_commit_that_stores_it() {
    let dir = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let on_change = Box::new(move |remaining| telling.lock().unwrap().push(remaining));
    let queue = Arc::new(SqliteQueue::open(&dir.path().join("user/paraflow.db"), false, on_change).unwrap());
    let taking = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || [queue.take().unwrap(), queue.take().unwrap()].map(|job| (job.id.clone(), job.attempts))
    });
    while queue.waiting_workers() == 0 {
        std::thread::yield_now();
    }
    // Nobody has fetched it when it is answered, perhaps, but it runs.
    queue.submit(job("a")).wait().unwrap();
    let record = queue.find("a").wait().unwrap().unwrap();
    assert_eq!((record.state, record.attempts, record.started.is_some()), (State::Running, 1, true));
    assert_eq!(*told.lock().unwrap(), [1, 1], "it came, and it began");
    // A second one of that id is refused, and the one who waits is still there for the next.
    while queue.waiting_workers() == 0 {
        std::thread::yield_now();
    }
    assert!(matches!(queue.submit(job("a")).wait(), Err(QueueError::Taken(_))));
    queue.submit(job("b")).wait().unwrap();
    assert_eq!(taking.join().unwrap(), [("a".to_owned(), 0), ("b".to_owned(), 0)]);
    // With nobody waiting, or while the queue is paused, it waits.
    queue.submit(job("c")).wait().unwrap();
    assert_eq!(queue.find("c").wait().unwrap().unwrap().state, State::Queued);
    drop(queue);
    let queue = open(dir.path());
    assert_eq!(pending(&queue), ["a", "b", "c"]);
    let attempts = |index: usize| queue.snapshot().pending[index].attempts;
    assert_eq!([attempts(0), attempts(1), attempts(2)], [1, 1, 0]);
}

#[test]
fn many_workers_and_many_submitters_run_every_job_once() {
    let dir = tempfile::tempdir().unwrap();
    let queue = Arc::new(open(dir.path()));
    let ran = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(job) = queue.take() {
                    queue.finish(&job, end(State::Done), KEEP).wait().unwrap();
                    ran.lock().unwrap().push(job.id.clone());
                }
            });
        }
        let submitting: Vec<_> = (0..4)
            .map(|submitter| {
                let queue = &queue;
                scope.spawn(move || {
                    for number in 0..50 {
                        queue.submit(job(&format!("{submitter}-{number}"))).wait().unwrap();
                        if number % 7 == submitter {
                            queue.pause(true).wait().unwrap();
                            queue.pause(false).wait().unwrap();
                        }
                    }
                })
            })
            .collect();
        submitting.into_iter().for_each(|submitter| submitter.join().unwrap());
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while queue.remaining() > 0 {
            assert!(std::time::Instant::now() < until, "{:?}", queue.snapshot());
            std::thread::yield_now();
        }
        queue.close();
    });
    let mut ran = ran.lock().unwrap().clone();
    ran.sort();
    ran.dedup();
    assert_eq!(ran.len(), 200);
    let (_, done) = queue.search(Search { states: vec![State::Done], limit: 1, ..Search::default() }).wait().unwrap();
    assert_eq!(done, 200);
}

#[test]
fn what_a_job_shows_before_its_end_outlives_the_process_and_is_replaced_by_its_like() {
    let dir = tempfile::tempdir().unwrap();
    let sample = |step: u32, filename: &str| Artefact {
        kind: "samples".into(),
        step: Some(step),
        filename: filename.into(),
        place: "temp".into(),
        ..end(State::Done).artefacts.remove(0)
    };
    {
        let queue = open(dir.path());
        queue.submit(job("a")).wait().unwrap();
        assert!(queue.show("a", sample(5, "5.png")).wait().is_err(), "it does not run");
        queue.take().unwrap();
        queue.show("a", sample(5, "5.png")).wait().unwrap();
        queue.show("a", sample(10, "10.png")).wait().unwrap();
    }
    let queue = open(dir.path());
    assert_eq!(queue.artefacts("a").wait().unwrap(), [sample(5, "5.png"), sample(10, "10.png")]);
    let taken = queue.take().unwrap();
    queue.show("a", sample(10, "again.png")).wait().unwrap();
    queue.finish(&taken, end(State::Done), KEEP).wait().unwrap();
    let files = queue.artefacts("a").wait().unwrap();
    assert_eq!(files, [sample(5, "5.png"), sample(10, "again.png"), end(State::Done).artefacts.remove(0)]);
    assert_eq!(queue.artefacts_in("temp").wait().unwrap(), files[..2]);
}

#[test]
fn the_history_is_shortened_with_each_end() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let run = |id: &str, keep: Retention| {
        queue.submit(job(id)).wait().unwrap();
        let taken = queue.take().unwrap();
        queue.finish(&taken, end(State::Done), keep).wait().unwrap();
    };
    let ids = || {
        let records = queue.history(Window::default()).wait().unwrap();
        records.into_iter().map(|record| record.id).collect::<Vec<_>>().join("")
    };
    for id in ["a", "b", "c", "d", "e"] {
        run(id, Retention { count: 3, since: None });
    }
    assert_eq!(ids(), "cde");
    queue.forget(&["d".into()]).wait().unwrap();
    run("f", Retention { count: 3, since: None });
    assert_eq!(ids(), "cef");
    run("g", Retention { count: 9, since: Some(0) });
    assert_eq!(ids(), "cefg");
    run("h", Retention { count: 9, since: Some(i64::MAX) });
    assert_eq!(ids(), "");
}

#[test]
fn two_servers_do_not_share_a_queue() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = SqliteQueue::open(&dir.path().join("user/paraflow.db"), false, Box::new(|_| {}));
    assert!(matches!(second, Err(QueueError::InUse(_))));
    drop(first);
    open(dir.path());
}

#[test]
fn an_end_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    queue.submit(job("a")).wait().unwrap();
    let taken = queue.take().unwrap();
    queue.finish(&taken, end(State::Done), KEEP).wait().unwrap();
    assert!(queue.finish(&taken, end(State::Failed), KEEP).wait().is_err());
    assert_eq!(queue.find("a").wait().unwrap().unwrap().state, State::Done);
}
