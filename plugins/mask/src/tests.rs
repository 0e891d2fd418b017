//! The plugin through the harness: every way to cut a text must give what the whole text gives.

use mortise_sdk::testing::Harness;

use super::*;

fn harness(words: &[&str], patterns: &[&str]) -> Harness {
    Harness::from_manifest(include_str!("../plugin.toml"))
        .config("words", words.to_vec())
        .config("patterns", patterns.to_vec())
}

/// Checks the text in one piece, character by character, and cut in two and three at every place.
fn check_with(harness: impl Fn() -> Harness, text: &str, expect: &str) {
    let cut = |pieces: &[&str]| {
        let pieces = pieces.iter().copied().filter(|piece| !piece.is_empty());
        let read = harness().stream_all::<Mask>(pieces).expect("no failure");
        assert_eq!(read, expect, "{text}");
    };
    cut(&[text]);
    let characters: Vec<String> = text.chars().map(String::from).collect();
    cut(&characters.iter().map(String::as_str).collect::<Vec<_>>());
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    for (nth, first) in places.iter().enumerate() {
        cut(&[&text[..*first], &text[*first..]]);
        for second in &places[nth..] {
            cut(&[&text[..*first], &text[*first..*second], &text[*second..]]);
        }
    }
}

fn check(words: &[&str], patterns: &[&str], text: &str, expect: &str) {
    check_with(|| harness(words, patterns), text, expect);
}

#[test]
fn words() {
    check(&["secret"], &[], "a Secret, no secrets: secret", "a ***, no secrets: ***");
    check(&["secret"], &[], "secretsecret xsecret secret_", "secretsecret xsecret secret_");
    check(&["größe"], &[], "GRÖSSE Größe", "GRÖSSE ***");
    check(&["a b", "b c"], &[], "a b c", "*** c");
    check(&["ab", "abcd"], &[], "abcd ab abc", "*** *** abc");
    check(&["世界"], &[], "世界 你好", "*** 你好");
    check(&[], &[], "secret", "secret");
    check(&["x"], &[], "", "");
}

#[test]
fn parts_of_words_and_case() {
    let parts = || harness(&["secret"], &[]).config("whole_words", false);
    check_with(parts, "secretsecret xSecrets", "****** x***s");
    let exact = || harness(&["Secret"], &[]).config("ignore_case", false);
    check_with(exact, "Secret secret", "*** secret");
}

#[test]
fn patterns() {
    check(&[], &[r"\d{4,6}"], "1 12 123 1234 12345 123456 1234567", "1 12 123 *** *** *** ***7");
    check(&[], &[r"\d{3}-\d{2}-\d{4}"], "078-05-1120 078-05-112", "*** 078-05-112");
    check(&[], &[r"id=\w{2,4}"], "id=a ID=abc, id=abcdef", "id=a ***, ***ef");
    check(&[], &[r"a.{0,2}z"], "az a12z a123z aaz", "*** *** a123z ***");
    check(&[], &[r"\(\s{1,2}\)"], "( ) (\t ) (   )", "*** *** (   )");
    // A start that may be left out.
    check(&[], &[r"x{0,2}y"], "y xy xxy xxxy", "*** *** *** x***");
}

#[test]
fn the_leftmost_and_then_the_longest_counts() {
    check(&[], &["aab", "abb", "b"], "aabb", "******");
    check(&[], &["abcdef", "bc", "cd"], "abcdeg", "a***deg");
    check(&[], &["abcdef", "bc", "cd"], "abcdef", "***");
    check(&[], &["abcdefgh", "bc", "ef"], "abcdefgx", "a***d***gx");
    check(&[], &["aaa"], "aaaaaaa", "******a");
    check(&["ab cd"], &["b c"], "ab cd, ab ce", "***, a***e");
}

#[test]
fn random_texts_agree_with_a_plain_search() {
    let (words, patterns) = (["ab", "ba b"], ["a{2,3}", "ab{0,2}a", ".{1,2}c"]);
    let compiled = |texts: &[&str]| -> Vec<pattern::Pattern> {
        let parse = |text: &&str| pattern::Pattern::parse(text, true).expect("pattern");
        texts.iter().map(parse).collect()
    };
    let alphabet = ['a', 'b', 'c', ' '];
    let mut state = 3_u64;
    for _ in 0..3_000 {
        let text: String = (0..14)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                alphabet[(state >> 40) as usize % 4]
            })
            .collect();
        let expect = search(&text, &words, &compiled(&patterns));
        let read = harness(&words, &patterns).stream_all::<Mask>(text.split_inclusive('b'));
        assert_eq!(read, Ok(expect), "{text:?}");
    }
}

/// Leftmost-longest by trying every place and length.
fn search(text: &str, words: &[&str], patterns: &[pattern::Pattern]) -> String {
    let is_word = |c: Option<char>| c.is_some_and(pattern::is_word);
    let matches = |start: usize, end: usize| {
        let whole =
            !is_word(text[..start].chars().next_back()) && !is_word(text[end..].chars().next());
        whole && words.contains(&&text[start..end])
            || patterns.iter().any(|pattern| matches_all(pattern, 0, &text[start..end]))
    };
    let (mut out, mut at) = (String::new(), 0);
    while at < text.len() {
        match (at + 1..=text.len()).rev().find(|end| matches(at, *end)) {
            Some(end) => {
                out.push_str("***");
                at = end;
            }
            None => {
                out.push_str(&text[at..=at]);
                at += 1;
            }
        }
    }
    out
}

/// Whether `pattern`, from `item` on, is exactly `text`.
fn matches_all(pattern: &pattern::Pattern, item: usize, text: &str) -> bool {
    let Some(this) = pattern.items.get(item) else { return text.is_empty() };
    (this.min..=this.max.min(text.len())).any(|count| {
        text[..count].chars().all(|c| pattern.takes(item, c))
            && matches_all(pattern, item + 1, &text[count..])
    })
}

#[test]
fn text_is_held_no_longer_than_it_may_matter() {
    let harness = harness(&["secret"], &[r"\d{4,6}"]);
    let mut stream = harness.stream::<Mask>().expect("opens");
    for (piece, expect) in [
        ("hello", "hello"),
        (" se", " "),
        ("c", ""),
        ("tor", "sector"),
        (" secret", " "),
        ("s", "secrets"),
        (" 12345", " "),
        ("6", "***"),
        ("7", ""),
        (" ", "7 "),
    ] {
        assert_eq!(stream.push(piece), Ok(expect.to_owned()), "after {piece:?}");
    }
    assert_eq!(stream.finish("stop"), Ok(String::new()));
}

#[test]
fn the_longest_match_bounds_what_is_held() {
    let harness = harness(&[], &[r"a\d{255}"]);
    let mut stream = harness.stream::<Mask>().expect("opens");
    assert_eq!(stream.push("a"), Ok(String::new()));
    for _ in 0..254 {
        assert_eq!(stream.push("1"), Ok(String::new()));
    }
    assert_eq!(stream.push("x"), Ok(format!("a{}x", "1".repeat(254))));
    assert_eq!(stream.finish("length"), Ok(String::new()));
}

#[test]
fn an_answer_can_end_at_the_first_match() {
    let stops = || harness(&["secret"], &[]).config("on_match", "stop").config("mask", "[cut]");
    check_with(stops, "a secret, and more", "a [cut]");
    check_with(stops, "a secret", "a [cut]");
    let harness = stops();
    let mut stream = harness.stream::<Mask>().expect("opens");
    assert_eq!(stream.push("one secret two"), Ok("one [cut]".to_owned()));
    assert!(stream.stopped());
    assert_eq!(harness.counter("masked"), 1.0);
}

#[test]
fn a_mask_may_be_empty() {
    check_with(|| harness(&["x"], &[]).config("mask", ""), "x a x b x", " a  b ");
}

#[test]
fn matches_are_counted_once() {
    let harness = harness(&["secret"], &[]);
    harness.stream_all::<Mask>(["a sec", "ret ", "secret"]).expect("no failure");
    assert_eq!(harness.counter("masked"), 2.0);
}

#[test]
fn bad_settings_are_refused() {
    let check = |harness: Harness, part: &str| {
        let error = harness.stream::<Mask>().err().expect("refused");
        assert!(error.code == "invalid" && error.message.contains(part), "{error}");
    };
    check(harness(&[""], &[]), "nothing at all");
    check(harness(&[&"x".repeat(257)], &[]), "257 characters");
    check(harness(&[], &["a*"]), "pattern `a*`");
    check(harness(&[], &[]).config("on_match", "drop"), "unknown variant");
    check(harness(&[], &[]).config("colour", 1), "unknown field");
    check(harness(&[], &[]).config("words", "secret"), "config");
    let words: Vec<String> = (0..16).map(|n| format!("{n:x}").repeat(255)).collect();
    let harness_of = |words: &[String]| harness(&[], &[]).config("words", words.to_vec());
    assert!(harness_of(&words).stream::<Mask>().is_ok());
    let one_more: Vec<String> = words.into_iter().chain(["x".to_owned()]).collect();
    check(harness_of(&one_more), "4098 states");
}

#[test]
fn hostile_texts_take_linear_time() {
    let harness = harness(&["aaaaaaaaaaaaaaaa"], &[r"\w{1,100}\w{1,100}x", r".{255}y", r"\d{200}"]);
    let start = std::time::Instant::now();
    for text in ["a", "1", "a1", "é", " "] {
        let text = text.repeat(20_000 / text.len());
        let read = harness.stream_all::<Mask>([text.as_str()]).expect("no failure");
        assert!(!read.is_empty());
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
