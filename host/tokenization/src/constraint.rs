//! Answers that follow a grammar: which tokens may come next, as bits. Knows grammars and bytes of
//! tokens; never samples and never waits for a model.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use request::TokenId;
use serde_json::{Value, json};

use crate::error::TokenizationError;
use crate::tokenizer::Tokenizer;

/// White space between the parts of a JSON answer. Bounded, or a model that is at a loss would go on
/// with it for ever.
const JSON_WHITESPACE: &str = r"[ \n\t]{0,16}";
/// The same where nobody but a program reads the answer.
const COMPACT_WHITESPACE: &str = " ?";

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// JSON that fits a schema.
    JsonSchema(Value),
    /// The same with no more than a space between its parts.
    CompactJson(Value),
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// One of some texts.
    Choice(Vec<String>),
    /// A context-free grammar in the dialect of Lark that llguidance reads.
    Lark(String),
}

impl Grammar {
    /// Any JSON object.
    #[must_use]
    pub fn json_object() -> Self {
        Self::JsonSchema(json!({ "type": "object" }))
    }

    fn top_level(&self) -> TopLevelGrammar {
        match self {
            Self::JsonSchema(schema) => {
                TopLevelGrammar::from_json_schema(with_options(schema, JSON_WHITESPACE))
            }
            Self::CompactJson(schema) => {
                TopLevelGrammar::from_json_schema(with_options(schema, COMPACT_WHITESPACE))
            }
            Self::Regex(pattern) => TopLevelGrammar::from_regex(pattern),
            Self::Choice(choices) => TopLevelGrammar::from_lark(any_of(choices)),
            Self::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
        }
    }
}

/// A grammar of one terminal: as many rules would fill a row of the parser with a thousand choices.
fn any_of(choices: &[String]) -> String {
    // A terminal may not be empty.
    let quoted = choices.iter().filter(|choice| !choice.is_empty());
    let quoted: Vec<String> = quoted.map(|one| Value::from(one.as_str()).to_string()).collect();
    let optional = if quoted.len() < choices.len() { "?" } else { "" };
    match quoted.is_empty() {
        true => "start: \"\"".to_owned(),
        false => format!("start: CHOICE{optional}\nCHOICE: {}", quoted.join(" | ")),
    }
}

fn with_options(schema: &Value, whitespace: &str) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(fields) = &mut schema {
        let options = json!({ "whitespace_pattern": whitespace });
        fields.entry("x-guidance").or_insert(options);
    }
    schema
}

/// Compiles grammars for one vocabulary. Immutable; share it behind an `Arc`.
pub struct GrammarCompiler {
    factory: ParserFactory,
    end_tokens: Arc<[TokenId]>,
}

impl GrammarCompiler {
    /// Sorts the vocabulary of `tokenizer`, padded to the model's `vocab_size`, into a trie.
    /// `end_tokens` may be sampled where a grammar lets an answer end.
    ///
    /// # Errors
    /// No end tokens, ids outside the vocabulary, or a vocabulary that can't be sorted.
    pub fn new(
        tokenizer: &Tokenizer,
        vocab_size: usize,
        end_tokens: &[TokenId],
    ) -> Result<Self, TokenizationError> {
        let end_tokens: Vec<TokenId> =
            end_tokens.iter().copied().filter(|id| (*id as usize) < vocab_size).collect();
        let first =
            *end_tokens.first().ok_or_else(|| grammar_error("the model has no end token"))?;
        let size = u32::try_from(vocab_size)
            .map_err(|_| grammar_error("the vocabulary has more than 2^32 tokens"))?;
        let word = |id: TokenId| match tokenizer.token_bytes(id) {
            // The marker keeps special tokens out of texts that spell them.
            Some(bytes) if tokenizer.is_special(id) => {
                [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes.as_slice()].concat()
            }
            Some(bytes) => bytes,
            None => Vec::new(),
        };
        let words: Vec<Vec<u8>> = (0..size).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(size, first), &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(grammar_error)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory, end_tokens: end_tokens.into() })
    }

    /// A matcher at the beginning of an answer. Takes milliseconds for large schemas. What may come first is
    /// found here, so that a grammar that no text fits, or that is too large to be followed, is refused before
    /// anything runs.
    ///
    /// # Errors
    /// What is wrong with the grammar, or that it is too large.
    pub fn compile(&self, grammar: &Grammar) -> Result<TokenMatcher, TokenizationError> {
        if matches!(grammar, Grammar::Choice(choices) if choices.is_empty()) {
            return Err(grammar_error("there is nothing to choose from"));
        }
        let parser = self.factory.create_parser(grammar.top_level());
        let matcher = Matcher::new(parser);
        if let Some(reason) = matcher.get_error() {
            return Err(grammar_error(reason));
        }
        let end_tokens = Arc::clone(&self.end_tokens);
        let mut matcher = TokenMatcher { matcher, end_tokens, first: None };
        matcher.first = Some(matcher.compute()?);
        Ok(matcher)
    }
}

/// Which tokens may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Bit `id % 32` of word `id / 32` is set for each token that may.
    Tokens(Vec<u32>),
    /// None: the answer is complete.
    Done,
}

/// Where an answer stands in its grammar.
#[derive(Clone)]
pub struct TokenMatcher {
    matcher: Matcher,
    end_tokens: Arc<[TokenId]>,
    /// What may come at the beginning, until it is asked for.
    first: Option<Allowed>,
}

impl TokenMatcher {
    /// What may come next.
    ///
    /// # Errors
    /// A grammar that needs more than the bounds of one step.
    pub fn allowed(&mut self) -> Result<Allowed, TokenizationError> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => self.compute(),
        }
    }

    fn compute(&mut self) -> Result<Allowed, TokenizationError> {
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(Allowed::Done);
        }
        let mut mask = self.matcher.compute_mask().map_err(grammar_error)?;
        if mask.is_zero() {
            return Ok(Allowed::Done);
        }
        // The trie knows one end token; where that may come, all may.
        if self.end_tokens.first().is_some_and(|first| mask.is_allowed(*first)) {
            for token in self.end_tokens.iter() {
                mask.allow_token(*token);
            }
        }
        Ok(Allowed::Tokens(mask.as_slice().to_vec()))
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// A token that the grammar does not allow here.
    pub fn accept(&mut self, token: TokenId) -> Result<(), TokenizationError> {
        self.first = None;
        if self.end_tokens.contains(&token) {
            // The answer is over; nothing comes behind it.
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(grammar_error)
    }
}

/// llguidance's reason without what it says of itself behind: states and backtraces are not the caller's.
fn grammar_error(reason: impl std::fmt::Display) -> TokenizationError {
    let text = reason.to_string();
    let text = ["\n<non-verbose/>", "\n<state>", "\n<backtrace>"]
        .iter()
        .fold(text.as_str(), |text, mark| text.split(mark).next().unwrap_or(text));
    let reason = match text.strip_prefix("panic: ") {
        _ if text == "NoExtensionBias" => "no text fits it".to_owned(),
        // Its assertions are about sizes, and their text is about its own code.
        Some(_) => "it is too large".to_owned(),
        None => text.to_owned(),
    };
    TokenizationError::Grammar { reason }
}
