//! `/v1/completions`.

use pipeline::Input;
use request::TokenId;
use serde::Deserialize;

use crate::http::error::ApiError;
use crate::http::wire::sampling::{refuse_if, request_body};

/// Alternatives that a request without `logprobs` has, and the default of tokens is the pipeline's.
const BEST_OF_DEFAULT: u32 = 1;

request_body!(
    /// A completion request as written.
    CompletionBody {
        prompt: Prompt,
        logprobs: Option<u32>,
        echo: Option<bool>,
        suffix: Option<String>,
        best_of: Option<u32>,
    }
);

/// Text or tokens, once or several times.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a string, an array of strings, an array of token ids, or an array of such arrays"
)]
pub(crate) enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<TokenId>),
    TokenLists(Vec<Vec<TokenId>>),
}

impl CompletionBody {
    /// Refuses what would change the answer and is not there.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(crate) fn check(&self, n: Option<u32>) -> Result<(), ApiError> {
        refuse_if(self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()), "suffix")?;
        let same = n.unwrap_or(1);
        refuse_if(
            self.best_of.is_some_and(|best| best > BEST_OF_DEFAULT && best != same),
            "best_of",
        )
    }

    /// The prompts, at least one and at most `prompts_max`.
    ///
    /// # Errors
    /// 400 for none or too many.
    pub(crate) fn inputs(&mut self, prompts_max: usize) -> Result<Vec<Input>, ApiError> {
        let prompt = std::mem::replace(&mut self.prompt, Prompt::Texts(Vec::new()));
        prompt.into_inputs("prompt", prompts_max)
    }
}

impl Prompt {
    /// Each text or list of tokens as an input, at least one and at most `count_max`; `param` is the
    /// field's name on the wire.
    ///
    /// # Errors
    /// 400 for none or too many.
    pub(crate) fn into_inputs(self, param: &str, count_max: usize) -> Result<Vec<Input>, ApiError> {
        let inputs: Vec<Input> = match self {
            Self::Text(text) => vec![Input::Text(text)],
            Self::Texts(texts) => texts.into_iter().map(Input::Text).collect(),
            Self::Tokens(tokens) => vec![Input::Tokens(tokens)],
            Self::TokenLists(lists) => lists.into_iter().map(Input::Tokens).collect(),
        };
        if inputs.is_empty() || inputs.len() > count_max {
            let count = inputs.len();
            let message = format!("{param} must have 1 to {count_max} entries, got {count}");
            return Err(ApiError::invalid_param(param, message));
        }
        Ok(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::parse;

    fn inputs(prompt: &str) -> Result<Vec<Input>, ApiError> {
        let text = format!("{{\"model\": \"m\", \"prompt\": {prompt}}}");
        parse::<CompletionBody>(text.as_bytes()).and_then(|mut body| body.inputs(2))
    }

    #[test]
    fn every_form_of_a_prompt() {
        let text = |text: &str| Input::Text(text.to_owned());
        let check = |prompt: &str, expect: Vec<Input>| {
            assert_eq!(inputs(prompt).expect(prompt), expect, "{prompt}");
        };
        check("\"a\"", vec![text("a")]);
        check("[\"a\", \"b\"]", vec![text("a"), text("b")]);
        check("[1, 2]", vec![Input::Tokens(vec![1, 2])]);
        check("[[1], [2, 3]]", vec![Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])]);
    }

    #[test]
    fn none_too_many_and_mixtures_are_refused() {
        for prompt in ["[]", "[\"a\", \"b\", \"c\"]", "[1, \"a\"]", "[-1]", "4", "null", "[[1], 2]"]
        {
            let error = inputs(prompt).expect_err(prompt);
            assert_eq!(error.param.as_deref(), Some("prompt"), "{error:?}");
        }
    }
}
