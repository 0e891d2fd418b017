//! What tools and choices mean, and what of them is refused.

use super::*;

fn tools(names: &[&str]) -> Vec<ChatTool> {
    let tool = |name: &&str| {
        let parameters =
            json!({"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}});
        let function =
            json!({"name": name, "description": "d", "parameters": parameters, "strict": true});
        serde_json::from_value(json!({"type": "function", "function": function})).expect("a tool")
    };
    names.iter().map(tool).collect()
}

fn used(choice: Value, parallel: bool) -> Result<ToolUse, ApiError> {
    ToolUse::new(tools(&["f", "g"]), Some(&choice), parallel, Some(ToolCallFormat::Hermes))
}

fn named(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[test]
fn each_choice() {
    let none = used(json!("none"), true).expect("none");
    assert!(none.offered.is_empty() && none.grammar.is_none() && none.reading == Reading::Text);
    for auto in [json!("auto"), Value::Null] {
        let auto = used(auto, false).expect("auto");
        assert_eq!((auto.offered.len(), auto.grammar), (2, None));
        assert_eq!(
            auto.reading,
            Reading::Calls { format: ToolCallFormat::Hermes, parallel: false }
        );
    }
    for choice in [named("g"), json!({"type": "function", "name": "g"})] {
        let one = used(choice, true).expect("a name");
        let Some(Grammar::CompactJson(schema)) = &one.grammar else { panic!("{one:?}") };
        assert_eq!(schema["properties"]["b"]["type"], "integer");
        assert_eq!(one.reading, Reading::Arguments { name: "g".to_owned() });
        assert_eq!(one.offered[0]["function"]["name"], "f");
        assert!(one.offered[0]["function"].get("strict").is_none());
    }
    for (parallel, most) in [(true, Value::Null), (false, json!(1))] {
        let required = used(json!("required"), parallel).expect("required");
        let Some(Grammar::CompactJson(schema)) = &required.grammar else { panic!("{required:?}") };
        assert_eq!((&schema["minItems"], &schema["maxItems"]), (&json!(1), &most));
        assert_eq!(schema["items"]["anyOf"][1]["properties"]["name"]["const"], "g");
    }
}

#[test]
fn choices_that_can_t_be_are_refused() {
    let check = |choice: Value| {
        let error = used(choice.clone(), true).expect_err("refused");
        assert_eq!(error.param.as_deref(), Some("tool_choice"), "{choice}");
    };
    check(json!("any"));
    check(json!(5));
    check(named("h"));
    check(json!({"type": "function"}));
    check(json!({"type": "allowed_tools", "tools": []}));
    let unknown = ToolUse::new(tools(&["f"]), None, true, None).expect_err("no format");
    assert_eq!(unknown.param.as_deref(), Some("tool_choice"));
    let nothing = |choice: Value| ToolUse::new(tools(&[]), Some(&choice), true, None);
    assert!(nothing(json!("required")).is_err() && nothing(named("f")).is_err());
    assert!(nothing(json!("auto")).is_ok() && nothing(json!("none")).is_ok());
}

#[test]
fn formats_are_for_messages() {
    let format = || Some(Grammar::json_object());
    assert!(used(json!("auto"), true).expect("auto").bounded(format()).is_err());
    assert_eq!(used(json!("auto"), true).expect("auto").bounded(None).expect("free"), None);
    assert_eq!(
        used(json!("none"), true).expect("none").bounded(format()).expect("bound"),
        format()
    );
    let call = used(named("f"), true).expect("a name").bounded(format()).expect("bound");
    assert!(call.is_some() && call != format());
}

#[test]
fn bad_tools_are_named() {
    let check = |tool: Value, expect: &str| {
        let read = serde_json::from_value::<ChatTool>(tool.clone());
        let found = read.map(|tool| functions(vec![tool]).map(|_| ()));
        let param = match found {
            Ok(found) => found.expect_err("refused").param.unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        assert!(param.contains(expect), "{param}: {tool}");
    };
    check(json!({"type": "web_search", "function": {"name": "f"}}), "tools[0].type");
    check(json!({"type": "function"}), "tools[0].function");
    check(json!({"type": "function", "function": {"name": ""}}), "tools[0]");
    check(json!({"type": "function", "function": {"name": "a\n"}}), "tools[0]");
    check(json!({"type": "function", "function": {"name": "f", "parameters": 4}}), "invalid type");
    check(
        json!({"type": "function", "function": {"name": "f", "schema": {}}}),
        "unknown field `schema`",
    );
    for (length, fits) in [(NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)] {
        assert_eq!(functions(tools(&[&"n".repeat(length)])).is_ok(), fits);
    }
    let names: Vec<String> = (0..=TOOLS_MAX).map(|index| index.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(functions(tools(&names[1..])).is_ok() && functions(tools(&names)).is_err());
    assert!(
        functions(tools(&["f", "f"]))
            .is_err_and(|error| error.param.as_deref() == Some("tools[1]"))
    );
}

#[test]
fn definitions_move_to_the_root() {
    let tool = |name: &str, kind: &str| -> ChatTool {
        let parameters = json!({
            "type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": kind}},
        });
        let function = json!({"name": name, "parameters": parameters});
        serde_json::from_value(json!({"type": "function", "function": function})).expect("a tool")
    };
    let of = |tools| any_call(&functions(tools).expect("good tools"), true);
    let schema = of(vec![tool("f", "string"), tool("g", "string")]).expect("alike");
    assert_eq!(schema["$defs"]["X"]["type"], "string");
    assert!(schema["items"]["anyOf"][0]["properties"]["parameters"].get("$defs").is_none());
    assert!(of(vec![tool("f", "string"), tool("g", "integer")]).is_err());
}

#[test]
fn arguments_have_no_more_than_is_named() {
    let check = |schema: Value, expect: Value| {
        let mut closed = schema.clone();
        close(&mut closed);
        assert_eq!(closed, expect, "{schema}");
    };
    check(json!({"type": "object"}), json!({"type": "object"}));
    check(
        json!({"properties": {"a": {"items": {"properties": {}}}}}),
        json!({
            "properties": {"a": {"items": {"properties": {}, "additionalProperties": false}}},
            "additionalProperties": false,
        }),
    );
    let open = json!({"properties": {}, "additionalProperties": true});
    check(open.clone(), open);
    let combined = json!({"properties": {}, "anyOf": [{"properties": {"a": {}}}]});
    check(combined.clone(), combined);
    check(
        json!({"anyOf": [{"properties": {}}, true], "$defs": {"X": {"properties": {}}}}),
        json!({
            "anyOf": [{"properties": {}, "additionalProperties": false}, true],
            "$defs": {"X": {"properties": {}, "additionalProperties": false}},
        }),
    );
}
