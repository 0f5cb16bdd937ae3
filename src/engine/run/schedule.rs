//! Who is next: what is needed, what it waits for, and which results are still to be read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use crate::cache::{BySignature, Cache, Outcome};
use crate::plan::{Plan, Task, Wire};
use crate::run::sign::Signed;
use crate::spec::Lane;

/// Tasks of equal signature are one piece of work: the first of them does it, the others share its result.
pub(crate) struct Work {
    pub(crate) signed: Signed,
    /// By task: the one that does its work.
    pub(crate) leader: Vec<usize>,
    /// By leader, where there are any: those that share its result.
    pub(crate) followers: HashMap<usize, Vec<usize>>,
}

impl Work {
    pub(crate) fn new(signed: Signed) -> Self {
        let mut first: BySignature<usize> = BySignature::default();
        first.reserve(signed.signatures.len());
        let mut followers: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut leader = Vec::with_capacity(signed.signatures.len());
        for (task, signature) in signed.signatures.iter().enumerate() {
            let leads = *first.entry(*signature).or_insert(task);
            if leads != task {
                followers.entry(leads).or_default().push(task);
            }
            leader.push(leads);
        }
        Self { signed, leader, followers }
    }

    /// The tasks that share the leader's result, the leader left out.
    pub(crate) fn followers(&self, leader: usize) -> &[usize] {
        self.followers.get(&leader).map_or(&[], Vec::as_slice)
    }
}

/// The state of a run. Everything is by leader; the others are never looked at.
pub(crate) struct Schedule<'r> {
    plan: &'r Plan,
    work: &'r Work,
    cache: &'r Cache,
    /// Results that someone may still read.
    results: Vec<Option<Arc<Outcome>>>,
    /// Needed, and not finished.
    pending: Vec<bool>,
    /// How many of its wires wait for a result.
    missing: Vec<u32>,
    /// Who waits for the result, once a wire.
    readers: Vec<Vec<u32>>,
    /// How many wires of pending tasks may still read the result.
    uses: Vec<u32>,
    ready: Ready,
    /// Whether the cache may know more than it did at the start.
    under_way: bool,
    /// Tasks that are needed and not finished.
    unfinished: usize,
    /// Nodes that the run needs, those that share a result included.
    pub(crate) total: usize,
}

impl<'r> Schedule<'r> {
    /// Needs the plan's outputs, given what the cache found.
    pub(crate) fn new(plan: &'r Plan, work: &'r Work, cache: &'r Cache, found: Vec<Option<Arc<Outcome>>>) -> Self {
        let tasks = plan.tasks().len();
        let mut schedule = Self {
            plan,
            work,
            cache,
            results: found,
            pending: vec![false; tasks],
            missing: vec![0; tasks],
            readers: vec![Vec::new(); tasks],
            uses: vec![0; tasks],
            ready: Ready::default(),
            under_way: false,
            unfinished: 0,
            total: 0,
        };
        for (position, task) in plan.tasks().iter().enumerate() {
            if task.target {
                schedule.need(work.leader[position]);
            }
        }
        for (result, uses) in schedule.results.iter_mut().zip(&schedule.uses) {
            // What nobody reads is left to the cache, which may drop it.
            if *uses == 0 {
                *result = None;
            }
        }
        schedule.under_way = true;
        schedule
    }

    /// The next task, with the results that its wires bring, in the order of [`Task::wires`]. A lazy one may be
    /// missing.
    pub(crate) fn next(&mut self) -> Option<(usize, Vec<Option<Arc<Outcome>>>)> {
        let position = self.ready.pop()?;
        let task = &self.plan.tasks()[position];
        let results = task.wires().map(|wire| self.results[self.source(wire)].clone()).collect();
        Some((position, results))
    }

    /// Whether another worker would find something to do.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready.has_any()
    }

    /// Whether all that is needed is there.
    pub(crate) fn is_finished(&self) -> bool {
        self.unfinished == 0
    }

    /// The task gave its result: those that waited for it may go, and what only it read is dropped.
    pub(crate) fn finish(&mut self, position: usize, outcome: Arc<Outcome>) {
        self.ready.leave(Kind::of(self.task(position)));
        self.pending[position] = false;
        self.unfinished -= 1;
        if self.uses[position] > 0 {
            self.results[position] = Some(outcome);
        }
        for reader in std::mem::take(&mut self.readers[position]) {
            self.arrived(reader as usize);
        }
        for wire in self.plan.tasks()[position].wires() {
            let source = self.source(wire);
            self.uses[source] -= 1;
            if self.uses[source] == 0 {
                self.results[source] = None;
            }
        }
    }

    /// The task asks for some of its lazy wires before it can go on.
    pub(crate) fn demand(&mut self, position: usize, wires: &[Wire]) {
        self.ready.leave(Kind::of(self.task(position)));
        // One more than there is, so that it is not ready before all of them are asked for.
        self.missing[position] = 1;
        for wire in wires {
            let source = self.source(*wire);
            if !self.is_there(source) {
                self.missing[position] += 1;
                self.readers[source].push(position as u32);
                self.need(source);
            }
        }
        self.arrived(position);
    }

    /// The task gave no result.
    pub(crate) fn abandon(&mut self, position: usize) {
        self.ready.leave(Kind::of(self.task(position)));
    }

    /// Marks the task, and all that it must read first, without recursion: graphs are deep.
    fn need(&mut self, first: usize) {
        let mut stack = vec![first];
        while let Some(position) = stack.pop() {
            if self.pending[position] || self.is_there(position) {
                continue;
            }
            self.pending[position] = true;
            self.unfinished += 1;
            self.total += 1 + self.work.followers(position).len();
            for wire in self.plan.tasks()[position].wires() {
                let source = self.source(wire);
                self.uses[source] += 1;
                if !wire.lazy && !self.is_there(source) {
                    self.missing[position] += 1;
                    self.readers[source].push(position as u32);
                    stack.push(source);
                }
            }
            if self.missing[position] == 0 {
                self.ready.push(position, self.task(position));
            }
        }
    }

    /// Whether the result is at hand, in this run or in the cache.
    fn is_there(&mut self, position: usize) -> bool {
        if self.under_way && self.results[position].is_none() && !self.pending[position] {
            self.results[position] = self.cache.find(&self.work.signed.signatures[position]);
        }
        self.results[position].is_some()
    }

    fn arrived(&mut self, position: usize) {
        self.missing[position] -= 1;
        if self.missing[position] == 0 {
            self.ready.push(position, self.task(position));
        }
    }

    fn source(&self, wire: Wire) -> usize {
        self.work.leader[wire.from]
    }

    fn task(&self, position: usize) -> &'r Task {
        &self.plan.tasks()[position]
    }
}

/// Which tasks run side by side: those of the first kind do; of each other kind, one at a time does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Loads and decides.
    Any,
    /// Computes.
    Compute,
    /// Makes files without computing: those of one batch get numbers in a row, in the same order at every run.
    Sink,
}

impl Kind {
    fn of(task: &Task) -> Self {
        match task.node.spec.lane {
            Lane::Compute => Self::Compute,
            Lane::Any if task.node.spec.sink => Self::Sink,
            Lane::Any => Self::Any,
        }
    }
}

/// Tasks that wait for a worker, by kind, the lowest rank first, then in the plan's order.
#[derive(Default)]
struct Ready {
    waiting: [BinaryHeap<Reverse<(u8, u32)>>; 3],
    busy: [bool; 3],
}

impl Ready {
    fn push(&mut self, position: usize, task: &Task) {
        self.waiting[Kind::of(task) as usize].push(Reverse((task.rank, position as u32)));
    }

    fn pop(&mut self) -> Option<usize> {
        // `Reverse` turns the order round: the greater of two goes first.
        let kind = self.free().max_by_key(|&kind| self.waiting[kind].peek())?;
        let Reverse((_, position)) = self.waiting[kind].pop()?;
        self.busy[kind] = kind != Kind::Any as usize;
        Some(position as usize)
    }

    fn leave(&mut self, kind: Kind) {
        self.busy[kind as usize] = false;
    }

    fn has_any(&self) -> bool {
        self.free().any(|kind| !self.waiting[kind].is_empty())
    }

    /// The kinds of which one more may run.
    fn free(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.waiting.len()).filter(|&kind| !self.busy[kind])
    }
}
