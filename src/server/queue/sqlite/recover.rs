//! Putting the books in order at a start: what ran when the process died waits again.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::memory::Memory;
use super::rows::read_job;
use crate::queue::QueueError;
use crate::time::now_ms;

/// A job that the process died under so often is not begun again.
const MOST_ATTEMPTS: u32 = 10;

/// Reads what waits, after what ran when the process died was put back.
pub(super) fn recover(connection: &Connection) -> Result<Memory, QueueError> {
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
        "SELECT id, number, priority, position, prompt, extra, targets, client, created, timeout_ms, webhook, attempts,
         started IS NOT NULL FROM jobs WHERE state = 'queued'",
    )?;
    for job in waiting.query_map([], read_job)? {
        let job = job?;
        // Numbers that were skipped are not in the books; a job that comes now goes after those that wait all the same. Those
        // of clients are floats.
        if let Some(number) = job.number.as_i64() {
            memory.counter = memory.counter.max(number.saturating_abs().saturating_add(1));
        }
        memory.insert(Arc::new(job));
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
