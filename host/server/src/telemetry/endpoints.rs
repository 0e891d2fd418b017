//! Where spans and metrics go: a key of the configuration, or the environment as OpenTelemetry has it.

/// What an endpoint of a signal ends in.
const TRACES_PATH: &str = "/v1/traces";
const METRICS_PATH: &str = "/v1/metrics";

/// Where to send; at least one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) traces: Option<String>,
    pub(crate) metrics: Option<String>,
}

/// An endpoint that can't be sent to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is `{value}`; expected {expected}")]
pub(crate) struct EndpointError {
    /// The key or the variable.
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) expected: &'static str,
}

impl Endpoints {
    /// The endpoints, if there are any: `configured`, else what `variable` says.
    ///
    /// # Errors
    /// Something other than OTLP over plain HTTP.
    pub(crate) fn resolve(
        configured: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, EndpointError> {
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        if given("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let base = match configured {
            Some(endpoint) => Some(("otlp_endpoint", endpoint.to_owned())),
            None => given("OTEL_EXPORTER_OTLP_ENDPOINT")
                .map(|endpoint| ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)),
        };
        let signal = |own: &'static str, exporter: &str, path: &str| {
            if given(exporter).is_some_and(|exporter| exporter == "none") {
                return Ok(None);
            }
            let own = given(own).filter(|_| configured.is_none()).map(|endpoint| (own, endpoint));
            let of_base =
                |(name, base): (_, String)| (name, format!("{}{path}", base.trim_end_matches('/')));
            let endpoint = own.or_else(|| base.clone().map(of_base));
            endpoint.map(|(name, value)| checked(name, value)).transpose()
        };
        let traces =
            signal("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER", TRACES_PATH)?;
        let metrics =
            signal("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_METRICS_EXPORTER", METRICS_PATH)?;
        let found = Self { traces, metrics };
        if found.traces.is_none() && found.metrics.is_none() {
            return Ok(None);
        }
        match given("OTEL_EXPORTER_OTLP_PROTOCOL") {
            Some(value) if value != "http/protobuf" => {
                let (name, expected) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
                Err(EndpointError { name, value, expected })
            }
            _ => Ok(Some(found)),
        }
    }
}

/// Plain HTTP alone: there is no TLS in this process.
fn checked(name: &'static str, value: String) -> Result<String, EndpointError> {
    let host = value.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    if host.is_some_and(|host| !host.is_empty()) && !value.chars().any(char::is_whitespace) {
        return Ok(value);
    }
    Err(EndpointError { name, value, expected: "http://HOST:PORT" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where traces and metrics go.
    type Found<'a> = (Option<&'a str>, Option<&'a str>);

    fn check(
        configured: Option<&str>,
        variables: &[(&str, &str)],
        expect: Result<Option<Found<'_>>, &str>,
    ) {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let found = Endpoints::resolve(configured, lookup).map_err(|error| error.name);
        let expect = expect.map(|found| {
            found.map(|(traces, metrics)| Endpoints {
                traces: traces.map(str::to_owned),
                metrics: metrics.map(str::to_owned),
            })
        });
        assert_eq!(found, expect, "{configured:?} {variables:?}");
    }

    #[test]
    fn where_to_send() {
        let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let both = Ok(Some((Some("http://c:4318/v1/traces"), Some("http://c:4318/v1/metrics"))));
        check(None, &[], Ok(None));
        check(None, &[(base, "")], Ok(None));
        check(None, &[(base, "http://c:4318/")], both);
        check(Some("http://c:4318"), &[(base, "http://other"), (own, "http://other")], both);
        check(Some("http://c:4318"), &[("OTEL_SDK_DISABLED", "TRUE")], Ok(None));
        check(None, &[(own, "http://c/x")], Ok(Some((Some("http://c/x"), None))));
        let no_traces = [(base, "http://c"), ("OTEL_TRACES_EXPORTER", "none")];
        check(None, &no_traces, Ok(Some((None, Some("http://c/v1/metrics")))));
        check(Some("https://c"), &[], Err("otlp_endpoint"));
        check(Some("c:4318"), &[], Err("otlp_endpoint"));
        check(None, &[(base, "http://")], Err(base));
        let grpc = [(base, "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        check(None, &grpc, Err("OTEL_EXPORTER_OTLP_PROTOCOL"));
    }
}
