//! The admin API's secret: read from a file, or made once and left where only the owner can read it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use subtle::ConstantTimeEq;

/// Where the token stands in the data directory.
pub(crate) const TOKEN_FILE: &str = "admin-token";
/// Bytes of randomness in a token that we make.
const TOKEN_BYTES: usize = 32;
/// Fewest characters of a token that an operator gives.
const TOKEN_CHARS_MIN: usize = 8;

/// The secret. Never shown.
pub(crate) struct Token(String);

impl Token {
    /// Whether `given` is the token; takes the same time wherever it differs.
    pub(crate) fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// Reads the token from `file`, or from the data directory, where one is made if there is none.
///
/// # Errors
/// The file can't be read or written, or holds no token.
pub(crate) fn load(file: Option<&Path>, data_dir: &Path) -> Result<(Token, PathBuf)> {
    let path = match file {
        Some(file) => file.to_owned(),
        None => {
            let path = data_dir.join(TOKEN_FILE);
            if !path.exists() {
                create(&path)?;
            }
            path
        }
    };
    Ok((Token(read(&path)?), path))
}

/// The token in a file, for the server and for its clients.
///
/// # Errors
/// The file can't be read, or holds no token.
pub(crate) fn read(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the admin token {}", path.display()))?;
    let token = text.trim();
    let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.len() < TOKEN_CHARS_MIN || !visible {
        bail!(
            "the admin token in {} must be at least {TOKEN_CHARS_MIN} visible ASCII characters",
            path.display()
        );
    }
    Ok(token.to_owned())
}

fn create(path: &Path) -> Result<()> {
    let token = hex::encode(rand::random::<[u8; TOKEN_BYTES]>());
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| writeln!(file, "{token}"));
    written.with_context(|| format!("write the admin token {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("folder");
        let (token, path) = load(None, dir.path()).expect("made");
        let text = read(&path).expect("kept");
        assert_eq!(text.len(), 2 * TOKEN_BYTES);
        assert!(token.matches(&text));
        assert!(!token.matches(&text[1..]) && !token.matches(""));
        let mode = path.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (again, _) = load(None, dir.path()).expect("read");
        assert!(again.matches(&text));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("token");
        for (text, expect) in [
            ("12345678\n", true),
            ("1234567\n", false),
            ("", false),
            ("with space", false),
            ("pass\u{e9}word", false),
        ] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(load(Some(&path), dir.path()).is_ok(), expect, "{text:?}");
        }
        let missing = load(Some(&dir.path().join("none")), dir.path());
        assert!(missing.is_err_and(|error| format!("{error:#}").contains("none")));
    }
}
