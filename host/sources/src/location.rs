//! Where an adapter lies that is not on this machine: what clients may write, reduced to one spelling, so
//! that what an operator allowed can be compared with it letter by letter.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::SourceError;

/// Longest location in bytes.
const LOCATION_BYTES_MAX: usize = 1024;
/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// What is behind a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// A Hugging Face repository.
    Hub,
    /// Amazon S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// A web server.
    Http,
    /// The same with TLS.
    Https,
}

impl Scheme {
    const ALL: [Self; 6] = [Self::Hub, Self::S3, Self::Gs, Self::Az, Self::Http, Self::Https];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hf",
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A directory somewhere: `s3://bucket/path`, `hf://org/repo@revision`, `https://host/path`, each with
/// `#sha256=HEX` behind it if the weights must have that digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    scheme: Scheme,
    /// Bucket, host or organisation.
    authority: String,
    /// What is behind it, without a slash in front or at the end.
    path: String,
    /// Branch, tag or commit of a repository.
    revision: Option<String>,
    sha256: Option<String>,
}

impl Location {
    /// Whether `text` is meant to be a location: it has a scheme. Else it is a path.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.contains("://")
    }

    /// What is behind it.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Digest that the weights must have, in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The address without digest and revision, as it is compared with what is allowed.
    pub(crate) fn plain(&self) -> String {
        let slash = if self.path.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}", self.scheme.as_str(), self.authority, self.path)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > LOCATION_BYTES_MAX {
            return Err("it is longer than 1024 bytes");
        }
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        let scheme = Scheme::ALL.into_iter().find(|known| known.as_str() == scheme);
        let scheme = scheme.ok_or("its scheme is none of hf, s3, gs, az, http, https")?;
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (rest, None),
        };
        let sha256 = fragment.map(digest).transpose()?;
        let (rest, revision) = match rest.split_once('@') {
            Some((rest, revision)) if scheme == Scheme::Hub => (rest, Some(revision)),
            // Nobody's password is to be in an address, nor another host behind it.
            Some(_) => return Err("only hf:// has an @"),
            None => (rest, None),
        };
        if revision.is_some_and(|revision| !is_plain(revision) || revision.contains('/')) {
            return Err("its revision has other characters than letters, digits, -, _ and .");
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_web = matches!(scheme, Scheme::Http | Scheme::Https);
        let more = if is_web { "-._:[]" } else { "-._" };
        let host = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        if matches!(authority, "" | "." | "..") || !authority.chars().all(host) {
            return Err("it has no bucket or host, or one with other characters than a name's");
        }
        if !path.is_empty() && !is_plain(path) {
            return Err(
                "a part of its path is empty, . or .., or has other characters than letters, \
                        digits, -, _, ., +, = and :",
            );
        }
        if scheme == Scheme::Hub && (path.is_empty() || path.contains('/')) {
            return Err("a repository is hf://organisation/name");
        }
        let (authority, path) = (authority.to_owned(), path.to_owned());
        Ok(Self { scheme, authority, path, revision: revision.map(str::to_owned), sha256 })
    }
}

impl FromStr for Location {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        Self::parse(text).map_err(|reason| {
            let location = text.chars().take(LOCATION_BYTES_MAX).collect();
            SourceError::Location { location, reason }
        })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain())?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(sha256) = &self.sha256 {
            write!(f, "#sha256={sha256}")?;
        }
        Ok(())
    }
}

/// Nothing that some server, or some path below the cache, could read in another way.
fn is_plain(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+=:".contains(c);
    path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.chars().all(plain))
}

fn digest(fragment: &str) -> Result<String, &'static str> {
    let wrong = "what is behind # is not sha256= and 64 hexadecimal digits";
    let digits = fragment.strip_prefix("sha256=").ok_or(wrong)?;
    let is_digest =
        digits.len() == SHA256_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { Ok(digits.to_ascii_lowercase()) } else { Err(wrong) }
}

/// What an operator allows: every location below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Whether `location` is this or below this.
    #[must_use]
    pub fn allows(&self, location: &Location) -> bool {
        self.covers(&location.plain())
    }

    /// The same of an address that a server sends us to.
    pub(crate) fn allows_url(&self, url: &Url) -> bool {
        // Some servers read these as the slashes and dots that they stand for.
        let path = url.path().to_ascii_lowercase();
        if ["%2f", "%5c", "%2e"].iter().any(|trick| path.contains(trick)) {
            return false;
        }
        self.covers(&format!("{}{}", url.origin().ascii_serialization(), url.path()))
    }

    fn covers(&self, plain: &str) -> bool {
        let rest = plain.strip_prefix(&self.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.0.ends_with("://"))
    }
}

impl FromStr for Prefix {
    type Err = SourceError;

    /// A location, or a whole scheme such as `hf://`.
    fn from_str(text: &str) -> Result<Self, SourceError> {
        let is_scheme = |scheme: &Scheme| text == format!("{}://", scheme.as_str());
        if Scheme::ALL.iter().any(is_scheme) {
            return Ok(Self(text.to_owned()));
        }
        // An organisation alone is no repository, and may be allowed.
        let organisation = text.strip_prefix("hf://").map(|rest| rest.trim_end_matches('/'));
        if let Some(name) =
            organisation.filter(|name| !name.contains(['/', '@', '#']) && is_plain(name))
        {
            return Ok(Self(format!("hf://{name}")));
        }
        let location: Location = text.parse()?;
        if location.revision.is_some() || location.sha256.is_some() {
            let (location, reason) = (text.to_owned(), "what is allowed has no @ and no #");
            return Err(SourceError::Location { location, reason });
        }
        Ok(Self(location.plain()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF";

    #[test]
    fn locations_have_one_spelling() {
        let check = |text: &str, expect: &str| {
            let location: Location = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(location.to_string(), expect, "{text}");
            assert_eq!(location.to_string().parse::<Location>().expect(expect), location);
        };
        check("s3://bucket/a/b", "s3://bucket/a/b");
        check("s3://bucket/a/b/", "s3://bucket/a/b");
        check("gs://bucket", "gs://bucket");
        check("az://container/x", "az://container/x");
        check("https://host:8443/a_b-c.d", "https://host:8443/a_b-c.d");
        check("http://[::1]:80/a", "http://[::1]:80/a");
        check("hf://org/repo", "hf://org/repo");
        check("hf://org/repo@v1.0", "hf://org/repo@v1.0");
        let pinned = format!("hf://org/repo@v1#sha256={}", SHA.to_lowercase());
        check(&format!("hf://org/repo@v1#sha256={SHA}"), &pinned);
    }

    #[test]
    fn tricks_are_refused() {
        for text in [
            "s3://",
            "s3:///a",
            "ftp://host/a",
            "S3://bucket/a",
            "s3:/bucket",
            "a/b",
            "://a",
            "https://user:pass@host/a",
            "https://allowed@evil/a",
            "https://host/../a",
            "https://host/a/../b",
            "https://host/./a",
            "https://host//a",
            "https://host/a%2e%2e/b",
            "https://host/a?b=c",
            "https://host/a\\b",
            "https://ho st/a",
            "https://host/a b",
            "https://host/\u{e4}",
            "s3://bucket/a\n",
            "hf://org",
            "hf://org/repo/more",
            "hf://org/../x",
            "hf://../x",
            "s3://../x",
            "s3://bucket:9000/x",
            "hf://org/repo@../x",
            "hf://org/repo@a/b",
            "hf://org/repo@",
            "s3://bucket/a#md5=0",
            "s3://bucket/a#sha256=00",
            "file:///srv/a",
        ] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
        let long = |bytes: usize| format!("s3://b/{}", "a".repeat(bytes - 7));
        assert!(long(LOCATION_BYTES_MAX).parse::<Location>().is_ok());
        assert!(long(LOCATION_BYTES_MAX + 1).parse::<Location>().is_err());
        assert!(!Location::is_one("a/b") && Location::is_one("x://y"));
    }

    #[test]
    fn what_is_allowed_ends_at_a_slash() {
        let check = |prefix: &str, location: &str, expect: bool| {
            let prefix: Prefix = prefix.parse().unwrap_or_else(|error| panic!("{error}"));
            let location: Location = location.parse().expect(location);
            assert_eq!(prefix.allows(&location), expect, "{prefix:?} {location}");
        };
        check("s3://bucket/lora", "s3://bucket/lora", true);
        check("s3://bucket/lora/", "s3://bucket/lora/a/b", true);
        check("s3://bucket/lora", "s3://bucket/lora-private/a", false);
        check("s3://bucket", "s3://bucket-2/a", false);
        check("s3://bucket", "gs://bucket/a", false);
        check("s3://bucket/a", "s3://bucket", false);
        check("hf://org", "hf://org/repo@v1", true);
        check("hf://org/", "hf://org2/repo", false);
        check("hf://org/repo", "hf://org/repo@x", true);
        check("hf://org/repo", "hf://org/repo2", false);
        check("hf://", "hf://any/thing", true);
        check("https://host", "https://host:8443/a", false);
        check("https://host", "http://host/a", false);
        for prefix in ["", "s3", "hf://org/repo@v1", "https://host/a?b", "s3://b/..", "any://"] {
            assert!(prefix.parse::<Prefix>().is_err(), "{prefix}");
        }
    }
}
