//! `config`: the operator's settings over the manifest's defaults, fixed when the plugin is
//! installed.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::bindings::config::Host;
use crate::guest::Guest;

impl Host for Guest {
    fn get(&mut self, key: String) -> Option<String> {
        self.lent.settings.get(&key).cloned()
    }

    fn all_json(&mut self) -> String {
        self.lent.settings_json.clone()
    }
}

/// The two forms that guests see of `defaults` with the keys of `over` in their place.
pub(crate) fn settings(
    defaults: &Map<String, Value>,
    over: &Map<String, Value>,
) -> (BTreeMap<String, String>, String) {
    let mut merged = defaults.clone();
    merged.extend(over.iter().map(|(key, value)| (key.clone(), value.clone())));
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let settings = merged.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    (settings, Value::Object(merged).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn the_operator_overrides_key_by_key() {
        let defaults = map(serde_json::json!({ "a": "text", "b": 2, "c": { "d": 1 } }));
        let over = map(serde_json::json!({ "b": [1, "x"], "e": true }));
        let (settings, json) = super::settings(&defaults, &over);
        let expect = [("a", "text"), ("b", "[1,\"x\"]"), ("c", "{\"d\":1}"), ("e", "true")];
        assert_eq!(settings, expect.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["b"], serde_json::json!([1, "x"]));
    }
}
