//! Documents into a segment: lay out, sort suffixes, write aside, sync, rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use libsais::SuffixArrayConstruction;

use crate::error::BuildError;
use crate::layout::{Layout, TEXT_MAX};

/// Largest token id: one more must still be a signed 32-bit symbol.
const TOKEN_MAX: u32 = i32::MAX as u32 - 1;

/// One document of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name, for readers.
    pub id: String,
    /// Who is credited for it.
    pub contributor: String,
    /// Its token ids.
    pub tokens: Vec<u32>,
}

/// What a segment is built from.
pub struct BuildInput<I> {
    /// Digest of the tokenizer that made the ids.
    pub tokenizer_digest: [u8; 32],
    /// The documents, in the order in which they are numbered.
    pub documents: I,
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Identity of the segment.
    pub digest: [u8; 32],
    /// Documents in it.
    pub documents: u32,
    /// Tokens in it, without separators.
    pub tokens: u64,
}

/// Builds the segment file `out`. It appears whole or not at all.
///
/// # Errors
/// No documents, too many tokens, a token id over the limit, or the system.
pub fn build<I>(out: &Path, input: BuildInput<I>) -> Result<SegmentInfo, BuildError>
where
    I: IntoIterator<Item = Document>,
{
    let layout = lay_out(input)?;
    let (bytes, digest) = layout.encode();
    write_whole(out, &bytes).map_err(|source| BuildError::Io { path: out.to_owned(), source })?;
    let documents = u32::try_from(layout.document_ids.len()).expect("fewer than symbols");
    let tokens = (layout.text.len() - layout.document_ids.len()) as u64;
    Ok(SegmentInfo { digest, documents, tokens })
}

fn lay_out<I>(input: BuildInput<I>) -> Result<Layout, BuildError>
where
    I: IntoIterator<Item = Document>,
{
    let mut layout = Layout {
        tokenizer: input.tokenizer_digest,
        owner_names: Vec::new(),
        document_ids: Vec::new(),
        document_owners: Vec::new(),
        document_starts: Vec::new(),
        text: Vec::new(),
        suffixes: Vec::new(),
    };
    let mut contributors = Vec::new();
    for document in input.documents {
        if layout.text.len() + document.tokens.len() + 1 > TEXT_MAX {
            return Err(BuildError::TooLarge { limit: TEXT_MAX });
        }
        if let Some(token) = document.tokens.iter().copied().find(|token| *token > TOKEN_MAX) {
            return Err(BuildError::Token { document: document.id, token, limit: TOKEN_MAX });
        }
        let start = u32::try_from(layout.text.len()).expect("within TEXT_MAX");
        layout.document_starts.push(start);
        layout.text.extend(document.tokens.iter().map(|token| token + 1));
        layout.text.push(0);
        layout.document_ids.push(document.id);
        contributors.push(document.contributor);
    }
    if layout.document_ids.is_empty() {
        return Err(BuildError::Empty);
    }
    let mut numbers: BTreeMap<&str, u32> = contributors.iter().map(|name| (&**name, 0)).collect();
    for (number, slot) in (0..).zip(numbers.values_mut()) {
        *slot = number;
    }
    layout.document_owners = contributors.iter().map(|name| numbers[&**name]).collect();
    layout.owner_names = numbers.into_keys().map(str::to_owned).collect();
    layout.suffixes = sort_suffixes(&layout.text)?;
    Ok(layout)
}

fn sort_suffixes(text: &[u32]) -> Result<Vec<u32>, BuildError> {
    // The sorter's tables are as long as the largest symbol: ranks keep the order and bound it.
    let mut alphabet = text.to_vec();
    alphabet.sort_unstable();
    alphabet.dedup();
    let rank = |symbol: &u32| {
        let rank = alphabet.binary_search(symbol).expect("taken from the text");
        i32::try_from(rank).expect("within TEXT_MAX")
    };
    let mut symbols: Vec<i32> = text.iter().map(rank).collect();
    let sorted = SuffixArrayConstruction::for_text_mut(&mut symbols)
        .in_owned_buffer32()
        .single_threaded()
        .run()
        .map_err(|error| BuildError::Sort { reason: error.to_string() })?;
    let unsigned = |suffix| u32::try_from(suffix).expect("suffixes start inside the text");
    Ok(sorted.into_vec().into_iter().map(unsigned).collect())
}

fn write_whole(out: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Named by process: two that build the same corpus at once write the same bytes.
    let aside = out.with_extension(format!("tmp-{}", std::process::id()));
    let written = File::create(&aside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, out)
    });
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&aside);
    }
    written.and_then(|()| File::open(folder)?.sync_all())
}
