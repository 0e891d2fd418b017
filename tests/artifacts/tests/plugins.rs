//! The shipped plugins as components in the real host, each doing what it is for within the default
//! limits. What they decide in detail is tested natively, in their own crates.

use std::collections::BTreeSet;
use std::sync::Arc;

use plugin_host::{
    AgentContext, Candidate, Capabilities, Capability, CapabilityError, Completion,
    CorpusCapability, CorpusInfo, Evidence, EvidenceSpan, GenerateCall, GenerateCapability,
    HostConfig, PluginHost, PluginPolicy, PreprocessOutcome, RequestInfo, RouteDecision,
    SHARES_TOTAL, SamplingView, StreamAction,
};
use request::{Message, Role, Usage};

/// Corpora whose tokens are words.
struct Words(Vec<(&'static str, &'static str)>);

impl CorpusCapability for Words {
    fn list(&self) -> Vec<CorpusInfo> {
        let info = |(adapter, text): &(&str, &str)| CorpusInfo {
            adapter: (*adapter).to_owned(),
            tokens: text.split_whitespace().count() as u64,
            documents: 1,
            owners: 1,
        };
        self.0.iter().map(info).collect()
    }

    fn ngram_counts(
        &self,
        adapters: &[String],
        text: &str,
        n: u32,
    ) -> Result<Vec<Vec<u64>>, CapabilityError> {
        let text: Vec<&str> = text.split_whitespace().collect();
        let row = |adapter: &String| {
            let corpus = self.0.iter().find(|(known, _)| known == adapter).expect("known");
            let corpus: Vec<&str> = corpus.1.split_whitespace().collect();
            let count = |run: &[&str]| corpus.windows(run.len()).filter(|w| *w == run).count();
            text.windows(n as usize).map(|run| count(run) as u64).collect()
        };
        Ok(adapters.iter().map(row).collect())
    }
}

/// A model that calls the calculator once, then answers with what it was told.
struct Model;

#[async_trait::async_trait]
impl GenerateCapability for Model {
    async fn generate(&self, call: GenerateCall) -> Result<Completion, CapabilityError> {
        let told = call.messages.last().expect("messages").content.clone();
        let text = match told.split_once(" = ") {
            Some((_, value)) => format!("answer: it is {value}"),
            None => "calc: (17 + 4) * 2".to_owned(),
        };
        let usage = Usage { prompt_tokens: 50, completion_tokens: 5, ..Usage::default() };
        let message = Message::new(Role::Assistant, text);
        Ok(Completion { message, finish_reason: "stop".to_owned(), usage })
    }
}

fn info() -> RequestInfo {
    RequestInfo {
        id: "r-1".to_owned(),
        tenant: "default".to_owned(),
        endpoint: "chat".to_owned(),
        model: "auto".to_owned(),
        adapter: None,
        streaming: true,
    }
}

/// A host in which all five are active. The mask hides `secret`.
fn host() -> Arc<PluginHost> {
    let mut config = HostConfig {
        default_policy: PluginPolicy {
            grants: BTreeSet::from([Capability::Corpus, Capability::Generate]),
            ..PluginPolicy::default()
        },
        ..HostConfig::default()
    };
    let mut mask = PluginPolicy::default();
    mask.config.insert("words".to_owned(), serde_json::json!(["secret"]));
    config.policies.insert("mask".to_owned(), mask);
    let corpora = Words(vec![
        ("kitchen", "how long do i boil an egg ? boil the egg for seven minutes ."),
        ("sky", "which planet is closest to the sun ? mercury is closest to the sun ."),
    ]);
    let lent = Capabilities { corpus: Some(Arc::new(corpora)), ..Capabilities::default() };
    let host = PluginHost::new(config, lent).expect("a host");
    for name in artifacts::PLUGINS {
        host.install(&artifacts::plugin(name)).expect(name);
        host.activate(name, None).expect(name);
    }
    host
}

fn user(text: &str) -> [Message; 1] {
    [Message::new(Role::User, text)]
}

#[test]
fn each_does_what_it_is_for() {
    let host = host();
    let chain = host.chain();

    let router = chain.router().expect("closest-corpus");
    let candidates =
        ["kitchen", "sky"].map(|model| Candidate { model: model.to_owned(), is_adapter: true });
    let route = |text: &str| router.route(&info(), &user(text), &candidates).expect("routes");
    assert_eq!(route("how long do i boil an egg ?"), RouteDecision::To("kitchen".to_owned()));
    assert_eq!(route("which planet is closest to the sun ?"), RouteDecision::To("sky".to_owned()));
    assert_eq!(route("write a poem"), RouteDecision::Pass);
    assert!(matches!(
        route(&"which planet is closest to the sun ? ".repeat(9_000)),
        RouteDecision::To(_)
    ));

    let redact = &chain.preprocessors()[0];
    let text = user("mail ann@example.org");
    let outcome = redact.preprocess(&info(), &text, &SamplingView::default()).expect("redacts");
    let PreprocessOutcome::Change { messages, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(messages[0].content, "mail [email 1]");

    let mut stream = chain.postprocessors()[0].open_stream(&info()).expect("opens");
    assert_eq!(stream.push("a plain word ").expect("pushes"), StreamAction::Pass);
    assert_eq!(stream.push("sec").expect("pushes"), StreamAction::Hold);
    assert_eq!(stream.push("ret!").expect("pushes"), StreamAction::Replace("***!".to_owned()));
    assert_eq!(stream.finish("stop").expect("finishes"), "");

    let span = EvidenceSpan {
        start: 0,
        tokens: 4,
        occurrences: 1,
        unigram_logprob: -20.0,
        owners: vec![(1, 1), (2, 1)],
    };
    let evidence = Evidence { corpus_tokens: 99, output_tokens: 4, owners: 3, spans: vec![span] };
    let shares = chain.scorer().expect("span-rarity").score(&info(), &evidence).expect("scores");
    assert_eq!(shares.iter().map(|share| share.parts).collect::<Vec<_>>(), [SHARES_TOTAL / 2; 2]);
}

#[tokio::test]
async fn the_agent_calls_the_model_and_the_calculator() {
    let host = host();
    let agent = host.chain().agent("solver").expect("solver");
    let run = |text: &'static str, budget: u32| {
        let agent = Arc::clone(&agent);
        let context = AgentContext { generate: Arc::new(Model), budget_tokens: Some(budget) };
        async move {
            let answer = agent.run_agent(info(), user(text).to_vec(), context).await;
            answer.expect("answers").content
        }
    };
    assert_eq!(run("Twice the sum of 17 and 4?", 1_000).await, "it is 42");
    assert_eq!(run("What is 6 * 7?", 0).await, "6 * 7 = 42");
}
