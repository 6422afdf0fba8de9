//! RememberedFailure that the operator alone can end: a wrong key, an empty account. While it lasts, nobody
//! waits for the provider to say so again.

use std::time::{Duration, Instant};

use super::error::{Answer, Error};

/// So long the provider is not asked again; then one call finds out whether the trouble has ended.
const REMEMBERED: Duration = Duration::from_secs(30);

/// The last trouble, if it is recent.
#[derive(Debug, Default)]
pub(super) struct RememberedFailure(Option<(Instant, Kind, Answer)>);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Denied,
    OutOfCredit,
}

impl RememberedFailure {
    /// The same error as then, while it is remembered.
    pub(super) fn check(&self, now: Instant) -> Result<(), Error> {
        match &self.0 {
            Some((since, kind, answer)) if now.duration_since(*since) < REMEMBERED => Err(match kind {
                Kind::Denied => Error::Denied(answer.clone()),
                Kind::OutOfCredit => Error::OutOfCredit(answer.clone()),
            }),
            _ => Ok(()),
        }
    }

    /// Remembers an error that is trouble.
    pub(super) fn note(&mut self, error: &Error, now: Instant) {
        match error {
            Error::Denied(answer) => self.0 = Some((now, Kind::Denied, answer.clone())),
            Error::OutOfCredit(answer) => self.0 = Some((now, Kind::OutOfCredit, answer.clone())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_remembered_for_its_time_and_then_tried_again() {
        let error = Error::from_answer(reqwest::StatusCode::UNAUTHORIZED, &reqwest::header::HeaderMap::new(), b"");
        let start = Instant::now();
        let mut remembered = RememberedFailure::default();
        assert!(remembered.check(start).is_ok());
        remembered.note(&Error::Timeout, start);
        assert!(remembered.check(start).is_ok());
        remembered.note(&error, start);
        assert!(matches!(remembered.check(start + REMEMBERED - Duration::from_secs(1)), Err(Error::Denied(_))));
        assert!(remembered.check(start + REMEMBERED).is_ok());
    }
}
