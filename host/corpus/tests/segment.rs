//! Segments against a search by brute force, damaged files, and bytes kept for ever.

use std::fs;
use std::path::Path;

use corpus::{BuildError, BuildInput, Document, OpenError, Segment, SpanLimits, build};
use proptest::prelude::*;

const ALL: SpanLimits =
    SpanLimits { min_tokens: 1, spans_max: usize::MAX, documents_per_span_max: usize::MAX };

fn documents(texts: &[Vec<u32>]) -> Vec<Document> {
    let document = |(index, tokens): (usize, &Vec<u32>)| Document {
        id: format!("doc-{index}"),
        contributor: ["Ada", "Ben", "Cleo"][index % 3].to_owned(),
        tokens: tokens.clone(),
    };
    texts.iter().enumerate().map(document).collect()
}

fn segment(texts: &[Vec<u32>]) -> Segment {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("segment");
    let input = BuildInput { tokenizer_digest: [7; 32], documents: documents(texts) };
    let info = build(&path, input).expect("builds");
    let segment = Segment::open(&path).expect("opens");
    assert_eq!(segment.digest(), info.digest);
    segment
}

/// Occurrences of `run` by looking everywhere.
fn count(texts: &[Vec<u32>], run: &[u32]) -> u64 {
    texts.iter().map(|text| text.windows(run.len()).filter(|at| *at == run).count() as u64).sum()
}

/// (start, length) of every run that stands in the corpus and can't be extended.
fn maximal(texts: &[Vec<u32>], output: &[u32], min: usize) -> Vec<(u32, u32)> {
    let is_in = |from: usize, to: usize| count(texts, &output[from..to]) > 0;
    let mut found = Vec::new();
    for from in 0..output.len() {
        for to in from + min..=output.len() {
            let longer =
                from > 0 && is_in(from - 1, to) || to < output.len() && is_in(from, to + 1);
            if is_in(from, to) && !longer {
                found.push((from as u32, (to - from) as u32));
            }
        }
    }
    found
}

proptest! {
    #[test]
    fn spans_are_those_that_brute_force_finds(
        texts in prop::collection::vec(prop::collection::vec(0u32..4, 0..12), 1..8),
        output in prop::collection::vec(0u32..5, 0..16),
        min in 1usize..4,
    ) {
        let segment = segment(&texts);
        let spans = segment.spans(&output, &SpanLimits { min_tokens: min, ..ALL });
        let places: Vec<_> = spans.iter().map(|span| (span.start, span.len)).collect();
        prop_assert_eq!(places, maximal(&texts, &output, min));
        for span in &spans {
            let run = &output[span.start as usize..(span.start + span.len) as usize];
            prop_assert_eq!(span.count, count(&texts, run));
            let holding = |text: &&Vec<u32>| text.windows(run.len()).any(|at| at == run);
            let documents = texts.iter().filter(holding).count();
            prop_assert_eq!(span.documents.len(), documents);
            let by_owner: u32 = span.owners.iter().map(|owner| owner.documents).sum();
            prop_assert_eq!(by_owner as usize, documents);
        }
        for n in 1..4 {
            let counts: Vec<u64> = output.windows(n).map(|run| count(&texts, run)).collect();
            prop_assert_eq!(segment.ngram_counts(&output, n), counts);
        }
    }
}

#[test]
fn no_span_runs_from_one_document_into_the_next() {
    let segment = segment(&[vec![1, 2, 3], vec![4, 5, 6]]);
    let spans = segment.spans(&[2, 3, 4, 5], &ALL);
    let places: Vec<_> = spans.iter().map(|span| (span.start, span.len)).collect();
    assert_eq!(places, [(0, 2), (2, 2)]);
    assert_eq!(segment.owner_name(spans[0].owners[0].owner), "Ada");
    assert_eq!(segment.document_id(spans[1].documents[0]), "doc-1");
}

#[test]
fn limits_on_spans_at_below_and_above() {
    let segment = segment(&[vec![1, 2, 3, 4], vec![9, 9], vec![1, 2, 3, 4]]);
    let output = [1, 2, 3, 4, 0, 9, 9];
    let check = |limits: SpanLimits, expect: &[(u32, u32)]| {
        let spans = segment.spans(&output, &limits);
        let places: Vec<_> = spans.iter().map(|span| (span.start, span.len)).collect();
        assert_eq!(places, expect, "{limits:?}");
    };
    check(SpanLimits { min_tokens: 2, ..ALL }, &[(0, 4), (5, 2)]);
    check(SpanLimits { min_tokens: 3, ..ALL }, &[(0, 4)]);
    check(SpanLimits { min_tokens: 4, ..ALL }, &[(0, 4)]);
    check(SpanLimits { min_tokens: 5, ..ALL }, &[]);
    check(SpanLimits { spans_max: 2, ..ALL }, &[(0, 4), (5, 2)]);
    check(SpanLimits { spans_max: 1, ..ALL }, &[(0, 4)]);
    check(SpanLimits { spans_max: 0, ..ALL }, &[]);
    let one = segment.spans(&output, &SpanLimits { documents_per_span_max: 1, ..ALL });
    assert_eq!((one[0].documents.as_slice(), one[0].count), ([0].as_slice(), 2));
}

#[test]
fn tokens_at_the_edges_of_their_range() {
    let max = i32::MAX as u32 - 1;
    let segment = segment(&[vec![0, max, 5]]);
    assert_eq!(segment.count(&[0]), 1);
    assert_eq!(segment.count(&[max, 5]), 1);
    assert_eq!(segment.count(&[u32::MAX]), 0);
    assert_eq!(segment.count(&[]), 0);
    assert_eq!(segment.ngram_counts(&[0, max, u32::MAX], 2), [1, 0]);
    assert!(segment.spans(&[], &ALL).is_empty());
}

#[test]
fn what_cannot_be_indexed_is_named() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("segment");
    let input = |tokens: Vec<Vec<u32>>| BuildInput {
        tokenizer_digest: [0; 32],
        documents: documents(&tokens),
    };
    assert!(matches!(build(&path, input(vec![])), Err(BuildError::Empty)));
    let token = i32::MAX as u32;
    let error = build(&path, input(vec![vec![1], vec![token]])).expect_err("too large");
    assert!(error.to_string().contains("document doc-1: token id 2147483647"), "{error}");
    assert!(fs::read_dir(dir.path()).expect("lists").next().is_none(), "nothing is left behind");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let texts = [vec![1, 2, 3], vec![], vec![3, 2]];
    assert_eq!(segment(&texts).digest(), segment(&texts).digest());
    assert_ne!(segment(&texts).digest(), segment(&texts[..2]).digest());
}

fn fixture_input() -> BuildInput<Vec<Document>> {
    BuildInput { tokenizer_digest: [7; 32], documents: documents(&[vec![1, 2, 3], vec![2, 3, 4]]) }
}

#[test]
fn every_cut_and_every_flipped_byte_is_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("segment");
    build(&path, fixture_input()).expect("builds");
    let bytes = fs::read(&path).expect("reads");
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x80;
        for damaged in [&flipped[..], &bytes[..at]] {
            fs::write(&path, damaged).expect("writes");
            let opened = Segment::open(&path);
            assert!(matches!(opened, Err(OpenError::Damaged { .. })), "byte {at}");
        }
    }
}

/// A liar can make the digest right; then lengths and indices must be caught one by one.
#[test]
fn lying_lengths_with_a_right_digest_are_refused() {
    use sha2::{Digest, Sha256};
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("segment");
    build(&path, fixture_input()).expect("builds");
    let bytes = fs::read(&path).expect("reads");
    let body = &bytes[..bytes.len() - 32];
    for at in 40..body.len() {
        for value in [0x00, 0x7f, 0xff] {
            let mut lying = body.to_vec();
            lying[at] = value;
            let digest = Sha256::digest(&lying);
            lying.extend_from_slice(&digest);
            fs::write(&path, &lying).expect("writes");
            // What opens must answer without a panic, whatever it answers.
            if let Ok(segment) = Segment::open(&path) {
                let _ = segment.spans(&[1, 2, 3, 4], &ALL);
            }
        }
    }
}

/// The bytes of version 1, kept for ever. If this fails, the format has changed: give it a new
/// magic, and keep reading this file.
#[test]
fn version_1_is_written_and_read_as_it_ever_was() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/corpus-v1.seg");
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("segment");
    build(&path, fixture_input()).expect("builds");
    assert!(fs::read(&path).expect("reads") == fs::read(&fixture).expect("fixture"));
    assert_eq!(Segment::open(&fixture).expect("opens").count(&[2, 3]), 2);
}

#[test]
fn runs_of_no_tokens_are_not_counted() {
    let segment = segment(&[vec![1, 2, 1]]);
    assert_eq!(segment.ngram_counts(&[1, 2], 0), Vec::<u64>::new());
    assert_eq!(segment.ngram_counts(&[1, 2], 1), [2, 1]);
    assert_eq!(segment.ngram_counts(&[1, 2], 3), Vec::<u64>::new());
    assert_eq!(segment.count(&[]), 0);
}
