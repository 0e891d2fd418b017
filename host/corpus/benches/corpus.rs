//! How long an index takes to build and open, and how long an answer takes to trace, against
//! corpora of 100 thousand to 10 million tokens with repeated phrases.
//!
//! `cargo bench -p corpus` writes to a temporary directory; it asserts nothing.

use std::time::Instant;

use corpus::{BuildInput, Document, Segment, SpanLimits, build};

const DOCUMENT_TOKENS: usize = 100;
const VOCABULARY: u32 = 32_000;
/// Phrases of which half of every document is made, so that answers have spans to find.
const PHRASES: usize = 5_000;
const ANSWER_TOKENS: usize = 256;
const ANSWERS: usize = 200;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

/// Tokens of which about half are phrases of 8 to 23 tokens.
fn text(length: usize, phrases: &[Vec<u32>], random: &mut Random) -> Vec<u32> {
    let mut tokens = Vec::with_capacity(length + 24);
    while tokens.len() < length {
        if random.below(2) == 0 {
            tokens.extend_from_slice(&phrases[random.below(phrases.len() as u32) as usize]);
        } else {
            tokens.extend((0..15).map(|_| random.below(VOCABULARY)));
        }
    }
    tokens.truncate(length);
    tokens
}

fn main() {
    let mut random = Random(7);
    let phrases: Vec<Vec<u32>> = (0..PHRASES)
        .map(|_| (0..8 + random.below(16)).map(|_| random.below(VOCABULARY)).collect())
        .collect();
    println!(
        "{:>11} {:>9} {:>9} {:>14} {:>7}",
        "tokens", "build s", "open ms", "ms per answer", "spans"
    );
    for tokens in [100_000, 1_000_000, 10_000_000] {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("segment");
        let documents: Vec<Document> = (0..tokens / DOCUMENT_TOKENS)
            .map(|number| Document {
                id: format!("document-{number}"),
                contributor: format!("contributor-{}", number % 97),
                tokens: text(DOCUMENT_TOKENS, &phrases, &mut random),
            })
            .collect();
        let started = Instant::now();
        build(&path, BuildInput { tokenizer_digest: [0; 32], documents }).expect("builds");
        let built = started.elapsed();
        let started = Instant::now();
        let segment = Segment::open(&path).expect("opens");
        let opened = started.elapsed();
        let limits = SpanLimits { min_tokens: 6, spans_max: 256, documents_per_span_max: 8 };
        let answers: Vec<Vec<u32>> =
            (0..ANSWERS).map(|_| text(ANSWER_TOKENS, &phrases, &mut random)).collect();
        let started = Instant::now();
        let spans: usize = answers.iter().map(|answer| segment.spans(answer, &limits).len()).sum();
        let traced = started.elapsed();
        println!(
            "{tokens:>11} {:>9.2} {:>9.1} {:>14.3} {:>7.1}",
            built.as_secs_f64(),
            opened.as_secs_f64() * 1e3,
            traced.as_secs_f64() * 1e3 / ANSWERS as f64,
            spans as f64 / ANSWERS as f64,
        );
    }
}
