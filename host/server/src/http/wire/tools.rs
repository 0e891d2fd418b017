//! Tools as clients offer them, which of them an answer must call, and the calls of earlier turns.

use request::ToolCall;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenization::{Grammar, ToolCallFormat};

use crate::http::calls::Reading;
use crate::http::error::ApiError;

/// Most tools of one request, as the OpenAI API has it.
const TOOLS_MAX: usize = 128;
/// Longest name of a function, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A tool as chat completions have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatTool {
    #[serde(rename = "type")]
    kind: String,
    function: Option<Function>,
}

/// What a function is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
    // Whether arguments must fit: they do wherever a call is asked for.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

/// A tool as responses have it: flat.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FlatTool {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
}

/// A call of an earlier turn.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireCall {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: CalledFunction,
    // Where a stream had it.
    #[serde(rename = "index")]
    _index: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CalledFunction {
    name: String,
    arguments: Option<String>,
}

/// Which tools an answer calls.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// None.
    None,
    /// Those that the model likes to.
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// Tools of a request and what they mean for it.
#[derive(Debug, Default)]
pub(crate) struct ToolUse {
    /// What the chat template is given; empty if the model is to know of none.
    pub(crate) offered: Vec<Value>,
    /// What the answer must be, if a call is asked for.
    pub(crate) grammar: Option<Grammar>,
    /// How the answer is read.
    pub(crate) reading: Reading,
}

/// A tool of either shape.
pub(crate) trait Offer {
    /// The function that it is; `at` is where the tool stands.
    fn into_function(self, at: &str) -> Result<Function, ApiError>;
}

impl Offer for ChatTool {
    fn into_function(self, at: &str) -> Result<Function, ApiError> {
        check_kind(Some(&self.kind), at)?;
        let param = format!("{at}.function");
        self.function.ok_or_else(|| ApiError::invalid_param(&param, format!("{param} is missing")))
    }
}

impl Offer for FlatTool {
    fn into_function(self, at: &str) -> Result<Function, ApiError> {
        check_kind(Some(&self.kind), at)?;
        let param = format!("{at}.name");
        let missing = || ApiError::invalid_param(&param, format!("{param} is missing"));
        let name = self.name.ok_or_else(missing)?;
        let (description, parameters) = (self.description, self.parameters);
        Ok(Function { name, description, parameters, _strict: None })
    }
}

impl Function {
    fn schema(&self) -> Value {
        let none = || json!({ "type": "object", "properties": {} });
        let given = self.parameters.clone().filter(|given| !given.is_empty());
        let mut schema = given.map_or_else(none, Value::Object);
        // One part of a sum must not close what another opens, and any definition may be a part.
        if !schema.to_string().contains("\"allOf\"") {
            close(&mut schema);
        }
        schema
    }

    /// As chat templates have it.
    fn template(&self) -> Value {
        let mut function = Map::from_iter([("name".to_owned(), Value::from(self.name.as_str()))]);
        if let Some(description) = &self.description {
            function.insert("description".to_owned(), description.as_str().into());
        }
        if let Some(parameters) = &self.parameters {
            function.insert("parameters".to_owned(), Value::Object(parameters.clone()));
        }
        json!({ "type": "function", "function": function })
    }
}

impl ToolUse {
    /// Reads `tools`, `tool_choice` and `parallel_tool_calls`. `format` is how the model writes calls of
    /// its own accord.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(crate) fn new(
        tools: Vec<impl Offer>,
        choice: Option<&Value>,
        parallel: bool,
        format: Option<ToolCallFormat>,
    ) -> Result<Self, ApiError> {
        let functions = functions(tools)?;
        let choice = read_choice(choice, &functions)?;
        if functions.is_empty() || choice == Choice::None {
            return Ok(Self::default());
        }
        let offered = functions.iter().map(Function::template).collect();
        let (grammar, reading) = match choice {
            Choice::None => (None, Reading::Text),
            Choice::Auto => {
                let refused = || {
                    let message = "this server does not know how the model calls tools: choose one, or \
                                   `required`";
                    ApiError::invalid_param("tool_choice", message)
                        .with_code("unsupported_parameter")
                };
                (None, Reading::Calls { format: format.ok_or_else(refused)?, parallel })
            }
            Choice::Required => {
                let schema = any_call(&functions, parallel)?;
                let reading = Reading::Calls { format: ToolCallFormat::Array, parallel };
                (Some(Grammar::CompactJson(schema)), reading)
            }
            Choice::Named(name) => {
                let function = functions.iter().find(|function| function.name == name);
                let schema = function.map(Function::schema).unwrap_or_default();
                (Some(Grammar::CompactJson(schema)), Reading::Arguments { name })
            }
        };
        Ok(Self { offered, grammar, reading })
    }

    /// The tools as a chat template is given them, for one who asks for no answer.
    ///
    /// # Errors
    /// 400 naming the tool.
    pub(crate) fn offered(tools: Vec<impl Offer>) -> Result<Vec<Value>, ApiError> {
        Ok(functions(tools)?.iter().map(Function::template).collect())
    }

    /// The grammar of the whole answer, where a format is asked for as well. A call that is asked for is
    /// no message, and formats are for messages.
    ///
    /// # Errors
    /// 400 for a schema where the model may choose between a message and a call. Other grammars bound
    /// the text, calls included.
    pub(crate) fn bounded(&mut self, format: Option<Grammar>) -> Result<Option<Grammar>, ApiError> {
        match (self.grammar.take(), format) {
            (None, Some(Grammar::JsonSchema(_))) if self.reading != Reading::Text => {
                let message = "an answer can't be bound to a schema where it may be a call: choose the \
                               tool, or none";
                Err(ApiError::invalid_param("tool_choice", message))
            }
            (None, format) => Ok(format),
            (call, _) => Ok(call),
        }
    }
}

impl WireCall {
    /// The call as templates have it.
    ///
    /// # Errors
    /// 400 naming what is wrong.
    pub(crate) fn into_call(self, at: &str) -> Result<ToolCall, ApiError> {
        check_kind(self.kind.as_deref(), at)?;
        let CalledFunction { name, arguments } = self.function;
        let arguments = arguments_of(arguments.as_deref(), &format!("{at}.function.arguments"))?;
        Ok(ToolCall { id: self.id.unwrap_or_default(), name, arguments })
    }
}

/// Arguments, which travel as text.
///
/// # Errors
/// 400 for what is no object.
pub(crate) fn arguments_of(text: Option<&str>, at: &str) -> Result<Map<String, Value>, ApiError> {
    match text {
        None | Some("") => Ok(Map::new()),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            ApiError::invalid_param(at, format!("{at} must be the text of a JSON object: {error}"))
        }),
    }
}

fn check_kind(kind: Option<&str>, at: &str) -> Result<(), ApiError> {
    match kind {
        None | Some("function") => Ok(()),
        Some(kind) => {
            let message = format!("{at} is of type `{kind}`; only functions can be called");
            let error = ApiError::invalid_param(format!("{at}.type"), message);
            Err(error.with_code("unsupported_parameter"))
        }
    }
}

fn functions(tools: Vec<impl Offer>) -> Result<Vec<Function>, ApiError> {
    if tools.len() > TOOLS_MAX {
        let message = format!("tools must have at most {TOOLS_MAX} entries, got {}", tools.len());
        return Err(ApiError::invalid_param("tools", message));
    }
    let mut functions: Vec<Function> = Vec::new();
    for (index, tool) in tools.into_iter().enumerate() {
        let at = format!("tools[{index}]");
        let function = tool.into_function(&at)?;
        let name = function.name.as_str();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let message = format!(
                "the name of {at} must have 1 to {NAME_BYTES_MAX} bytes, none of them control characters"
            );
            return Err(ApiError::invalid_param(at, message));
        }
        if functions.iter().any(|other| other.name == name) {
            return Err(ApiError::invalid_param(
                &at,
                format!("{at} has the name of an earlier tool"),
            ));
        }
        functions.push(function);
    }
    Ok(functions)
}

fn read_choice(choice: Option<&Value>, functions: &[Function]) -> Result<Choice, ApiError> {
    let refused = |message: String| Err(ApiError::invalid_param("tool_choice", message));
    let choice = match choice {
        None | Some(Value::Null) => return Ok(Choice::Auto),
        Some(Value::String(choice)) => match choice.as_str() {
            "none" => Choice::None,
            "auto" => Choice::Auto,
            "required" => Choice::Required,
            other => return refused(format!("tool_choice can't be `{other}`")),
        },
        Some(chosen) if chosen["type"] == "function" => {
            // Nested in chat completions, flat in responses.
            let name = chosen["function"]["name"].as_str().or_else(|| chosen["name"].as_str());
            let Some(name) = name else {
                return refused("tool_choice names no function".to_owned());
            };
            if !functions.iter().any(|function| function.name == name) {
                return refused(format!("tool_choice names `{name}`, which is none of the tools"));
            }
            Choice::Named(name.to_owned())
        }
        Some(other) => {
            let message = format!("tool_choice can't be {other}");
            let error = ApiError::invalid_param("tool_choice", message);
            return Err(error.with_code("unsupported_parameter"));
        }
    };
    if choice == Choice::Required && functions.is_empty() {
        return refused("tool_choice requires a call, and there are no tools".to_owned());
    }
    Ok(choice)
}

/// Lets objects have the properties that are named and no others, unless their schema says otherwise: a
/// function has no use for what it does not know. An object that is combined with another schema stays.
fn close(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let combined = ["allOf", "anyOf", "oneOf", "$ref", "if", "not", "patternProperties"];
    let is_combined = combined.iter().any(|key| fields.contains_key(*key));
    if !is_combined && fields.get("properties").is_some_and(Value::is_object) {
        fields.entry("additionalProperties").or_insert(false.into());
    }
    for key in ["properties", "$defs", "definitions"] {
        let inner = fields.get_mut(key).and_then(Value::as_object_mut).into_iter();
        inner.flat_map(Map::values_mut).for_each(close);
    }
    for key in ["items", "additionalProperties"] {
        fields.get_mut(key).into_iter().for_each(close);
    }
    let alternatives = !fields.contains_key("properties");
    for key in ["anyOf", "oneOf", "prefixItems"].into_iter().filter(|_| alternatives) {
        let inner = fields.get_mut(key).and_then(Value::as_array_mut).into_iter();
        inner.flatten().for_each(close);
    }
}

/// An array of calls. Definitions of parameters are found at the root, where their references point.
fn any_call(functions: &[Function], parallel: bool) -> Result<Value, ApiError> {
    let mut definitions = Map::new();
    let mut calls = Vec::new();
    for (index, function) in functions.iter().enumerate() {
        let mut parameters = function.schema();
        for key in ["$defs", "definitions"] {
            let Some(Value::Object(own)) =
                parameters.as_object_mut().and_then(|own| own.remove(key))
            else {
                continue;
            };
            let all = definitions.entry(key).or_insert_with(|| json!({}));
            let all = all.as_object_mut().expect("made as an object");
            for (name, definition) in own {
                if all.get(&name).is_some_and(|known| *known != definition) {
                    let at = format!("tools[{index}]");
                    let message = format!("{at} defines `{name}` otherwise than an earlier tool");
                    return Err(ApiError::invalid_param(at, message));
                }
                all.insert(name, definition);
            }
        }
        calls.push(json!({
            "type": "object",
            "properties": { "name": { "const": function.name }, "parameters": parameters },
            "required": ["name", "parameters"],
            "additionalProperties": false,
        }));
    }
    let mut schema = json!({ "type": "array", "minItems": 1, "items": { "anyOf": calls } });
    if !parallel {
        schema["maxItems"] = 1.into();
    }
    if let Value::Object(schema) = &mut schema {
        schema.extend(definitions);
    }
    Ok(schema)
}

#[cfg(test)]
mod tests;
