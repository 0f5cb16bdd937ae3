//! One thread that writes the database, many writes a commit: what waits when a commit is done goes into the next one.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OpenFlags};

use super::{QueueError, Reply, schema};

/// A write, without a connection where there is no transaction to write in. Gives whether it succeeded, and what is to
/// happen once it is committed or has failed.
type Write = Box<dyn FnOnce(Option<&Connection>) -> (bool, Settle) + Send>;
type Settle = Box<dyn FnOnce(Result<(), QueueError>) + Send>;
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The database.
pub(super) struct Db {
    writes: Mutex<Option<Sender<Write>>>,
    reads: Arc<Mutex<Option<Sender<Read>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// At most so many writes a commit, so that the first does not wait long for the last.
const MOST_A_COMMIT: usize = 256;

impl Db {
    /// Opens the file, brings its tables up to date, does `first` in a commit of its own, and starts the threads.
    pub(super) fn open<T>(
        path: &Path,
        durable: bool,
        first: impl FnOnce(&Connection) -> Result<T, QueueError>,
    ) -> Result<(Self, T), QueueError> {
        let shown = path.display().to_string();
        let opened = |error: rusqlite::Error| QueueError::Open { path: shown.clone(), fact: error.to_string() };
        let mut writer = Connection::open(path).map_err(opened)?;
        let found = prepare(&mut writer, durable, &shown, first).map_err(|error| match error {
            QueueError::Database(fact) => QueueError::Open { path: shown.clone(), fact: fact.to_string() },
            other => other,
        })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(path, flags).map_err(opened)?;
        reader.busy_timeout(std::time::Duration::from_secs(10))?;

        let (writes, to_write) = channel();
        let (reads, to_read) = channel::<Read>();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new()
                .name(name.into())
                .spawn(work)
                .map_err(|error| QueueError::Open { path: shown.clone(), fact: error.to_string() })
        };
        let threads = vec![
            spawn("books", Box::new(move || write_all(&mut writer, &to_write)))?,
            spawn("history", Box::new(move || to_read.iter().for_each(|read| read(&reader))))?,
        ];
        let (writes, reads) = (Mutex::new(Some(writes)), Arc::new(Mutex::new(Some(reads))));
        Ok((Self { writes, reads, threads: Mutex::new(threads) }, found))
    }

    /// Does `write` in the next commit. After it, `settle` is called with the outcome, and then the reply is given.
    pub(super) fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
        settle: impl FnOnce(&Result<T, QueueError>) + Send + 'static,
    ) -> Reply<T> {
        let (sender, reply) = Reply::new();
        let command: Write = Box::new(move |connection| {
            let done = connection.map_or(Err(QueueError::Closed), write);
            let succeeded = done.is_ok();
            let settle = move |committed: Result<(), QueueError>| {
                let outcome = committed.and(done);
                settle(&outcome);
                // Whoever asked may be gone.
                let _ = sender.send(outcome);
            };
            (succeeded, Box::new(settle))
        });
        if let Some(writes) = &*lock(&self.writes) {
            let _ = writes.send(command);
        }
        reply
    }

    /// Reads what is committed.
    pub(super) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    ) -> Reply<T> {
        let (reply, command) = command(read);
        if let Some(reads) = &*lock(&self.reads) {
            let _ = reads.send(command);
        }
        reply
    }

    /// Reads once all that was handed in before is committed.
    pub(super) fn read_after_writes<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    ) -> Reply<T> {
        let ((reply, command), reads) = (command(read), Arc::clone(&self.reads));
        let then = move |_: &Result<(), QueueError>| {
            if let Some(reads) = &*lock(&reads) {
                let _ = reads.send(command);
            }
        };
        drop(self.write(|_| Ok(()), then));
        reply
    }
}

/// A read that gives its reply.
fn command<T: Send + 'static>(
    read: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
) -> (Reply<T>, Read) {
    let (sender, reply) = Reply::new();
    let command = move |connection: &Connection| {
        // Whoever asked may be gone.
        let _ = sender.send(read(connection));
    };
    (reply, Box::new(command))
}

/// Writes what was handed in before, then lets go of the file.
impl Drop for Db {
    fn drop(&mut self) {
        lock(&self.writes).take();
        lock(&self.reads).take();
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings the tables up to date, and does `first` in a commit of its own.
fn prepare<T>(
    writer: &mut Connection,
    durable: bool,
    shown: &str,
    first: impl FnOnce(&Connection) -> Result<T, QueueError>,
) -> Result<T, QueueError> {
    configure(writer, durable)?;
    schema::migrate(writer, shown)?;
    let transaction = writer.transaction()?;
    let found = first(&transaction)?;
    transaction.commit()?;
    Ok(found)
}

fn configure(connection: &Connection, durable: bool) -> Result<(), QueueError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What is answered is committed. With FULL each commit waits for the disk, so it also survives the loss of power;
    // with NORMAL the log is synced only now and then, and a commit survives every end of the process, a kill included.
    connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn write_all(connection: &mut Connection, commands: &Receiver<Write>) {
    while let Ok(first) = commands.recv() {
        let mut settle = Vec::new();
        let outcome = commit(connection, first, commands, &mut settle);
        if let Err(error) = &outcome {
            tracing::error!(%error, "the job database was not written");
        }
        for settle in settle {
            settle(outcome.clone());
        }
    }
}

/// One transaction with all that waits. A write that fails leaves nothing, and the others go on.
fn commit(
    connection: &mut Connection,
    first: Write,
    commands: &Receiver<Write>,
    settle: &mut Vec<Settle>,
) -> Result<(), QueueError> {
    let begun = connection.unchecked_transaction();
    let mut next = Some(first);
    while let Some(write) = next.take() {
        let Ok(transaction) = &begun else {
            settle.push(write(None).1);
            break;
        };
        transaction.execute_batch("SAVEPOINT one")?;
        let (succeeded, then) = write(Some(transaction));
        settle.push(then);
        transaction.execute_batch(if succeeded { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" })?;
        if settle.len() < MOST_A_COMMIT {
            next = commands.try_recv().ok();
        }
    }
    begun.and_then(rusqlite::Transaction::commit).map_err(QueueError::from)
}
