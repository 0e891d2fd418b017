//! What an operator does during a soak: names come, move to other adapters and go, while clients ask
//! for them.

use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use reqwest::Url;
use serde_json::{Value, json};

use super::super::client::{Failure, causes, refusal};
use super::act::{CHANGING, Names};
use super::visitor::Ended;

/// Longest wait for one change: a load may wait for room.
const CHANGE: Duration = Duration::from_secs(120);

/// Changes the adapters of one server.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) http: reqwest::Client,
    /// The admin listener, or the public one where clients may change adapters.
    pub(super) url: Url,
    pub(super) token: Option<String>,
    /// Where adapters lie, on the server's machine.
    pub(super) files: PathBuf,
    pub(super) names: Names,
    pub(super) adapters: usize,
    pub(super) seed: u64,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The name gets this adapter, or another than it had.
    Load {
        name: usize,
        adapter: usize,
        in_place: bool,
    },
    Unload {
        name: usize,
    },
    List,
}

impl Operator {
    /// The change with number `index`.
    pub(super) async fn change(&self, index: u64) -> Ended {
        let change = self.draw(index);
        let sent = match change {
            Change::Load { name, adapter, in_place } => {
                let path = self.files.join(self.names.adapter(adapter));
                self.post(
                    "/v1/load_lora_adapter",
                    &json!({
                        "lora_name": Names::changing(name),
                        "lora_path": path,
                        "load_inplace": in_place,
                    }),
                )
            }
            Change::Unload { name } => {
                self.post("/v1/unload_lora_adapter", &json!({"lora_name": Names::changing(name)}))
            }
            Change::List => self.with_token(self.http.get(self.at("/v1/lora_adapters"))),
        };
        let response = match sent.timeout(CHANGE).send().await {
            Ok(response) => response,
            Err(error) => {
                return Ended::Foreign(Failure::new("change: connection", causes(&error)));
            }
        };
        // A name that is taken, or that is not there.
        let expected = match (change, response.status().as_u16()) {
            (_, 200) => {
                // Read whole, so that the connection is used again.
                return match response.bytes().await {
                    Ok(_) => Ended::Answered,
                    Err(error) => {
                        Ended::Foreign(Failure::new("change: broken answer", causes(&error)))
                    }
                };
            }
            (Change::Load { in_place: false, .. }, 400) => "already been loaded",
            (Change::Unload { .. }, 404) => "no adapter is called",
            _ => "",
        };
        let failure = refusal(response).await;
        if !expected.is_empty() && failure.message.contains(expected) {
            return Ended::Refused;
        }
        let cause = format!("change: {}", failure.cause);
        Ended::Foreign(Failure::new(cause, format!("{change:?}: {}", failure.message)))
    }

    fn draw(&self, index: u64) -> Change {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(index);
        let name = rng.random_range(0..CHANGING);
        match rng.random_range(0..100) {
            0..60 => {
                let adapter = rng.random_range(0..self.adapters);
                Change::Load { name, adapter, in_place: rng.random_range(0..4) > 0 }
            }
            60..98 => Change::Unload { name },
            _ => Change::List,
        }
    }

    /// Takes every name away that changes gave.
    pub(super) async fn leave(&self) {
        for name in 0..CHANGING {
            let body = json!({"lora_name": Names::changing(name)});
            // It may have none, and the server may have gone, which others notice.
            drop(self.post("/v1/unload_lora_adapter", &body).timeout(CHANGE).send().await);
        }
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(path);
        url
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.with_token(self.http.post(self.at(path)).json(body))
    }

    fn with_token(&self, call: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => call.bearer_auth(token),
            None => call,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_of_every_kind_and_of_the_seed() {
        let operator = |seed| Operator {
            http: reqwest::Client::new(),
            url: Url::parse("http://h").expect("an address"),
            token: None,
            files: PathBuf::from("/zoo"),
            names: Names { base: "m".to_owned(), prefix: "adapter-".to_owned() },
            adapters: 4,
            seed,
        };
        let one = operator(1);
        let drawn: Vec<Change> = (0..300).map(|index| one.draw(index)).collect();
        assert_eq!(drawn[7], operator(1).draw(7));
        let count = |of: fn(&Change) -> bool| drawn.iter().filter(|change| of(change)).count();
        let loads = |change: &Change| matches!(change, Change::Load { in_place: true, .. });
        let fresh = |change: &Change| matches!(change, Change::Load { in_place: false, .. });
        let unloads = |change: &Change| matches!(change, Change::Unload { .. });
        let lists = |change: &Change| *change == Change::List;
        let counts = [count(loads), count(fresh), count(unloads), count(lists)];
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 300);
        assert_eq!(one.at("/v1/x").as_str(), "http://h/v1/x");
    }
}
