//! A repository of Hugging Face's hub, or of a mirror that speaks its protocol: `resolve` addresses, whose
//! headers name the commit, the length and, of large files, the SHA-256. The token goes to that host alone.

use std::sync::OnceLock;

use http::header::{CONTENT_LENGTH, ETAG, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::SourceError;
use crate::http::Http;
use crate::location::Location;
use crate::remote::{Announced, Pieces, causes, pieces};
use crate::web::{Redirects, Secret, follow, is_redirect, request, tag, text};

/// Most times that a repository is followed to another name.
const RENAMES_MAX: usize = 3;
/// Digits of a commit.
const COMMIT_DIGITS_MAX: usize = 64;

/// What all repositories share.
#[derive(Clone)]
pub(crate) struct HubClient {
    http: Http,
    endpoint: Url,
    token: Option<String>,
    redirects: Redirects,
}

impl HubClient {
    pub(crate) fn new(
        http: Http,
        endpoint: &str,
        token: Option<String>,
        redirects: Redirects,
    ) -> Result<Self, SourceError> {
        let parsed = Url::parse(endpoint).ok().filter(|url| {
            let is_web = matches!(url.scheme(), "http" | "https");
            is_web && url.username().is_empty() && url.query().is_none()
        });
        let setup = || {
            let reason = "it is no http or https address".to_owned();
            SourceError::Setup { location: endpoint.to_owned(), reason }
        };
        let endpoint = parsed.ok_or_else(setup)?;
        let redirects = Redirects { hub_stores: true, ..redirects };
        Ok(Self { http, endpoint, token, redirects })
    }

    pub(crate) fn repository(&self, location: &Location) -> Hub {
        let repo = format!("{}/{}", location.authority(), location.path());
        let revision = location.revision().to_owned();
        Hub { client: self.clone(), repo, revision, commit: OnceLock::new() }
    }

    fn secret(&self) -> Option<Secret<'_>> {
        self.token.as_deref().map(|token| Secret { token, host: &self.endpoint })
    }
}

/// A repository at a revision.
pub(crate) struct Hub {
    client: HubClient,
    repo: String,
    revision: String,
    /// What the revision was when the first file was looked at: all files are of one commit.
    commit: OnceLock<String>,
}

impl Hub {
    fn url(&self, file: &str) -> Result<Url, String> {
        let revision = self.commit.get().unwrap_or(&self.revision);
        let base = self.client.endpoint.as_str().trim_end_matches('/');
        let url = format!("{base}/{}/resolve/{revision}/{file}", self.repo);
        Url::parse(&url).map_err(|error| format!("{url}: {error}"))
    }

    /// Asks the hub alone: the headers of the store behind it are not the hub's.
    pub(crate) async fn look(&self, file: &str) -> Result<Option<Announced>, String> {
        let mut url = self.url(file)?;
        for _ in 0..=RENAMES_MAX {
            let asked = request(Method::HEAD, &url, self.client.secret())?;
            let answer = self.client.http.send(asked).await.map_err(|error| causes(&error))?;
            let (status, headers) = (answer.status(), answer.headers());
            let code = text(headers, "x-error-code");
            if status == StatusCode::NOT_FOUND && matches!(code, None | Some("EntryNotFound")) {
                return Ok(None);
            }
            if is_redirect(status) && !headers.contains_key("x-linked-size") {
                url = renamed(&url, headers).ok_or_else(|| format!("{status} to another host"))?;
                continue;
            }
            if !(status.is_success() || is_redirect(status)) {
                let code = code.map(|code| format!(": {code}")).unwrap_or_default();
                return Err(format!("{status}{code}"));
            }
            if let Some(commit) = text(headers, "x-repo-commit").filter(|text| is_commit(text)) {
                self.commit.get_or_init(|| commit.to_owned());
            }
            return announced(headers).map(Some);
        }
        Err("the repository has too many names".to_owned())
    }

    pub(crate) async fn read(&self, file: &str, announced: &Announced) -> Result<Pieces, String> {
        let (client, url) = (&self.client, self.url(file)?);
        let answer =
            follow(&client.http, Method::GET, &url, client.secret(), &client.redirects).await?;
        pieces(answer, announced)
    }
}

/// Another name of the same repository, on the same host.
fn renamed(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let to = url.join(text(headers, LOCATION.as_str())?).ok()?;
    (to.origin() == url.origin()).then_some(to)
}

fn is_commit(text: &str) -> bool {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex && (1..=COMMIT_DIGITS_MAX).contains(&text.len())
}

/// What the hub says of a file.
fn announced(headers: &HeaderMap) -> Result<Announced, String> {
    let length = text(headers, "x-linked-size").or_else(|| text(headers, CONTENT_LENGTH.as_str()));
    let bytes = length.and_then(|length| length.parse().ok()).ok_or("no length is announced")?;
    let version = tag(headers, "x-linked-etag").or_else(|| tag(headers, ETAG.as_str()));
    // Of large files the tag is the digest; of small ones it is git's, which is shorter.
    let is_digest =
        |tag: &&String| tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let sha256 = version.as_ref().filter(is_digest).map(|digest| digest.to_ascii_lowercase());
    Ok(Announced { bytes, version, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_is_on_the_same_host() {
        let url = Url::parse("https://hub.example/a/b/resolve/main/f").expect("an address");
        let check = |location: &str, expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location.parse().expect("a header"));
            let found = renamed(&url, &headers);
            assert_eq!(found.as_ref().map(Url::as_str), expect, "{location}");
        };
        check("/c/d/resolve/main/f", Some("https://hub.example/c/d/resolve/main/f"));
        check("https://hub.example/c", Some("https://hub.example/c"));
        check("//evil.example/c", None);
        check("/\\evil.example/c", None);
        check("https://hub.example@evil.example/c", None);
        check("http://hub.example/c", None);
        check("https://hub.example:444/c", None);
        assert_eq!(renamed(&url, &HeaderMap::new()), None);
    }

    #[test]
    fn what_the_hub_says_is_read_or_refused() {
        let check = |lines: &[(&'static str, &str)], expect: Result<(u64, bool), &str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.insert(*name, value.parse().expect("a header"));
            }
            let found = announced(&headers).map(|file| (file.bytes, file.sha256.is_some()));
            assert_eq!(found, expect.map_err(str::to_owned), "{lines:?}");
        };
        let digest = "AB".repeat(32);
        check(&[("x-linked-size", "7"), ("x-linked-etag", &digest)], Ok((7, true)));
        check(&[("x-linked-size", "7"), ("content-length", "0")], Ok((7, false)));
        check(&[("content-length", "7"), ("etag", "W/\"abc\"")], Ok((7, false)));
        check(&[("content-length", "-7")], Err("no length is announced"));
        check(&[("content-length", "18446744073709551616")], Err("no length is announced"));
        check(&[], Err("no length is announced"));
        assert!(is_commit("abc123") && !is_commit("") && !is_commit("../x"));
        assert!(is_commit(&"a".repeat(64)) && !is_commit(&"a".repeat(65)));
    }
}
