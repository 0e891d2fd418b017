//! What turns a model's text into tokens: from the files of its directory, or from a GGUF file alone.

use std::path::Path;

use anyhow::{Context, Result};
use tokenization::tokenizer::TOKENIZER_FILE;
use tokenization::{ChatTemplate, Tokenizer};

/// The tokenizer and the chat template of the model at `path`, whose other files lie in `dir`. What lies
/// there is taken before what a GGUF file says of itself.
///
/// # Errors
/// A file that can't be read or does not say what it should, or no tokenizer at all.
pub(super) fn load(path: &Path, dir: &Path) -> Result<(Tokenizer, Option<ChatTemplate>)> {
    let named = |what: &str| format!("load the {what} of {}", path.display());
    let chat_template = ChatTemplate::from_dir(dir).with_context(|| named("chat template"))?;
    let is_beside = !path.is_file() || dir.join(TOKENIZER_FILE).exists();
    if is_beside && (chat_template.is_some() || !path.is_file()) {
        let tokenizer = Tokenizer::from_dir(dir).with_context(|| named("tokenizer"))?;
        return Ok((tokenizer, chat_template));
    }
    let metadata = models::gguf_tokenizer(path).with_context(|| named("tokenizer"))?;
    let tokenizer = match is_beside {
        true => Tokenizer::from_dir(dir),
        false => Tokenizer::from_gguf(path, &metadata),
    };
    let tokenizer = tokenizer.with_context(|| named("tokenizer"))?;
    let chat_template = match chat_template {
        None => ChatTemplate::from_gguf(path, &metadata).with_context(|| named("chat template"))?,
        beside => beside,
    };
    Ok((tokenizer, chat_template))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const FIXTURES: &str = "../tokenization/tests/fixtures/gguf";

    #[test]
    fn a_file_alone_is_enough_and_what_lies_beside_comes_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("model.gguf");
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FIXTURES).join("qwen2.gguf");
        std::fs::copy(source, &path).expect("is there");
        let rendered = |template: &ChatTemplate| {
            let message = request::Message::new(request::Role::User, "Hi");
            template.render(&[message], true, serde_json::Map::new()).expect("renders")
        };
        let (tokenizer, template) = load(&path, dir.path()).expect("loads");
        assert!(!tokenizer.encode("Hello", true).expect("encodes").is_empty());
        assert_eq!(rendered(&template.expect("is there")), "<|begin|>Hi<|end|>");
        let beside = dir.path().join("chat_template.jinja");
        std::fs::write(&beside, "{{ messages[0].content }}!").expect("written");
        let (_, template) = load(&path, dir.path()).expect("loads");
        assert_eq!(rendered(&template.expect("is there")), "Hi!");
        std::fs::write(dir.path().join(TOKENIZER_FILE), "{}").expect("written");
        let error = format!("{:#}", load(&path, dir.path()).expect_err("is no tokenizer"));
        assert!(error.contains("tokenizer.json"), "{error}");
    }
}
