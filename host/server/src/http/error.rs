//! Every failure as OpenAI's error object with the status its clients expect. The only place that
//! turns an error into a status; what is not the client's business goes to the log.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use pipeline::PipelineError;
use serde::Serialize;
use serde_json::{Value, json};

/// Bytes of a message that are told, about. What a client sent comes back in some messages, and may be long.
const MESSAGE_BYTES_MAX: usize = 2048;

/// A failure as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ApiError {
    #[serde(skip)]
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<String>,
    #[serde(skip)]
    retry_after_s: Option<u32>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, kind, param: None, code: None, retry_after_s: None }
    }

    /// 400: the request is wrong as it stands.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400, naming a parameter.
    pub(crate) fn invalid_param(param: impl Into<String>, message: impl Into<String>) -> Self {
        let error = Self::invalid(message);
        Self { param: Some(param.into()), ..error }
    }

    /// 400: a parameter that exists elsewhere and not here. Ignoring it would be a lie.
    pub(crate) fn unsupported(param: &str) -> Self {
        let error = Self::invalid_param(param, format!("{param} is not supported by this server"));
        error.with_code("unsupported_parameter")
    }

    pub(crate) fn with_code(self, code: impl Into<String>) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(crate) fn model_not_found(model: &str) -> Self {
        let message = format!("the model `{model}` does not exist");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { param: Some("model".to_owned()), ..error }.with_code("model_not_found")
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message).with_code("not_found")
    }

    pub(crate) fn no_key() -> Self {
        let message = "no API key given: send it as `Authorization: Bearer KEY`";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
            .with_code("invalid_api_key")
    }

    pub(crate) fn wrong_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "unknown API key")
            .with_code("invalid_api_key")
    }

    pub(crate) fn no_admin_token() -> Self {
        let message = "the admin API needs its token: `Authorization: Bearer TOKEN`";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
            .with_code("invalid_admin_token")
    }

    pub(crate) fn wrong_method(method: &Method, path: &str) -> Self {
        Self::invalid(format!("{method} is not a method of {path}"))
            .with_code("method_not_allowed")
            .with_status(StatusCode::METHOD_NOT_ALLOWED)
    }

    /// 500: ours. `reason` is logged, not sent.
    pub(crate) fn internal(reason: &dyn std::fmt::Display) -> Self {
        tracing::error!(%reason, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal error")
            .with_code("internal_error")
    }

    /// 503: the process is going away or not ready.
    pub(crate) fn unavailable(message: &str) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        Self { retry_after_s: Some(1), ..error }.with_code("unavailable")
    }

    /// The body: `{"error": {...}}`, its texts no longer than one reads.
    pub(crate) fn body(&self) -> Value {
        let mut shown = self.clone();
        shown.message = shortened(shown.message);
        shown.param = shown.param.map(shortened);
        json!({ "error": shown })
    }
}

/// `text` without its middle if it is long: the end often says what is wrong with the beginning.
fn shortened(text: String) -> String {
    if text.len() <= MESSAGE_BYTES_MAX {
        return text;
    }
    let head = text.floor_char_boundary(MESSAGE_BYTES_MAX / 2);
    let tail = text.ceil_char_boundary(text.len() - MESSAGE_BYTES_MAX / 2);
    format!("{} ... {}", &text[..head], &text[tail..])
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<PipelineError> for ApiError {
    fn from(error: PipelineError) -> Self {
        let message = error.to_string();
        match error {
            PipelineError::ModelNotFound { model } => Self::model_not_found(&model),
            PipelineError::Sampling(error) => Self::invalid_param(error.param, message),
            PipelineError::Invalid { param, .. } => Self::invalid_param(param, message),
            PipelineError::ContextOverflow { .. } => {
                Self::invalid_param("messages", message).with_code("context_length_exceeded")
            }
            PipelineError::Overloaded { retry_after_s } => {
                let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
                Self { retry_after_s: Some(retry_after_s), ..error }.with_code("overloaded")
            }
            PipelineError::Expired { .. } => {
                Self::unavailable(&message).with_code("deadline_exceeded")
            }
            PipelineError::AdapterUnavailable { retry_after_s, .. } => {
                let error = Self::unavailable(&message).with_code("adapter_unavailable");
                Self { retry_after_s: Some(retry_after_s), ..error }
            }
            PipelineError::Draining => Self::unavailable(&message),
            PipelineError::Rejected { status, code, message, retry_after_ms, plugin } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
                let retry_after_s = retry_after_ms.map(|ms| ms.div_ceil(1000));
                tracing::info!(%plugin, %status, %code, "a plugin rejected a request");
                let error = Self::new(status, "invalid_request_error", message).with_code(code);
                Self { retry_after_s, ..error }
            }
            PipelineError::PluginFailed { plugin, reason } => {
                tracing::warn!(%plugin, %reason, "a request failed with a plugin");
                Self::new(StatusCode::BAD_GATEWAY, "server_error", message)
                    .with_code("plugin_failed")
            }
            other => Self::internal(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_status_and_code() {
        let check = |error: PipelineError, status: u16, code: Option<&str>, param: Option<&str>| {
            let shown = ApiError::from(error);
            assert_eq!(shown.status.as_u16(), status, "{shown:?}");
            assert_eq!(shown.code.as_deref(), code, "{shown:?}");
            assert_eq!(shown.param.as_deref(), param, "{shown:?}");
        };
        let model = "x".to_owned();
        check(PipelineError::ModelNotFound { model }, 404, Some("model_not_found"), Some("model"));
        let message = "n is 0".to_owned();
        check(PipelineError::Invalid { param: "n", message }, 400, None, Some("n"));
        let overflow =
            PipelineError::ContextOverflow { prompt_tokens: 9, max_tokens: 1, context_tokens: 8 };
        check(overflow, 400, Some("context_length_exceeded"), Some("messages"));
        let overloaded = PipelineError::Overloaded { retry_after_s: 2 };
        check(overloaded, 429, Some("overloaded"), None);
        check(PipelineError::Draining, 503, Some("unavailable"), None);
        let expired = PipelineError::Expired { waited_ms: 9 };
        check(expired, 503, Some("deadline_exceeded"), None);
        let (adapter, reason) = ("a".to_owned(), "busy".to_owned());
        let missing = PipelineError::AdapterUnavailable { adapter, reason, retry_after_s: 3 };
        check(missing, 503, Some("adapter_unavailable"), None);
        let failed =
            PipelineError::PluginFailed { plugin: "p".to_owned(), reason: "trap".to_owned() };
        check(failed, 502, Some("plugin_failed"), None);
        let internal = PipelineError::Internal { message: "disk".to_owned() };
        check(internal, 500, Some("internal_error"), None);
    }

    #[test]
    fn long_texts_lose_their_middle() {
        let check = |length: usize, expect: usize| {
            let told = shortened("é".repeat(length / 2));
            assert_eq!(told.len(), expect, "{length}");
        };
        check(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        check(MESSAGE_BYTES_MAX + 2, MESSAGE_BYTES_MAX + 5);
        check(MESSAGE_BYTES_MAX * 1000, MESSAGE_BYTES_MAX + 5);
        let error = ApiError::model_not_found(&"m".repeat(1 << 20));
        assert!(error.body().to_string().len() < 2 * MESSAGE_BYTES_MAX);
        let text = error.body()["error"]["message"].as_str().map(str::to_owned).expect("text");
        assert!(text.starts_with("the model `mmm") && text.ends_with("mm` does not exist"));
    }

    #[test]
    fn what_is_ours_is_not_told() {
        let error = PipelineError::Internal { message: "/secret/path is full".to_owned() };
        assert!(!ApiError::from(error).body().to_string().contains("secret"));
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let response = ApiError::from(PipelineError::Overloaded { retry_after_s: 2 });
        assert_eq!(response.into_response().headers()[RETRY_AFTER], "2");
        let rejected = PipelineError::Rejected {
            plugin: "quota".to_owned(),
            status: 429,
            code: "quota".to_owned(),
            message: "later".to_owned(),
            retry_after_ms: Some(1_001),
        };
        assert_eq!(ApiError::from(rejected).into_response().headers()[RETRY_AFTER], "2");
    }
}
