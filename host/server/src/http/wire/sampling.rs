//! The parameters that chat and completions share.

use std::collections::BTreeMap;

use request::{SamplingParams, ServingOptions, TokenId};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenization::Grammar;

use crate::http::error::ApiError;
use crate::http::wire::structured::Bounds;

/// One or several strings.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or an array of strings")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// `stream_options`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// A last chunk with the usage.
    pub(crate) include_usage: Option<bool>,
    /// Usage on every chunk, as far as it is known there; asks for the last one too.
    pub(crate) continuous_usage_stats: Option<bool>,
}

/// The extension object `mortise`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MortiseOptions {
    /// Whether the answer carries its credits.
    pub(crate) attribution: Option<bool>,
}

/// Parameters that chat and completions share, as written.
#[derive(Debug, Default)]
pub(crate) struct Common {
    pub(crate) model: String,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<i64>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) logit_bias: Option<BTreeMap<String, f32>>,
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Option<OneOrMany>,
    pub(crate) stop_token_ids: Option<Vec<TokenId>>,
    pub(crate) min_tokens: Option<u32>,
    pub(crate) ignore_eos: Option<bool>,
    pub(crate) n: Option<u32>,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) mortise: Option<MortiseOptions>,
    pub(crate) cache_salt: Option<String>,
    pub(crate) priority: Option<i64>,
    pub(crate) return_token_ids: Option<bool>,
    pub(crate) bounds: Bounds,
}

/// Declares a request body: its own fields, and the common ones. A macro, because serde's `flatten`
/// would lose both the refusal of unknown fields and the place of an error.
macro_rules! request_body {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $type,)*
            pub(crate) model: String,
            max_tokens: Option<u32>,
            temperature: Option<f32>,
            top_p: Option<f32>,
            top_k: Option<i64>,
            min_p: Option<f32>,
            repetition_penalty: Option<f32>,
            presence_penalty: Option<f32>,
            frequency_penalty: Option<f32>,
            logit_bias: Option<std::collections::BTreeMap<String, f32>>,
            seed: Option<i64>,
            stop: Option<$crate::http::wire::sampling::OneOrMany>,
            stop_token_ids: Option<Vec<request::TokenId>>,
            min_tokens: Option<u32>,
            ignore_eos: Option<bool>,
            n: Option<u32>,
            stream: Option<bool>,
            stream_options: Option<$crate::http::wire::sampling::StreamOptions>,
            mortise: Option<$crate::http::wire::sampling::MortiseOptions>,
            cache_salt: Option<String>,
            priority: Option<i64>,
            return_token_ids: Option<bool>,
            response_format: Option<$crate::http::wire::structured::ResponseFormat>,
            structured_outputs: Option<$crate::http::wire::structured::StructuredOutputs>,
            guided_json: Option<serde_json::Value>,
            guided_regex: Option<String>,
            guided_choice: Option<Vec<String>>,
            guided_grammar: Option<String>,
            // Accepted and without effect: they describe the caller, not the answer.
            #[serde(default, rename = "user")]
            _user: serde::de::IgnoredAny,
            #[serde(default, rename = "metadata")]
            _metadata: serde::de::IgnoredAny,
            #[serde(default, rename = "store")]
            _store: serde::de::IgnoredAny,
            #[serde(default, rename = "service_tier")]
            _service_tier: serde::de::IgnoredAny,
            #[serde(default, rename = "safety_identifier")]
            _safety_identifier: serde::de::IgnoredAny,
            #[serde(default, rename = "prompt_cache_key")]
            _prompt_cache_key: serde::de::IgnoredAny,
            #[serde(default, rename = "request_id")]
            _request_id: serde::de::IgnoredAny,
        }

        impl $name {
            /// Takes the common parameters out.
            pub(crate) fn common(&mut self) -> $crate::http::wire::sampling::Common {
                $crate::http::wire::sampling::Common {
                    model: std::mem::take(&mut self.model),
                    max_tokens: self.max_tokens,
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    repetition_penalty: self.repetition_penalty,
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    logit_bias: self.logit_bias.take(),
                    seed: self.seed,
                    stop: self.stop.take(),
                    stop_token_ids: self.stop_token_ids.take(),
                    min_tokens: self.min_tokens,
                    ignore_eos: self.ignore_eos,
                    n: self.n,
                    stream: self.stream,
                    stream_options: self.stream_options,
                    mortise: self.mortise,
                    cache_salt: self.cache_salt.take(),
                    priority: self.priority,
                    return_token_ids: self.return_token_ids,
                    bounds: $crate::http::wire::structured::Bounds {
                        response_format: self.response_format.take(),
                        structured_outputs: self.structured_outputs.take(),
                        guided_json: self.guided_json.take(),
                        guided_regex: self.guided_regex.take(),
                        guided_choice: self.guided_choice.take(),
                        guided_grammar: self.guided_grammar.take(),
                    },
                }
            }
        }
    };
}
pub(crate) use request_body;

/// What the answer should look like, as far as it is not the model's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Whether every chunk has the usage so far.
    pub(crate) continuous_usage: bool,
    /// Whether prompt and answer are told as token ids too.
    pub(crate) token_ids: bool,
    /// Whether the last chunk has the extension object.
    pub(crate) mortise: bool,
    pub(crate) attribution: bool,
    pub(crate) logprobs: bool,
}

impl Common {
    /// How the answer is to be written.
    ///
    /// # Errors
    /// 400 for options of streaming without streaming.
    pub(crate) fn shape(&self, logprobs: bool) -> Result<Shape, ApiError> {
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            let message = "stream_options needs `stream: true`";
            return Err(ApiError::invalid_param("stream_options", message));
        }
        let options = self.stream_options.unwrap_or_default();
        let continuous_usage = options.continuous_usage_stats.unwrap_or(false);
        let include_usage = options.include_usage.unwrap_or(false) || continuous_usage;
        let token_ids = self.return_token_ids.unwrap_or(false);
        let attribution = self.mortise.unwrap_or_default().attribution.unwrap_or(false);
        let mortise = self.mortise.is_some();
        Ok(Shape {
            stream,
            include_usage,
            continuous_usage,
            token_ids,
            mortise,
            attribution,
            logprobs,
        })
    }

    /// The sampling parameters; bounds are the pipeline's to check.
    ///
    /// # Errors
    /// 400 for numbers that can't be.
    pub(crate) fn sampling(&mut self, logprobs: Option<u32>) -> Result<SamplingParams, ApiError> {
        let default = SamplingParams::default();
        Ok(SamplingParams {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_p: self.top_p.unwrap_or(default.top_p),
            top_k: top_k(self.top_k)?,
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            logit_bias: logit_bias(self.logit_bias.take())?,
            stop: self.stop.take().map(OneOrMany::into_vec).unwrap_or_default(),
            stop_token_ids: self.stop_token_ids.take().unwrap_or_default(),
            min_tokens: self.min_tokens.unwrap_or(0),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            logprobs,
            ..default
        })
    }

    /// Place in the queue and share of the cache.
    pub(crate) fn serving(&mut self) -> ServingOptions {
        let cache_salt = self.cache_salt.take();
        ServingOptions { priority: self.priority.unwrap_or(0), cache_salt }
    }

    /// What the answer must be.
    ///
    /// # Errors
    /// 400 for what bounds nothing.
    pub(crate) fn grammar(&mut self) -> Result<Option<Grammar>, ApiError> {
        std::mem::take(&mut self.bounds).grammar()
    }

    /// Negative seeds are as good as any.
    pub(crate) fn seed(&self) -> Option<u64> {
        self.seed.map(i64::cast_unsigned)
    }
}

/// -1 and 0 keep all tokens, as vLLM has it.
pub(crate) fn top_k(asked: Option<i64>) -> Result<u32, ApiError> {
    let asked = asked.unwrap_or(0);
    if asked == -1 {
        return Ok(0);
    }
    u32::try_from(asked).map_err(|_| {
        let message = format!("top_k must be -1 or between 0 and {}, got {asked}", u32::MAX);
        ApiError::invalid_param("top_k", message)
    })
}

fn logit_bias(asked: Option<BTreeMap<String, f32>>) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let parse = |(token, bias): (String, f32)| {
        let id = token.parse().map_err(|_| {
            let message = format!("logit_bias has the key `{token}`, which is not a token id");
            ApiError::invalid_param("logit_bias", message)
        })?;
        Ok((id, bias))
    };
    asked.unwrap_or_default().into_iter().map(parse).collect()
}

/// A field that is accepted where it asks for nothing.
pub(crate) fn refuse_if(condition: bool, param: &str) -> Result<(), ApiError> {
    if condition { Err(ApiError::unsupported(param)) } else { Ok(()) }
}

/// Whether a list-like field asks for something.
pub(crate) fn is_asked(field: Option<&Vec<IgnoredAny>>) -> bool {
    field.is_some_and(|items| !items.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_keeps_all_by_default() {
        let check = |asked, expect: Option<u32>| assert_eq!(top_k(asked).ok(), expect, "{asked:?}");
        check(None, Some(0));
        check(Some(-1), Some(0));
        check(Some(0), Some(0));
        check(Some(40), Some(40));
        check(Some(-2), None);
        check(Some(i64::from(u32::MAX) + 1), None);
    }

    #[test]
    fn biased_tokens_are_ids() {
        let bias = |key: &str| logit_bias(Some(BTreeMap::from([(key.to_owned(), 1.0)])));
        assert_eq!(bias("17").ok(), Some(vec![(17, 1.0)]));
        for key in ["-1", "x", "", "4294967296"] {
            let error = bias(key).expect_err(key);
            assert_eq!(error.param.as_deref(), Some("logit_bias"));
        }
    }

    #[test]
    fn stream_options_need_a_stream() {
        let options = Some(StreamOptions { include_usage: Some(true), ..StreamOptions::default() });
        let common = Common { stream_options: options, ..Common::default() };
        assert_eq!(
            common.shape(false).expect_err("no stream").param.as_deref(),
            Some("stream_options")
        );
        let common = Common { stream: Some(true), ..common };
        let shape = common.shape(false).expect("a stream");
        assert!(shape.include_usage && !shape.continuous_usage);
        let options =
            StreamOptions { continuous_usage_stats: Some(true), ..StreamOptions::default() };
        let common = Common { stream_options: Some(options), ..common };
        let shape = common.shape(false).expect("a stream");
        assert!(shape.include_usage && shape.continuous_usage);
    }
}
