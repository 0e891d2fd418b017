//! Rotary embedding from `config.json`: `rope_theta` and `rope_scaling` as transformers 4 writes
//! them, `rope_parameters` as transformers 5 does.

use kernels::{RopeConfig, RopeScaling};
use serde_json::Value;

use super::raw::{RawConfig, invalid};
use crate::ModelError;

/// Base of the frequencies where the file names none.
const THETA_DEFAULT: f64 = 10_000.0;

/// Resolves the rotary embedding.
pub(super) fn rope_config(raw: &RawConfig, head_dim: usize) -> Result<RopeConfig, ModelError> {
    let (key, parameters) = match (&raw.rope_parameters, &raw.rope_scaling) {
        (Some(parameters), _) if !parameters.is_null() => ("rope_parameters", parameters),
        (_, Some(scaling)) => ("rope_scaling", scaling),
        _ => ("rope_scaling", &Value::Null),
    };
    let parameters = Parameters { key, values: parameters };
    let theta = parameters.number("rope_theta")?.or(raw.rope_theta).unwrap_or(THETA_DEFAULT);
    if !(theta.is_finite() && theta > 1.0) {
        return Err(invalid("rope_theta", format!("{theta} is not a finite number above 1")));
    }
    let partial = parameters.number("partial_rotary_factor")?.or(raw.partial_rotary_factor);
    if let Some(partial) = partial.filter(|partial| *partial != 1.0) {
        return Err(ModelError::Unsupported {
            key: "partial_rotary_factor",
            value: partial.to_string(),
            hint: "; supported is 1",
        });
    }
    Ok(RopeConfig { head_dim, theta, scaling: parameters.scaling()? })
}

struct Parameters<'a> {
    key: &'static str,
    values: &'a Value,
}

impl Parameters<'_> {
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
        let value = value.ok_or_else(|| invalid(self.key, format!("{name} is missing")))?;
        if !(value.is_finite() && value > 0.0) {
            return Err(invalid(self.key, format!("{name} must be above 0, is {value}")));
        }
        Ok(value)
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
            other => Err(ModelError::Unsupported {
                key: "rope_type",
                value: other.to_owned(),
                hint: "; supported are default, linear and llama3",
            }),
        }
    }
}
