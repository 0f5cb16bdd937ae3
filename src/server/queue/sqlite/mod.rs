//! The queue in SQLite: what waits and runs is also in memory, what has ended only in the file.

mod history;
mod memory;
mod recover;
mod rows;

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::{OptionalExtension as _, params};
use serde_json::{Number, Value as Json};
use tokio::sync::watch;

use super::db::Db;
use super::{
    Artefact, End, Job, Listing, Move, NewJob, Queue, QueueError, Receipt, Record, Reply, Retention, Search, Snapshot,
    Window,
};
use crate::time::now_ms;

use memory::Memory;
use recover::recover;
use rows::{ARTEFACT, RECORD, artefact, insert, item, record, store_end, store_shown};

/// Called with the number of jobs that wait or run, in the order of the changes.
pub type OnChange = Box<dyn Fn(usize) + Send + Sync>;

/// The queue in one SQLite file.
pub struct SqliteQueue {
    db: Db,
    shared: Arc<Shared>,
    /// Held as long as the server lives: two servers over one file would both run its jobs.
    _lock: File,
}

struct Shared {
    memory: Mutex<Memory>,
    /// Told when there may be something to take.
    wake: Condvar,
    changed: watch::Sender<u64>,
    on_change: OnChange,
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is in memory, and tells of it before anyone sees the next change.
    fn change<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory();
        self.change_locked(&mut memory, change)
    }

    fn change_locked<T>(&self, memory: &mut Memory, change: impl FnOnce(&mut Memory) -> T) -> T {
        let value = change(memory);
        memory.snapshot = None;
        (self.on_change)(memory.remaining());
        self.changed.send_modify(|number| *number += 1);
        value
    }
}

impl SqliteQueue {
    /// Opens the queue in that file, which is made if it is not there. Jobs that ran when the last process ended wait
    /// again.
    ///
    /// # Errors
    ///
    /// Another server has it, or it cannot be read.
    pub fn open(path: &Path, durable: bool, on_change: OnChange) -> Result<Self, QueueError> {
        let lock = exclusive(path)?;
        let (db, memory) = Db::open(path, durable, recover)?;
        let shared = Arc::new(Shared {
            memory: Mutex::new(memory),
            wake: Condvar::new(),
            changed: watch::Sender::new(0),
            on_change,
        });
        Ok(Self { db, shared, _lock: lock })
    }
}

#[cfg(test)]
impl SqliteQueue {
    /// How many wait in [`Queue::take`].
    pub(super) fn waiting_workers(&self) -> usize {
        let memory = self.shared.memory();
        memory.idle.saturating_sub(memory.handed.len())
    }
}

fn exclusive(path: &Path) -> Result<File, QueueError> {
    let failed = |error: std::io::Error| QueueError::Open { path: path.display().to_string(), fact: error.to_string() };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = File::create(path.with_extension("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(QueueError::InUse(path.display().to_string())),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

impl SqliteQueue {
    /// The job with its number and its place in the order.
    fn numbered(&self, new: &NewJob) -> Job {
        let mut memory = self.shared.memory();
        let number = new.number.map_or_else(
            || {
                let counter = memory.counter;
                memory.counter += 1;
                Number::from(if new.front { -counter } else { counter })
            },
            |number| Number::from_f64(number).unwrap_or_else(|| Number::from(0)),
        );
        drop(memory);
        let position = number.as_f64().unwrap_or(0.0);
        let created = now_ms();
        let mut extra = new.extra.clone();
        if let Json::Object(extra) = &mut extra {
            extra.insert("create_time".into(), created.into());
        }
        let targets = Json::from(new.outputs.clone());
        let item =
            item(&number.to_string(), &new.id, &new.prompt.to_string(), &extra.to_string(), &targets.to_string());
        Job {
            id: new.id.clone(),
            number,
            priority: new.priority,
            position,
            prompt: new.prompt.clone(),
            extra,
            outputs: new.outputs.clone(),
            client: new.client.clone(),
            created,
            timeout_ms: new.timeout_ms,
            webhook: new.webhook.clone(),
            attempts: 0,
            begun: false,
            item,
        }
    }
}

impl Queue for SqliteQueue {
    fn submit(&self, new: NewJob) -> Reply<Receipt> {
        let job = Arc::new(self.numbered(&new));
        let (stored, key) = (Arc::clone(&job), new.key);
        let (promising, shared) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        // Storing a job and its beginning are one commit where they would follow each other anyhow.
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        self.db.write(
            move |connection| {
                let begin = promising.memory().promise();
                begins.store(begin, Ordering::Relaxed);
                insert(connection, &stored, key.as_ref(), begin)
            },
            move |outcome| {
                let begun = begun.load(Ordering::Relaxed);
                let mut memory = shared.memory();
                memory.promised -= usize::from(begun);
                if let Ok(Receipt { repeated: false, .. }) = outcome {
                    let id = job.id.clone();
                    shared.change_locked(&mut memory, |memory| memory.insert(job));
                    if begun {
                        shared.change_locked(&mut memory, |memory| memory.hand(&id));
                    }
                    shared.wake.notify_one();
                }
            },
        )
    }

    fn skip_number(&self) {
        self.shared.memory().counter += 1;
    }

    fn take(&self) -> Option<Arc<Job>> {
        let mut memory = self.shared.memory();
        loop {
            if let Some(job) = memory.handed.pop_front() {
                if !memory.closed {
                    return Some(job);
                }
                // It was begun and nothing of it was done.
                drop(memory);
                drop(self.park(&job));
                memory = self.shared.memory();
                continue;
            }
            if memory.closed {
                return None;
            }
            if !memory.paused
                && let Some((place, job)) = memory.pending.pop_first()
            {
                memory.places.remove(&place.id);
                self.shared.change_locked(&mut memory, |memory| memory.running.push(Arc::clone(&job)));
                let id = job.id.clone();
                // Not waited for: a job whose beginning was lost waits again, as it should.
                drop(self.db.write(
                    move |connection| {
                        let sql =
                            "UPDATE jobs SET state = 'running', started = ?2, attempts = attempts + 1 WHERE id = ?1";
                        connection.prepare_cached(sql)?.execute(params![id, now_ms()])?;
                        Ok(())
                    },
                    |_| {},
                ));
                return Some(job);
            }
            memory.idle += 1;
            memory = self.shared.wake.wait(memory).unwrap_or_else(PoisonError::into_inner);
            memory.idle -= 1;
        }
    }

    fn finish(&self, job: &Arc<Job>, end: End, keep: Retention) -> Reply<()> {
        let (id, ended) = (job.id.clone(), now_ms());
        let seq = {
            let mut memory = self.shared.memory();
            memory.ended += 1;
            memory.ended
        };
        let (shared, finished) = (Arc::clone(&self.shared), Arc::clone(job));
        self.db.write(
            move |connection| {
                store_end(connection, &id, &end, ended, seq)?;
                history::shorten(connection, keep)
            },
            move |stored| {
                // Else it runs by the books, and whoever asked may ask again.
                if stored.is_ok() {
                    shared.memory().retire(&finished);
                    shared.changed.send_modify(|number| *number += 1);
                }
            },
        )
    }

    fn show(&self, id: &str, artefact: Artefact) -> Reply<()> {
        let id = id.to_owned();
        self.db.write(move |connection| store_shown(connection, &id, &artefact), |_| {})
    }

    fn park(&self, job: &Arc<Job>) -> Reply<()> {
        let (id, parked, shared) = (job.id.clone(), Arc::clone(job), Arc::clone(&self.shared));
        self.db.write(
            move |connection| {
                let sql = "UPDATE jobs SET state = 'queued', attempts = max(attempts - 1, 0) WHERE id = ?1";
                connection.execute(sql, [&id])?;
                Ok(())
            },
            move |_| {
                shared.change(|memory| {
                    memory.retire(&parked);
                    memory.insert(parked);
                });
            },
        )
    }

    fn remove(&self, ids: &[String]) -> Reply<Vec<String>> {
        let mut memory = self.shared.memory();
        let there: Vec<&String> = ids.iter().filter(|id| memory.places.contains_key(*id)).collect();
        let removed: Vec<String> = if there.is_empty() {
            Vec::new()
        } else {
            let take_out = |memory: &mut Memory| {
                there.into_iter().filter_map(|id| memory.take_out(id)).map(|(place, _)| place.id).collect()
            };
            self.shared.change_locked(&mut memory, take_out)
        };
        drop(memory);
        self.db.write(
            move |connection| {
                let mut delete = connection.prepare_cached("DELETE FROM jobs WHERE id = ?1 AND state = 'queued'")?;
                for id in &removed {
                    delete.execute([id])?;
                }
                Ok(removed)
            },
            |_| {},
        )
    }

    fn clear(&self) -> Reply<usize> {
        let removed: Vec<String> = self.shared.change(|memory| {
            memory.pending.clear();
            memory.places.drain().map(|(id, _)| id).collect()
        });
        self.db.write(
            move |connection| {
                let mut delete = connection.prepare_cached("DELETE FROM jobs WHERE id = ?1 AND state = 'queued'")?;
                for id in &removed {
                    delete.execute([id])?;
                }
                Ok(removed.len())
            },
            |_| {},
        )
    }

    fn reorder(&self, id: &str, to: Move) -> Reply<bool> {
        let moved = self.shared.change(|memory| memory.reorder(id, &to));
        let id = id.to_owned();
        self.db.write(
            move |connection| {
                let Some(place) = moved else { return Ok(false) };
                let sql = "UPDATE jobs SET priority = ?2, position = ?3 WHERE id = ?1 AND state = 'queued'";
                connection.execute(sql, params![id, place.priority, place.position])?;
                Ok(true)
            },
            |_| {},
        )
    }

    fn prioritise(&self, id: &str, priority: i64) -> Reply<bool> {
        let there = self.shared.change(|memory| {
            let Some((_, job)) = memory.take_out(id) else { return false };
            memory.insert(Arc::new(Job { priority, ..(*job).clone() }));
            true
        });
        let id = id.to_owned();
        self.db.write(
            move |connection| {
                let sql = "UPDATE jobs SET priority = ?2 WHERE id = ?1 AND state = 'queued'";
                connection.execute(sql, params![id, priority])?;
                Ok(there)
            },
            |_| {},
        )
    }

    fn pause(&self, paused: bool) -> Reply<()> {
        let shared = Arc::clone(&self.shared);
        self.db.write(
            move |connection| {
                let value = if paused { "true" } else { "false" };
                let sql = "INSERT INTO settings VALUES ('paused', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1";
                connection.execute(sql, [value])?;
                Ok(())
            },
            move |outcome| {
                if outcome.is_ok() {
                    shared.change(|memory| memory.paused = paused);
                    shared.wake.notify_all();
                }
            },
        )
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.memory().snapshot()
    }

    fn remaining(&self) -> usize {
        self.shared.memory().remaining()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    fn find(&self, id: &str) -> Reply<Option<Record>> {
        let id = id.to_owned();
        self.db.read(move |connection| {
            let sql = format!("SELECT {RECORD} FROM jobs WHERE id = ?1");
            Ok(connection.prepare_cached(&sql)?.query_row([id], record).optional()?)
        })
    }

    fn history(&self, window: Window) -> Reply<Vec<Record>> {
        self.db.read(move |connection| history::window(connection, window))
    }

    fn search(&self, search: Search) -> Reply<(Vec<Record>, u64)> {
        self.db.read(move |connection| history::search(connection, &search))
    }

    fn list(&self, listing: Listing) -> Reply<(Vec<Record>, u64)> {
        self.db.read_after_writes(move |connection| history::list(connection, &listing))
    }

    fn forget(&self, ids: &[String]) -> Reply<usize> {
        let (ids, shared) = (ids.to_vec(), Arc::clone(&self.shared));
        self.db.write(
            move |connection| {
                let mut delete =
                    connection.prepare_cached("DELETE FROM jobs WHERE id = ?1 AND ended_seq IS NOT NULL")?;
                let mut count = 0;
                for id in &ids {
                    count += delete.execute([id])?;
                }
                Ok(count)
            },
            move |_| shared.changed.send_modify(|number| *number += 1),
        )
    }

    fn forget_all(&self) -> Reply<usize> {
        self.db.write(|connection| Ok(connection.execute("DELETE FROM jobs WHERE ended_seq IS NOT NULL", [])?), |_| {})
    }

    fn prune(&self, keep: u64, since: Option<i64>) -> Reply<usize> {
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        self.db.write(move |connection| history::prune(connection, keep, since), |_| {})
    }

    fn artefacts(&self, id: &str) -> Reply<Vec<Artefact>> {
        let id = id.to_owned();
        self.db.read(move |connection| {
            let sql = format!("SELECT {ARTEFACT} FROM artefacts WHERE job = ?1 ORDER BY place_in");
            let mut found = connection.prepare_cached(&sql)?;
            let rows = found.query_map([id], artefact)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn artefacts_in(&self, place: &str) -> Reply<Vec<Artefact>> {
        let place = place.to_owned();
        self.db.read(move |connection| {
            let mut found = connection.prepare(&format!("SELECT {ARTEFACT} FROM artefacts WHERE place = ?1"))?;
            let rows = found.query_map([place], artefact)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn untold(&self) -> Reply<Vec<(String, String)>> {
        self.db.read(|connection| {
            let mut found = connection.prepare_cached(
                "SELECT id, webhook FROM jobs WHERE webhook IS NOT NULL AND told = 0 AND ended_seq IS NOT NULL",
            )?;
            let rows = found.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn told(&self, id: &str) -> Reply<()> {
        let id = id.to_owned();
        self.db.write(
            move |connection| {
                connection.prepare_cached("UPDATE jobs SET told = 1 WHERE id = ?1")?.execute([id])?;
                Ok(())
            },
            |_| {},
        )
    }

    fn close(&self) {
        self.shared.memory().closed = true;
        self.shared.wake.notify_all();
    }
}
