//! `corpus.jsonl`, the training data beside an adapter, becomes an indexed segment once.
//!
//! One JSON object per line: `id`, `contributor`, and `messages` (a list of `role` and `content`)
//! or `text`. Each message is indexed by itself, as `<id>/<index>`: a span never runs from one
//! turn into the next.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::request::Digest;
use corpus::{BuildInput, Document, Segment};
use serde::Deserialize;
use tokenization::Tokenizer;

/// Largest `corpus.jsonl` that is indexed at load, in bytes.
const CORPUS_BYTES_MAX: u64 = 256 << 20;
/// Longest line in bytes. Encoding a text takes a hundred times its size for a while.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Longest id of a document and longest name of a contributor, in bytes; receipts repeat them.
const NAME_BYTES_MAX: usize = 256;
/// Part of the key of a cached segment: raised whenever the way lines become documents changes.
const RECIPE: &[u8] = b"corpus.jsonl@1";

/// A corpus that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusLoadError {
    /// A directory, a device or a pipe, which may have no end.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// The file can't be read, or the index can't be written.
    #[error("failed to load corpus {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is over the limit.
    #[error("failed to load corpus {path}: {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A line is not a document.
    #[error("failed to load corpus {path}: line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The index could not be built or opened.
    #[error("failed to index corpus {path}: {reason}")]
    Index {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Line {
    id: String,
    contributor: String,
    #[serde(default)]
    messages: Vec<Turn>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Turn {
    content: String,
}

/// Opens the segment of the corpus at `jsonl`, building it into `cache_dir` first unless the same
/// content under the same tokenizer was built before.
///
/// # Errors
/// Names the file, and the line where there is one.
pub fn load_corpus(
    jsonl: &Path,
    cache_dir: &Path,
    tokenizer: &Tokenizer,
) -> Result<Arc<Segment>, CorpusLoadError> {
    let io = |source| CorpusLoadError::Io { path: jsonl.to_owned(), source };
    let metadata = fs::metadata(jsonl).map_err(io)?;
    // Looked at before it is opened, because opening a pipe can wait for ever.
    if !metadata.is_file() {
        return Err(CorpusLoadError::NotAFile { path: jsonl.to_owned() });
    }
    let bytes = metadata.len();
    if bytes > CORPUS_BYTES_MAX {
        let (path, limit) = (jsonl.to_owned(), CORPUS_BYTES_MAX);
        return Err(CorpusLoadError::TooLarge { path, bytes, limit });
    }
    let content = fs::read(jsonl).map_err(io)?;
    let key = Digest::of_fields([RECIPE, tokenizer.digest().as_slice(), content.as_slice()]);
    fs::create_dir_all(cache_dir).map_err(io)?;
    let segment = cache_dir.join(format!("{key}.seg"));
    let index = |reason: String| CorpusLoadError::Index { path: jsonl.to_owned(), reason };
    if let Ok(found) = Segment::open(&segment) {
        return Ok(Arc::new(found));
    }
    let documents = documents(jsonl, &content, tokenizer)?;
    let input = BuildInput { tokenizer_digest: tokenizer.digest(), documents };
    corpus::build(&segment, input).map_err(|error| index(error.to_string()))?;
    Segment::open(&segment).map(Arc::new).map_err(|error| index(error.to_string()))
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
}

fn documents(
    path: &Path,
    content: &[u8],
    tokenizer: &Tokenizer,
) -> Result<Vec<Document>, CorpusLoadError> {
    let mut documents = Vec::new();
    let mut ids = HashMap::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let fail = |reason: String| {
            let (path, line) = (path.to_owned(), index + 1);
            CorpusLoadError::Line { path, line, reason }
        };
        if line.len() > LINE_BYTES_MAX {
            return Err(fail(format!("{} bytes, more than {LINE_BYTES_MAX}", line.len())));
        }
        let line: Line = serde_json::from_slice(line).map_err(|error| fail(error.to_string()))?;
        for (key, name) in [("id", &line.id), ("contributor", &line.contributor)] {
            if !is_name(name) {
                let rule = format!("1 to {NAME_BYTES_MAX} bytes without control characters");
                return Err(fail(format!("`{key}` must be {rule}")));
            }
        }
        if let Some(first) = ids.insert(line.id.clone(), index + 1) {
            return Err(fail(format!("the id `{}` stands on line {first} already", line.id)));
        }
        let texts = line.messages.into_iter().map(|turn| turn.content).chain(line.text);
        let before = documents.len();
        for (turn, text) in texts.enumerate() {
            let tokens = tokenizer.encode(&text, false).map_err(|error| fail(error.to_string()))?;
            let (id, contributor) = (format!("{}/{turn}", line.id), line.contributor.clone());
            documents.push(Document { id, contributor, tokens });
        }
        if documents.len() == before {
            return Err(fail("neither `messages` nor `text`".to_owned()));
        }
    }
    Ok(documents)
}
