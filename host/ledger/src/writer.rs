//! The one writer: a thread that takes what is queued, writes it, syncs once, and acknowledges.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use fs4::FileExt;

use crate::chain::Digest;
use crate::error::LedgerError;
use crate::record::{Entry, Receipt};
use crate::recover::{Place, Recovery, State, recover};
use crate::segment::{self, PAYLOAD_BYTES_MAX, RECORD_BYTES_BESIDES};
use crate::storage::{Folder, Storage};

/// Limits of a ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerConfig {
    /// A segment that has reached this many bytes is followed by a new one.
    pub segment_bytes_max: u64,
    /// Entries that may wait for the disk; appending blocks beyond it.
    pub queue_entries_max: usize,
    /// Entries that share one sync.
    pub group_entries_max: usize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self { segment_bytes_max: 64 << 20, queue_entries_max: 1024, group_entries_max: 512 }
    }
}

type Done = Box<dyn FnOnce(Result<Receipt, LedgerError>) + Send>;

struct Job {
    entry: Entry,
    done: Done,
}

/// What readers see.
struct Index {
    places: RwLock<HashMap<String, Place>>,
    head: RwLock<(u64, Digest)>,
    /// Set once a write or sync has failed.
    poisoned: AtomicBool,
}

/// An open log. Dropping it writes what is queued and stops the thread.
pub struct Ledger {
    dir: PathBuf,
    sender: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    index: Arc<Index>,
    _lock: File,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the log in `dir`, creating it if it is not there, and checks every record.
    ///
    /// # Errors
    /// [`LedgerError::Locked`] if another process has it open, [`LedgerError::Damaged`] if it does
    /// not check out, [`LedgerError::Io`] from the system.
    pub fn open(dir: &Path, config: &LedgerConfig) -> Result<(Self, Recovery), LedgerError> {
        create_dir(dir).map_err(|error| LedgerError::io("create", dir, error))?;
        let path = dir.join("LOCK");
        let lock = File::create(&path).map_err(|error| LedgerError::io("open", &path, error))?;
        if FileExt::try_lock(&lock).is_err() {
            return Err(LedgerError::Locked { path });
        }
        let mut storage = Folder::new(dir.to_owned());
        let (state, recovery) = recover(&mut storage)?;
        let (head, places) = ((state.next_index, state.head), state.places.clone());
        let index = Arc::new(Index {
            places: RwLock::new(places),
            head: RwLock::new(head),
            poisoned: AtomicBool::new(false),
        });
        let (sender, receiver) = sync_channel(config.queue_entries_max);
        let writer = Writer::new(Box::new(storage), state, *config);
        let (seen, group) = (Arc::clone(&index), config.group_entries_max);
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || run(writer, &receiver, &seen, group))
            .map_err(|error| LedgerError::io("start the writer of", dir, error))?;
        let ledger = Self {
            dir: dir.to_owned(),
            sender: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            index,
            _lock: lock,
        };
        Ok((ledger, recovery))
    }

    /// Queues an entry; waits while the queue is full. `done` is called on the writer's thread once
    /// the entry is on disk, or can't be; it must not block.
    ///
    /// # Errors
    /// [`LedgerError::Closed`] after [`Self::close`].
    pub fn append(
        &self,
        entry: Entry,
        done: impl FnOnce(Result<Receipt, LedgerError>) + Send + 'static,
    ) -> Result<(), LedgerError> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let job = Job { entry, done: Box::new(done) };
        sender.ok_or(LedgerError::Closed)?.send(job).map_err(|_| LedgerError::Closed)
    }

    /// The receipt of that id.
    ///
    /// # Errors
    /// [`LedgerError::Io`] if the file can't be read, [`LedgerError::Damaged`] if the record does
    /// not check out any more.
    pub fn get(&self, id: &str) -> Result<Option<Receipt>, LedgerError> {
        let places = self.index.places.read().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = places.get(id).cloned() else {
            return Ok(None);
        };
        drop(places);
        read_at(&self.dir.join(&place.file), &place).map(Some)
    }

    /// Number of records, and the hash of the last.
    #[must_use]
    pub fn head(&self) -> (u64, Digest) {
        *self.index.head.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a write has failed, after which nothing is taken until the log is opened again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.index.poisoned.load(Ordering::Acquire)
    }

    /// Writes what is queued and stops. Later appends are refused.
    pub fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close();
    }
}

/// One record, read without the rest of its segment.
fn read_at(path: &Path, place: &Place) -> Result<Receipt, LedgerError> {
    use std::io::{Read, Seek, SeekFrom};
    let io = |error| LedgerError::io("read", path, error);
    let mut file = File::open(path).map_err(io)?;
    file.seek(SeekFrom::Start(place.offset)).map_err(io)?;
    let mut bytes = Vec::new();
    let record_bytes_max = (PAYLOAD_BYTES_MAX + RECORD_BYTES_BESIDES) as u64;
    file.take(record_bytes_max).read_to_end(&mut bytes).map_err(io)?;
    let damaged = |reason: &str| crate::error::VerifyError {
        file: place.file.clone(),
        index: place.index,
        offset: place.offset,
        reason: reason.to_owned(),
    };
    let record = segment::decode(&bytes, 0, (place.index, place.previous)).map_err(damaged)?;
    let payload = std::str::from_utf8(record.payload).map_err(|_| damaged("not UTF-8"))?;
    let entry = serde_json::from_str(payload).map_err(|_| damaged("not a receipt"))?;
    let (index, previous_hash, hash) = (place.index, place.previous, record.hash);
    Ok(Receipt { entry, index, previous_hash, hash, payload: payload.to_owned() })
}

fn run(mut writer: Writer, receiver: &Receiver<Job>, index: &Index, group_max: usize) {
    while let Ok(first) = receiver.recv() {
        let mut group = vec![first];
        while group.len() < group_max {
            match receiver.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        let (entries, dones): (Vec<_>, Vec<_>) =
            group.into_iter().map(|job| (job.entry, job.done)).unzip();
        let results = writer.write_group(entries);
        index.poisoned.store(writer.poisoned.is_some(), Ordering::Release);
        publish(index, &results);
        for ((result, _), done) in results.into_iter().zip(dones) {
            done(result);
        }
    }
}

/// Makes a group's receipts readable before anyone is told of them.
fn publish(index: &Index, results: &[Written]) {
    let mut places = index.places.write().unwrap_or_else(PoisonError::into_inner);
    let mut head = index.head.write().unwrap_or_else(PoisonError::into_inner);
    for (result, place) in results {
        if let (Ok(receipt), Some(place)) = (result, place) {
            places.insert(receipt.entry.id.clone(), place.clone());
            *head = (receipt.index + 1, receipt.hash);
        }
    }
}

/// Creates `dir` and what is above it, and syncs the folders that got a new name, so that no crash can
/// take a log away with its folder.
fn create_dir(dir: &Path) -> std::io::Result<()> {
    let dir = std::path::absolute(dir)?;
    let known = dir.ancestors().position(Path::is_dir).unwrap_or_default();
    fs::create_dir_all(&dir)?;
    for folder in dir.ancestors().skip(1).take(known) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A receipt with its place, or why there is none.
type Written = (Result<Receipt, LedgerError>, Option<Place>);

/// Appends groups to the storage. Sync and free of threads, so that tests can cut the power.
pub(crate) struct Writer {
    storage: Box<dyn Storage>,
    state: State,
    config: LedgerConfig,
    poisoned: Option<String>,
}

impl Writer {
    pub(crate) fn new(storage: Box<dyn Storage>, state: State, config: LedgerConfig) -> Self {
        Self { storage, state, config, poisoned: None }
    }

    /// Writes all entries and syncs once. Either every accepted entry is durable, or every one
    /// fails and the writer is poisoned.
    pub(crate) fn write_group(&mut self, entries: Vec<Entry>) -> Vec<Written> {
        if let Some(reason) = &self.poisoned {
            let poisoned = || LedgerError::Poisoned { reason: reason.clone() };
            return entries.iter().map(|_| (Err(poisoned()), None)).collect();
        }
        let mut results: Vec<Written> = Vec::with_capacity(entries.len());
        let mut failed = None;
        let group = self.state.next_index;
        for entry in entries {
            let written = match &failed {
                Some(reason) => Err(LedgerError::Poisoned { reason: String::clone(reason) }),
                None => self.write(entry, group),
            };
            if let Err(error @ LedgerError::Io { .. }) = &written {
                failed = Some(error.to_string());
            }
            results.push(match written {
                Ok((receipt, place)) => (Ok(receipt), Some(place)),
                Err(error) => (Err(error), None),
            });
        }
        if failed.is_none()
            && let Some((name, _)) = self.state.tail.clone()
            && let Err(error) = self.storage.sync(&name)
        {
            failed = Some(LedgerError::io("sync", name, error).to_string());
        }
        if let Some(reason) = failed {
            for (result, place) in results.iter_mut().filter(|(result, _)| result.is_ok()) {
                *result = Err(LedgerError::Poisoned { reason: reason.clone() });
                *place = None;
            }
            self.poisoned = Some(reason);
        }
        results
    }

    fn write(&mut self, entry: Entry, group: u64) -> Result<(Receipt, Place), LedgerError> {
        let refused = |reason: String| LedgerError::Refused { reason };
        if let Some(reason) = entry.fault() {
            return Err(refused(reason));
        }
        if self.state.places.contains_key(&entry.id) {
            return Err(refused(format!("the id {} stands in the log already", entry.id)));
        }
        let payload = serde_json::to_string(&entry).map_err(|error| refused(error.to_string()))?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            let length = payload.len();
            return Err(refused(format!("{length} bytes, more than {PAYLOAD_BYTES_MAX}")));
        }
        let (name, offset) = self.tail()?;
        let (index, previous) = (self.state.next_index, self.state.head);
        let position = segment::Position { index, group, previous };
        let (bytes, hash) = segment::encode(position, payload.as_bytes());
        let io = |error| LedgerError::io("append to", &name, error);
        self.storage.append(&name, &bytes).map_err(io)?;
        let place = Place { file: name.clone(), offset, index, previous };
        self.state.tail = Some((name, offset + bytes.len() as u64));
        self.state.places.insert(entry.id.clone(), place.clone());
        (self.state.next_index, self.state.head) = (index + 1, hash);
        Ok((Receipt { entry, index, previous_hash: previous, hash, payload }, place))
    }

    /// The segment to append to, made if there is none or the last is full.
    fn tail(&mut self) -> Result<(String, u64), LedgerError> {
        if let Some((name, length)) = &self.state.tail
            && *length < self.config.segment_bytes_max
        {
            return Ok((name.clone(), *length));
        }
        if let Some((full, _)) = self.state.tail.take() {
            // Damage in a segment that is not the last is never a torn write: so none may be left.
            let synced = self.storage.sync(&full);
            synced.map_err(|error| LedgerError::io("sync", &full, error))?;
        }
        let name = segment::file_name(self.state.next_index);
        let header = segment::header(self.state.next_index, self.state.head);
        let io = |error| LedgerError::io("create", &name, error);
        self.storage.append(&name, &header).map_err(io)?;
        self.storage.sync(&name).map_err(io)?;
        let tail = (name, header.len() as u64);
        self.state.tail = Some(tail.clone());
        Ok(tail)
    }
}

#[cfg(test)]
mod tests;
