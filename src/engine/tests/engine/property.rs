//! Random graphs give what a plain evaluation of them gives, whatever the number of workers and the size of the cache.

use std::collections::BTreeMap;
use std::sync::Mutex;

use paraflow_engine::*;
use proptest::prelude::*;

use crate::toys::{Room, read};

/// A node of a random graph: it reads only from those before it.
#[derive(Clone, Debug)]
enum Toy {
    Number(i64),
    Add(usize, usize),
    Quotient(usize),
    Remainder(usize),
    Count(usize),
    Total(usize),
    Switch(bool, usize, usize),
    Show(usize),
}

/// A graph of up to forty nodes, the last of them shown.
fn graphs() -> impl Strategy<Value = Vec<Toy>> {
    let toy = (0..9_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), -9..9_i64);
    prop::collection::vec(toy, 1..40).prop_map(|choices| {
        let mut toys: Vec<Toy> = vec![Toy::Number(1)];
        for (sort, a, b, number) in choices {
            // Nothing reads what only shows.
            let made: Vec<usize> = (0..toys.len()).filter(|&at| !matches!(toys[at], Toy::Show(_))).collect();
            let (a, b) = (made[a.index(made.len())], made[b.index(made.len())]);
            toys.push(match sort {
                0 => Toy::Number(number),
                1 | 2 => Toy::Add(a, b),
                3 => Toy::Quotient(a),
                4 => Toy::Remainder(a),
                5 => Toy::Count(a),
                6 => Toy::Total(a),
                7 => Toy::Switch(number > 0, a, b),
                _ => Toy::Show(a),
            });
        }
        let last = (0..toys.len()).rfind(|&at| !matches!(toys[at], Toy::Show(_))).unwrap_or(0);
        toys.push(Toy::Show(last));
        toys
    })
}

fn written(toys: &[Toy]) -> String {
    let line = |(at, toy): (usize, &Toy)| match toy {
        Toy::Number(number) => format!("{at} Number value={number}"),
        Toy::Add(a, b) => format!("{at} Add a=@{a} b=@{b}"),
        Toy::Quotient(a) => format!("{at}d Divide a=@{a} b=3\n{at} Add a=@{at}d.0 b=0"),
        Toy::Remainder(a) => format!("{at}d Divide a=@{a} b=3\n{at} Add a=@{at}d.1 b=0"),
        // Not long, and never empty.
        Toy::Count(a) => format!(
            "{at}d Divide a=@{a} b=4\n{at}t Total values=@{at}d.1\n{at}c Count to=5\n{at} Add a=@{at}c b=@{at}t"
        ),
        Toy::Total(a) => format!("{at}t Total values=@{a}\n{at}d Divide a=@{at}t b=1000\n{at} Add a=@{at}d.1 b=0"),
        Toy::Switch(pick, a, b) => format!("{at} Switch pick={pick} on_true=@{a} on_false=@{b}"),
        Toy::Show(a) => format!("{at} Show value=@{a}"),
    };
    toys.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

/// What each of them shows, by the plainest evaluation there is.
fn evaluated(toys: &[Toy]) -> BTreeMap<String, Vec<i64>> {
    let mut values: Vec<Vec<i64>> = Vec::new();
    let mut shown = BTreeMap::new();
    for (at, toy) in toys.iter().enumerate() {
        let zipped = |a: &[i64], b: &[i64], join: fn(i64, i64) -> i64| -> Vec<i64> {
            let nth = |list: &[i64], index: usize| list[index.min(list.len() - 1)];
            (0..a.len().max(b.len())).map(|index| join(nth(a, index), nth(b, index))).collect()
        };
        values.push(match toy {
            Toy::Number(number) => vec![*number],
            Toy::Add(a, b) => zipped(&values[*a], &values[*b], |a, b| a + b),
            Toy::Quotient(a) => values[*a].iter().map(|number| number / 3).collect(),
            Toy::Remainder(a) => values[*a].iter().map(|number| number % 3).collect(),
            Toy::Count(a) => {
                let remainders: i64 = values[*a].iter().map(|number| number % 4).sum();
                (1..=5).map(|number| number + remainders).collect()
            }
            Toy::Total(a) => vec![values[*a].iter().sum::<i64>() % 1000],
            Toy::Switch(pick, a, b) => values[if *pick { *a } else { *b }].clone(),
            Toy::Show(a) => {
                shown.insert(at.to_string(), values[*a].clone());
                Vec::new()
            }
        });
    }
    shown
}

fn run(room: &Room, executor: &Executor, toys: &[Toy]) -> BTreeMap<String, Vec<i64>> {
    let plan = Plan::new(read(&written(toys)), &room.registry).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let shown = Mutex::new(BTreeMap::new());
    let ended = executor.run(&plan, &Cancel::new(), &|event| {
        if let Event::Output { node, ui } = event {
            let numbers = ui["text"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().parse().unwrap());
            shown.lock().unwrap().insert(node, numbers.collect());
        }
    });
    assert_eq!(ended, Ended::Done);
    shown.into_inner().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_graphs_give_what_a_plain_evaluation_gives(
        toys in graphs(),
        workers in 1..5_usize,
        budget in 0..20_000_usize,
    ) {
        let room = Room::new();
        let executor = Executor::new(Cache::new(budget).into()).with_workers(workers);
        let expected = evaluated(&toys);
        prop_assert_eq!(run(&room, &executor, &toys), expected.clone());
        // And again, from what the cache kept.
        prop_assert_eq!(run(&room, &executor, &toys), expected);
        prop_assert!(executor.cache.bytes() <= budget);
    }

    #[test]
    fn after_a_change_a_warm_cache_gives_what_a_cold_one_gives(toys in graphs(), other in graphs()) {
        let room = Room::new();
        let mut changed = toys.clone();
        // The first half of one graph, then numbers of the other where they fit.
        for (toy, new) in changed.iter_mut().zip(&other) {
            if let (Toy::Number(number), Toy::Number(new)) = (toy, new) {
                *number = *new;
            }
        }
        let executor = Executor::new(Cache::new(1 << 20).into()).with_workers(2);
        run(&room, &executor, &toys);
        prop_assert_eq!(run(&room, &executor, &changed), evaluated(&changed));
    }
}
