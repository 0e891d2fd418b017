//! Leftmost-longest matching over a stream, one character at a time.
//!
//! A thread is a place in a pattern and the byte where its match would start. Threads in the same
//! place have the same future, so the one that started first stands for all: there are never more
//! threads than places. A match is settled once no living thread started at or before it. A match
//! ends every thread that started inside it; that a thread which was stood for is lost with its
//! representative does no harm, for it started before now, and hence inside the match as well.

use crate::pattern::{Pattern, is_word};

/// A match: bytes `start..end` of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    start: usize,
    pattern: usize,
    /// The item that takes the next character; the number of items for a whole word that is
    /// complete, if no letter follows.
    item: usize,
    /// Characters that the item has taken.
    count: usize,
}

pub(crate) struct Matcher {
    patterns: Vec<Pattern>,
    /// The first place of each item of each pattern, in `seen`.
    places: Vec<Vec<usize>>,
    /// For each place, the step that last put a thread there.
    seen: Vec<u64>,
    step: u64,
    /// In order of their starts.
    threads: Vec<Thread>,
    /// Matches that are not settled, in order, apart from each other.
    matches: Vec<Found>,
    /// Bytes read.
    position: usize,
    after_word: bool,
}

impl Matcher {
    pub(crate) fn new(patterns: Vec<Pattern>) -> Self {
        let mut next = 0;
        let mut places = Vec::new();
        for pattern in &patterns {
            let mut firsts = Vec::new();
            for item in &pattern.items {
                firsts.push(next);
                next += item.max;
            }
            firsts.push(next);
            next += 1;
            places.push(firsts);
        }
        Self {
            patterns,
            places,
            seen: vec![0; next],
            step: 0,
            threads: Vec::new(),
            matches: Vec::new(),
            position: 0,
            after_word: false,
        }
    }

    /// Reads on.
    pub(crate) fn push(&mut self, text: &str) {
        for c in text.chars() {
            self.read(c);
        }
    }

    /// Learns that nothing follows.
    pub(crate) fn finish(&mut self) {
        self.complete_words();
        self.threads.clear();
    }

    /// Everything before this byte is settled.
    pub(crate) fn settled(&self) -> usize {
        self.threads.first().map_or(self.position, |thread| thread.start)
    }

    /// Takes the settled matches.
    pub(crate) fn take_settled(&mut self) -> Vec<Found> {
        let settled = match self.threads.first() {
            Some(oldest) => self.matches.partition_point(|found| found.start < oldest.start),
            None => self.matches.len(),
        };
        self.matches.drain(..settled).collect()
    }

    fn read(&mut self, c: char) {
        if !is_word(c) {
            self.complete_words();
        }
        self.step += 1;
        let before = std::mem::take(&mut self.threads);
        let (start, after_word) = (self.position, self.after_word);
        self.position += c.len_utf8();
        self.after_word = is_word(c);
        for thread in before {
            if thread.item < self.patterns[thread.pattern].items.len() {
                self.advance(thread, c);
            }
        }
        for pattern in 0..self.patterns.len() {
            if self.patterns[pattern].whole && after_word {
                continue;
            }
            // Items that may be left out at the start are other ways to start.
            for item in 0..self.patterns[pattern].items.len() {
                self.advance(Thread { start, pattern, item, count: 0 }, c);
                if self.patterns[pattern].items[item].min > 0 {
                    break;
                }
            }
        }
    }

    /// Moves a thread over `c`, to every place where it can be then.
    fn advance(&mut self, thread: Thread, c: char) {
        let pattern = &self.patterns[thread.pattern];
        // A match that was found in this step may have ended it.
        if self.is_inside_match(thread.start) || !pattern.takes(thread.item, c) {
            return;
        }
        let (items, whole) = (pattern.items.len(), pattern.whole);
        let (mut item, mut count) = (thread.item, thread.count + 1);
        while let Some(this) = self.patterns[thread.pattern].items.get(item).copied() {
            if count < this.max {
                self.put(Thread { item, count, ..thread });
            }
            if count < this.min {
                return;
            }
            (item, count) = (item + 1, 0);
        }
        if whole {
            self.put(Thread { item: items, count: 0, ..thread });
        } else {
            self.found(Found { start: thread.start, end: self.position });
        }
    }

    /// Adds a thread, unless an older one is in its place.
    fn put(&mut self, thread: Thread) {
        let place = self.places[thread.pattern][thread.item] + thread.count;
        if std::mem::replace(&mut self.seen[place], self.step) != self.step {
            self.threads.push(thread);
        }
    }

    /// Whole words that are complete end here.
    fn complete_words(&mut self) {
        let complete = |thread: &&Thread| thread.item == self.patterns[thread.pattern].items.len();
        let found: Vec<usize> = self.threads.iter().filter(complete).map(|t| t.start).collect();
        for start in found {
            if !self.is_inside_match(start) {
                self.found(Found { start, end: self.position });
            }
        }
    }

    fn is_inside_match(&self, start: usize) -> bool {
        self.matches.last().is_some_and(|last| last.start < start && start < last.end)
    }

    /// Takes a match in place of all that started later, and ends the threads inside it.
    fn found(&mut self, found: Found) {
        let kept = self.matches.partition_point(|known| known.start < found.start);
        self.matches.truncate(kept);
        self.matches.push(found);
        self.threads.retain(|thread| thread.start <= found.start || thread.start >= found.end);
    }
}
