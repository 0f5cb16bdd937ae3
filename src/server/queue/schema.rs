//! The tables, and how older ones become today's.

use rusqlite::{Connection, Transaction};

use super::QueueError;

/// Each entry brings a database from its index to the next version. Never changed once released, only added to.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE jobs (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    state      TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    number     TEXT NOT NULL,
    priority   INTEGER NOT NULL DEFAULT 0,
    position   REAL NOT NULL,
    prompt     TEXT NOT NULL,
    extra      TEXT NOT NULL,
    targets    TEXT NOT NULL,
    client     TEXT,
    created    INTEGER NOT NULL,
    started    INTEGER,
    ended      INTEGER,
    ended_seq  INTEGER,
    attempts   INTEGER NOT NULL DEFAULT 0,
    key        TEXT UNIQUE,
    key_hash   TEXT,
    webhook    TEXT,
    told       INTEGER NOT NULL DEFAULT 0,
    timeout_ms INTEGER,
    outputs    TEXT,
    status     TEXT,
    meta       TEXT,
    error      TEXT
) STRICT;
CREATE INDEX jobs_waiting ON jobs (state, priority DESC, position, id) WHERE state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_ended ON jobs (ended_seq) WHERE ended_seq IS NOT NULL;
CREATE TABLE artefacts (
    job       TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    place_in  INTEGER NOT NULL,
    node      TEXT NOT NULL,
    kind      TEXT NOT NULL,
    filename  TEXT NOT NULL,
    subfolder TEXT NOT NULL,
    place     TEXT NOT NULL,
    bytes     INTEGER,
    blake3    TEXT,
    PRIMARY KEY (job, place_in)
) STRICT, WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
",
    "
ALTER TABLE jobs ADD COLUMN workflow TEXT;
UPDATE jobs SET workflow = extra ->> '$.extra_pnginfo.workflow.id';
CREATE INDEX jobs_listed ON jobs (created, state, workflow, started, ended);
",
    "
ALTER TABLE artefacts ADD COLUMN step INTEGER;
",
];

/// Brings the tables to today's form, whole or not at all.
pub(super) fn migrate(connection: &mut Connection, path: &str) -> Result<(), QueueError> {
    let transaction = connection.transaction()?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(QueueError::TooNew { path: path.to_owned(), found, known });
    }
    apply(&transaction, usize::try_from(found).unwrap_or(0))?;
    transaction.commit()?;
    Ok(())
}

fn apply(transaction: &Transaction<'_>, from: usize) -> Result<(), QueueError> {
    for (version, step) in MIGRATIONS.iter().enumerate().skip(from) {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version as i64 + 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_made_once_and_later_ones_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, "x").unwrap();
        connection.execute("INSERT INTO settings VALUES ('a', 'b')", []).unwrap();
        migrate(&mut connection, "x").unwrap();
        let kept: String = connection.query_row("SELECT value FROM settings", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, "b");
        connection.pragma_update(None, "user_version", 99).unwrap();
        match migrate(&mut connection, "x") {
            Err(QueueError::TooNew { found: 99, known, .. }) => assert_eq!(known, MIGRATIONS.len() as i64),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_versions_jobs_are_kept() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let sql = "INSERT INTO jobs (id, state, number, position, prompt, extra, targets, created)
                   VALUES (?1, 'queued', '0', 0, '{}', ?2, '[]', 0)";
        for (id, extra) in [("a", r#"{"extra_pnginfo": {"workflow": {"id": "w"}}}"#), ("b", "{}")] {
            connection.execute(sql, [id, extra]).unwrap();
        }
        migrate(&mut connection, "x").unwrap();
        let workflow = |id: &str| {
            let sql = "SELECT workflow FROM jobs WHERE id = ?1";
            connection.query_row(sql, [id], |row| row.get::<_, Option<String>>(0)).unwrap()
        };
        assert_eq!((workflow("a"), workflow("b")), (Some("w".into()), None));
    }
}
