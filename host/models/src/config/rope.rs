//! Rotary embedding from `config.json`: `rope_theta` and `rope_scaling` as transformers 4 writes
//! them, `rope_parameters` as transformers 5 does.

use kernels::{RopeConfig, RopeScaling};
use serde_json::Value;

use super::raw::{RawConfig, invalid};
use crate::ModelError;

/// Base of the frequencies where the file names none.
const THETA_DEFAULT: f64 = 10_000.0;
/// The same where layers with a window have a rope of their own, for the others.
const GLOBAL_THETA_DEFAULT: f64 = 1_000_000.0;

/// What an architecture lets a file say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RopeRules {
    /// Whether a head may be turned in part.
    pub(crate) partial: bool,
    /// Names that mean LongRoPE.
    pub(crate) longrope_names: &'static [&'static str],
    /// Whether layers with a window have a rope of their own.
    pub(crate) local: bool,
}

impl Default for RopeRules {
    fn default() -> Self {
        Self { partial: false, longrope_names: &["longrope"], local: false }
    }
}

/// Resolves the rotary embedding for contexts of at most `context_tokens_max`, and that of layers with a
/// window where it is another.
pub(super) fn rope_configs(
    raw: &RawConfig,
    head_dim: usize,
    rules: RopeRules,
    context_tokens_max: usize,
) -> Result<(RopeConfig, Option<RopeConfig>), ModelError> {
    let (key, values) = match (&raw.rope_parameters, &raw.rope_scaling) {
        (Some(parameters), _) if !parameters.is_null() => ("rope_parameters", parameters),
        (_, Some(scaling)) => ("rope_scaling", scaling),
        _ => ("rope_scaling", &Value::Null),
    };
    let parameters = Parameters { key, values, raw, rules, context_tokens_max };
    if !rules.local {
        let theta = raw.rope_theta.unwrap_or(THETA_DEFAULT);
        return Ok((parameters.resolve(head_dim, theta)?, None));
    }
    let part = |name| match key {
        "rope_parameters" => values.get(name).unwrap_or(&Value::Null),
        // Of the older form all counts for layers without a window.
        _ if name == FULL => values,
        _ => &Value::Null,
    };
    if key == "rope_parameters" && values.get("rope_type").is_some() {
        return Err(invalid(key, "not given for each type of layer"));
    }
    let theta = raw.rope_theta.unwrap_or(GLOBAL_THETA_DEFAULT);
    let full = Parameters { values: part(FULL), ..parameters }.resolve(head_dim, theta)?;
    let theta = raw.rope_local_base_freq.unwrap_or(THETA_DEFAULT);
    let local = Parameters { values: part(SLIDING), ..parameters }.resolve(head_dim, theta)?;
    Ok((full, Some(local)))
}

/// Types of layers, as `layer_types` and `rope_parameters` name them.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

#[derive(Clone, Copy)]
struct Parameters<'a> {
    key: &'static str,
    values: &'a Value,
    raw: &'a RawConfig,
    rules: RopeRules,
    context_tokens_max: usize,
}

impl Parameters<'_> {
    fn resolve(&self, head_dim: usize, theta_default: f64) -> Result<RopeConfig, ModelError> {
        let theta = self.number("rope_theta")?.unwrap_or(theta_default);
        if !(theta.is_finite() && theta > 1.0) {
            return Err(invalid("rope_theta", format!("{theta} is not a finite number above 1")));
        }
        let rotary_dim = self.rotary_dim(head_dim)?;
        let scaling = self.scaling()?;
        if let RopeScaling::Each { factors, .. } = &scaling
            && factors.len() != rotary_dim / 2
        {
            let (found, expected) = (factors.len(), rotary_dim / 2);
            return Err(invalid(self.key, format!("{found} factors for {expected} frequencies")));
        }
        Ok(RopeConfig { head_dim, rotary_dim, theta, scaling })
    }

    fn rotary_dim(&self, head_dim: usize) -> Result<usize, ModelError> {
        const KEY: &str = "partial_rotary_factor";
        let partial = self.number(KEY)?.or(self.raw.partial_rotary_factor).unwrap_or(1.0);
        if partial == 1.0 {
            return Ok(head_dim);
        }
        if !self.rules.partial {
            let value = partial.to_string();
            return Err(ModelError::Unsupported { key: KEY, value, hint: "; supported is 1" });
        }
        let rotary_dim = (head_dim as f64 * partial) as usize;
        if !(partial > 0.0 && partial < 1.0 && rotary_dim > 0 && rotary_dim.is_multiple_of(2)) {
            let reason = format!("{partial} of {head_dim} is not an even part of a head");
            return Err(invalid(KEY, reason));
        }
        Ok(rotary_dim)
    }

    fn number(&self, name: &str) -> Result<Option<f64>, ModelError> {
        match self.values.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_f64()
                .map(Some)
                .ok_or_else(|| invalid(self.key, format!("{name} is not a number: {value}"))),
        }
    }

    fn positive(&self, name: &str) -> Result<f64, ModelError> {
        let value = self.number(name)?;
        self.above_zero(name, value.ok_or_else(|| self.missing(name))?)
    }

    fn above_zero(&self, name: &str, value: f64) -> Result<f64, ModelError> {
        if !(value.is_finite() && value > 0.0) {
            return Err(invalid(self.key, format!("{name} must be above 0, is {value}")));
        }
        Ok(value)
    }

    fn missing(&self, name: &str) -> ModelError {
        invalid(self.key, format!("{name} is missing"))
    }

    fn scaling(&self) -> Result<RopeScaling, ModelError> {
        if !self.values.is_object() && !self.values.is_null() {
            return Err(invalid(self.key, "not an object"));
        }
        let nested = self.values.as_object().into_iter().flatten().find(|(_, v)| v.is_object());
        if let Some((name, _)) = nested {
            return Err(invalid(self.key, format!("{name}: one rope per model is supported")));
        }
        let name = self.values.get("rope_type").or_else(|| self.values.get("type"));
        match name {
            None | Some(Value::Null) => Ok(RopeScaling::None),
            Some(Value::String(name)) => self.scaling_named(name),
            Some(other) => Err(invalid(self.key, format!("rope_type is not a string: {other}"))),
        }
    }

    fn scaling_named(&self, name: &str) -> Result<RopeScaling, ModelError> {
        match name {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: self.positive("factor")? }),
            "llama3" => {
                let low_freq_factor = self.positive("low_freq_factor")?;
                let high_freq_factor = self.positive("high_freq_factor")?;
                if high_freq_factor <= low_freq_factor {
                    return Err(invalid(self.key, "high_freq_factor is not above low_freq_factor"));
                }
                Ok(RopeScaling::Llama3 {
                    factor: self.positive("factor")?,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings: self
                        .positive("original_max_position_embeddings")?,
                })
            }
            name if self.rules.longrope_names.contains(&name) => self.longrope(),
            other => Err(ModelError::Unsupported {
                key: "rope_type",
                value: other.to_owned(),
                hint: "; supported are default, linear, llama3 and longrope",
            }),
        }
    }

    /// The long factors if contexts may be longer than pretraining's, the short ones otherwise, for
    /// every context: keys that are cached can't change when a context grows past that length, nor may
    /// a row depend on how long others are.
    fn longrope(&self) -> Result<RopeScaling, ModelError> {
        const ORIGINAL: &str = "original_max_position_embeddings";
        let positions = self.raw.max_position_embeddings as f64;
        let original = match self.raw.original_max_position_embeddings {
            Some(original) => original,
            None => self.number(ORIGINAL)?.unwrap_or(positions),
        };
        let original = self.above_zero(ORIGINAL, original)?;
        let factor = match self.number("factor")? {
            Some(factor) => factor,
            None => positions / original,
        };
        let attention_factor = match self.number("attention_factor")? {
            Some(factor) => factor,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / original.ln()).sqrt(),
        };
        let attention_factor = self.above_zero("attention_factor", attention_factor)? as f32;
        let (short, long) = (self.factors("short_factor")?, self.factors("long_factor")?);
        let factors = if self.context_tokens_max as f64 > original { long } else { short };
        Ok(RopeScaling::Each { factors, attention_factor })
    }

    fn factors(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let values = self.values.get(name).and_then(Value::as_array);
        let values = values.ok_or_else(|| self.missing(name))?;
        let factor = |value: &Value| {
            let number = value.as_f64().filter(|number| number.is_finite() && *number > 0.0);
            let reason = || format!("{name} has {value}, not a number above 0");
            number.map(|number| number as f32).ok_or_else(|| invalid(self.key, reason()))
        };
        values.iter().map(factor).collect()
    }
}
