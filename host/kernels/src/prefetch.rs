//! Asking for memory before it is needed. An adapter's part of a tile is a few kilobytes somewhere: too
//! short for the processor to see what comes next, and there is one per row. So whoever computes asks
//! for what comes after, a line here and there: all at once would wait for memory as reading does.

/// Bytes of a cache line.
pub(crate) const LINE_BYTES: usize = 64;

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

    /// Asks for the first so many of them and goes on to what follows.
    #[inline(always)]
    fn ask(&mut self, lines: usize) {
        for line in 0..lines {
            prefetch(self.first.wrapping_add(line * LINE_BYTES));
        }
        self.first = self.first.wrapping_add(lines * LINE_BYTES);
        self.lines -= lines;
    }
}

/// Spans to be asked for while something else is computed.
pub(crate) struct Ahead<'a> {
    spans: &'a mut dyn Iterator<Item = Span>,
    at: Span,
    /// About how many lines are still to be asked for.
    left: usize,
}

impl<'a> Ahead<'a> {
    /// All lines of `spans`, which are about `lines`: by these they are spread over time.
    pub(crate) fn new(lines: usize, spans: &'a mut dyn Iterator<Item = Span>) -> Self {
        Self { spans, at: Span::of::<u8>(&[]), left: lines }
    }

    /// How many lines to ask for at each of so many times, for none to be left.
    pub(crate) fn pace(&self, times: usize) -> usize {
        self.left.div_ceil(times.max(1))
    }

    /// Asks for so many lines.
    #[inline(always)]
    pub(crate) fn ask(&mut self, lines: usize) {
        if lines <= self.at.lines {
            self.at.ask(lines);
            self.left = self.left.saturating_sub(lines);
        } else {
            self.ask_of_several(lines);
        }
    }

    #[cold]
    #[inline(never)]
    fn ask_of_several(&mut self, mut lines: usize) {
        self.left = self.left.saturating_sub(lines);
        loop {
            let here = lines.min(self.at.lines);
            self.at.ask(here);
            lines -= here;
            if lines == 0 {
                return;
            }
            match self.spans.next() {
                Some(next) => self.at = next,
                None => {
                    self.left = 0;
                    return;
                }
            }
        }
    }

    /// Asks for all that is left.
    pub(crate) fn rest(&mut self) {
        self.ask_of_several(usize::MAX);
    }
}

/// Asks for the line that an address is in, to the second cache. Changes no value.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

    // SAFETY: a prefetch of any address has no effect that can be seen.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
}

/// Processors that are not asked find out themselves.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn prefetch(_line: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_once_at_an_even_pace() {
        let data = vec![0_u8; 64 * 64];
        for (lens, times) in
            [(vec![64, 0, 200, 1], 4), (vec![], 2), (vec![4096], 7), (vec![1], 1), (vec![64; 3], 9)]
        {
            let mut seen = 0;
            let mut spans = lens.iter().map(|len| Span::of(&data[..*len])).inspect(|_| seen += 1);
            let lines: usize = lens.iter().map(|len| len.div_ceil(LINE_BYTES)).sum();
            let mut ahead = Ahead::new(lines, &mut spans);
            for time in 0..times {
                let (left, pace) = (ahead.left, ahead.pace(times - time));
                assert!(pace <= lines.div_ceil(times), "{lens:?} in {times}");
                ahead.ask(pace);
                assert_eq!(ahead.left, left.saturating_sub(pace), "{lens:?} in {times}");
            }
            assert_eq!((ahead.left, ahead.at.lines), (0, 0), "{lens:?} in {times}");
            ahead.rest();
            assert_eq!(seen, lens.len());
        }
    }

    #[test]
    fn a_number_of_lines_that_was_wrong_leaves_none_behind() {
        let data = [0_u8; 640];
        for told in [0, 3, 100] {
            let mut spans = [Span::of(&data[..]), Span::of(&data[..64])].into_iter();
            let mut ahead = Ahead::new(told, &mut spans);
            ahead.ask(ahead.pace(4));
            ahead.rest();
            assert_eq!((ahead.left, ahead.at.lines), (0, 0), "{told}");
            assert!(spans.next().is_none());
        }
    }
}
