//! What an answer must be: `response_format` as OpenAI has it, `structured_outputs` and the older
//! `guided_*` as vLLM has them. At most one of them.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokenization::Grammar;

use crate::http::error::ApiError;

/// `response_format`.
#[derive(Debug, Deserialize)]
pub(crate) struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<SchemaFormat>,
}

/// A schema with its name, which has no effect.
#[derive(Debug, Deserialize)]
struct SchemaFormat {
    schema: Option<Value>,
}

/// `text.format` of a response, where the schema is not nested.
#[derive(Debug, Deserialize)]
pub(crate) struct TextFormat {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    strict: Option<bool>,
    schema: Option<Value>,
}

/// `structured_outputs`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StructuredOutputs {
    json: Option<Value>,
    json_object: Option<bool>,
    regex: Option<String>,
    choice: Option<Vec<String>>,
    grammar: Option<String>,
    // One backend is all there is.
    #[serde(default, rename = "disable_fallback")]
    _disable_fallback: IgnoredAny,
}

/// Every field that may bound an answer, as written.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) response_format: Option<ResponseFormat>,
    pub(crate) structured_outputs: Option<StructuredOutputs>,
    pub(crate) guided_json: Option<Value>,
    pub(crate) guided_regex: Option<String>,
    pub(crate) guided_choice: Option<Vec<String>>,
    pub(crate) guided_grammar: Option<String>,
}

impl Bounds {
    /// The one grammar that is asked for, if any is.
    ///
    /// # Errors
    /// 400 for a format that is not known, and for two of them.
    pub(crate) fn grammar(self) -> Result<Option<Grammar>, ApiError> {
        let format = self.response_format.map(ResponseFormat::grammar).transpose()?.flatten();
        let outputs = self.structured_outputs.unwrap_or_default();
        let object = outputs.json_object.unwrap_or(false).then(Grammar::json_object);
        let all = [
            ("response_format", format),
            ("structured_outputs.json", schema("structured_outputs.json", outputs.json)?),
            ("structured_outputs.json_object", object),
            ("structured_outputs.regex", outputs.regex.map(Grammar::Regex)),
            ("structured_outputs.choice", outputs.choice.map(Grammar::Choice)),
            ("structured_outputs.grammar", outputs.grammar.map(Grammar::Lark)),
            ("guided_json", schema("guided_json", self.guided_json)?),
            ("guided_regex", self.guided_regex.map(Grammar::Regex)),
            ("guided_choice", self.guided_choice.map(Grammar::Choice)),
            ("guided_grammar", self.guided_grammar.map(Grammar::Lark)),
        ];
        let mut asked = all.into_iter().filter_map(|(name, grammar)| Some((name, grammar?)));
        let first = asked.next();
        if let (Some((first, _)), Some((second, _))) = (&first, asked.next()) {
            let message = format!("{first} and {second} can't both bound an answer");
            return Err(ApiError::invalid_param(second, message));
        }
        Ok(first.map(|(_, grammar)| grammar))
    }
}

impl ResponseFormat {
    fn grammar(self) -> Result<Option<Grammar>, ApiError> {
        let schema = self.json_schema.and_then(|format| format.schema);
        of_kind(&self.kind, schema, ("response_format", "response_format.json_schema.schema"))
    }
}

impl TextFormat {
    /// The format as the answer repeats it.
    pub(crate) fn echo(&self) -> Value {
        match &self.schema {
            None => json!({ "type": self.kind }),
            Some(schema) => json!({
                "type": self.kind, "name": self.name, "strict": self.strict, "schema": schema,
            }),
        }
    }

    /// The grammar that is asked for, if one is.
    ///
    /// # Errors
    /// 400 for a format that is not known.
    pub(crate) fn grammar(self) -> Result<Option<Grammar>, ApiError> {
        of_kind(&self.kind, self.schema, ("text.format", "text.format.schema"))
    }
}

fn of_kind(
    kind: &str,
    schema: Option<Value>,
    (at, schema_at): (&str, &str),
) -> Result<Option<Grammar>, ApiError> {
    match (kind, schema) {
        ("text", _) => Ok(None),
        ("json_object", _) => Ok(Some(Grammar::json_object())),
        ("json_schema", Some(schema @ Value::Object(_))) => Ok(Some(Grammar::JsonSchema(schema))),
        ("json_schema", _) => {
            let message = format!("{schema_at} must be a JSON schema object");
            Err(ApiError::invalid_param(schema_at, message))
        }
        _ => Err(ApiError::unsupported(at)),
    }
}

/// A schema as an object, or as text of one.
fn schema(name: &str, asked: Option<Value>) -> Result<Option<Grammar>, ApiError> {
    let parsed = match asked {
        None => return Ok(None),
        Some(Value::String(text)) => serde_json::from_str(&text).ok(),
        Some(value) => Some(value),
    };
    match parsed {
        Some(schema @ Value::Object(_)) => Ok(Some(Grammar::JsonSchema(schema))),
        _ => Err(ApiError::invalid_param(name, format!("{name} must be a JSON schema object"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grammar(field: &str, json: &str) -> Result<Option<Grammar>, ApiError> {
        let mut bounds = Bounds::default();
        match field {
            "response_format" => bounds.response_format = serde_json::from_str(json).ok(),
            "structured_outputs" => bounds.structured_outputs = serde_json::from_str(json).ok(),
            "guided_json" => bounds.guided_json = serde_json::from_str(json).ok(),
            other => panic!("no field {other}"),
        }
        bounds.grammar()
    }

    #[test]
    fn every_form_of_a_schema() {
        let schema = Grammar::JsonSchema(serde_json::json!({"type": "array"}));
        let check = |field: &str, json: &str, expect: Option<&Grammar>| {
            assert_eq!(grammar(field, json).expect(json).as_ref(), expect, "{json}");
        };
        let nested = "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"strict\":true,\
                      \"schema\":{\"type\":\"array\"}}}";
        check("response_format", nested, Some(&schema));
        check("response_format", "{\"type\":\"text\"}", None);
        check("response_format", "{\"type\":\"json_object\"}", Some(&Grammar::json_object()));
        check("structured_outputs", "{\"json\":{\"type\":\"array\"}}", Some(&schema));
        check("guided_json", "{\"type\":\"array\"}", Some(&schema));
        check("guided_json", "\"{\\\"type\\\":\\\"array\\\"}\"", Some(&schema));
        let regex = Grammar::Regex("a+".to_owned());
        check("structured_outputs", "{\"regex\":\"a+\"}", Some(&regex));
        check("structured_outputs", "{}", None);
    }

    #[test]
    fn what_bounds_nothing_is_refused_by_name() {
        let check = |field: &str, json: &str, param: &str| {
            let error = grammar(field, json).expect_err(json);
            assert_eq!(error.param.as_deref(), Some(param), "{error:?}");
        };
        check("response_format", "{\"type\":\"xml\"}", "response_format");
        check(
            "response_format",
            "{\"type\":\"json_schema\"}",
            "response_format.json_schema.schema",
        );
        check("guided_json", "4", "guided_json");
        check("guided_json", "\"{\"", "guided_json");
        let two = "{\"regex\":\"a\",\"choice\":[\"b\"]}";
        check("structured_outputs", two, "structured_outputs.choice");
    }
}
