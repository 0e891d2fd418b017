//! The router over corpora of its own: prompts that belong to one, and prompts that belong nowhere.

use mortise_sdk::testing::Harness;

use super::*;

const KITCHEN: &[&str] = &[
    "How long do I boil an egg?",
    "Put the egg in boiling water for seven minutes, then cool it.",
    "My bread dough does not rise. What is wrong?",
    "Old yeast does not rise. Let the dough rest in a warm place for an hour.",
    "Can I freeze onion soup?",
    "Yes. Let the soup cool, then freeze it for up to three months.",
    "How do I keep basil fresh?",
    "Stand the basil in a glass of water and cover it.",
    "Which oil is best for frying potatoes?",
    "Use sunflower oil for frying, for it stands the heat.",
    "The sauce is too salty. Can I save the sauce?",
    "Add a potato to the sauce, boil it, and take it out.",
];
const SKY: &[&str] = &[
    "Which planet is closest to the sun?",
    "Mercury is the planet closest to the sun.",
    "How far away is the moon?",
    "The moon is about 384,000 kilometres away from the earth.",
    "Why does a star twinkle?",
    "The air bends the light of a star on its way to the telescope.",
    "What is a comet made of?",
    "A comet is made of ice and dust and grows a tail near the sun.",
    "Can I see Saturn without a telescope?",
    "Saturn looks like a bright star; its rings need a telescope.",
    "When is the next eclipse of the moon?",
    "An eclipse of the moon comes about twice a year.",
];
const LEASE: &[&str] = &[
    "When must the tenant pay the rent?",
    "The tenant pays the rent on the third working day of each month.",
    "May the landlord keep the deposit?",
    "The landlord may keep the deposit only for damage and unpaid rent.",
    "How long is the notice period?",
    "The notice period for the tenant is three months.",
    "Who pays for repairs in the flat?",
    "The landlord pays for repairs unless the tenant caused the damage.",
    "May I sublet the flat?",
    "The tenant may sublet a room with the consent of the landlord.",
    "Can the landlord raise the rent?",
    "The landlord may raise the rent once in fifteen months.",
];

fn documents(texts: &[&'static str]) -> Vec<(&'static str, &'static str)> {
    texts.iter().map(|text| ("someone", *text)).collect()
}

fn harness() -> Harness {
    Harness::from_manifest(include_str!("../plugin.toml"))
        .corpus("kitchen", &documents(KITCHEN))
        .corpus("sky", &documents(SKY))
        .corpus("lease", &documents(LEASE))
}

fn route(harness: &Harness, text: &str, candidates: &[&str]) -> Option<String> {
    match harness.route::<ClosestCorpus>(&[Message::user(text)], candidates).expect("no failure") {
        Decision::To(adapter) => Some(adapter),
        Decision::Pass => None,
        Decision::Reject(reject) => panic!("{reject:?}"),
    }
}

fn check(text: &str, expect: Option<&str>) {
    let found = route(&harness(), text, &["kitchen", "sky", "lease"]);
    assert_eq!(found.as_deref(), expect, "{text}");
}

#[test]
fn prompts_go_where_they_belong() {
    for text in [
        "How long do I boil a potato?",
        "Can I freeze the dough?",
        "My soup is too salty.",
        "Which oil is best for onion soup?",
    ] {
        check(text, Some("kitchen"));
    }
    for text in [
        "How far away is Saturn?",
        "What is a star made of?",
        "How far away is the sun?",
        "Can I see the eclipse without a telescope?",
    ] {
        check(text, Some("sky"));
    }
    for text in [
        "May the landlord raise the deposit?",
        "When must I pay the rent for the flat?",
        "Who pays for the damage?",
        "Can the tenant sublet the flat?",
    ] {
        check(text, Some("lease"));
    }
    KITCHEN.iter().for_each(|text| check(text, Some("kitchen")));
    SKY.iter().for_each(|text| check(text, Some("sky")));
    LEASE.iter().for_each(|text| check(text, Some("lease")));
}

#[test]
fn prompts_that_belong_nowhere_go_to_the_base_model() {
    for text in [
        "",
        " ",
        "?",
        "Hello!",
        "thanks",
        "the",
        "42",
        "Translate this sentence into French, please.",
        "Write a limerick about my neighbour's violin.",
        "def main(): return 0",
        "Who won the cup in 1998?",
        "asdf qwer zxcv",
        "今天天气怎么样？",
        "What does the fox say?",
        "I am not well today, and the train is late.",
    ] {
        check(text, None);
    }
}

#[test]
fn only_candidates_with_a_corpus_are_chosen() {
    let harness = harness();
    let text = "How long do I boil a potato?";
    assert_eq!(route(&harness, text, &["kitchen"]).as_deref(), Some("kitchen"));
    assert_eq!(route(&harness, text, &["sky", "lease"]), None);
    assert_eq!(route(&harness, text, &["poetry"]), None);
    assert_eq!(route(&harness, text, &[]), None);
    let base = Candidate { model: "kitchen".to_owned(), is_adapter: false, attrs: Vec::new() };
    let decision = harness.route_among::<ClosestCorpus>(&[Message::user(text)], &[base]);
    assert_eq!(decision, Ok(Decision::Pass));
    let empty = Harness::from_manifest(include_str!("../plugin.toml")).corpus("kitchen", &[]);
    assert_eq!(route(&empty, text, &["kitchen"]), None);
}

#[test]
fn ties_go_by_name_unless_a_margin_is_asked_for() {
    let twins = || harness().corpus("b-kitchen", &documents(KITCHEN));
    let text = "How long do I boil an egg?";
    for candidates in [["kitchen", "b-kitchen"], ["b-kitchen", "kitchen"]] {
        assert_eq!(route(&twins(), text, &candidates).as_deref(), Some("b-kitchen"));
        let strict = twins().config("min_margin", 0.01);
        assert_eq!(route(&strict, text, &candidates), None);
        assert_eq!(route(&strict, text, &candidates[..1]).as_deref(), Some(candidates[0]));
    }
}

#[test]
fn the_size_of_a_corpus_is_no_argument() {
    let lines: Vec<&'static str> = SKY.iter().copied().cycle().take(40 * SKY.len()).collect();
    let harness = Harness::from_manifest(include_str!("../plugin.toml"))
        .corpus("kitchen", &documents(KITCHEN))
        .corpus("sky", &documents(&lines));
    let all = ["kitchen", "sky"];
    assert_eq!(route(&harness, "My soup is too salty.", &all).as_deref(), Some("kitchen"));
    assert_eq!(route(&harness, "How far away is Saturn?", &all).as_deref(), Some("sky"));
    assert_eq!(route(&harness, "Write a limerick.", &all), None);
}

#[test]
fn the_last_user_message_counts_and_only_its_beginning() {
    let harness = harness();
    let ask = |messages: &[Message]| {
        harness.route::<ClosestCorpus>(messages, &["kitchen", "sky", "lease"]).expect("no failure")
    };
    let lease = Message::user("May the landlord raise the rent?");
    let talk = [
        Message::system("Which planet is closest to the sun?"),
        Message::user("How long do I boil an egg?"),
        Message::assistant("Seven minutes."),
        lease.clone(),
    ];
    assert_eq!(ask(&talk), Decision::To("lease".to_owned()));
    let answered = [lease, Message::assistant("The moon is far away from the earth.")];
    assert_eq!(ask(&answered), Decision::To("lease".to_owned()));
    assert_eq!(ask(&[Message::system("The moon is far away.")]), Decision::Pass);
    assert_eq!(ask(&[]), Decision::Pass);
    // Cut inside a character, and far more than is looked at.
    let long = format!("{}{}", "é".repeat(3_000), " How far away is the moon?".repeat(9_000));
    assert_eq!(ask(&[Message::user(&long)]), Decision::Pass);
    let moon = " How far away is the moon?".repeat(9_000);
    assert_eq!(ask(&[Message::user(&moon)]), Decision::To("sky".to_owned()));
}

#[test]
fn decisions_are_counted_and_scores_logged_for_those_who_look() {
    let harness = harness();
    let all = ["kitchen", "sky", "lease"];
    route(&harness, "My soup is too salty.", &all);
    route(&harness, "Hello!", &all);
    assert_eq!((harness.counter("routed"), harness.counter("passed")), (1.0, 1.0));
    let fields: Vec<String> = harness.logs()[0].fields.iter().map(|f| f.key.clone()).collect();
    assert_eq!(fields[0], "kitchen", "best first: {fields:?}");
    let quiet = self::harness().log_level(Level::Info);
    route(&quiet, "My soup is too salty.", &all);
    assert!(quiet.logs().is_empty());
}

#[test]
fn bad_settings_are_refused() {
    let check = |key: &str, value: f64, part: &str| {
        let harness = harness().config(key, value);
        let error = harness.route::<ClosestCorpus>(&[], &[]).expect_err("refused");
        assert!(error.code == "invalid" && error.message.contains(part), "{error}");
    };
    check("min_margin", -0.1, "min_margin");
    check("colour", 1.0, "unknown field");
    // NaN cannot be written in JSON: it arrives as null.
    check("min_score", f64::NAN, "config");
    let harness = harness().config("min_score", -5.0);
    assert_eq!(route(&harness, "Hello!", &["sky"]).as_deref(), Some("sky"));
}
