//! The trace that a request belongs to, as W3C Trace Context names it (<https://www.w3.org/TR/trace-context/>).
//!
//! A handler that sends no traces has no span of its own, so its calls carry the header `traceparent` as it came.

use std::fmt;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tracing::{Span, dispatcher};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan as _;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The flag `sampled`: other services of a new trace may record it.
const SAMPLED: u8 = 1;

/// The trace of a request. Its text is the value of `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(super) id: u128,
    pub(super) parent: u64,
    pub(super) flags: u8,
}

impl Trace {
    /// The trace that a request's headers name; a new one if they name none, or more than one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self::named_in(headers).unwrap_or_else(|| Self {
            id: fastrand::u128(1..),
            parent: fastrand::u64(1..),
            flags: SAMPLED,
        })
    }

    /// The trace that a request's headers name.
    pub(super) fn named_in(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().and_then(Self::parse),
            _ => None,
        }
    }

    /// Only version 00 is read. Ids of zeros are invalid.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let mut field = |length| {
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            fields.next().filter(|field| field.len() == length && field.bytes().all(is_hex))
        };
        let (version, id, parent, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let trace = Self {
            id: u128::from_str_radix(id, 16).ok()?,
            parent: u64::from_str_radix(parent, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (version == "00" && fields.next().is_none() && trace.id != 0 && trace.parent != 0).then_some(trace)
    }

    /// The trace's id, which all services of the trace log.
    pub(crate) fn id(self) -> String {
        format!("{:032x}", self.id)
    }

    /// Gives the trace to a span. Calls within the span then belong to the trace.
    pub(crate) fn attach_to(self, span: &Span) {
        span.with_subscriber(|(id, subscriber)| {
            if let Some(span) = subscriber.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) {
                span.extensions_mut().replace(self);
            }
        });
    }

    /// The trace of the current span, or of the span around it.
    pub(crate) fn current() -> Option<Self> {
        dispatcher::get_default(|subscriber| {
            let registry = subscriber.downcast_ref::<Registry>()?;
            let span = registry.span(subscriber.current_span().id()?)?;
            span.scope().find_map(|span| span.extensions().get::<Self>().copied())
        })
    }

    /// The header for a call that belongs to the trace.
    pub(super) fn headers(self) -> HeaderMap {
        HeaderValue::try_from(self.to_string()).map(|value| (TRACEPARENT, value)).into_iter().collect()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.parent, self.flags)
    }
}

/// The header for a call that the current request makes; none outside of a request.
pub(crate) fn headers() -> HeaderMap {
    Trace::current().map(Trace::headers).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_of_version_00_with_ids_that_are_not_zero_is_taken() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(Trace::parse(valid).map(|trace| trace.to_string()).as_deref(), Some(valid));
        for invalid in [
            "",
            "00",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn two_headers_and_none_begin_a_new_trace() {
        let value = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
        let one: HeaderMap = [(TRACEPARENT, value.clone())].into_iter().collect();
        assert_eq!(Trace::of(&one).to_string().as_bytes(), value.as_bytes());
        let mut two = one;
        two.append(TRACEPARENT, value);
        let (of_two, of_none) = (Trace::of(&two), Trace::of(&HeaderMap::new()));
        assert_ne!(of_two.id().as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(of_two, of_none);
        assert_eq!(Trace::parse(&of_none.to_string()), Some(of_none), "a new trace has a valid name");
    }
}
