//! The plugin through the harness, and its scanners on what they must and must not find.

use std::time::Instant;

use mortise_sdk::testing::Harness;
use mortise_sdk::{Message, Outcome, Part, Role};

use super::*;

fn harness() -> Harness {
    Harness::from_manifest(include_str!("../plugin.toml"))
}

fn redacted(text: &str) -> String {
    match harness().preprocess::<Redact>(vec![Message::user(text)]).expect("no failure") {
        Outcome::Unchanged => text.to_owned(),
        Outcome::Change { messages, sampling: None } => messages[0].text(),
        other => panic!("{other:?}"),
    }
}

fn check(text: &str, expect: &str) {
    assert_eq!(redacted(text), expect, "{text}");
}

fn untouched(text: &str) {
    check(text, text);
}

#[test]
fn emails() {
    check("write to ann.b+c@mail.example.org.", "write to [email 1].");
    check("<ann@example.org>, (bob@example.co.uk)", "<[email 1]>, ([email 2])");
    check("mail='ann@example.org'", "[email 1]'");
    check("josé@exämple.com", "[email 1]");
    check("a_b@x-y.info-", "[email 1]-");
    check("联系ann@example.org谢谢", "联系[email 1]谢谢");
    check("ftp://user:hunter2@example.org/x", "ftp://user:[email 1]/x");
    check("ann@example.org ann@example.org bob@example.org", "[email 1] [email 1] [email 2]");
    for text in ["@ann", "a@b", "a@", "@", "a@@b.c", "a@.org", "x @ y.org", "a@1.2", "a@b.c"] {
        untouched(text);
    }
    let local = "l".repeat(64);
    check(&format!("{local}@example.org"), "[email 1]");
    check(&format!("x{local}@example.org"), "x[email 1]");
}

#[test]
fn phones() {
    for number in [
        "+49 30 1234567",
        "+1 (212) 555-0123",
        "+442079460958",
        "+49 (0) 30 / 1234-567",
        "0049 30 1234567",
        "(212) 555-0123",
        "212-555-0123",
        "1-212-555-0123",
        "212.555.0123",
        "030 1234567",
        "0171/1234567",
        "01711234567",
        "020 7946 0958",
        "01 23 45 67 89",
        "01.23.45.67.89",
        "+86\u{a0}138\u{a0}0013\u{a0}8000",
    ] {
        check(&format!("call {number}!"), "call [phone 1]!");
        check(&format!("tel:{number}"), "tel:[phone 1]");
    }
    for text in [
        "2024-01-02 10:30",
        "01.02.2024 10:30",
        "01-02-2024 12",
        "192.168.100.200",
        "10.0.0.1",
        "1234567890",
        "order 4471234",
        "3.14159265358979",
        "12+34567890",
        "12 + 34567890",
        "(3)+34567890",
        "+1234567",
        "1,000,000,000",
        "2001:0db8:85a3::8a2e:0370:7334",
        "x0171123456789",
        "+0123456789",
        "+1234567890123456",
        "0.1234567890",
    ] {
        untouched(text);
    }
}

#[test]
fn ibans() {
    for iban in [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "gb29nwbk60161331926819",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO93 8601 1117 947",
        "MT84-MALT-0110-0001-2345-MTLC-AST0-01S",
    ] {
        check(&format!("pay {iban}."), "pay [iban 1].");
    }
    for text in [
        // A digit wrong, a country that has none, too short, too long.
        "DE88370400440532013000",
        "US89370400440532013000",
        "DE8937040044053201300",
        "DE893704004405320130001",
        "xDE89370400440532013000",
        "at work and so on, every single day",
    ] {
        untouched(text);
    }
}

#[test]
fn cards() {
    for card in [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111\u{2011}1111\u{2011}1111\u{2011}1111",
        "5555 5555 5555 4444",
        "2223 0031 2200 3222",
        "3782 822463 10005",
        "30569309025904",
        "6011 0009 9013 9424",
    ] {
        check(&format!("card {card}, thanks"), "card [card 1], thanks");
    }
    check("4111 1111 1111 1111 737", "[card 1] 737");
    check("no 12 4111111111111111", "no 12 [card 1]");
    for text in [
        "4111111111111112",
        "41111111111111111111",
        "1700000000000",
        "0000000000000000",
        "9999999999999995",
        "x4111111111111111",
        "4111111111111111x",
    ] {
        untouched(text);
    }
}

#[test]
fn keys() {
    // Put together here, so that no scanner takes this file for a leak.
    for (prefix, rest) in [
        ("sk-", "abcdefghij0123456789ABCD"),
        ("sk-proj-", "abcdef_ghij-0123456789abXY"),
        ("sk-ant-api03-", "A1b2C3d4E5f6G7h8"),
        ("sk_live_", "4eC39HqLyjWDarjtT1zdp7dc"),
        ("ghp_", "0123456789abcdefghijABCDEFGHIJ012345"),
        ("github_pat_", "11ABCDEFG0abcdefghijkl_0123456789"),
        ("glpat-", "ABCdef123456ghiJKL78"),
        ("AKIA", "IOSFODNN7EXAMPLE"),
        ("AIza", "SyA1234567890abcdefghijklmnopqrstuvw"),
        ("xoxb-", "123456789012-abcDEF123456"),
        ("hf_", "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh"),
    ] {
        check(&format!("key={prefix}{rest};"), "key=[api-key 1];");
        check(&format!("my-{prefix}{rest}"), "my-[api-key 1]");
    }
    for text in [
        "sk-learn-based-approach-to-the-problem",
        "sk-2024-annual-meeting-notes-and-more",
        "ghp_short1",
        "task-abcdefghij0123456789ABCD",
        "AKIAIOSFODNN7EXAMPL",
        "AKIAIOSFODNN7EXAMPLEX",
        "hf_model_name_that_is_very_long_indeed",
    ] {
        untouched(text);
    }
}

#[test]
fn tokens() {
    let token =
        format!("eyJ{}.eyJ{}.{}", "hbGciOiJIUzI1NiJ9", "zdWIiOiIxMjM0NTY3ODkwIn0", "dBjftJeZ4CVP");
    check(&format!("Bearer {token}."), "Bearer [jwt 1].");
    check(&format!("\"{token}\""), "\"[jwt 1]\"");
    for text in ["eyJ", "eyJabc.def.ghi", "eyJ...", "keyJhbGciOiJIUzI1NiJ9.zdWIiOiIxMjM0.x"] {
        untouched(text);
    }
}

#[test]
fn private_keys() {
    let pem = |label: &str| {
        format!("-----BEGIN {label}-----\nMIIEpAIBAAKCAQEA\nabc+/=\n-----END {label}-----")
    };
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "PGP PRIVATE KEY BLOCK"]
    {
        check(&format!("a {} b", pem(label)), "a [private-key 1] b");
    }
    untouched(&pem("CERTIFICATE"));
    untouched(&pem("PUBLIC KEY"));
    // Cut short.
    check("-----BEGIN PRIVATE KEY-----\nMIIE\nabc", "[private-key 1]");
    check("-----BEGIN PRIVATE KEY-----\\nMIIE\\n\" }", "[private-key 1]\" }");
    untouched("-----BEGIN ");
}

#[test]
fn overlapping_finds_are_one() {
    check("4111111111111111@example.org", "[email 1]");
    let key = format!("ghp_{}", "0123456789abcdefghijABCDEFGHIJ012345");
    check(&format!("{key}@example.org"), "[email 1]");
}

#[test]
fn every_role_name_and_json_part_is_looked_at() {
    let mut named = Message::assistant("hello");
    named.name = Some("ann@example.org".to_owned());
    let mut json = Message::new(Role::Tool, "");
    json.parts = vec![
        Part::Json(r#"{"to":"a\u0040example.org","card":4111111111111111,"n":[1.5,null]}"#.into()),
        Part::Json("{\"x\": \"untouched\", \"y\": 1.50}".into()),
        Part::Json("{broken bob@example.org".into()),
        Part::Other("call".into(), r#"{"ann@example.org":true}"#.into()),
    ];
    let messages = vec![Message::system("ask bob@example.org"), named, json];
    let outcome = harness().preprocess::<Redact>(messages).expect("no failure");
    let Outcome::Change { messages, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(messages[0].text(), "ask [email 1]");
    assert_eq!(messages[1].name.as_deref(), Some("[email 2]"));
    let expect = [
        Part::Json(r#"{"to":"[email 3]","card":"[card 1]","n":[1.5,null]}"#.into()),
        Part::Json("{\"x\": \"untouched\", \"y\": 1.50}".into()),
        Part::Json("{broken [email 1]".into()),
        Part::Other("call".into(), r#"{"[email 2]":true}"#.into()),
    ];
    assert_eq!(messages[2].parts, expect);
}

#[test]
fn settings() {
    let text = "ann@example.org 4111111111111111";
    let run = |harness: Harness| harness.preprocess::<Redact>(vec![Message::user(text)]);
    let only_cards = harness().config("categories", vec!["card"]).config("placeholder", "***");
    let outcome = run(only_cards).expect("no failure");
    let expect = vec![Message::user("ann@example.org ***")];
    assert_eq!(outcome, Outcome::Change { messages: expect, sampling: None });
    let none = harness().config("categories", Vec::<String>::new());
    assert_eq!(run(none), Ok(Outcome::Unchanged));
    let rejecting = harness().config("on_match", "reject");
    let outcome = run(rejecting).expect("no failure");
    let reject = Reject::new(422, "sensitive-data", "the conversation holds email, card");
    assert_eq!(outcome, Outcome::Reject(reject));
    for (key, value) in [
        ("categories", serde_json::json!(["emial"])),
        ("categories", serde_json::json!("email")),
        ("placeholder", serde_json::json!("\"")),
        ("placeholder", serde_json::json!("x".repeat(129))),
        ("on_match", serde_json::json!("drop")),
        ("colour", serde_json::json!(1)),
    ] {
        let error = run(harness().config(key, value)).expect_err(key);
        assert_eq!(error.code, "invalid", "{error}");
        assert!(error.message.starts_with("config"), "{error}");
    }
}

#[test]
fn finds_are_counted_and_never_logged() {
    let harness = harness();
    let text = "ann@example.org ann@example.org 4111111111111111";
    harness.preprocess::<Redact>(vec![Message::user(text)]).expect("no failure");
    assert_eq!(harness.counter("redacted_email"), 2.0);
    assert_eq!(harness.counter("redacted_card"), 1.0);
    assert_eq!(harness.logs(), []);
}

#[test]
fn no_text_makes_it_slow() {
    for pattern in [
        "@",
        "a@",
        "a@b.",
        "a.",
        ".",
        "+",
        "+1 ",
        "1",
        "1 ",
        "0 ",
        "4 ",
        "4111 ",
        "(",
        "DE89 ",
        "DE",
        "eyJ",
        "eyJ.",
        "eyJa-",
        "sk-",
        "sk-a1",
        "ghp_",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "-----END ",
        "-",
        "é",
        "\u{a0}",
        "1\u{a0}",
        "\u{2011}",
        "世",
        "AKIA",
        "a1B2c3D4e5-",
    ] {
        let text = pattern.repeat((1 << 20) / pattern.len());
        let start = Instant::now();
        redacted(&text);
        let ms = start.elapsed().as_millis();
        // Linear scanners take a few milliseconds for a megabyte; a quadratic one, minutes.
        assert!(ms < 5_000, "{pattern:?} took {ms} ms");
    }
}

#[test]
fn arbitrary_bytes_never_panic_and_leave_the_rest_alone() {
    let alphabet: Vec<char> = "aZ09 @.-+_()/:,\n\"\\eyJsk4é世\u{a0}\u{2011}".chars().collect();
    let mut state = 7_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..40 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push(alphabet[(state >> 33) as usize % alphabet.len()]);
        }
        let finds = scan::find(&text, &Settings::all());
        let mut end = 0;
        for find in finds {
            assert!(find.start >= end && find.end > find.start, "{text}");
            assert!(text.is_char_boundary(find.start) && text.is_char_boundary(find.end), "{text}");
            end = find.end;
        }
    }
}

impl Settings {
    fn all() -> Vec<scan::Category> {
        harness().with(config::read::<Settings>).expect("defaults").categories
    }
}
