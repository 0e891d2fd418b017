//! `adapter_config.json` as PEFT writes it, and the modules of a base model that it targets.
//!
//! A key that changes the arithmetic and is not implemented is refused by name. A key that is not
//! known here at all is accepted only while it is off (`null`, `false`, empty).

mod pattern;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{LoraError, ModelShape, files};
use pattern::{Matcher, OrderedMap};

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// Largest configuration that is read. PEFT's lists of modules are the bulk of one.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Largest rank accepted; no model is that narrow.
const RANK_MAX: u64 = 65_536;

/// Keys that say nothing about the arithmetic of a loaded adapter.
const NEUTRAL_KEYS: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    // Matters for Conv1D alone; PEFT itself resets it for linear modules.
    "fan_in_fan_out",
    "layers_pattern",
    "layers_to_transform",
];

/// Initialisations that leave the base model's weights as they are.
const INITIALISATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// A module that an adapter changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Index in the base model's shape.
    pub module: usize,
    /// Rank of its pair.
    pub rank: usize,
    /// Factor of its product.
    pub scale: f32,
}

/// A configuration, read and checked.
#[derive(Debug)]
pub struct PeftConfig {
    path: PathBuf,
    targets: Matcher,
    excluded: Option<Matcher>,
    rank: usize,
    alpha: f64,
    use_rslora: bool,
    ranks: OrderedMap<usize>,
    alphas: OrderedMap<f64>,
}

impl PeftConfig {
    /// Reads `adapter_config.json` of a directory.
    ///
    /// # Errors
    /// A file that can't be read or parsed; a key that is not supported or makes no sense.
    pub fn from_dir(dir: &Path) -> Result<Self, LoraError> {
        let path = dir.join(CONFIG_FILE);
        let text = files::read(&path, CONFIG_BYTES_MAX)?;
        let keys: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|source| LoraError::Parse { path: path.clone(), source })?;
        let reader = Reader { path: &path, keys: &keys };
        reader.refuse_unsupported()?;
        let rank = reader.number("r")?.unwrap_or(8.0);
        let parse = |source| LoraError::Parse { path: path.clone(), source };
        let patterns = pattern::Patterns::parse(&text).map_err(parse)?;
        Ok(Self {
            targets: reader.targets()?,
            excluded: reader.matcher("exclude_modules")?,
            rank: reader.rank("r", rank)?,
            alpha: reader.number("lora_alpha")?.unwrap_or(8.0),
            use_rslora: reader.flag("use_rslora")?,
            ranks: reader.compile("rank_pattern", &patterns.rank_pattern, |key, value| {
                reader.rank(key, value)
            })?,
            alphas: reader
                .compile("alpha_pattern", &patterns.alpha_pattern, |_, value| Ok(value))?,
            path: path.clone(),
        })
    }

    /// The modules of `shape` that the adapter changes, in the order of the shape.
    ///
    /// # Errors
    /// A target that can't be adapted, no target at all, or a pattern that can't be evaluated.
    pub fn targets(&self, shape: &ModelShape) -> Result<Vec<Target>, LoraError> {
        let mut targets = Vec::new();
        for (index, module) in shape.modules.iter().enumerate() {
            let failed = |(key, reason)| self.invalid(key, reason);
            let excluded = match &self.excluded {
                Some(excluded) => excluded.matches(&module.path).map_err(failed)?,
                None => false,
            };
            if excluded || !self.targets.matches_module(module).map_err(failed)? {
                continue;
            }
            if !module.adaptable {
                let (path, module) = (self.path.clone(), module.path.clone());
                return Err(LoraError::UnsupportedTarget { path, module });
            }
            let rank = self.ranks.find(&module.path).map_err(failed)?.unwrap_or(self.rank);
            let alpha = self.alphas.find(&module.path).map_err(failed)?.unwrap_or(self.alpha);
            let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            let scale = (alpha / divisor) as f32;
            if !scale.is_finite() {
                return Err(self.invalid("lora_alpha", format!("{alpha} is too large")));
            }
            targets.push(Target { module: index, rank, scale });
        }
        if targets.is_empty() {
            return Err(LoraError::NoTarget { path: self.path.clone() });
        }
        Ok(targets)
    }

    pub(crate) fn invalid(&self, key: &str, reason: impl Into<String>) -> LoraError {
        let (path, key) = (self.path.clone(), key.to_owned());
        LoraError::Invalid { path, key, reason: reason.into() }
    }
}

/// Typed access to the keys, with errors that name them.
struct Reader<'a> {
    path: &'a Path,
    keys: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn refuse_unsupported(&self) -> Result<(), LoraError> {
        let kind = self.keys.get("peft_type");
        if kind.and_then(Value::as_str) != Some("LORA") {
            return Err(self.unsupported("peft_type", kind.unwrap_or(&Value::Null)));
        }
        for (key, value) in self.keys {
            let supported = match key.as_str() {
                "peft_type" | "r" | "lora_alpha" | "use_rslora" | "target_modules"
                | "exclude_modules" | "rank_pattern" | "alpha_pattern" => true,
                "bias" => value == "none",
                "init_lora_weights" => {
                    value.as_str().is_none_or(|name| INITIALISATIONS.contains(&name))
                }
                key => NEUTRAL_KEYS.contains(&key) || is_off(value),
            };
            if !supported {
                return Err(self.unsupported(key, value));
            }
        }
        Ok(())
    }

    fn targets(&self) -> Result<Matcher, LoraError> {
        let targets = self.matcher("target_modules")?;
        let targets = targets.ok_or_else(|| self.invalid("target_modules", "missing or empty"))?;
        let layers = match self.keys.get("layers_to_transform") {
            None | Some(Value::Null) => return Ok(targets),
            Some(Value::Number(number)) => vec![number.clone()],
            Some(Value::Array(numbers)) if numbers.is_empty() => return Ok(targets),
            Some(Value::Array(numbers)) => {
                let numbers = numbers.iter().map(|number| number.as_number().cloned());
                let numbers: Option<Vec<_>> = numbers.collect();
                numbers.ok_or_else(|| self.invalid("layers_to_transform", "not numbers"))?
            }
            Some(_) => return Err(self.invalid("layers_to_transform", "not numbers")),
        };
        let layers: Option<Vec<u64>> = layers.iter().map(serde_json::Number::as_u64).collect();
        let layers =
            layers.ok_or_else(|| self.invalid("layers_to_transform", "not layer indices"))?;
        let patterns = self.strings("layers_pattern")?.unwrap_or_default();
        targets.with_layers(layers, &patterns).map_err(|(key, reason)| self.invalid(key, reason))
    }

    fn matcher(&self, key: &'static str) -> Result<Option<Matcher>, LoraError> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(pattern)) if pattern.is_empty() => Ok(None),
            Some(Value::String(pattern)) => Matcher::pattern(key, pattern)
                .map(Some)
                .map_err(|(key, reason)| self.invalid(key, reason)),
            Some(_) => {
                let names = self.strings(key)?.unwrap_or_default();
                Ok((!names.is_empty()).then(|| Matcher::names(names)))
            }
        }
    }

    /// A string, or a list of strings.
    fn strings(&self, key: &str) -> Result<Option<Vec<String>>, LoraError> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            Some(Value::Array(values)) => {
                let strings = values.iter().map(|value| value.as_str().map(str::to_owned));
                let strings: Option<Vec<String>> = strings.collect();
                strings.map(Some).ok_or_else(|| self.invalid(key, "not a list of strings"))
            }
            Some(_) => Err(self.invalid(key, "neither a string nor a list of strings")),
        }
    }

    fn compile<T>(
        &self,
        key: &'static str,
        entries: &[(String, Value)],
        check: impl Fn(&str, f64) -> Result<T, LoraError>,
    ) -> Result<OrderedMap<T>, LoraError> {
        let mut compiled = OrderedMap::new(key);
        for (pattern, value) in entries {
            let number = value.as_f64().filter(|number| number.is_finite());
            let number =
                number.ok_or_else(|| self.invalid(key, format!("{pattern}: no number")))?;
            let value = check(key, number)?;
            compiled.push(pattern, value).map_err(|(key, reason)| self.invalid(key, reason))?;
        }
        Ok(compiled)
    }

    fn number(&self, key: &str) -> Result<Option<f64>, LoraError> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_f64().filter(|number| number.is_finite());
                number.map(Some).ok_or_else(|| self.invalid(key, "not a number"))
            }
        }
    }

    fn flag(&self, key: &str) -> Result<bool, LoraError> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.invalid(key, "not true or false")),
        }
    }

    fn rank(&self, key: &str, value: f64) -> Result<usize, LoraError> {
        let whole = value.fract() == 0.0 && (1.0..=RANK_MAX as f64).contains(&value);
        if !whole {
            let reason = format!("rank {value} is not a whole number within 1 and {RANK_MAX}");
            return Err(self.invalid(key, reason));
        }
        Ok(value as usize)
    }

    fn unsupported(&self, key: &str, value: &Value) -> LoraError {
        let value: String = value.to_string().chars().take(120).collect();
        LoraError::Unsupported { path: self.path.to_owned(), key: key.to_owned(), value }
    }

    fn invalid(&self, key: &str, reason: impl Into<String>) -> LoraError {
        let (path, key) = (self.path.to_owned(), key.to_owned());
        LoraError::Invalid { path, key, reason: reason.into() }
    }
}

/// Whether a value switches nothing on.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
