//! A failure that only the operator can end: a wrong key, or an account without credit. While it is
//! remembered, requests fail at once and the provider is not asked.

use std::time::{Duration, Instant};

use super::error::{Answer, Error};

/// The time for which a failure is remembered. After it, requests reach the provider again.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);

/// The last such failure, and the time when it was noted.
#[derive(Debug, Default)]
pub(super) struct RememberedFailure(Option<(Instant, Kind, Answer)>);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Denied,
    OutOfCredit,
}

impl RememberedFailure {
    /// Returns the failure as an error, while it is remembered.
    pub(super) fn check(&self, now: Instant) -> Result<(), Error> {
        match &self.0 {
            Some((since, kind, answer)) if now.duration_since(*since) < REMEMBERED_FOR => Err(match kind {
                Kind::Denied => Error::Denied(answer.clone()),
                Kind::OutOfCredit => Error::OutOfCredit(answer.clone()),
            }),
            _ => Ok(()),
        }
    }

    /// Remembers an error that only the operator can end; other errors change nothing.
    pub(super) fn note(&mut self, error: &Error, now: Instant) {
        match error {
            Error::Denied(answer) if answer.concerns_all() => self.0 = Some((now, Kind::Denied, answer.clone())),
            Error::OutOfCredit(answer) if answer.concerns_all() => {
                self.0 = Some((now, Kind::OutOfCredit, answer.clone()))
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_key_is_remembered_for_a_time() {
        let error = Error::from_answer(reqwest::StatusCode::UNAUTHORIZED, &reqwest::header::HeaderMap::new(), b"");
        let start = Instant::now();
        let mut remembered = RememberedFailure::default();
        assert!(remembered.check(start).is_ok());
        remembered.note(&Error::Timeout, start);
        assert!(remembered.check(start).is_ok());
        remembered.note(&error, start);
        assert!(matches!(remembered.check(start + REMEMBERED_FOR - Duration::from_secs(1)), Err(Error::Denied(_))));
        assert!(remembered.check(start + REMEMBERED_FOR).is_ok());
    }

    /// A message may quote the prompt of its request, so its words must not stop other requests.
    #[test]
    fn a_meaning_that_only_words_of_a_message_give_is_not_remembered() {
        let body = |code: &str| format!(r#"{{"error":{{"message":"Budget has been exceeded","code":"{code}"}}}}"#);
        let answer = |code: &str| {
            let status = reqwest::StatusCode::BAD_REQUEST;
            Error::from_answer(status, &reqwest::header::HeaderMap::new(), body(code).as_bytes())
        };
        let start = Instant::now();
        for (code, is_remembered) in [("400", false), ("budget_exceeded", true)] {
            let mut remembered = RememberedFailure::default();
            let error = answer(code);
            assert!(matches!(error, Error::OutOfCredit(_)), "{error:?}");
            remembered.note(&error, start);
            assert_eq!(remembered.check(start).is_err(), is_remembered, "{code}");
        }
    }
}
