//! `/v1/embeddings`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use request::ServingOptions;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::http::error::ApiError;
use crate::http::wire::completions::Prompt;
use crate::http::wire::object::MortiseField;

/// A request as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingBody {
    pub(crate) model: String,
    pub(crate) input: Prompt,
    encoding_format: Option<Encoding>,
    dimensions: Option<usize>,
    /// Whether vectors are scaled to length 1, as OpenAI's are.
    normalize: Option<bool>,
    cache_salt: Option<String>,
    priority: Option<i64>,
    // Accepted and without effect: they describe the caller, not the answer.
    #[serde(default, rename = "user")]
    _user: IgnoredAny,
    #[serde(default, rename = "metadata")]
    _metadata: IgnoredAny,
    #[serde(default, rename = "request_id")]
    _request_id: IgnoredAny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Float,
    Base64,
}

/// How vectors are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VectorShape {
    base64: bool,
    dimensions: usize,
    normalize: bool,
}

impl EmbeddingBody {
    /// How the answer's vectors, `hidden_size` long, are to be written.
    ///
    /// # Errors
    /// 400 for no dimensions, or more than there are.
    pub(crate) fn shape(&self, hidden_size: usize) -> Result<VectorShape, ApiError> {
        let asked = self.dimensions.unwrap_or(hidden_size);
        if !(1..=hidden_size).contains(&asked) {
            let message = format!("dimensions must be 1 to {hidden_size}, got {asked}");
            return Err(ApiError::invalid_param("dimensions", message));
        }
        let base64 = self.encoding_format == Some(Encoding::Base64);
        let normalize = self.normalize.unwrap_or(true);
        Ok(VectorShape { base64, dimensions: asked, normalize })
    }

    /// Place in the queue and share of the cache.
    pub(crate) fn serving(&mut self) -> ServingOptions {
        let cache_salt = self.cache_salt.take();
        ServingOptions { priority: self.priority.unwrap_or(0), cache_salt }
    }
}

/// A vector as it was asked for.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Vector {
    Floats(Vec<f32>),
    /// Little-endian f32, one after the other.
    Base64(String),
}

impl VectorShape {
    /// Cuts, scales and encodes a mean.
    pub(crate) fn write(self, mut mean: Vec<f32>) -> Vector {
        mean.truncate(self.dimensions);
        if self.normalize {
            normalize(&mut mean);
        }
        match self.base64 {
            false => Vector::Floats(mean),
            true => {
                let bytes: Vec<u8> = mean.iter().flat_map(|value| value.to_le_bytes()).collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        }
    }
}

/// Scales to length 1; a vector of zeros stays as it is.
fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
    if square > 0.0 {
        let length = square.sqrt();
        for value in vector {
            *value = (f64::from(*value) / length) as f32;
        }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct EmbeddingList {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<EmbeddingWire>,
    pub(crate) model: String,
    pub(crate) usage: EmbeddingUsage,
    pub(crate) mortise: Option<MortiseField>,
}

#[derive(Debug, Serialize)]
pub(crate) struct EmbeddingWire {
    pub(crate) object: &'static str,
    pub(crate) index: usize,
    pub(crate) embedding: Vector,
}

#[derive(Debug, Serialize)]
pub(crate) struct EmbeddingUsage {
    pub(crate) prompt_tokens: u32,
    pub(crate) total_tokens: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::parse;

    fn write(rest: &str, mean: &[f32]) -> Result<Vector, ApiError> {
        let text = format!("{{\"model\": \"m\", \"input\": \"a\"{rest}}}");
        let shape = parse::<EmbeddingBody>(text.as_bytes()).and_then(|body| body.shape(mean.len()));
        shape.map(|shape| shape.write(mean.to_vec()))
    }

    #[test]
    fn vectors_are_cut_then_scaled_then_encoded() {
        let check = |rest: &str, expect: &[f32]| {
            let found = write(rest, &[3.0, -4.0, 12.0]).expect(rest);
            assert_eq!(found, Vector::Floats(expect.to_vec()), "{rest}");
        };
        check("", &[3.0 / 13.0, -4.0 / 13.0, 12.0 / 13.0]);
        check(", \"normalize\": false", &[3.0, -4.0, 12.0]);
        check(", \"dimensions\": 2", &[0.6, -0.8]);
        check(", \"dimensions\": 3, \"normalize\": false", &[3.0, -4.0, 12.0]);
        check(", \"dimensions\": 1, \"encoding_format\": \"float\"", &[1.0]);
        let encoded = write(", \"encoding_format\": \"base64\", \"dimensions\": 1", &[3.0]);
        assert_eq!(encoded.expect("base64"), Vector::Base64("AACAPw==".to_owned()));
        assert_eq!(write("", &[0.0, 0.0]).expect("zeros"), Vector::Floats(vec![0.0, 0.0]));
    }

    #[test]
    fn what_can_t_be_is_refused_by_name() {
        for (rest, param) in [
            (", \"dimensions\": 0", "dimensions"),
            (", \"dimensions\": 4", "dimensions"),
            (", \"dimensions\": -1", "dimensions"),
            (", \"encoding_format\": \"hex\"", "encoding_format"),
            (", \"inputs\": 1", "inputs"),
        ] {
            let error = write(rest, &[3.0, -4.0, 12.0]).expect_err(rest);
            assert_eq!(error.param.as_deref(), Some(param), "{error:?}");
        }
    }
}
