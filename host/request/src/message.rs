//! Chat turns, as every stage sees them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Who speaks. Open: templates and clients invent roles, and a new one is not an error here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions of the application.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// Any other name, kept as written.
    Other(String),
}

impl Role {
    /// The role as chat templates and the wire spell it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for Role {
    fn from(name: &str) -> Self {
        match name {
            "system" => Self::System,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

/// A call of a tool that the model has made. Serialized as chat templates know it: the arguments are an
/// object, where the OpenAI API has them as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Call", into = "Call")]
pub struct ToolCall {
    /// What the tool's result names.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// [`ToolCall`] as templates have it.
#[derive(Serialize, Deserialize)]
struct Call {
    #[serde(default)]
    id: String,
    #[serde(rename = "type", default)]
    kind: Kind,
    function: Function,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Function,
}

#[derive(Serialize, Deserialize)]
struct Function {
    name: String,
    arguments: Map<String, Value>,
}

impl From<Call> for ToolCall {
    fn from(call: Call) -> Self {
        let Function { name, arguments } = call.function;
        Self { id: call.id, name, arguments }
    }
}

impl From<ToolCall> for Call {
    fn from(call: ToolCall) -> Self {
        let ToolCall { id, name, arguments } = call;
        Self { id, kind: Kind::Function, function: Function { name, arguments } }
    }
}

/// One turn of a conversation, text only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// A name within the role, for templates that show one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tools that the model called in this turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that this turn is the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A turn of text alone.
    #[must_use]
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let content = content.into();
        Self { role, content, name: None, tool_calls: Vec::new(), tool_call_id: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_keep_their_spelling() {
        for name in ["system", "user", "assistant", "tool", "developer"] {
            assert_eq!(Role::from(name).as_str(), name);
        }
        assert_eq!(Role::from("developer"), Role::Other("developer".to_owned()));
    }

    #[test]
    fn calls_are_written_as_templates_read_them() {
        let mut message = Message::new(Role::Assistant, "");
        let plain = serde_json::json!({"role": "assistant", "content": ""});
        assert_eq!(serde_json::to_value(&message).expect("plain data"), plain);
        let arguments = serde_json::json!({"b": 1, "a": [null]});
        let call = serde_json::json!({
            "id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments},
        });
        message.tool_calls = vec![serde_json::from_value(call.clone()).expect("a call")];
        let written = serde_json::to_value(&message).expect("plain data");
        assert_eq!(written["tool_calls"], serde_json::json!([call]));
        assert_eq!(serde_json::from_value::<Message>(written).expect("as written"), message);
    }
}
