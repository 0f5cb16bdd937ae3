//! Jobs as rows of the database: storing a new one, its end, and reading both.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Number, Value as Json};

use crate::queue::{Artefact, End, Job, Key, QueueError, Receipt, Record, State};
use crate::time::now_ms;

/// Stores the job, unless its key or its id is known: as one that waits, or as one that is begun with that.
pub(super) fn insert(
    connection: &Connection,
    job: &Job,
    key: Option<&Key>,
    begun: bool,
) -> Result<Receipt, QueueError> {
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
            "INSERT INTO jobs (id, number, priority, position, prompt, extra, targets, client, created, key,
             key_hash, webhook, timeout_ms, workflow, state, started, attempts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
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
            job.workflow_id(),
            if begun { State::Running } else { State::Queued }.as_str(),
            begun.then(now_ms),
            u32::from(begun),
        ]);
    match stored {
        Ok(_) => Ok(Receipt { id: job.id.clone(), number: job.number.clone(), repeated: false }),
        Err(rusqlite::Error::SqliteFailure(failure, _)) if failure.code == rusqlite::ErrorCode::ConstraintViolation => {
            Err(QueueError::Taken(job.id.clone()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes down how a running job ended.
pub(super) fn store_end(connection: &Connection, id: &str, end: &End, ended: i64, seq: i64) -> Result<(), QueueError> {
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
    let next: i64 = connection
        .prepare_cached("SELECT coalesce(max(place_in), -1) + 1 FROM artefacts WHERE job = ?1")?
        .query_row([id], |row| row.get(0))?;
    for (place, file) in (next..).zip(&end.artefacts) {
        store_artefact(connection, id, place, file)?;
    }
    Ok(())
}

/// Writes down a file that a running job made, in the place of an earlier one of that node, kind and step.
pub(super) fn store_shown(connection: &Connection, id: &str, file: &Artefact) -> Result<(), QueueError> {
    let runs = connection.prepare_cached("SELECT 1 FROM jobs WHERE id = ?1 AND state = 'running'")?.exists([id])?;
    if !runs {
        return Err(rusqlite::Error::QueryReturnedNoRows.into());
    }
    connection
        .prepare_cached("DELETE FROM artefacts WHERE job = ?1 AND node = ?2 AND kind = ?3 AND step IS ?4")?
        .execute(params![id, file.node, file.kind, file.step])?;
    let next: i64 = connection
        .prepare_cached("SELECT coalesce(max(place_in), -1) + 1 FROM artefacts WHERE job = ?1")?
        .query_row([id], |row| row.get(0))?;
    store_artefact(connection, id, next, file)
}

fn store_artefact(connection: &Connection, id: &str, place: i64, file: &Artefact) -> Result<(), QueueError> {
    let bytes = file.bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    connection
        .prepare_cached(
            "INSERT INTO artefacts (job, place_in, node, kind, filename, subfolder, place, bytes, blake3, step)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            id,
            place,
            file.node,
            file.kind,
            file.filename,
            file.subfolder,
            file.place,
            bytes,
            file.blake3,
            file.step
        ])?;
    Ok(())
}

/// A waiting job: `id, number, priority, position, prompt, extra, targets, client, created, timeout_ms, webhook,
/// attempts`, and whether it was begun.
pub(super) fn read_job(row: &Row<'_>) -> rusqlite::Result<Job> {
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
        begun: row.get(12)?,
        item,
    })
}

/// `[number, id, prompt, extra, outputs]` as it is sent.
pub(super) fn item(number: &str, id: &str, prompt: &str, extra: &str, targets: &str) -> String {
    format!("[{number}, {}, {prompt}, {extra}, {targets}]", Json::from(id))
}

/// The columns of a [`Record`], in the order in which [`record`] reads them.
pub(super) const RECORD: &str = "id, state, number, priority, prompt, extra, targets, created, started, ended, attempts, outputs, \
                      status, meta, error, workflow";

/// A job, whatever its state.
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
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
        workflow: row.get(15)?,
    })
}

/// The columns of an [`Artefact`], in the order in which [`artefact`] reads them.
pub(super) const ARTEFACT: &str = "node, kind, filename, subfolder, place, bytes, blake3, step";

/// A file that a job made.
pub(super) fn artefact(row: &Row<'_>) -> rusqlite::Result<Artefact> {
    Ok(Artefact {
        node: row.get(0)?,
        kind: row.get(1)?,
        filename: row.get(2)?,
        subfolder: row.get(3)?,
        place: row.get(4)?,
        bytes: row.get::<_, Option<i64>>(5)?.and_then(|bytes| u64::try_from(bytes).ok()),
        blake3: row.get(6)?,
        step: row.get(7)?,
    })
}
