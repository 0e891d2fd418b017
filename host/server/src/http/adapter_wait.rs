//! `x-mortise-adapter-wait-ms`: how long the load of a request's adapter took. Tells who measures which
//! requests were cold; never says where an adapter comes from.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

const X_MORTISE_ADAPTER_WAIT_MS: HeaderName = HeaderName::from_static("x-mortise-adapter-wait-ms");

/// Sets the header to the longest wait of a request's prompts; none if no adapter answers.
pub(crate) fn set(response: &mut Response, waits: impl IntoIterator<Item = Option<Duration>>) {
    let Some(longest) = waits.into_iter().flatten().max() else { return };
    if let Ok(value) = HeaderValue::from_str(&milliseconds(longest)) {
        response.headers_mut().insert(X_MORTISE_ADAPTER_WAIT_MS, value);
    }
}

/// `0` is said of what was in memory alone.
fn milliseconds(wait: Duration) -> String {
    if wait.is_zero() {
        return "0".to_owned();
    }
    format!("{:.3}", (wait.as_secs_f64() * 1e3).max(0.001))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_told() {
        let check = |micros: &[Option<u64>], expect: Option<&str>| {
            let mut response = Response::new(axum::body::Body::empty());
            set(&mut response, micros.iter().map(|micros| micros.map(Duration::from_micros)));
            let found = response.headers().get("x-mortise-adapter-wait-ms");
            assert_eq!(found.map(|value| value.to_str().expect("ASCII")), expect, "{micros:?}");
        };
        check(&[], None);
        check(&[None], None);
        check(&[Some(0), None], Some("0"));
        check(&[Some(22_345), Some(1), None], Some("22.345"));
        check(&[Some(1)], Some("0.001"));
        assert_eq!(milliseconds(Duration::from_nanos(1)), "0.001", "it was no hit");
    }
}
