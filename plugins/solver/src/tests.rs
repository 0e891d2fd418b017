//! The agent through the harness, with models that help, that do not, and that fail.

use mortise_sdk::testing::Harness;
use mortise_sdk::{Message, Role};

use super::*;

fn harness() -> Harness {
    Harness::from_manifest(include_str!("../plugin.toml"))
}

fn solve(harness: &Harness, task: &str) -> String {
    let answer = harness.run::<Solver>(vec![Message::user(task)]).expect("answers");
    assert_eq!(answer.role, Role::Assistant);
    answer.text()
}

fn check(task: &str, replies: &[&str], expect: &str) {
    let harness = harness().answers(replies.iter().copied());
    assert_eq!(solve(&harness, task), expect, "{task}");
    assert_eq!(harness.requests().len(), replies.len(), "{task}");
}

#[test]
fn a_task_is_solved_in_steps() {
    let replies = [
        "Each crate first.\ncalc: 12 * 7",
        "calc: 84 * 3\ncalc: 252 / 4",
        "That makes 63 each.\nanswer: 63 apples each",
    ];
    let task = "Three lorries bring 7 crates of 12 apples for 4 shops. How many does each get?";
    let harness = harness().answers(replies);
    assert_eq!(solve(&harness, task), "63 apples each");
    let requests = harness.requests();
    let last: Vec<(Role, String)> =
        requests[2].messages.iter().map(|message| (message.role.clone(), message.text())).collect();
    assert_eq!(last[0].0, Role::System);
    assert!(last[0].1.contains("calc: (3 + 4) * 2"), "{last:?}");
    let expect = [
        (Role::User, task),
        (Role::Assistant, replies[0]),
        (Role::User, "12 * 7 = 84"),
        (Role::Assistant, replies[1]),
        (Role::User, "84 * 3 = 252\n252 / 4 = 63"),
    ];
    let expect: Vec<(Role, String)> =
        expect.into_iter().map(|(role, text)| (role, text.to_owned())).collect();
    assert_eq!(last[1..], expect);
    assert!(requests.iter().all(|request| request.sampling.temperature == Some(0.0)));
    assert_eq!((harness.counter("steps"), harness.counter("solved")), (3.0, 1.0));
}

#[test]
fn arithmetic_of_the_task_is_computed_first() {
    let harness = harness().answers(["It is 156."]);
    assert_eq!(solve(&harness, "What is 12 * 13?"), "It is 156.");
    let system = harness.requests()[0].messages[0].text();
    assert!(system.ends_with("already found:\n12 * 13 = 156"), "{system}");
}

#[test]
fn the_answer_holds_the_value_whatever_the_model_says() {
    check("What is 12 * 13?", &["I do not know much about that."], "12 * 13 = 156");
    check("what's 12*13 please", &["Twelve times thirteen is 154."], "12*13 = 156");
    check("What is 12*13?", &[""], "12*13 = 156");
    let task = "Ann buys 12 * 13 eggs. Write a poem about them.";
    check(task, &["Eggs are round."], "12 * 13 = 156\n\nEggs are round.");
    check(task, &["156 eggs are round."], "156 eggs are round.");
    check("1 / 0 and 2 + 2?", &["4"], "1 / 0: error: division by zero");
    check("What is 15% of 80, and 1/3 * 1?", &["12"], "1/3 * 1 ≈ 0.333333333333");
}

#[test]
fn mistakes_of_the_model_come_back_as_errors() {
    let replies = ["calc: 7 / (3 - 3)\ncalc: seven", "answer: it cannot be done"];
    let harness = harness().answers(replies);
    assert_eq!(solve(&harness, "Share seven among nobody."), "it cannot be done");
    let told = harness.requests()[1].messages.last().expect("results").text();
    assert_eq!(
        told,
        "7 / (3 - 3): error: division by zero\n\
         seven: error: expected a number or `(` at character 1"
    );
}

#[test]
fn a_model_that_repeats_itself_is_stopped() {
    check(
        "Hm?",
        &["calc: 1+1", "calc: 1 + 1"],
        "1+1 = 2\n\nI could get no further: no answer was found in the steps allowed.",
    );
    check("1 + 1", &["calc: 1 + 1"], "1 + 1 = 2");
    let counting = || {
        let mut n = 0;
        harness().config("steps_max", 3).model(move |_| {
            n += 1;
            Ok(format!("calc: {n} + 1"))
        })
    };
    let harness = counting();
    assert!(solve(&harness, "Count.").starts_with("1 + 1 = 2\n2 + 1 = 3\n3 + 1 = 4\n\nI could"));
    assert_eq!(harness.requests().len(), 3);
}

#[test]
fn without_anything_usable_the_answer_says_so() {
    check("Hm?", &["  "], "I could not solve this: the model gave no answer.");
    let poor = || harness().answers(["calc: 1 + 1", "2"]);
    let budget = "the token budget ran out before there was an answer";
    assert_eq!(
        solve(&poor().budget_tokens(0), "Hm?"),
        format!("I could not solve this: {budget}.")
    );
    assert_eq!(
        solve(&poor().budget_tokens(9), "Hm?"),
        format!("I could not solve this: {budget}.")
    );
    assert_eq!(solve(&poor().budget_tokens(9), "2 + 3"), "2 + 3 = 5");
    let enough_for_one = poor().budget_tokens(120);
    let expect = format!("1 + 1 = 2\n\nI could get no further: {budget}.");
    assert_eq!(solve(&enough_for_one, "Hm?"), expect);
}

#[test]
fn a_model_that_fails_is_the_hosts_business_unless_something_is_known() {
    let broken = || harness().model(|_| Err(Error::new("unavailable", "busy")));
    let error = broken().run::<Solver>(vec![Message::user("Hm?")]).expect_err("fails");
    assert_eq!(error.code, "unavailable");
    let harness = broken();
    let expect = "2 + 3 = 5\n\nI could get no further: the model could not be asked.";
    assert_eq!(solve(&harness, "Sing about 2 + 3."), expect);
    assert!(harness.logs()[0].message.contains("busy"));
    assert_eq!(solve(&broken(), "2 + 3"), "2 + 3 = 5");
}

#[test]
fn the_budget_and_the_settings_bound_each_reply() {
    let harness = harness().config("model", "sums").config("reply_tokens_max", 40);
    let harness = harness.budget_tokens(4096).answers(["ok"]);
    solve(&harness, "Hm?");
    let request = &harness.requests()[0];
    assert_eq!((request.model.as_str(), request.sampling.max_tokens), ("sums", Some(40)));
}

#[test]
fn the_instructions_join_a_system_message() {
    let harness = harness().answers(["ok"]);
    let messages = vec![Message::system("Be kind."), Message::user("Hm?")];
    harness.run::<Solver>(messages).expect("answers");
    let messages = &harness.requests()[0].messages;
    assert_eq!(messages.len(), 2);
    assert!(messages[0].text().starts_with("Be kind.\n\nSolve the task"), "{messages:?}");
}

#[test]
fn a_conversation_without_a_user_is_still_answered() {
    let harness = harness().answers(["ok", "fine"]);
    assert_eq!(harness.run::<Solver>(Vec::new()).expect("answers").text(), "ok");
    let messages = vec![Message::assistant("2 + 2")];
    assert_eq!(harness.run::<Solver>(messages).expect("answers").text(), "fine");
}

#[test]
fn bad_settings_are_refused() {
    let check = |key: &str, value: u32, part: &str| {
        let harness = harness().config(key, value);
        let error = harness.run::<Solver>(Vec::new()).expect_err("refused");
        assert!(error.code == "invalid" && error.message.contains(part), "{error}");
    };
    check("steps_max", 0, "steps_max must be 1 to 32");
    check("steps_max", 33, "steps_max must be 1 to 32");
    check("reply_tokens_max", 0, "reply_tokens_max must be 1 to 8192");
    check("colour", 1, "unknown field");
}
