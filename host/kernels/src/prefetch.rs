//! Asking for memory before it is needed. An adapter's part of a tile is a few kilobytes somewhere: too
//! short for the processor to see what comes next, and there is one per row. So whoever computes asks
//! for what comes after, a line here and there: all at once would wait for memory as reading does.

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Most lines asked for in the time of a run.
const LINES_MAX: usize = 8;

/// Memory that will be read, as numbers only: nothing is read through it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    first: *const u8,
    lines: usize,
}

impl Span {
    pub(crate) fn of<T>(elements: &[T]) -> Self {
        let lines = size_of_val(elements).div_ceil(LINE_BYTES);
        Self { first: elements.as_ptr().cast(), lines }
    }

    /// Cache lines.
    pub(crate) fn lines(&self) -> usize {
        self.lines
    }
}

/// A line to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line(*const u8);

impl Line {
    /// Asks for it, to the second cache. Changes no value.
    #[inline(always)]
    pub(crate) fn prefetch(self) {
        prefetch(self.0);
    }
}

/// Spans to be asked for while something else is computed.
pub(crate) struct Ahead<'a> {
    spans: &'a mut dyn Iterator<Item = Span>,
    at: Span,
    /// Lines still to be asked for.
    left: usize,
    /// Lines of the step that is next.
    lines: Vec<Line>,
}

impl<'a> Ahead<'a> {
    /// All lines of `spans`, which are `left`.
    pub(crate) fn new(left: usize, spans: &'a mut dyn Iterator<Item = Span>) -> Self {
        Self { spans, at: Span::of::<u8>(&[]), left, lines: Vec::new() }
    }

    /// The lines to ask for in the next of so many steps, `most` at most.
    pub(crate) fn step(&mut self, steps: usize, most: usize) -> &[Line] {
        self.lines.clear();
        let wanted = self.left.div_ceil(steps.max(1)).min(most);
        while self.lines.len() < wanted {
            while self.at.lines == 0 {
                let Some(next) = self.spans.next() else {
                    self.left = 0;
                    return &self.lines;
                };
                self.at = next;
            }
            let lines = self.at.lines.min(wanted - self.lines.len());
            let first = self.at.first;
            let lines_of = |line: usize| Line(first.wrapping_add(line * LINE_BYTES));
            self.lines.extend((0..lines).map(lines_of));
            self.at.first = first.wrapping_add(lines * LINE_BYTES);
            self.at.lines -= lines;
            self.left -= lines;
        }
        &self.lines
    }

    /// As [`Ahead::step`], and again the last line until there are a multiple of `runs`, with how many
    /// that makes for each of them: 0, 1, 2, 4 or 8.
    pub(crate) fn step_of_runs(&mut self, steps: usize, runs: usize) -> (usize, &[Line]) {
        let lines = self.step(steps, LINES_MAX * runs).len();
        let pace = if lines == 0 { 0 } else { lines.div_ceil(runs).next_power_of_two() };
        if let Some(last) = self.lines.last().copied() {
            self.lines.resize(pace * runs, last);
        }
        (pace, &self.lines)
    }

    /// Asks for all that is left.
    pub(crate) fn rest(&mut self) {
        self.step(1, usize::MAX).iter().for_each(|line| line.prefetch());
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

    // SAFETY: a prefetch of any address has no effect that can be seen.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch(_line: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_once_at_an_even_pace() {
        let data = vec![0_u8; 64 * 64];
        let first = data.as_ptr();
        for (lens, steps) in
            [(vec![64, 0, 200, 1], 4), (vec![], 2), (vec![4096], 7), (vec![1], 1), (vec![64; 3], 9)]
        {
            let mut spans = lens.iter().map(|len| Span::of(&data[..*len]));
            let expect: Vec<*const u8> = spans
                .clone()
                .flat_map(|span| (0..span.lines()).map(|line| first.wrapping_add(64 * line)))
                .collect();
            let mut ahead = Ahead::new(expect.len(), &mut spans);
            let mut asked = Vec::new();
            for step in 0..steps {
                let lines = ahead.step(steps - step, usize::MAX);
                assert!(lines.len() <= expect.len().div_ceil(steps), "{lens:?} in {steps}");
                asked.extend(lines.iter().map(|line| line.0));
            }
            assert_eq!(asked, expect, "{lens:?} in {steps}");
            assert!(ahead.step(1, 9).is_empty());
        }
    }
}
