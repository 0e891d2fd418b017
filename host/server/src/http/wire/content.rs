//! What a message says: text, or parts of it. One type for every endpoint.

use serde::Deserialize;

use crate::http::error::ApiError;

/// Text, or parts of it.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string or an array of content parts")]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part, as chat completions and as responses call it.
#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

impl Content {
    /// The text of all parts; `at` is where the content stands.
    ///
    /// # Errors
    /// 400 naming the part that is not text.
    pub(crate) fn into_text(self, at: &str) -> Result<String, ApiError> {
        let parts = match self {
            Self::Text(text) => return Ok(text),
            Self::Parts(parts) => parts,
        };
        let mut text = String::new();
        for (index, part) in parts.into_iter().enumerate() {
            match (part.kind.as_str(), part.text) {
                ("text" | "input_text" | "output_text", Some(piece)) => text.push_str(&piece),
                ("text" | "input_text" | "output_text", None) => {
                    let param = format!("{at}[{index}].text");
                    return Err(ApiError::invalid_param(&param, format!("{param} is missing")));
                }
                (kind, _) => {
                    let message =
                        format!("{at}[{index}] is of type `{kind}`; this model reads text");
                    let error = ApiError::invalid_param(format!("{at}[{index}].type"), message);
                    return Err(error.with_code("unsupported_parameter"));
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_text_are_joined_and_others_refused() {
        let check = |json: &str, expect: Result<&str, &str>| {
            let content: Content = serde_json::from_str(json).expect(json);
            let found = content.into_text("at").map_err(|error| error.param.unwrap_or_default());
            assert_eq!(found.as_deref().map_err(String::as_str), expect, "{json}");
        };
        check("\"a\"", Ok("a"));
        check("[]", Ok(""));
        check(
            "[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"input_text\", \"text\": \"b\"}]",
            Ok("ab"),
        );
        check("[{\"type\": \"output_text\", \"text\": \"a\", \"annotations\": []}]", Ok("a"));
        check("[{\"type\": \"text\"}]", Err("at[0].text"));
        check(
            "[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"image_url\"}]",
            Err("at[1].type"),
        );
        check("[{\"type\": \"input_image\", \"text\": \"a\"}]", Err("at[0].type"));
        for json in ["5", "null", "[4]", "{}", "[{\"text\": \"a\"}]"] {
            assert!(serde_json::from_str::<Content>(json).is_err(), "{json}");
        }
    }
}
