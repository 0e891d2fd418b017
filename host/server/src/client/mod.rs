//! The command line's side of the admin API.

use std::path::Path;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::Value;

use crate::assemble::token;

/// An admin API and its token.
pub(crate) struct AdminClient {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl AdminClient {
    /// Reads the token; connects on the first call.
    ///
    /// # Errors
    /// The token can't be read.
    pub(crate) fn new(url: &str, token_file: &Path) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build().context("start the client")?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { http, url, token: token::read(token_file)? })
    }

    /// Calls the API; what it answers.
    ///
    /// # Errors
    /// The server can't be reached, or refuses; then the error is its own message.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(method, &url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| format!("call {url}"))?;
        let status = response.status();
        let text = response.text().await.with_context(|| format!("read the answer of {url}"))?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if !status.is_success() {
            match answer["error"]["message"].as_str() {
                Some(message) => bail!("{message}"),
                None => bail!("{url} answered {status}: {answer}"),
            }
        }
        Ok(answer)
    }
}

/// Writes a name so that it is one part of a path.
pub(crate) fn path_part(name: &str) -> String {
    use std::fmt::Write;
    let mut part = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            part.push(char::from(byte));
        } else {
            write!(part, "%{byte:02X}").expect("a String takes everything");
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        let check = |name: &str, expect: &str| assert_eq!(path_part(name), expect);
        check("wallet-risk_1.0~a", "wallet-risk_1.0~a");
        check("a/b c?", "a%2Fb%20c%3F");
        check("é", "%C3%A9");
    }
}
