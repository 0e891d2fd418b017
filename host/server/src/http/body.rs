//! Request bodies: bounded in bytes and time, JSON, and refused with the place of what is wrong.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::state::HttpLimits;

/// A body of JSON as an argument of a handler.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S, T> FromRequest<S> for JsonBody<T>
where
    S: Send + Sync,
    HttpLimits: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let limits = HttpLimits::from_ref(state);
        if let Some(found) = request.headers().get(CONTENT_TYPE) {
            let essence = found.to_str().unwrap_or_default();
            let essence = essence.split(';').next().unwrap_or_default().trim();
            if !essence.eq_ignore_ascii_case("application/json") {
                let message = format!("the body must be application/json, not `{essence}`");
                let error = ApiError::invalid(message).with_code("unsupported_media_type");
                return Err(error.with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
            }
        }
        let bytes = read(request.into_body(), limits).await?;
        parse(&bytes).map(Self)
    }
}

async fn read(body: Body, limits: HttpLimits) -> Result<axum::body::Bytes, ApiError> {
    let seconds = limits.body_read_s_max;
    let arrived =
        tokio::time::timeout(Duration::from_secs(seconds), to_bytes(body, limits.body_bytes_max));
    let read = arrived.await.map_err(|_| {
        let message = format!("the body did not arrive within {seconds} s");
        ApiError::invalid(message).with_status(StatusCode::REQUEST_TIMEOUT)
    })?;
    read.map_err(|error| {
        let reason = std::error::Error::source(&error).map(ToString::to_string);
        if reason.is_some_and(|reason| reason.contains("length limit")) {
            let message = format!("the body is over {} bytes", limits.body_bytes_max);
            let error = ApiError::invalid(message).with_code("request_too_large");
            return error.with_status(StatusCode::PAYLOAD_TOO_LARGE);
        }
        ApiError::invalid(format!("the body was cut short: {error}"))
    })
}

/// Parses a body; an error names the field and the line and column.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Serde would take an array for a struct, field by field.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| *byte != b'{') {
        let error = ApiError::invalid("the body must be a JSON object (line 1)");
        return Err(error.with_code("invalid_json"));
    }
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut source).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        // An unknown field is named by the reason, and its path is the object's.
        let unknown = unknown_field(&reason);
        let code = if unknown.is_some() { "unknown_parameter" } else { "invalid_json" };
        let known = (path != "." && path != "?").then_some(path);
        let message = match (&known, &unknown) {
            (Some(path), None) => format!("{path}: {reason}"),
            _ => reason.to_string(),
        };
        let mut error = ApiError::invalid(message).with_code(code);
        error.param = unknown.or(known);
        error
    })?;
    source.end().map_err(|error| {
        ApiError::invalid(format!("after the body: {error}")).with_code("invalid_json")
    })?;
    Ok(parsed)
}

fn unknown_field(reason: &serde_json::Error) -> Option<String> {
    let text = reason.to_string();
    let name = text.strip_prefix("unknown field `")?.split('`').next()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)]
        n: Option<u32>,
        #[allow(dead_code)]
        inner: Option<Vec<Sample>>,
    }

    #[test]
    fn errors_name_the_field_and_the_place() {
        let check = |body: &str, param: Option<&str>, code: &str, place: &str| {
            let error = parse::<Sample>(body.as_bytes()).expect_err(body);
            assert_eq!(error.param.as_deref(), param, "{error:?}");
            assert_eq!(error.code.as_deref(), Some(code), "{error:?}");
            assert!(error.message.contains(place), "{error:?}");
        };
        check("{\"n\": \"x\"}", Some("n"), "invalid_json", "line 1 column 9");
        check("{\"n\": -1}", Some("n"), "invalid_json", "line 1");
        check("{\n\"m\": 1}", Some("m"), "unknown_parameter", "line 2 column 3");
        check("{\"inner\": [{}, {\"n\": []}]}", Some("inner[1].n"), "invalid_json", "line 1");
        check("{\"n\": 1", None, "invalid_json", "line 1 column 7");
        check("{} {}", None, "invalid_json", "line 1 column 4");
        check("", None, "invalid_json", "line 1 column 0");
        check("\u{feff}{}", None, "invalid_json", "line 1");
        check("[1]", None, "invalid_json", "must be a JSON object");
        let deep = "{\"inner\":[".repeat(100_000);
        assert_eq!(parse::<Sample>(deep.as_bytes()).expect_err("too deep").status, 400);
    }

    #[tokio::test]
    async fn the_limit_is_the_largest_body() {
        let limits = HttpLimits { body_bytes_max: 8, ..HttpLimits::default() };
        for (length, expect) in [(7, None), (8, None), (9, Some(StatusCode::PAYLOAD_TOO_LARGE))] {
            let read = read(Body::from(vec![b' '; length]), limits).await;
            assert_eq!(read.err().map(|error| error.status), expect, "{length}");
        }
    }
}
