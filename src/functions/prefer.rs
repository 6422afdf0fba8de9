//! The Prefer header (RFC 7240): whether the caller asks for a job, and how long it waits.

use std::time::Duration;

use axum::http::HeaderMap;

/// The longest wait, in seconds. Azure's front end closes requests without an answer after 230 s.
const LONGEST_WAIT: u64 = 200;

/// The caller asks for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asynchronous {
    /// How long the caller waits for the outcome before it gets a job; `None` if it does not wait.
    pub(super) wait: Option<Duration>,
}

impl Asynchronous {
    /// Reads `respond-async` and `wait=SECONDS`; other preferences are ignored. `None` without either.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let values: Vec<&str> = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).collect();
        let preferences = || {
            values.iter().flat_map(|value| value.split(',')).map(|preference| {
                let preference = preference.split(';').next().unwrap_or_default();
                let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
                (name.trim(), value.trim().trim_matches('"'))
            })
        };
        let wait = preferences().filter(|(name, _)| name.eq_ignore_ascii_case("wait"));
        let wait = wait.filter_map(|(_, seconds)| seconds.parse::<u64>().ok()).find(|seconds| *seconds > 0);
        let respond = preferences().any(|(name, _)| name.eq_ignore_ascii_case("respond-async"));
        let wait = wait.map(|seconds| Duration::from_secs(seconds.min(LONGEST_WAIT)));
        (respond || wait.is_some()).then_some(Self { wait })
    }

    /// The value of the `Preference-Applied` header.
    pub(super) fn applied(self) -> String {
        self.wait.map_or_else(|| "respond-async".to_owned(), |wait| format!("wait={}", wait.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_as_rfc_7240_defines_them() {
        let wait = |seconds| Some(Asynchronous { wait: Some(Duration::from_secs(seconds)) });
        for (values, wanted) in [
            (vec![], None),
            (vec!["respond-async"], Some(Asynchronous { wait: None })),
            (vec!["Respond-Async"], Some(Asynchronous { wait: None })),
            (vec!["respond-async, wait=10"], wait(10)),
            (vec!["return=minimal", "wait=\"10\"; x=y"], wait(10)),
            (vec!["wait = 10"], wait(10)),
            (vec!["wait=100000"], wait(200)),
            (vec!["wait=0"], None),
            (vec!["wait=soon, respond-async"], Some(Asynchronous { wait: None })),
            (vec!["return=minimal; respond-async"], None),
        ] {
            let headers: HeaderMap = values
                .iter()
                .map(|value| (axum::http::HeaderName::from_static("prefer"), value.parse().expect("a header value")))
                .collect();
            assert_eq!(Asynchronous::of(&headers), wanted, "{values:?}");
        }
    }
}
