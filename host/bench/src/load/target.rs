//! Servers: their addresses, and how each kind is told which adapter to use.

use serde_json::{Map, Value, json};

use super::plan::{Prompt, Request};

/// How a server is told the adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Each adapter is a model: this prefix and its number in five digits.
    OpenAi {
        /// What names begin with, `adapter-` for made adapters.
        prefix: String,
    },
    /// llama.cpp's: the field `lora`, a list of numbers in the order of the command line.
    LlamaServer,
}

/// Which endpoint is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/completions`
    Completions,
    /// `/v1/chat/completions`, with the prompt as one message.
    Chat,
}

impl Endpoint {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
        }
    }
}

/// A server to drive.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in reports.
    pub label: String,
    /// Its address, without `/v1`.
    pub url: String,
    /// The base model's name; the first of `/v1/models` if not given.
    pub model: Option<String>,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<String>,
    /// How it is told the adapter.
    pub dialect: Dialect,
    /// Which endpoint is driven.
    pub endpoint: Endpoint,
    /// Whether answers go on behind an end token, so that each has its full length.
    pub ignore_eos: bool,
    /// Fields added to every request, over those of the same names.
    pub body: Map<String, Value>,
}

impl Target {
    /// The body of a request to the base model called `model`.
    pub(super) fn body(&self, model: &str, request: &Request) -> Value {
        let mut body = json!({
            "model": model,
            "max_tokens": request.output_tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        match (&request.prompt, self.endpoint) {
            (Prompt::Text(text), Endpoint::Chat) => {
                body["messages"] = json!([{"role": "user", "content": text}]);
            }
            (Prompt::Text(text), Endpoint::Completions) => body["prompt"] = json!(text),
            (Prompt::Ids(ids), _) => body["prompt"] = json!(ids),
        }
        if self.ignore_eos {
            body["ignore_eos"] = Value::Bool(true);
        }
        match (&self.dialect, request.adapter) {
            (Dialect::OpenAi { prefix }, Some(adapter)) => {
                body["model"] = Value::String(format!("{prefix}{adapter:05}"));
            }
            (Dialect::OpenAi { .. }, None) => {}
            (Dialect::LlamaServer, Some(adapter)) => {
                body["lora"] = json!([{"id": adapter, "scale": 1.0}]);
            }
            // Without the field it uses every adapter that it has.
            (Dialect::LlamaServer, None) => body["lora"] = json!([{"id": 0, "scale": 0.0}]),
        }
        for (key, value) in &self.body {
            body[key] = value.clone();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(dialect: Dialect, endpoint: Endpoint) -> Target {
        Target {
            label: "a".to_owned(),
            url: "http://h".to_owned(),
            model: None,
            api_key: None,
            dialect,
            endpoint,
            ignore_eos: true,
            body: Map::new(),
        }
    }

    fn openai() -> Dialect {
        Dialect::OpenAi { prefix: "adapter-".to_owned() }
    }

    #[test]
    fn each_kind_of_server_is_told_in_its_own_way() {
        let check = |target: &Target, adapter, expect: Value| {
            let request =
                Request { prompt: Prompt::Ids(vec![300, 301]), output_tokens: 4, adapter };
            let mut body = target.body("base", &request);
            let object = body.as_object_mut().expect("an object");
            for key in ["temperature", "stream", "stream_options", "ignore_eos", "max_tokens"] {
                object.shift_remove(key).expect(key);
            }
            assert_eq!(body, expect);
        };
        let prompt = json!([300, 301]);
        let ours = target(openai(), Endpoint::Completions);
        check(&ours, None, json!({"model": "base", "prompt": prompt}));
        check(&ours, Some(7), json!({"model": "adapter-00007", "prompt": prompt}));
        let theirs = target(Dialect::LlamaServer, Endpoint::Completions);
        let lora = |id: usize, scale: f64| json!({"model": "base", "prompt": prompt, "lora": [{"id": id, "scale": scale}]});
        check(&theirs, None, lora(0, 0.0));
        check(&theirs, Some(7), lora(7, 1.0));
    }

    #[test]
    fn chat_wraps_the_prompt_and_more_fields_win() {
        let mut target = target(openai(), Endpoint::Chat);
        target.ignore_eos = false;
        target.body = json!({"temperature": 1, "top_k": 5}).as_object().expect("object").clone();
        let prompt = Prompt::Text(" ab".to_owned());
        let body = target.body("base", &Request { prompt, output_tokens: 9, adapter: None });
        let expect = json!({
            "model": "base",
            "max_tokens": 9,
            "temperature": 1,
            "stream": true,
            "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": " ab"}],
            "top_k": 5,
        });
        assert_eq!(body, expect);
    }
}
