//! A chain of postprocessors over one stream of text: what one lets through, the next one sees.
//!
//! The host keeps its own copy of the text that a plugin holds, so that a plugin which fails under
//! `on_failure = "bypass"` takes no text with it. Never calls a plugin that has stopped or failed.

/// What a postprocessor did with the text it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The text goes on as it came.
    Pass,
    /// Nothing goes on yet.
    Hold,
    /// This goes on in place of the text and all that was held.
    Replace(String),
    /// This goes on and the answer ends.
    Stop(String),
}

/// One postprocessor on one stream.
pub(crate) trait Filter {
    /// How a call fails.
    type Fault;
    /// Offers the next text.
    fn push(&mut self, text: &str) -> Result<Action, Self::Fault>;
    /// Asks for the last text.
    fn finish(&mut self, reason: &str) -> Result<String, Self::Fault>;
    /// Whether a fault of this plugin lets the stream go on without it.
    fn bypass(&self) -> bool;
}

/// A plugin's failure under `on_failure = "reject"`: the stream must end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejected;

/// What came out of the chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// Text for the client.
    pub(crate) text: String,
    /// A plugin ended the answer with it.
    pub(crate) stopped: bool,
}

struct Link<F> {
    filter: F,
    /// Text it has been given and has not yet answered for.
    held: String,
    bypassed: bool,
}

/// The postprocessors of one stream, in order, with the faults they made.
pub(crate) struct FilterChain<F: Filter> {
    links: Vec<Link<F>>,
    /// Index of the plugin and its fault, in order of occurrence.
    pub(crate) faults: Vec<(usize, F::Fault)>,
}

impl<F: Filter> FilterChain<F> {
    pub(crate) fn new(filters: Vec<F>) -> Self {
        let links = filters
            .into_iter()
            .map(|filter| Link { filter, held: String::new(), bypassed: false })
            .collect();
        Self { links, faults: Vec::new() }
    }

    /// Whether text would pass unseen.
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Sends `text` through the chain. After `stopped` the chain is done.
    pub(crate) fn push(&mut self, text: &str) -> Result<Output, Rejected> {
        self.push_from(0, text.to_owned())
    }

    /// Ends the stream: each plugin's last text still passes the plugins behind it.
    pub(crate) fn finish(&mut self, reason: &str) -> Result<Output, Rejected> {
        self.finish_from(0, reason)
    }

    fn push_from(&mut self, first: usize, mut text: String) -> Result<Output, Rejected> {
        for index in first..self.links.len() {
            if text.is_empty() {
                break;
            }
            match self.offer(index, text)? {
                (onward, false) => text = onward,
                (onward, true) => {
                    let mut output = self.push_from(index + 1, onward)?;
                    if !output.stopped {
                        let rest = self.finish_from(index + 1, "content_filter")?;
                        output.text.push_str(&rest.text);
                    }
                    return Ok(Output { text: output.text, stopped: true });
                }
            }
        }
        Ok(Output { text, stopped: false })
    }

    /// Gives `text` to one plugin; returns what goes on, and whether the answer ends there.
    fn offer(&mut self, index: usize, text: String) -> Result<(String, bool), Rejected> {
        let link = &mut self.links[index];
        if link.bypassed {
            return Ok((text, false));
        }
        match link.filter.push(&text) {
            Ok(Action::Pass) => Ok((text, false)),
            Ok(Action::Hold) => {
                link.held.push_str(&text);
                Ok((String::new(), false))
            }
            Ok(Action::Replace(onward)) => {
                link.held.clear();
                Ok((onward, false))
            }
            Ok(Action::Stop(onward)) => Ok((onward, true)),
            Err(fault) => {
                let mut onward = self.fail(index, fault)?;
                onward.push_str(&text);
                Ok((onward, false))
            }
        }
    }

    fn finish_from(&mut self, first: usize, reason: &str) -> Result<Output, Rejected> {
        let mut total = String::new();
        for index in first..self.links.len() {
            let link = &mut self.links[index];
            if link.bypassed {
                continue;
            }
            let last = match link.filter.finish(reason) {
                Ok(last) => last,
                Err(fault) => self.fail(index, fault)?,
            };
            let output = self.push_from(index + 1, last)?;
            total.push_str(&output.text);
            if output.stopped {
                return Ok(Output { text: total, stopped: true });
            }
        }
        Ok(Output { text: total, stopped: false })
    }

    /// Notes the fault. Under bypass, gives back what the plugin held; otherwise the stream ends.
    fn fail(&mut self, index: usize, fault: F::Fault) -> Result<String, Rejected> {
        self.faults.push((index, fault));
        let link = &mut self.links[index];
        if !link.filter.bypass() {
            return Err(Rejected);
        }
        link.bypassed = true;
        Ok(std::mem::take(&mut link.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers from a script; `Err` once it is used up or where the script says so.
    struct Scripted {
        actions: std::vec::IntoIter<Result<Action, &'static str>>,
        last: Result<String, &'static str>,
        bypass: bool,
        seen: String,
    }

    impl Filter for Scripted {
        type Fault = &'static str;

        fn push(&mut self, text: &str) -> Result<Action, Self::Fault> {
            self.seen.push_str(text);
            self.actions.next().unwrap_or(Ok(Action::Pass))
        }

        fn finish(&mut self, _: &str) -> Result<String, Self::Fault> {
            self.last.clone()
        }

        fn bypass(&self) -> bool {
            self.bypass
        }
    }

    fn plugin(actions: Vec<Result<Action, &'static str>>, last: &str, bypass: bool) -> Scripted {
        let actions = actions.into_iter();
        Scripted { actions, last: Ok(last.to_owned()), bypass, seen: String::new() }
    }

    fn drive(plugins: Vec<Scripted>, chunks: &[&str]) -> (Result<String, Rejected>, usize) {
        let mut chain = FilterChain::new(plugins);
        let mut text = String::new();
        for chunk in chunks {
            match chain.push(chunk) {
                Ok(output) => {
                    text.push_str(&output.text);
                    if output.stopped {
                        return (Ok(text), chain.faults.len());
                    }
                }
                Err(rejected) => return (Err(rejected), chain.faults.len()),
            }
        }
        let end = chain.finish("stop").map(|output| text + &output.text);
        (end, chain.faults.len())
    }

    fn check(
        plugins: Vec<Scripted>,
        chunks: &[&str],
        expect: Result<&str, Rejected>,
        faults: usize,
    ) {
        let (text, count) = drive(plugins, chunks);
        assert_eq!(text.as_deref(), expect.as_ref().map(|text| *text));
        assert_eq!(count, faults);
    }

    #[test]
    fn no_plugins_pass_everything() {
        check(vec![], &["a", "b"], Ok("ab"), 0);
    }

    #[test]
    fn held_text_comes_out_by_replace_or_at_the_end() {
        let hold_then_mask = || vec![Ok(Action::Hold), Ok(Action::Replace("**".into()))];
        check(vec![plugin(hold_then_mask(), "", false)], &["se", "cret", "!"], Ok("**!"), 0);
        check(vec![plugin(vec![Ok(Action::Hold)], "held", false)], &["held"], Ok("held"), 0);
    }

    #[test]
    fn the_last_text_of_one_passes_the_next() {
        let first = plugin(vec![Ok(Action::Hold)], "tail", false);
        let second = plugin(vec![Ok(Action::Replace("TAIL".into()))], "!", false);
        check(vec![first, second], &["tail"], Ok("TAIL!"), 0);
    }

    #[test]
    fn stop_ends_the_answer_and_flushes_those_behind() {
        let first = plugin(vec![Ok(Action::Stop("end".into()))], "never", false);
        let second = plugin(vec![Ok(Action::Hold)], "end.", false);
        check(vec![first, second], &["text", "unseen"], Ok("end."), 0);
    }

    #[test]
    fn a_bypassed_plugin_loses_no_text() {
        let failing = plugin(vec![Ok(Action::Hold), Err("trap")], "never", true);
        check(vec![failing], &["a", "b", "c"], Ok("abc"), 1);
        let mut at_end = plugin(vec![Ok(Action::Hold)], "", true);
        at_end.last = Err("trap");
        check(vec![at_end], &["held"], Ok("held"), 1);
    }

    #[test]
    fn a_rejecting_plugin_ends_the_stream() {
        let failing = plugin(vec![Ok(Action::Pass), Err("trap")], "", false);
        check(vec![failing], &["a", "b", "c"], Err(Rejected), 1);
    }
}
