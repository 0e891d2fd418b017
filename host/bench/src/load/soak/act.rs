//! What a client of a soak does: what it asks, of whom, and how it behaves. All from one seed, pure.

use std::time::Duration;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};

use super::super::plan::{Plan, Prompt, Request};
use crate::shapes::{FIRST_WORD, word};

/// Keeps these draws apart from those of prompts, which have the same seed.
const ACTS: u64 = 0x50a4;
/// Names that the operator's loads and unloads are about.
pub(super) const CHANGING: usize = 8;
/// Most choices of one request.
const CHOICES_MAX: u32 = 4;
/// Longest wait of a client that leaves without having read.
const LEAVE_MS_MAX: u64 = 400;
/// Longest time that a client does not read.
const STALL_MS_MAX: u64 = 2000;

/// What requests a soak has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Every endpoint, and every way to leave.
    Hostile,
    /// Short plain answers that everybody waits for.
    Short,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Plain,
    Choices(u32),
    Chat,
    Schema,
    Embedding,
}

/// How the client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Reads its answer to the end.
    Stay,
    /// Leaves behind so many pieces of the answer.
    LeaveAfter(usize),
    /// Leaves after this time, whatever has come.
    LeaveIn(Duration),
    /// Sends a part of its headers, and leaves.
    HalfHead,
    /// Sends a part of its body, and leaves.
    HalfBody,
    /// Reads one piece, then nothing for this time, and leaves.
    Stall(Duration),
}

/// Who is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Base,
    Adapter(usize),
    Blend(usize, usize),
    /// One of the names that come and go meanwhile.
    Changing(usize),
    /// A name that nobody has.
    Nobody,
}

/// One visit.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) kind: Kind,
    pub(super) manner: Manner,
    pub(super) who: Who,
    request: Request,
}

/// What names are made of.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) base: String,
    pub(super) prefix: String,
}

impl Names {
    pub(super) fn adapter(&self, index: usize) -> String {
        format!("{}{index:05}", self.prefix)
    }

    /// A name that the operator loads and unloads.
    pub(super) fn changing(index: usize) -> String {
        format!("soak-{index}")
    }

    fn of(&self, who: Who) -> String {
        match who {
            Who::Base => self.base.clone(),
            Who::Adapter(index) => self.adapter(index),
            Who::Blend(one, other) => {
                format!("{}:0.7+{}:0.3", self.adapter(one), self.adapter(other))
            }
            Who::Changing(index) => Self::changing(index),
            Who::Nobody => "soak-nobody".to_owned(),
        }
    }
}

impl Act {
    /// The act with number `index`, of the client `stream`.
    pub(super) fn draw(plan: &Plan, mix: Mix, (index, stream): (u64, usize)) -> Self {
        let request = plan.request(index, stream);
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed() ^ ACTS);
        rng.set_stream(index);
        let adapter = request.adapter;
        if mix == Mix::Short {
            let who = adapter.map_or(Who::Base, Who::Adapter);
            return Self { kind: Kind::Plain, manner: Manner::Stay, who, request };
        }
        let kind = match rng.random_range(0..100) {
            0..50 => Kind::Stream,
            50..65 => Kind::Plain,
            65..75 => Kind::Choices(rng.random_range(2..=CHOICES_MAX)),
            75..85 => Kind::Chat,
            85..90 => Kind::Schema,
            _ => Kind::Embedding,
        };
        let manner = manner(&mut rng);
        let who = match rng.random_range(0..100) {
            0..10 => Who::Base,
            10..25 => Who::Changing(rng.random_range(0..CHANGING)),
            25..27 => Who::Nobody,
            more => match adapter {
                None => Who::Base,
                Some(one) if more < 32 && plan.adapters() > 1 => {
                    Who::Blend(one, neighbour(plan, one))
                }
                Some(one) => Who::Adapter(one),
            },
        };
        Self { kind, manner, who, request }
    }

    /// Whether the answer comes in pieces.
    pub(super) fn streams(&self) -> bool {
        matches!(self.kind, Kind::Stream | Kind::Chat | Kind::Choices(_))
    }

    /// Path and body.
    pub(super) fn call(&self, names: &Names) -> (&'static str, Value) {
        let Prompt::Ids(ids) = &self.request.prompt else { unreachable!("a soak's plan has ids") };
        let model = names.of(self.who);
        if self.kind == Kind::Embedding {
            return ("/v1/embeddings", json!({"model": model, "input": ids}));
        }
        let mut body = json!({"model": model, "max_tokens": self.request.output_tokens});
        body["stream"] = self.streams().into();
        body["ignore_eos"] = (self.kind != Kind::Schema).into();
        if self.kind == Kind::Chat {
            let words = ids.iter().map(|id| format!(" {}", word(*id as usize - FIRST_WORD)));
            let content: String = words.collect();
            body["messages"] = json!([{"role": "user", "content": content}]);
            return ("/v1/chat/completions", body);
        }
        body["prompt"] = json!(ids);
        match self.kind {
            Kind::Choices(n) => body["n"] = n.into(),
            Kind::Schema => {
                body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "soak", "schema": schema()}});
            }
            _ => {}
        }
        ("/v1/completions", body)
    }
}

fn manner(rng: &mut impl Rng) -> Manner {
    let milliseconds = Duration::from_millis;
    match rng.random_range(0..100) {
        0..60 => Manner::Stay,
        60..75 => Manner::LeaveAfter(rng.random_range(1..20)),
        75..88 => Manner::LeaveIn(milliseconds(rng.random_range(0..LEAVE_MS_MAX))),
        88..91 => Manner::HalfHead,
        91..95 => Manner::HalfBody,
        _ => Manner::Stall(milliseconds(rng.random_range(0..STALL_MS_MAX))),
    }
}

fn neighbour(plan: &Plan, index: usize) -> usize {
    (index + 1) % plan.adapters()
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "yy", "zzz"]}},
        "required": ["a", "b"],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::plan::{Popularity, PromptForm, Tokens, Workload};
    use super::*;

    fn plan(popularity: Popularity) -> Plan {
        let workload = Workload {
            prompt_tokens: Tokens { min: 1, max: 9 },
            output_tokens: Tokens { min: 1, max: 30 },
            form: PromptForm::Ids,
            vocab: 1000,
            adapters: 3,
            popularity,
        };
        Plan::new(&workload, 5).expect("a plan")
    }

    #[test]
    fn every_kind_manner_and_party_comes_up() {
        let plan = plan(Popularity::Uniform);
        let (mut kinds, mut manners, mut parties) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for index in 0..400 {
            let act = Act::draw(&plan, Mix::Hostile, (index, 0));
            let first = |text: String| {
                let end = text.find(['(', ' ']).unwrap_or(text.len());
                text[..end].to_owned()
            };
            kinds.insert(first(format!("{:?}", act.kind)));
            manners.insert(first(format!("{:?}", act.manner)));
            parties.insert(first(format!("{:?}", act.who)));
        }
        assert_eq!((kinds.len(), manners.len(), parties.len()), (6, 6, 5));
        let again = |index| format!("{:?}", Act::draw(&plan, Mix::Hostile, (index, 0)));
        assert_eq!(again(7), again(7));
    }

    #[test]
    fn short_visits_stay() {
        for (popularity, base) in [(Popularity::None, true), (Popularity::Same, false)] {
            let plan = plan(popularity);
            for index in 0..50 {
                let act = Act::draw(&plan, Mix::Short, (index, 0));
                assert_eq!((act.kind, act.manner), (Kind::Plain, Manner::Stay));
                assert_eq!(act.who, if base { Who::Base } else { Who::Adapter(0) });
            }
        }
    }

    #[test]
    fn calls_are_what_each_endpoint_takes() {
        let names = Names { base: "m".to_owned(), prefix: "adapter-".to_owned() };
        let request =
            Request { prompt: Prompt::Ids(vec![262, 263]), output_tokens: 4, adapter: None };
        let check = |kind, who, path: &str, expect: Value| {
            let act = Act { kind, manner: Manner::Stay, who, request: request.clone() };
            let (found, mut body) = act.call(&names);
            if kind == Kind::Schema {
                assert!(body["response_format"]["json_schema"]["schema"].is_object());
                body.as_object_mut().expect("object").shift_remove("response_format");
            }
            assert_eq!((found, body), (path, expect));
        };
        let body = |model: &str, stream: bool| json!({"model": model, "max_tokens": 4, "stream": stream, "ignore_eos": true});
        let with = |mut body: Value, key: &str, value: Value| {
            body[key] = value;
            body
        };
        let ids = json!([262, 263]);
        let prompted = |body: Value| with(body, "prompt", ids.clone());
        let completions = "/v1/completions";
        check(Kind::Stream, Who::Base, completions, prompted(body("m", true)));
        let one = prompted(body("adapter-00002", false));
        check(Kind::Plain, Who::Adapter(2), completions, one);
        let two = with(prompted(body("adapter-00001:0.7+adapter-00002:0.3", true)), "n", json!(2));
        check(Kind::Choices(2), Who::Blend(1, 2), completions, two);
        let bound = with(prompted(body("soak-3", false)), "ignore_eos", json!(false));
        check(Kind::Schema, Who::Changing(3), completions, bound);
        let text = format!(" {} {}", word(0), word(1));
        let messages = json!([{"role": "user", "content": text}]);
        let chat = with(body("soak-nobody", true), "messages", messages);
        check(Kind::Chat, Who::Nobody, "/v1/chat/completions", chat);
        let embedding = json!({"model": "m", "input": ids});
        check(Kind::Embedding, Who::Base, "/v1/embeddings", embedding);
    }
}
