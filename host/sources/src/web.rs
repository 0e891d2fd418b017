//! Directories of web servers, and where their redirects may lead: to the same host, to what the operator
//! allowed, and from the hub to the stores of its files. Never from TLS to none.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse};
use url::{Origin, Url};

use crate::http::Http;
use crate::location::Prefix;
use crate::remote::{Announced, Pieces, causes, pieces};

/// Most redirects of one request.
const REDIRECTS_MAX: usize = 5;
/// Domains of the hub's own stores.
const HUB_STORES: [&str; 2] = [".hf.co", ".huggingface.co"];

/// Where redirects may lead.
#[derive(Clone, Debug)]
pub(crate) struct Redirects {
    pub(crate) allowed: Vec<Prefix>,
    /// Whether to the hub's stores too.
    pub(crate) hub_stores: bool,
}

impl Redirects {
    /// Where `answer` sends whoever asked `from`; `None` if it is no redirect.
    fn next(&self, from: &Url, answer: &HttpResponse) -> Result<Option<Url>, String> {
        let status = answer.status();
        if !is_redirect(status) {
            return Ok(None);
        }
        let location = text(answer.headers(), LOCATION.as_str());
        let to = location.and_then(|location| from.join(location).ok());
        let to = to.ok_or_else(|| format!("{status} to no address"))?;
        if self.may_lead(from, &to) {
            return Ok(Some(to));
        }
        // Without path and query, which may be secrets.
        Err(format!("{status} to {}, which is not allowed", to.origin().ascii_serialization()))
    }

    fn may_lead(&self, from: &Url, to: &Url) -> bool {
        let is_plain = to.username().is_empty() && to.password().is_none();
        let is_safe = to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http");
        let is_hub_store = || {
            let host = to.host_str().unwrap_or_default();
            self.hub_stores
                && to.scheme() == "https"
                && HUB_STORES.iter().any(|domain| host.ends_with(domain))
        };
        let is_same = || to.origin() == from.origin();
        let is_allowed = || self.allowed.iter().any(|prefix| prefix.allows_url(to));
        is_plain && is_safe && (is_same() || is_hub_store() || is_allowed())
    }
}

/// A redirect that keeps the method of GET and HEAD.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// A secret, and the only host that is told it.
#[derive(Clone, Copy)]
pub(crate) struct Secret<'a> {
    pub(crate) token: &'a str,
    pub(crate) host: &'a Url,
}

/// A request without a body.
pub(crate) fn request(
    method: Method,
    url: &Url,
    secret: Option<Secret<'_>>,
) -> Result<HttpRequest, String> {
    let mut request = http::Request::builder().method(method).uri(url.as_str());
    if let Some(secret) = secret.filter(|secret| is_told(&secret.host.origin(), url)) {
        request = request.header(AUTHORIZATION, format!("Bearer {}", secret.token));
    }
    // Bytes as they lie there: their number and digest are compared.
    let request = request.header("accept-encoding", "identity").header("user-agent", "mortise");
    request.body(HttpRequestBody::empty()).map_err(|error| error.to_string())
}

fn is_told(host: &Origin, url: &Url) -> bool {
    url.origin() == *host
}

/// Asks for `url`, and follows where that may lead.
pub(crate) async fn follow(
    http: &Http,
    method: Method,
    url: &Url,
    secret: Option<Secret<'_>>,
    redirects: &Redirects,
) -> Result<HttpResponse, String> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTS_MAX {
        let asked = request(method.clone(), &url, secret)?;
        let answer = http.send(asked).await.map_err(|error| causes(&error))?;
        match redirects.next(&url, &answer)? {
            Some(next) => url = next,
            None => return Ok(answer),
        }
    }
    Err(format!("more than {REDIRECTS_MAX} redirects"))
}

/// A directory of a web server.
pub(crate) struct Web {
    pub(crate) http: Http,
    /// Without a slash at the end.
    pub(crate) dir: Url,
    pub(crate) redirects: Redirects,
}

impl Web {
    pub(crate) async fn look(&self, file: &str) -> Result<Option<Announced>, String> {
        let answer = self.ask(Method::HEAD, file).await?;
        let (status, headers) = (answer.status(), answer.headers());
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(status.to_string());
        }
        let bytes = text(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        let bytes = bytes.ok_or("no length is announced")?;
        Ok(Some(Announced { bytes, version: tag(headers, ETAG.as_str()), sha256: None }))
    }

    pub(crate) async fn read(&self, file: &str, announced: &Announced) -> Result<Pieces, String> {
        let answer = self.ask(Method::GET, file).await?;
        let version = tag(answer.headers(), ETAG.as_str());
        if answer.status().is_success() && version != announced.version {
            return Err("it has changed since it was looked at".to_owned());
        }
        pieces(answer, announced)
    }

    async fn ask(&self, method: Method, file: &str) -> Result<HttpResponse, String> {
        let url = format!("{}/{file}", self.dir.as_str().trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| format!("{url}: {error}"))?;
        follow(&self.http, method, &url, None, &self.redirects).await
    }
}

/// A header as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// An entity tag without its decoration.
pub(crate) fn tag(headers: &HeaderMap, name: &str) -> Option<String> {
    let tag = text(headers, name)?;
    Some(tag.trim_start_matches("W/").trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_nowhere_but_where_they_may() {
        let allowed = ["https://files.example/lora", "http://10.0.0.1:8080"];
        let allowed = allowed.map(|prefix| prefix.parse().expect(prefix)).to_vec();
        let web = Redirects { allowed, hub_stores: false };
        let hub = Redirects { hub_stores: true, ..web.clone() };
        let check = |redirects: &Redirects, from: &str, to: &str, expect: bool| {
            let (from, to) = (Url::parse(from).expect(from), Url::parse(to).expect(to));
            assert_eq!(redirects.may_lead(&from, &to), expect, "{from} {to}");
        };
        let (https, http) = ("https://a.example/x", "http://a.example/x");
        check(&web, https, "https://a.example/other?signed=1", true);
        check(&web, https, "https://a.example:8443/x", false);
        check(&web, https, http, false);
        check(&web, http, "http://a.example/y", true);
        check(&web, https, "https://user@a.example/y", false);
        check(&web, https, "https://files.example/lora/x?signed=1", true);
        check(&web, https, "https://files.example/lora-2/x", false);
        check(&web, https, "https://files.example/lora/%2e%2e/private", false);
        check(&web, https, "https://files.example/lora/..%2fprivate", false);
        check(&web, http, "http://10.0.0.1:8080/a", true);
        check(&web, https, "http://10.0.0.1:8080/a", false);
        check(&web, http, "http://169.254.169.254/latest/meta-data", false);
        check(&web, http, "http://127.0.0.1/a", false);
        check(&web, http, "file:///etc/passwd", false);
        check(&web, http, "ftp://a.example/x", false);
        check(&web, https, "https://cdn-lfs.hf.co/x", false);
        check(&hub, https, "https://cdn-lfs.hf.co/x?signed=1", true);
        check(&hub, https, "https://cas-bridge.xethub.hf.co/x", true);
        check(&hub, http, "http://cdn-lfs.hf.co/x", false);
        check(&hub, https, "https://evilhf.co/x", false);
        check(&hub, https, "https://hf.co.evil.example/x", false);
    }
}
