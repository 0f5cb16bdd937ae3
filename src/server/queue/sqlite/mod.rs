//! The queue in SQLite: what waits and runs is also in memory, what has ended only in the file.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use serde_json::{Number, Value as Json};
use tokio::sync::watch;

use super::db::Db;
use super::{
    Artefact, End, Job, Key, Move, NewJob, Queue, QueueError, Receipt, Record, Reply, Search, Snapshot, State, Window,
};
use crate::time::now_ms;

/// A job that the process died under so often is not begun again.
const MOST_ATTEMPTS: u32 = 10;

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

/// Order of waiting jobs: the highest priority, then the smallest number, then the smallest id.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    priority: i64,
    position: f64,
    id: String,
}

impl Eq for Place {}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_priority = other.priority.cmp(&self.priority);
        by_priority.then(self.position.total_cmp(&other.position)).then_with(|| self.id.cmp(&other.id))
    }
}

#[derive(Default)]
struct Memory {
    pending: BTreeMap<Place, Arc<Job>>,
    /// Where each waiting job stands.
    places: HashMap<String, Place>,
    running: Vec<Arc<Job>>,
    paused: bool,
    closed: bool,
    /// The next of ComfyUI's numbers.
    counter: i64,
    /// The next of the history.
    ended: i64,
    snapshot: Option<Arc<Snapshot>>,
}

impl Memory {
    fn remaining(&self) -> usize {
        self.pending.len() + self.running.len()
    }

    fn insert(&mut self, job: Arc<Job>) {
        let place = Place { priority: job.priority, position: job.position, id: job.id.clone() };
        self.places.insert(job.id.clone(), place.clone());
        self.pending.insert(place, job);
    }

    fn take_out(&mut self, id: &str) -> Option<(Place, Arc<Job>)> {
        let place = self.places.remove(id)?;
        let job = self.pending.remove(&place)?;
        Some((place, job))
    }

    fn snapshot(&mut self) -> Arc<Snapshot> {
        if let Some(snapshot) = &self.snapshot {
            return Arc::clone(snapshot);
        }
        let pending: Vec<_> = self.pending.values().cloned().collect();
        let body = queue_body(&self.running, &pending);
        let snapshot = Arc::new(Snapshot { running: self.running.clone(), pending, paused: self.paused, body });
        self.snapshot = Some(Arc::clone(&snapshot));
        snapshot
    }
}

fn queue_body(running: &[Arc<Job>], pending: &[Arc<Job>]) -> Bytes {
    let list = |jobs: &[Arc<Job>]| jobs.iter().map(|job| job.item.as_str()).collect::<Vec<_>>().join(", ");
    format!("{{\"queue_running\": [{}], \"queue_pending\": [{}]}}", list(running), list(pending)).into()
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

/// Reads what waits, after what ran when the process died was put back.
fn recover(connection: &Connection) -> Result<Memory, QueueError> {
    give_up_on_deadly(connection)?;
    connection.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'", [])?;
    let one =
        |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).map(Option::unwrap_or_default);
    let counter = one("SELECT seq FROM sqlite_sequence WHERE name = 'jobs' UNION ALL SELECT 0 LIMIT 1")?;
    let mut memory = Memory { counter, ended: one("SELECT max(ended_seq) FROM jobs")? + 1, ..Memory::default() };
    memory.paused = connection
        .query_row("SELECT value FROM settings WHERE name = 'paused'", [], |row| row.get::<_, String>(0))
        .optional()?
        .is_some_and(|value| value == "true");
    let mut waiting = connection.prepare(
        "SELECT id, number, priority, position, prompt, extra, targets, client, created, timeout_ms, webhook, attempts
         FROM jobs WHERE state = 'queued'",
    )?;
    for job in waiting.query_map([], read_job)? {
        memory.insert(Arc::new(job?));
    }
    Ok(memory)
}

/// A job that takes the process down each time would keep the server from ever doing another.
fn give_up_on_deadly(connection: &Connection) -> Result<(), QueueError> {
    let error = format!("the server died {MOST_ATTEMPTS} times while this job ran; it is not tried again");
    let status = serde_json::json!({"status_str": "error", "completed": false, "messages": []});
    let next: i64 = connection.query_row("SELECT coalesce(max(ended_seq), 0) + 1 FROM jobs", [], |row| row.get(0))?;
    let deadly: Vec<i64> = connection
        .prepare("SELECT seq FROM jobs WHERE state = 'running' AND attempts >= ?1")?
        .query_map([MOST_ATTEMPTS], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for (at, seq) in deadly.into_iter().enumerate() {
        connection.execute(
            "UPDATE jobs SET state = 'failed', ended = ?2, ended_seq = ?3, outputs = '{}', meta = '{}', status = ?4,
             error = ?5 WHERE seq = ?1",
            params![seq, now_ms(), next + at as i64, status.to_string(), error],
        )?;
    }
    Ok(())
}

fn read_job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let json = |text: String| serde_json::from_str::<Json>(&text).unwrap_or_default();
    let (prompt, extra, targets): (String, String, String) = (row.get(4)?, row.get(5)?, row.get(6)?);
    let (id, number): (String, String) = (row.get(0)?, row.get(1)?);
    let item = item(&number, &id, &prompt, &extra, &targets);
    Ok(Job {
        number: number.parse().unwrap_or_else(|_| Number::from(0)),
        id,
        priority: row.get(2)?,
        position: row.get(3)?,
        prompt: json(prompt),
        extra: json(extra),
        outputs: serde_json::from_str(&targets).unwrap_or_default(),
        client: row.get(7)?,
        created: row.get(8)?,
        timeout_ms: row.get::<_, Option<i64>>(9)?.and_then(|ms| u64::try_from(ms).ok()),
        webhook: row.get(10)?,
        attempts: row.get(11)?,
        item,
    })
}

fn item(number: &str, id: &str, prompt: &str, extra: &str, targets: &str) -> String {
    format!("[{number}, {}, {prompt}, {extra}, {targets}]", Json::from(id))
}

/// The columns of a [`Record`], in the order in which [`record`] reads them.
const RECORD: &str = "id, state, number, priority, prompt, extra, targets, created, started, ended, attempts, outputs, \
                      status, meta, error";

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get(0)?,
        state: State::parse(&row.get::<_, String>(1)?).unwrap_or(State::Failed),
        number: row.get::<_, String>(2)?.parse().unwrap_or_else(|_| Number::from(0)),
        priority: row.get(3)?,
        prompt: row.get(4)?,
        extra: row.get(5)?,
        targets: row.get(6)?,
        created: row.get(7)?,
        started: row.get(8)?,
        ended: row.get(9)?,
        attempts: row.get(10)?,
        outputs: row.get(11)?,
        status: row.get(12)?,
        meta: row.get(13)?,
        error: row.get(14)?,
    })
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
            item,
        }
    }
}

/// Stores the job, unless its key or its id is known.
fn insert(connection: &Connection, job: &Job, key: Option<&Key>) -> Result<Receipt, QueueError> {
    if let Some(key) = key {
        let known = connection
            .prepare_cached("SELECT id, number, key_hash FROM jobs WHERE key = ?1")?
            .query_row([&key.name], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))
            .optional()?;
        if let Some((id, number, request)) = known {
            if request != key.request {
                return Err(QueueError::KeyReused(key.name.clone()));
            }
            let number = number.parse().unwrap_or_else(|_| Number::from(0));
            return Ok(Receipt { id, number, repeated: true });
        }
    }
    let stored = connection
        .prepare_cached(
            "INSERT INTO jobs (id, state, number, priority, position, prompt, extra, targets, client, created, key,
             key_hash, webhook, timeout_ms) VALUES (?1, 'queued', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            job.id,
            job.number.to_string(),
            job.priority,
            job.position,
            job.prompt.to_string(),
            job.extra.to_string(),
            Json::from(job.outputs.clone()).to_string(),
            job.client,
            job.created,
            key.map(|key| &key.name),
            key.map(|key| &key.request),
            job.webhook,
            job.timeout_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
        ]);
    match stored {
        Ok(_) => Ok(Receipt { id: job.id.clone(), number: job.number.clone(), repeated: false }),
        Err(rusqlite::Error::SqliteFailure(failure, _)) if failure.code == rusqlite::ErrorCode::ConstraintViolation => {
            Err(QueueError::Taken(job.id.clone()))
        }
        Err(error) => Err(error.into()),
    }
}

fn store_end(connection: &Connection, id: &str, end: &End, ended: i64, seq: i64) -> Result<(), QueueError> {
    let changed = connection
        .prepare_cached(
            "UPDATE jobs SET state = ?2, ended = ?3, ended_seq = ?4, outputs = ?5, status = ?6, meta = ?7, error = ?8
             WHERE id = ?1 AND state = 'running'",
        )?
        .execute(params![
            id,
            end.state.as_str(),
            ended,
            seq,
            end.outputs.to_string(),
            end.status.to_string(),
            end.meta.to_string(),
            end.error,
        ])?;
    if changed != 1 {
        // It was never begun by these books, so its end is none of theirs.
        return Err(rusqlite::Error::QueryReturnedNoRows.into());
    }
    let mut add = connection.prepare_cached("INSERT INTO artefacts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    for (place, file) in end.artefacts.iter().enumerate() {
        let bytes = file.bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        add.execute(params![
            id,
            place as i64,
            file.node,
            file.kind,
            file.filename,
            file.subfolder,
            file.place,
            bytes,
            file.blake3
        ])?;
    }
    Ok(())
}

impl Queue for SqliteQueue {
    fn submit(&self, new: NewJob) -> Reply<Receipt> {
        let job = Arc::new(self.numbered(&new));
        let (stored, key, shared) = (Arc::clone(&job), new.key, Arc::clone(&self.shared));
        self.db.write(
            move |connection| insert(connection, &stored, key.as_ref()),
            move |outcome| {
                if let Ok(Receipt { repeated: false, .. }) = outcome {
                    shared.change(|memory| memory.insert(job));
                    shared.wake.notify_one();
                }
            },
        )
    }

    fn take(&self) -> Option<Arc<Job>> {
        let mut memory = self.shared.memory();
        loop {
            if memory.closed {
                return None;
            }
            if !memory.paused
                && let Some((place, job)) = memory.pending.pop_first()
            {
                memory.places.remove(&place.id);
                self.shared.change_locked(&mut memory, |memory| memory.running.push(Arc::clone(&job)));
                drop(memory);
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
            memory = self.shared.wake.wait(memory).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, job: &Arc<Job>, end: End) -> Reply<()> {
        let (id, ended) = (job.id.clone(), now_ms());
        let seq = {
            let mut memory = self.shared.memory();
            memory.ended += 1;
            memory.ended
        };
        let (shared, finished) = (Arc::clone(&self.shared), Arc::clone(job));
        self.db.write(
            move |connection| store_end(connection, &id, &end, ended, seq),
            move |_| {
                shared.memory().retire(&finished);
                shared.changed.send_modify(|number| *number += 1);
            },
        )
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
        self.db.read(move |connection| {
            let total: i64 =
                connection.query_row("SELECT count(*) FROM jobs WHERE ended_seq IS NOT NULL", [], |row| row.get(0))?;
            let (offset, limit) = match (window.offset, window.max_items) {
                (Some(offset), limit) if offset >= 0 => (offset, limit.unwrap_or(-1)),
                (_, Some(limit)) => ((total - limit).max(0), limit),
                (_, None) => (0, -1),
            };
            let sql =
                format!("SELECT {RECORD} FROM jobs WHERE ended_seq IS NOT NULL ORDER BY ended_seq LIMIT ?1 OFFSET ?2");
            let mut found = connection.prepare_cached(&sql)?;
            let rows = found.query_map([limit, offset], record)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn search(&self, search: Search) -> Reply<(Vec<Record>, u64)> {
        self.db.read(move |connection| {
            let (filter, values) = filter(&search);
            let count = format!("SELECT count(*) FROM jobs WHERE {filter}");
            let total: i64 =
                connection.prepare(&count)?.query_row(params_from_iter(values.iter()), |row| row.get(0))?;
            let sql = format!(
                "SELECT {RECORD} FROM jobs WHERE {filter} ORDER BY ended_seq DESC LIMIT {} OFFSET {}",
                search.limit.min(10_000),
                search.offset.min(i64::MAX as u64)
            );
            let mut found = connection.prepare(&sql)?;
            let rows = found.query_map(params_from_iter(values.iter()), record)?;
            Ok((rows.collect::<Result<_, _>>()?, total.unsigned_abs()))
        })
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
        self.db.write(
            move |connection| {
                // Entries that nobody forgot by hand follow each other, so this looks at one index entry, mostly.
                let oldest: Option<i64> = connection
                    .prepare_cached(
                        "SELECT ended_seq FROM jobs WHERE ended_seq IS NOT NULL ORDER BY ended_seq DESC
                         LIMIT 1 OFFSET ?1",
                    )?
                    .query_row([keep], |row| row.get(0))
                    .optional()?;
                let mut count = 0;
                if let Some(oldest) = oldest {
                    count += connection
                        .prepare_cached("DELETE FROM jobs WHERE ended_seq IS NOT NULL AND ended_seq <= ?1")?
                        .execute([oldest])?;
                }
                if let Some(since) = since {
                    count += connection
                        .prepare_cached("DELETE FROM jobs WHERE ended_seq IS NOT NULL AND ended < ?1")?
                        .execute([since])?;
                }
                Ok(count)
            },
            |_| {},
        )
    }

    fn artefacts(&self, id: &str) -> Reply<Vec<Artefact>> {
        let id = id.to_owned();
        self.db.read(move |connection| {
            let mut found = connection.prepare_cached(
                "SELECT node, kind, filename, subfolder, place, bytes, blake3 FROM artefacts WHERE job = ?1
                 ORDER BY place_in",
            )?;
            let rows = found.query_map([id], |row| {
                Ok(Artefact {
                    node: row.get(0)?,
                    kind: row.get(1)?,
                    filename: row.get(2)?,
                    subfolder: row.get(3)?,
                    place: row.get(4)?,
                    bytes: row.get::<_, Option<i64>>(5)?.and_then(|bytes| u64::try_from(bytes).ok()),
                    blake3: row.get(6)?,
                })
            })?;
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

impl Memory {
    /// The job runs no more. Who tells of it is the one that ran it: after its last event.
    fn retire(&mut self, job: &Arc<Job>) {
        self.running.retain(|running| !Arc::ptr_eq(running, job));
        self.snapshot = None;
    }

    /// Gives the new place, if both jobs wait.
    fn reorder(&mut self, id: &str, to: &Move) -> Option<Place> {
        let place = self.places.get(id)?.clone();
        let (priority, position) = match to {
            Move::Before(other) if other == id => return Some(place),
            Move::Before(other) => {
                let other = self.places.get(other)?;
                let before = self.pending.range(..other.clone()).next_back().map(|(place, _)| place);
                let before = before.filter(|before| before.priority == other.priority);
                let position =
                    before.map_or(other.position - 1.0, |before| f64::midpoint(before.position, other.position));
                (other.priority, position)
            }
            Move::First | Move::Last => {
                let same = self.pending.keys().filter(|other| other.priority == place.priority && other.id != id);
                let positions = same.map(|other| other.position);
                let position = match to {
                    Move::First => positions.fold(f64::INFINITY, f64::min) - 1.0,
                    _ => positions.fold(f64::NEG_INFINITY, f64::max) + 1.0,
                };
                (place.priority, if position.is_finite() { position } else { place.position })
            }
        };
        let (_, job) = self.take_out(id)?;
        self.insert(Arc::new(Job { priority, position, ..(*job).clone() }));
        self.places.get(id).cloned()
    }
}

/// The condition of a search, with its values.
fn filter(search: &Search) -> (String, Vec<Sql>) {
    let mut conditions = vec!["ended_seq IS NOT NULL".to_owned()];
    let mut values = Vec::new();
    if !search.states.is_empty() {
        let marks = vec!["?"; search.states.len()].join(", ");
        conditions.push(format!("state IN ({marks})"));
        values.extend(search.states.iter().map(|state| Sql::from(state.as_str().to_owned())));
    }
    if let Some(text) = &search.text {
        conditions.push("(instr(prompt, ?) > 0 OR instr(extra, ?) > 0 OR id = ?)".to_owned());
        values.extend(std::iter::repeat_n(Sql::from(text.clone()), 3));
    }
    if let Some(since) = search.since {
        conditions.push("ended >= ?".to_owned());
        values.push(since.into());
    }
    if let Some(until) = search.until {
        conditions.push("ended < ?".to_owned());
        values.push(until.into());
    }
    (conditions.join(" AND "), values)
}
