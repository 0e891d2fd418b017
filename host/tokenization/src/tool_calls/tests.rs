//! Answers and what is read from them, whole and cut in every place.

use proptest::prelude::*;

use super::*;

fn read(format: ToolCallFormat, pieces: &[&str]) -> (String, Vec<(String, String)>) {
    let mut parser = ToolCallParser::new(format);
    let mut said: Vec<Said> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    said.extend(parser.finish());
    let (mut content, mut calls) = (String::new(), Vec::new());
    for said in said {
        match said {
            Said::Content(text) => content.push_str(&text),
            Said::Call { name, arguments } => calls.push((name, arguments)),
        }
    }
    (content, calls)
}

/// Reads the text whole, cut in two at each place, and character by character.
fn check(format: ToolCallFormat, text: &str, content: &str, calls: &[(&str, &str)]) {
    let owned = |(name, arguments): &(&str, &str)| ((*name).to_owned(), (*arguments).to_owned());
    let expect = (content.to_owned(), calls.iter().map(owned).collect());
    assert_eq!(read(format, &[text]), expect, "{text}");
    for (at, _) in text.char_indices() {
        assert_eq!(read(format, &[&text[..at], &text[at..]]), expect, "{text}, cut at {at}");
    }
    assert_eq!(read(format, &characters(text)), expect, "{text}, by character");
}

fn characters(text: &str) -> Vec<&str> {
    text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect()
}

#[test]
fn hermes() {
    let check = |text: &str, content: &str, calls: &[(&str, &str)]| {
        check(ToolCallFormat::Hermes, text, content, calls);
    };
    let one = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    let f = ("f", "{\"a\": 1}");
    check("", "", &[]);
    check("no call <tool> </tool_call> {}\n", "no call <tool> </tool_call> {}\n", &[]);
    check(one, "", &[f]);
    check(&format!("{one}\n{one}\n"), "", &[f, f]);
    check(&format!("Let me see.\n\n{one}"), "Let me see.", &[f]);
    check(&format!("Let me see.\n{one}\nDone.\n"), "Let me see.\nDone.\n", &[f]);
    // The end of the answer closes a call.
    check("<tool_call>{\"name\": \"f\", \"parameters\": {}} ", "", &[("f", "{}")]);
    // What stands in a string is no end.
    let arguments = "{\"x\": \"</tool_call> } \\\" é\"}";
    let quoted = format!("<tool_call>{{\"name\":\"f\",\"arguments\":{arguments}}}</tool_call>");
    check(&quoted, "", &[("f", arguments)]);
    // Arguments stay as they were written.
    let long = "{\"x\":1.50,\"y\":123456789012345678901234567890}";
    let exact = format!("<tool_call>{{\"arguments\":{long},\"name\":\"f\"}}</tool_call>");
    check(&exact, "", &[("f", long)]);
}

#[test]
fn what_is_no_call_stays_content() {
    let check = |text: &str| check(ToolCallFormat::Hermes, text, text, &[]);
    check("a <tool_call>");
    check("a <tool_call> b </tool_call>");
    check("<tool_call>{\"name\": \"f\"}</tool_call>");
    check("<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>");
    check("<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>");
    check("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": }}</tool_call>");
    check("<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>");
    check("<tool_call>{\"name\": \"f\", \"arguments\": {}} then</tool_call>");
    check("<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_");
    check("<tool_call>{\"name\": \"f\", \"arguments\": {\"a");
    check("\n\n<tool_call>\n[]\n</tool_call>\n\n");
}

#[test]
fn a_call_behind_a_broken_one_is_found() {
    let broken = "<tool_call>{\"name\": \"f\", \"argu<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
    let content = "<tool_call>{\"name\": \"f\", \"argu";
    check(ToolCallFormat::Hermes, broken, content, &[("g", "{}")]);
    let twice = "<tool_call><tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>";
    check(ToolCallFormat::Hermes, twice, "<tool_call>", &[("g", "{}")]);
}

#[test]
fn llama_3() {
    let check = |text: &str, content: &str, calls: &[(&str, &str)]| {
        check(ToolCallFormat::Llama3Json, text, content, calls);
    };
    let one = "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}";
    let f = ("f", "{\"a\": \"b\"}");
    check("plain text", "plain text", &[]);
    check("  ", "  ", &[]);
    check(one, "", &[f]);
    check(&format!("<|python_tag|>{one}"), "", &[f]);
    check(&format!("\n<|python_tag|> {one}; {one}\n"), "", &[f, f]);
    check(&format!("{one} and so on"), " and so on", &[f]);
    check(&format!("I call {one}"), &format!("I call {one}"), &[]);
    check("{\"answer\": 4}", "{\"answer\": 4}", &[]);
    check("<|python_tag|>print(1)", "<|python_tag|>print(1)", &[]);
    check(
        "{\"name\": \"f\", \"parameters\": {\"a\"",
        "{\"name\": \"f\", \"parameters\": {\"a\"",
        &[],
    );
    check("{not json}", "{not json}", &[]);
}

#[test]
fn arrays() {
    let check = |text: &str, content: &str, calls: &[(&str, &str)]| {
        check(ToolCallFormat::Array, text, content, calls);
    };
    let one = "{\"name\": \"f\", \"parameters\": {\"a\": [1]}}";
    let f = ("f", "{\"a\": [1]}");
    check(&format!("[{one}]"), "", &[f]);
    check(&format!("[\n  {one},\n {one} ]\n"), "", &[f, f]);
    // Cut off: what is complete counts.
    check(&format!("[{one}, {{\"name\": \"g"), ", {\"name\": \"g", &[f]);
    check("sorry", "sorry", &[]);
}

#[test]
fn white_space_and_calls_at_and_beyond_their_bounds() {
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    let blank = |bytes: usize| " ".repeat(bytes);
    for (bytes, left) in [(63, 0), (64, 0), (65, 1)] {
        let text = format!("a{}{call}", blank(bytes));
        check(ToolCallFormat::Hermes, &text, &format!("a{}", blank(left)), &[("f", "{}")]);
    }
    for (calls, content) in [(CALLS_MAX - 1, ""), (CALLS_MAX, ""), (CALLS_MAX + 1, call)] {
        let (found, read) = read(ToolCallFormat::Hermes, &[&call.repeat(calls)]);
        assert_eq!((found.as_str(), read.len()), (content, calls.min(CALLS_MAX)));
    }
}

#[test]
fn hostile_answers_take_linear_time() {
    for unit in ["<tool_call>{\"a", "<tool_call>{", "<tool_call>", "{[", " ", "{\"\\", "<tool_cal"]
    {
        let text = unit.repeat(400_000 / unit.len());
        for format in [ToolCallFormat::Hermes, ToolCallFormat::Llama3Json, ToolCallFormat::Array] {
            let mut parser = ToolCallParser::new(format);
            let mut length = 0;
            let pieces =
                text.as_bytes().chunks(7).map(|piece| std::str::from_utf8(piece).expect("ASCII"));
            for said in pieces.flat_map(|piece| parser.push(piece)).collect::<Vec<_>>() {
                length += size(&said);
            }
            length += parser.finish().iter().map(size).sum::<usize>();
            assert_eq!(length, text.len(), "{unit} {format:?}");
        }
    }
}

fn size(said: &Said) -> usize {
    match said {
        Said::Content(text) => text.len(),
        Said::Call { .. } => 0,
    }
}

const WORDS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "<tool_",
    "call>",
    "<|python_tag|>",
    "<|py",
    "[",
    "]",
    ",",
    ";",
    " ",
    "\n",
    "{",
    "}",
    "\"",
    "\\",
    "é",
    "a",
    "1",
    "{\"name\": \"f\", \"arguments\": {}}",
    "{\"name\":\"g\",\"parameters\":{\"x\":\"</tool_call>\"}}",
    "{\"name\": \"f\"",
    ", \"arguments\": {\"y\": [",
];

proptest! {
    #[test]
    fn every_cut_gives_the_same(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..14),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let text = words.concat();
        let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        ends.push(text.len());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| ends[cut.index(ends.len())]).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        for format in [ToolCallFormat::Hermes, ToolCallFormat::Llama3Json, ToolCallFormat::Array] {
            let whole = read(format, &[&text]);
            prop_assert_eq!(&read(format, &pieces), &whole, "{:?} {:?}", format, &text);
            prop_assert_eq!(&read(format, &characters(&text)), &whole, "{:?} {:?}", format, &text);
            if whole.1.is_empty() {
                prop_assert_eq!(&whole.0, &text);
            }
        }
    }
}
