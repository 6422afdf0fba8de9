//! The settings of OpenTelemetry that the app reads. The SDK reads the others
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::time::Duration;

use reqwest::Url;

use super::{Error, Ignored, Vars};

/// Where traces and metrics go.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` with `/v1/traces` (none): where traces
    /// go; `None` sends none. `OTEL_SDK_DISABLED=true` and a handler without the cargo feature `otlp` send nothing.
    pub traces: Option<Url>,
    /// `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` with `/v1/metrics` (none): where
    /// metrics go.
    pub metrics: Option<Url>,
    /// `OTEL_METRIC_EXPORT_INTERVAL` (5000): the time between two exports of metrics, in milliseconds. The platform
    /// may kill a process, and what it has not sent is lost, so the SDK's minute is too long.
    pub metric_interval: Duration,
}

impl TelemetryConfig {
    pub(super) fn from_vars(vars: &Vars) -> Result<(Self, Option<Ignored>), Error> {
        let base = vars.get("OTEL_EXPORTER_OTLP_ENDPOINT")?;
        let traces = vars.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")?;
        let metrics = vars.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")?;
        let is_disabled = vars.get("OTEL_SDK_DISABLED")?.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let milliseconds = "a whole number of milliseconds, 1 to 3600000";
        let interval = vars.number("OTEL_METRIC_EXPORT_INTERVAL", milliseconds, 1..=3_600_000)?;
        let mut config =
            Self { traces: None, metrics: None, metric_interval: Duration::from_millis(interval.unwrap_or(5_000)) };
        let set = [
            (&base, "OTEL_EXPORTER_OTLP_ENDPOINT"),
            (&traces, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            (&metrics, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
        ];
        let set = set.into_iter().find(|(value, _)| value.is_some()).map(|(_, name)| name);
        if is_disabled {
            return Ok((config, None));
        }
        if !cfg!(feature = "otlp") {
            let because = "this handler was built without the cargo feature otlp";
            return Ok((config, set.map(|name| Ignored { name, because })));
        }
        // Each signal's own endpoint is used as it is; the common one is a base.
        let of_signal = |own: Option<String>, name, path: &str| match (own, &base) {
            (Some(own), _) => endpoint(name, &own).map(Some),
            (None, Some(base)) => {
                let mut url = endpoint("OTEL_EXPORTER_OTLP_ENDPOINT", base)?;
                url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
                Ok(Some(url))
            }
            (None, None) => Ok(None),
        };
        config.traces = of_signal(traces, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "v1/traces")?;
        config.metrics = of_signal(metrics, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "v1/metrics")?;
        Ok((config, None))
    }
}

/// Plain http is usual for a collector in the same network: telemetry has neither prompts nor keys.
fn endpoint(name: &'static str, text: &str) -> Result<Url, Error> {
    let is_usable = |url: &Url| {
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain
    };
    let expected = "a URL with http or https, without user or fragment, such as http://127.0.0.1:4318";
    Url::parse(text).ok().filter(is_usable).ok_or(Error::Malformed { name, expected })
}
