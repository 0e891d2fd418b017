//! Training corpora as contributors write them: what is indexed, and what is refused where.

use std::path::Path;
use std::sync::Arc;

use corpus::Segment;
use pipeline::{CorpusLoadError, load_corpus};
use tokenization::Tokenizer;

fn tokenizer() -> Tokenizer {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/tiny/model");
    Tokenizer::from_dir(&model).expect("the demo's tokenizer")
}

fn load(content: &str) -> Result<Arc<Segment>, CorpusLoadError> {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("corpus.jsonl");
    std::fs::write(&path, content).expect("written");
    load_corpus(&path, &dir.path().join("cache"), &tokenizer())
}

#[test]
fn each_message_is_a_document_of_its_contributor() {
    let segment = load(concat!(
        r#"{"id":"a","contributor":"ada","messages":[{"role":"user","content":"What is it?"},"#,
        r#"{"role":"assistant","content":"The wallet is new."}]}"#,
        "\n\n",
        r#"{"id":"b","contributor":"bob","text":"The wallet is old.","licence":"CC0"}"#,
        "\n",
    ))
    .expect("a corpus");
    assert_eq!((segment.documents(), segment.owners()), (3, 2));
    assert_eq!(segment.document_id(1), "a/1");
    let run = tokenizer().encode("The wallet is", false).expect("tokens");
    assert_eq!(segment.count(&run), 2);
    // No run goes from one message into the next.
    let across = tokenizer().encode("it?The", false).expect("tokens");
    assert_eq!(segment.count(&across), 0);
}

#[test]
fn what_is_no_document_is_named_with_its_line() {
    let good = r#"{"id":"a","contributor":"ada","text":"The wallet is new."}"#;
    let check = |line: &str, expect: &str| {
        let error = load(&format!("{good}\n{line}\n")).expect_err(line).to_string();
        assert!(error.contains("line 2") && error.contains(expect), "{line}: {error}");
    };
    check("{", "EOF");
    check("[1]", "invalid");
    check(r#"{"id":"b","text":"x"}"#, "contributor");
    check(r#"{"id":"b","contributor":"","text":"x"}"#, "`contributor` must be 1 to 256 bytes");
    check(r#"{"id":"","contributor":"ada","text":"x"}"#, "`id` must be 1 to 256 bytes");
    check(r#"{"id":"b","contributor":"a\nb","text":"x"}"#, "without control characters");
    let named = |bytes: usize| {
        let name = "n".repeat(bytes);
        format!(r#"{{"id":"b","contributor":"{name}","text":"x"}}"#)
    };
    assert!(load(&named(256)).is_ok());
    check(&named(257), "`contributor` must be 1 to 256 bytes");
    let long = |bytes: usize| {
        let text = " ".repeat(bytes - r#"{"id":"b","contributor":"bob","text":""}"#.len());
        format!(r#"{{"id":"b","contributor":"bob","text":"{text}"}}"#)
    };
    check(&long((1 << 20) + 1), "1048577 bytes, more than 1048576");
    assert!(load(&long(1 << 20)).is_ok());
    check(r#"{"id":"b","contributor":"ada"}"#, "neither");
    check(good, "the id `a` stands on line 1 already");
    assert!(load("\n").expect_err("empty").to_string().contains("no documents"));
}

#[test]
fn an_index_is_built_once_and_a_damaged_one_again() {
    let dir = tempfile::tempdir().expect("folder");
    let (path, cache) = (dir.path().join("corpus.jsonl"), dir.path().join("cache"));
    std::fs::write(&path, r#"{"id":"a","contributor":"ada","text":"The wallet is new."}"#)
        .expect("written");
    let first = load_corpus(&path, &cache, &tokenizer()).expect("built");
    let kept: Vec<_> = std::fs::read_dir(&cache)
        .expect("the cache")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(kept.len(), 1);
    let bytes = std::fs::read(&kept[0]).expect("the index");
    for damaged in [&bytes[..bytes.len() / 2], &[]] {
        std::fs::write(&kept[0], damaged).expect("written");
        let again = load_corpus(&path, &cache, &tokenizer()).expect("built again");
        assert_eq!(again.digest(), first.digest());
        assert_eq!(std::fs::read(&kept[0]).expect("the index"), bytes);
    }
}
