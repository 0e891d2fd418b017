//! Names and regular expressions of a configuration, matched against module paths as PEFT does.
//!
//! PEFT's patterns are Python's; ours run in a backtracking engine with a step limit, so a pattern
//! that would take for ever is an error instead.

use std::fmt;

use fancy_regex::Regex;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use crate::ModuleShape;

/// Key, and what is wrong with it.
type PatternError = (&'static str, String);

/// Longest pattern in bytes.
const PATTERN_BYTES_MAX: usize = 16 << 10;

/// `target_modules` or `exclude_modules`.
#[derive(Debug)]
pub(super) enum Matcher {
    /// Every linear module but the output.
    AllLinear,
    /// The whole path matches.
    Pattern(&'static str, Regex),
    /// The path is one of these, or ends in one after a dot; the latter only in some layers.
    Names(Vec<String>, Option<Layers>),
}

/// `layers_to_transform` with `layers_pattern`.
#[derive(Debug)]
pub(super) struct Layers {
    indices: Vec<u64>,
    patterns: Vec<Regex>,
}

impl Matcher {
    pub(super) fn pattern(key: &'static str, pattern: &str) -> Result<Self, PatternError> {
        if key == "target_modules" && pattern.eq_ignore_ascii_case("all-linear") {
            return Ok(Self::AllLinear);
        }
        Ok(Self::Pattern(key, compile(key, pattern, r"\A(?:", r")\z")?))
    }

    pub(super) fn names(names: Vec<String>) -> Self {
        Self::Names(names, None)
    }

    /// Restricts names to some layers, as `layers_to_transform` does; PEFT ignores that key for
    /// patterns and for whole paths.
    pub(super) fn with_layers(
        self,
        indices: Vec<u64>,
        patterns: &[String],
    ) -> Result<Self, PatternError> {
        let Self::Names(names, _) = self else { return Ok(self) };
        let key = "layers_pattern";
        let patterns = if patterns.is_empty() {
            vec![compile(key, r"[^.]*", r"\A.*?\.", r"\.(?P<idx>\d+)\.")?]
        } else {
            let each = patterns.iter();
            each.map(|pattern| compile(key, pattern, r"\A(?:.*?\.)?", r"\.(?P<idx>\d+)\."))
                .collect::<Result<_, _>>()?
        };
        Ok(Self::Names(names, Some(Layers { indices, patterns })))
    }

    /// Whether a module is targeted.
    pub(super) fn matches_module(&self, module: &ModuleShape) -> Result<bool, PatternError> {
        match self {
            // PEFT leaves the output out of "all-linear", and an embedding is not linear.
            Self::AllLinear => Ok(module.adaptable),
            _ => self.matches(&module.path),
        }
    }

    pub(super) fn matches(&self, path: &str) -> Result<bool, PatternError> {
        match self {
            Self::AllLinear => Ok(true),
            Self::Pattern(key, regex) => is_match(key, regex, path),
            Self::Names(names, layers) => {
                if names.iter().any(|name| name == path) {
                    return Ok(true);
                }
                let ends = |name: &String| {
                    path.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
                };
                match layers {
                    _ if !names.iter().any(ends) => Ok(false),
                    None => Ok(true),
                    Some(layers) => layers.contain(path),
                }
            }
        }
    }
}

impl Layers {
    fn contain(&self, path: &str) -> Result<bool, PatternError> {
        for pattern in &self.patterns {
            let found = pattern.captures(path);
            let found = found.map_err(|error| ("layers_pattern", error.to_string()))?;
            if let Some(index) = found.as_ref().and_then(|found| found.name("idx")) {
                return Ok(index.as_str().parse().is_ok_and(|index| self.indices.contains(&index)));
            }
        }
        Ok(false)
    }
}

/// `rank_pattern` or `alpha_pattern`: the first key that matches the end of a path, from a dot or
/// the beginning, counts.
#[derive(Debug)]
pub(super) struct OrderedMap<T> {
    key: &'static str,
    entries: Vec<(Regex, T)>,
}

impl<T: Copy> OrderedMap<T> {
    pub(super) fn find(&self, path: &str) -> Result<Option<T>, PatternError> {
        for (regex, value) in &self.entries {
            if is_match(self.key, regex, path)? {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }
}

impl<T> OrderedMap<T> {
    pub(super) fn new(key: &'static str) -> Self {
        Self { key, entries: Vec::new() }
    }

    pub(super) fn push(&mut self, pattern: &str, value: T) -> Result<(), PatternError> {
        self.entries.push((compile(self.key, pattern, r"\A(?:.*\.)?(?:", r")\z")?, value));
        Ok(())
    }
}

fn compile(
    key: &'static str,
    pattern: &str,
    before: &str,
    after: &str,
) -> Result<Regex, PatternError> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err((key, format!("pattern of {} bytes", pattern.len())));
    }
    // The parts alone must be whole: a stray parenthesis must not pair with ours.
    Regex::new(pattern)
        .and_then(|_| Regex::new(&format!("{before}{pattern}{after}")))
        .map_err(|error| (key, format!("{pattern:?}: {error}")))
}

fn is_match(key: &'static str, regex: &Regex, path: &str) -> Result<bool, PatternError> {
    regex.is_match(path).map_err(|error| (key, error.to_string()))
}

/// The two keys whose order counts, which a parsed JSON object may not keep.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Patterns {
    #[serde(default, deserialize_with = "ordered")]
    pub(super) rank_pattern: Vec<(String, Value)>,
    #[serde(default, deserialize_with = "ordered")]
    pub(super) alpha_pattern: Vec<(String, Value)>,
}

impl Patterns {
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

fn ordered<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, Value)>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object or null")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_any(Entries)
}
