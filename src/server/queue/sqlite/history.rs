//! Questions about jobs of the past, and forgetting them.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};

use super::rows::{RECORD, record};
use crate::queue::{Listing, QueueError, Record, Retention, Search, State, Window};

/// What has ended, the oldest first.
pub(super) fn window(connection: &Connection, window: Window) -> Result<Vec<Record>, QueueError> {
    let total: i64 =
        connection.query_row("SELECT count(*) FROM jobs WHERE ended_seq IS NOT NULL", [], |row| row.get(0))?;
    let (offset, limit) = match (window.offset, window.max_items) {
        (Some(offset), limit) if offset >= 0 => (offset, limit.unwrap_or(-1)),
        (_, Some(limit)) => ((total - limit).max(0), limit),
        (_, None) => (0, -1),
    };
    let sql = format!("SELECT {RECORD} FROM jobs WHERE ended_seq IS NOT NULL ORDER BY ended_seq LIMIT ?1 OFFSET ?2");
    let mut found = connection.prepare_cached(&sql)?;
    let rows = found.query_map([limit, offset], record)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What has ended, by content, the newest first, and how many there are.
pub(super) fn search(connection: &Connection, search: &Search) -> Result<(Vec<Record>, u64), QueueError> {
    let (filter, values) = filter(search);
    let count = format!("SELECT count(*) FROM jobs WHERE {filter}");
    let total: i64 = connection.prepare(&count)?.query_row(params_from_iter(values.iter()), |row| row.get(0))?;
    let sql = format!(
        "SELECT {RECORD} FROM jobs WHERE {filter} ORDER BY ended_seq DESC LIMIT {} OFFSET {}",
        search.limit.min(10_000),
        search.offset.min(i64::MAX as u64)
    );
    let mut found = connection.prepare(&sql)?;
    let rows = found.query_map(params_from_iter(values.iter()), record)?;
    Ok((rows.collect::<Result<_, _>>()?, total.unsigned_abs()))
}

/// Jobs of any state, and how many there are. The order is found in an index alone; only what is shown is read.
pub(super) fn list(connection: &Connection, listing: &Listing) -> Result<(Vec<Record>, u64), QueueError> {
    let (mut conditions, mut values) = (vec!["1"], Vec::new());
    let states = state_filter(&listing.states, &mut values);
    conditions.extend(states.as_deref());
    if let Some(workflow) = &listing.workflow {
        conditions.push("workflow = ?");
        values.push(workflow.clone().into());
    }
    let filter = conditions.join(" AND ");
    let key = if listing.by_duration { "coalesce(ended - started, 0)" } else { "created" };
    let direction = if listing.ascending { "ASC" } else { "DESC" };
    let limit = listing.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    let sql = format!(
        "SELECT seq FROM jobs WHERE {filter} ORDER BY {key} {direction}, seq {direction} LIMIT {limit} OFFSET {}",
        listing.offset.min(i64::MAX as u64)
    );
    let count = format!("SELECT count(*) FROM jobs WHERE {filter}");
    let total: i64 = connection.prepare(&count)?.query_row(params_from_iter(values.iter()), |row| row.get(0))?;
    let shown: Vec<i64> = connection
        .prepare(&sql)?
        .query_map(params_from_iter(values.iter()), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut one = connection.prepare_cached(&format!("SELECT {RECORD} FROM jobs WHERE seq = ?1"))?;
    let records = shown.into_iter().map(|seq| one.query_row([seq], record)).collect::<Result<_, _>>()?;
    Ok((records, total.unsigned_abs()))
}

/// Only these states; nothing where there are none to choose from.
fn state_filter(states: &[State], values: &mut Vec<Sql>) -> Option<String> {
    if states.is_empty() {
        return None;
    }
    values.extend(states.iter().map(|state| Sql::from(state.as_str().to_owned())));
    Some(format!("state IN ({})", vec!["?"; states.len()].join(", ")))
}

/// The condition of a search, with its values.
fn filter(search: &Search) -> (String, Vec<Sql>) {
    let mut conditions = vec!["ended_seq IS NOT NULL".to_owned()];
    let mut values = Vec::new();
    conditions.extend(state_filter(&search.states, &mut values));
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

/// Forgets what is not to be kept. Asked at every end, so it looks at the ends of the history first.
pub(super) fn shorten(connection: &Connection, keep: Retention) -> Result<(), QueueError> {
    let count = i64::try_from(keep.count).unwrap_or(i64::MAX);
    let (first, last): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT (SELECT min(ended_seq) FROM jobs WHERE ended_seq IS NOT NULL),
                    (SELECT max(ended_seq) FROM jobs WHERE ended_seq IS NOT NULL)",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT ended FROM jobs WHERE ended_seq = ?1")?
        .query_row([first], |row| row.get(0))?;
    if last - first >= count || keep.since.is_some_and(|since| oldest.is_some_and(|oldest| oldest < since)) {
        prune(connection, count, keep.since)?;
    }
    Ok(())
}

/// Forgets all but the newest `keep`, and what ended before `since`.
pub(super) fn prune(connection: &Connection, keep: i64, since: Option<i64>) -> Result<usize, QueueError> {
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
}
