//! From an address to a directory: look at the files, reserve room, read and hash them, show them at once.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
#[cfg(test)]
use object_store::ObjectStore;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};
use url::Url;

use crate::SourceError;
use crate::cache::{Cache, Fetched, Incoming};
use crate::http::{Http, SILENCE_MAX};
use crate::hub::HubClient;
use crate::location::{Location, Prefix, Scheme};
use crate::remote::{Announced, Pieces, Remote};
use crate::store;
use crate::web::{Redirects, Web};

/// The weights, whose digest an address may pin.
const WEIGHTS: &str = "adapter_model.safetensors";
/// Files of an adapter, whether one without it is none, and the bytes that are enough for it.
const FILES: [(&str, bool, u64); 3] = [
    ("adapter_config.json", true, 4 << 20),
    (WEIGHTS, true, u64::MAX),
    ("corpus.jsonl", false, u64::MAX),
];

/// Most adapters that are fetched at once.
const FETCHES_MAX: usize = 4;
/// Most that are fetched or wait for their turn.
pub(crate) const WAITING_MAX: usize = 64;
/// Pieces of a file between the network and the disk.
const PIECES_MAX: usize = 16;
/// Most addresses of which it is remembered what they were.
const KNOWN_MAX: usize = 1 << 16;

/// How adapters are fetched.
#[derive(Clone)]
pub struct SourcesConfig {
    /// Directory of what was fetched.
    pub dir: PathBuf,
    /// What may be fetched; nothing if it is empty.
    pub allowed: Vec<Prefix>,
    /// Bytes of the directory.
    pub cache_bytes_max: u64,
    /// Bytes of one adapter's files.
    pub adapter_bytes_max: u64,
    /// Longest time of a fetch.
    pub timeout: Duration,
    /// Hugging Face's hub, or a mirror of it.
    pub hub_endpoint: String,
    /// Sent to the hub's host, and to no other.
    pub hub_token: Option<String>,
    /// Keys and values for object stores, under their environment's names, such as
    /// `aws_access_key_id`. What a store does not know is ignored.
    pub options: Vec<(String, String)>,
}

/// What the files of an address were, and the name of their content.
type Known = (Vec<Option<Announced>>, String);

/// Fetches adapters.
pub struct Sources {
    config: SourcesConfig,
    cache: Arc<Cache>,
    http: Http,
    redirects: Redirects,
    hub: HubClient,
    /// Who may ask, and who of them is served.
    waiting: Semaphore,
    running: Semaphore,
    /// One per address that is being fetched: who comes second finds what the first brought.
    flights: Mutex<HashMap<Location, Arc<tokio::sync::Mutex<()>>>>,
    /// What addresses were when they were fetched, and the name of their content.
    known: Mutex<HashMap<Location, Known>>,
    /// Stands in for stores of the network.
    #[cfg(test)]
    pub(crate) store: Option<Arc<dyn ObjectStore>>,
}

impl Sources {
    /// Opens the directory, and removes what was not whole. Reads files: for a thread that may wait.
    ///
    /// # Errors
    /// It can't be used, or the hub has no address.
    pub fn open(config: SourcesConfig) -> Result<Self, SourceError> {
        let cache = Cache::open(&config.dir, config.cache_bytes_max)?;
        let http = Http::new();
        let redirects = Redirects { allowed: config.allowed.clone(), hub_stores: false };
        let (endpoint, token) = (&config.hub_endpoint, config.hub_token.clone());
        let hub = HubClient::new(http.clone(), endpoint, token, redirects.clone())?;
        Ok(Self {
            config,
            cache,
            http,
            redirects,
            hub,
            waiting: Semaphore::new(WAITING_MAX),
            running: Semaphore::new(FETCHES_MAX),
            flights: Mutex::default(),
            known: Mutex::default(),
            #[cfg(test)]
            store: None,
        })
    }

    /// Brings the files of an adapter here, if they are not here already. Two who ask for the same
    /// fetch it once. Whoever drops this future ends the fetch.
    ///
    /// # Errors
    /// See [`SourceError`]. Nothing of it is visible then.
    pub async fn fetch(&self, location: &Location) -> Result<Fetched, SourceError> {
        if !self.config.allowed.iter().any(|prefix| prefix.allows(location)) {
            return Err(SourceError::NotAllowed { location: location.to_string() });
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            let (location, waiting_max) = (location.to_string(), WAITING_MAX);
            return Err(SourceError::Busy { location, waiting_max });
        };
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            flights.retain(|_, flight| Arc::strong_count(flight) > 1);
            Arc::clone(flights.entry(location.clone()).or_default())
        };
        let fetch = async {
            let _alone = flight.lock().await;
            let _turn = self.running.acquire().await.expect("never closed");
            self.fetch_once(location).await
        };
        let fetched = tokio::time::timeout(self.config.timeout, fetch).await;
        fetched.unwrap_or_else(|_| {
            let (location, seconds) = (location.to_string(), self.config.timeout.as_secs());
            Err(SourceError::Timeout { location, seconds })
        })
    }

    async fn fetch_once(&self, location: &Location) -> Result<Fetched, SourceError> {
        let remote = self.remote(location)?;
        let named = location.to_string();
        let mut announced = Vec::new();
        for (file, needed, bytes_max) in FILES {
            let looked = tokio::time::timeout(SILENCE_MAX, remote.look(file)).await;
            let looked = looked.unwrap_or_else(|_| Err(silence()));
            let looked = looked.map_err(|reason| SourceError::remote(&named, file, &reason))?;
            if needed && looked.is_none() {
                return Err(SourceError::Missing { location: named, file });
            }
            if let Some(bytes) = looked.as_ref().map(|file| file.bytes).filter(|n| *n > bytes_max) {
                let reason = format!("it has {bytes} bytes, {bytes_max} are enough");
                return Err(SourceError::remote(&named, file, &reason));
            }
            announced.push(looked);
        }
        if let Some(fetched) = self.still_here(location, &announced) {
            return Ok(fetched);
        }
        let bytes = announced.iter().flatten().map(|file| file.bytes);
        let bytes = bytes.fold(0, u64::saturating_add);
        let bytes_max = self.config.adapter_bytes_max;
        if bytes > bytes_max {
            return Err(SourceError::TooLarge { location: named, bytes, bytes_max });
        }
        let (cache, place) = (Arc::clone(&self.cache), named.clone());
        let incoming = on_disk(move || cache.reserve(&place, bytes)).await?;
        let name = self.bring(location, &remote, &announced, &incoming).await?;
        let kept = name.clone();
        let fetched = on_disk(move || incoming.keep(&kept)).await?;
        tracing::info!(location = %named, bytes, content = &name[..12], "adapter fetched");
        self.remember(location, announced, name);
        Ok(fetched)
    }

    /// Brings all files; the digest of them together.
    async fn bring(
        &self,
        location: &Location,
        remote: &Remote,
        announced: &[Option<Announced>],
        incoming: &Incoming,
    ) -> Result<String, SourceError> {
        let named = location.to_string();
        let mut content = Sha256::new();
        for ((file, ..), announced) in FILES.into_iter().zip(announced) {
            let Some(announced) = announced else { continue };
            let one = OneFile { location: &named, file, announced };
            let digest = one.bring(remote, incoming.path()).await?;
            let pinned = location.sha256().filter(|_| file == WEIGHTS);
            for expected in pinned.into_iter().chain(announced.sha256.as_deref()) {
                one.check(expected, &digest)?;
            }
            // Of one length each, so that no file can stand for another.
            content.update(Sha256::digest(file.as_bytes()));
            content.update(digest.as_bytes());
        }
        Ok(hex::encode(content.finalize()))
    }

    fn remember(&self, location: &Location, announced: Vec<Option<Announced>>, name: String) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // What was evicted is not worth remembering.
        known.retain(|_, (_, name)| self.cache.has(name));
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        // What has no version may change unnoticed.
        if announced.iter().flatten().all(|file| file.version.is_some()) {
            known.insert(location.clone(), (announced, name));
        }
    }

    /// Bytes of the budget that are in use.
    #[cfg(test)]
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// What was fetched before, if nothing has changed since.
    fn still_here(&self, location: &Location, announced: &[Option<Announced>]) -> Option<Fetched> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, name) = known.get(location)?;
        if before == announced { self.cache.hold(name) } else { None }
    }

    fn remote(&self, location: &Location) -> Result<Remote, SourceError> {
        let setup = |reason: String| SourceError::Setup { location: location.to_string(), reason };
        match location.scheme() {
            Scheme::Hub => Ok(Remote::Hub(self.hub.repository(location))),
            Scheme::Http | Scheme::Https => {
                let dir =
                    Url::parse(&location.plain()).map_err(|error| setup(error.to_string()))?;
                let (http, redirects) = (self.http.clone(), self.redirects.clone());
                Ok(Remote::Web(Web { http, dir, redirects }))
            }
            Scheme::S3 | Scheme::Gs | Scheme::Az => {
                let opened = store::open(location, &self.config.options, &self.http);
                let (store, dir) = opened.map_err(setup)?;
                #[cfg(test)]
                let store = self.store.clone().unwrap_or(store);
                Ok(Remote::Store { store, dir })
            }
        }
    }
}

/// Runs what waits for the disk where waiting is no harm.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and with it whoever waits here.
        Err(_) => std::future::pending().await,
    }
}

fn silence() -> String {
    format!("nothing came for {} s", SILENCE_MAX.as_secs())
}

/// A file that is being fetched.
struct OneFile<'a> {
    location: &'a str,
    file: &'static str,
    announced: &'a Announced,
}

impl OneFile<'_> {
    /// Writes it into `dir`, on the disk when this returns; its digest.
    async fn bring(&self, remote: &Remote, dir: &Path) -> Result<String, SourceError> {
        let asked = tokio::time::timeout(SILENCE_MAX, remote.read(self.file, self.announced)).await;
        let pieces =
            asked.unwrap_or_else(|_| Err(silence())).map_err(|told| self.refused(&told))?;
        let (to_disk, arriving) = mpsc::channel(PIECES_MAX);
        let path = dir.join(self.file);
        let writing = on_disk(move || write(&path, arriving));
        // Both at once; a writer that fails hangs up, which ends the sender.
        let (sent, written) = tokio::join!(self.pass_on(pieces, to_disk), writing);
        let digest = written?;
        sent?;
        Ok(digest)
    }

    /// Passes on as many bytes as were announced, and no more.
    async fn pass_on(
        &self,
        mut pieces: Pieces,
        to_disk: mpsc::Sender<Bytes>,
    ) -> Result<(), SourceError> {
        let (expected, mut found) = (self.announced.bytes, 0_u64);
        loop {
            let next = tokio::time::timeout(SILENCE_MAX, pieces.next()).await;
            let next = next.unwrap_or_else(|_| Some(Err(silence())));
            let Some(piece) = next.transpose().map_err(|told| self.refused(&told))? else { break };
            found = found.saturating_add(piece.len() as u64);
            if found > expected || to_disk.send(piece).await.is_err() {
                break;
            }
        }
        if found == expected {
            return Ok(());
        }
        let (location, file) = (self.location.to_owned(), self.file);
        Err(SourceError::Length { location, file, expected, found })
    }

    fn refused(&self, reason: &str) -> SourceError {
        SourceError::remote(self.location, self.file, reason)
    }

    fn check(&self, expected: &str, found: &str) -> Result<(), SourceError> {
        if expected == found {
            return Ok(());
        }
        let (location, file) = (self.location.to_owned(), self.file);
        let (expected, found) = (expected.to_owned(), found.to_owned());
        Err(SourceError::Checksum { location, file, expected, found })
    }
}

/// Writes what arrives; its digest.
fn write(path: &Path, mut arriving: mpsc::Receiver<Bytes>) -> Result<String, SourceError> {
    let mut out = std::fs::File::create(path).map_err(SourceError::cache("create", path))?;
    let mut digest = Sha256::new();
    while let Some(piece) = arriving.blocking_recv() {
        digest.update(&piece);
        out.write_all(&piece).map_err(SourceError::cache("write", path))?;
    }
    out.sync_all().map_err(SourceError::cache("write", path))?;
    Ok(hex::encode(digest.finalize()))
}
