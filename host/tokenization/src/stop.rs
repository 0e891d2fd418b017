//! Stop strings over text that comes in pieces: the answer ends before the first of them.

/// Watches one stream for its stop strings. Holds back no more than what may be the beginning of
/// one.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

/// What came of a piece of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopPush {
    /// Text that can't be part of a stop string any more.
    pub emit: String,
    /// Index of the stop string that ends the answer. Nothing may be pushed after it.
    pub stopped: Option<usize>,
}

impl StopMatcher {
    /// Watches for any of `stops`; empty ones are ignored.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> StopPush {
        self.held.push_str(text);
        let found = |(index, stop): (usize, &String)| {
            let at = self.held.find(stop)?;
            Some((at + stop.len(), at, index))
        };
        let stops = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        // The one that is complete first wins, so that it does not matter how the text is cut; of two
        // that end together the longer, of two alike the one that was named first.
        if let Some((_, at, index)) = stops.clone().filter_map(found).min() {
            self.held.truncate(at);
            return StopPush { emit: std::mem::take(&mut self.held), stopped: Some(index) };
        }
        let keep = stops.map(|(_, stop)| overlap(&self.held, stop)).max().unwrap_or_default();
        let rest = self.held.split_off(self.held.len() - keep);
        StopPush { emit: std::mem::replace(&mut self.held, rest), stopped: None }
    }

    /// The text still held once the stream has ended without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that `stop` begins with.
pub(crate) fn overlap(text: &str, stop: &str) -> usize {
    let longest = stop.len().saturating_sub(1).min(text.len());
    let fits = |length: &usize| {
        let start = text.len() - length;
        text.is_char_boundary(start) && stop.as_bytes().starts_with(&text.as_bytes()[start..])
    };
    (1..=longest).rev().find(fits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops.iter().map(ToString::to_string).collect());
        let mut text = String::new();
        for piece in pieces {
            let pushed = matcher.push(piece);
            text.push_str(&pushed.emit);
            if pushed.stopped.is_some() {
                return (text, pushed.stopped);
            }
        }
        (text + &matcher.finish(), None)
    }

    #[test]
    fn what_ends_an_answer() {
        let check = |stops: &[&str], pieces: &[&str], text: &str, stopped: Option<usize>| {
            assert_eq!(run(stops, pieces), (text.to_owned(), stopped), "{stops:?} {pieces:?}");
        };
        check(&[], &["all", " of it"], "all of it", None);
        check(&["END"], &["one E", "N", "D two"], "one ", Some(0));
        check(&["END"], &["one E", "N", "two"], "one ENtwo", None);
        check(&["b", "a"], &["xab"], "x", Some(1));
        check(&["abc", "b"], &["xabc"], "xa", Some(1));
        check(&["abc", "b"], &["xab", "c"], "xa", Some(1));
        check(&["bc", "abc"], &["xabc"], "x", Some(1));
        check(&["aab"], &["aaab"], "a", Some(0));
        check(&["né"], &["un n", "é ici"], "un ", Some(0));
        check(&["\n\n"], &["a\n", "b\n"], "a\nb\n", None);
    }

    #[test]
    fn nothing_is_held_that_cannot_begin_a_stop() {
        let mut matcher = StopMatcher::new(vec!["STOP".to_owned()]);
        assert_eq!(matcher.push("go S").emit, "go ");
        assert_eq!(matcher.push("T").emit, "");
        assert_eq!(matcher.push("A").emit, "STA");
    }

    proptest! {
        #[test]
        fn a_single_stop_is_found_however_the_text_is_cut(
            text in "[abé]{0,24}",
            stop in "[abé]{1,4}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let characters: Vec<char> = text.chars().collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(characters.len() + 1)).collect();
            cuts.extend([0, characters.len()]);
            cuts.sort_unstable();
            let piece = |pair: &[usize]| characters[pair[0]..pair[1]].iter().collect::<String>();
            let pieces: Vec<String> = cuts.windows(2).map(piece).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let expect = match text.find(&stop) {
                Some(at) => (text[..at].to_owned(), Some(0)),
                None => (text.clone(), None),
            };
            prop_assert_eq!(run(&[&stop], &pieces), expect);
            // With others beside it, the cuts make no difference either.
            let several = [stop.as_str(), "b", "aé", "éab"];
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let one_by_one: Vec<&str> = characters.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&several, &pieces), run(&several, &one_by_one));
        }
    }
}
