//! The filter sections of a policy.

use prost::Message;

use crate::error::FieldError;
use crate::v1::{CircuitBreaker, Policy, RateLimit, Restore, TraceContext, TrafficColor};

/// Which filter sections of a policy are read; those of other filters are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    RateLimit,
    CircuitBreaker,
    TraceContext,
    TrafficColor,
    All,
}

impl Section {
    pub(crate) fn skips(self, name: &str, number: u32) -> bool {
        let own: &[&str] = match self {
            Section::All => return false,
            Section::RateLimit => &["rate_limit"],
            Section::CircuitBreaker => &["circuit_breaker"],
            Section::TraceContext => &["trace_context", "restore"],
            Section::TrafficColor => &["traffic_color", "restore"],
        };
        // The sections are numbered from 10 up.
        number >= 10 && !own.contains(&name)
    }
}

/// Each section is kept as bytes and decoded here, so that a module links the decoder of its own
/// section alone: a whole policy would cost each of them 100 KB in time.
impl Policy {
    /// The section `rate_limit`; empty when there is none.
    pub fn rate_limit(&self) -> Result<RateLimit, FieldError> {
        decode("policy.rate_limit", &self.rate_limit)
    }

    /// The section `circuit_breaker`; empty when there is none.
    pub fn circuit_breaker(&self) -> Result<CircuitBreaker, FieldError> {
        decode("policy.circuit_breaker", &self.circuit_breaker)
    }

    /// The section `trace_context`, where there is one.
    pub fn trace(&self) -> Result<Option<TraceContext>, FieldError> {
        let section = self.trace_context.as_deref();
        section.map(|section| decode("policy.trace_context", section)).transpose()
    }

    /// The section `traffic_color`; empty when there is none.
    pub fn traffic_color(&self) -> Result<TrafficColor, FieldError> {
        decode("policy.traffic_color", &self.traffic_color)
    }

    /// The section `restore`; empty when there is none.
    pub fn restore(&self) -> Result<Restore, FieldError> {
        decode("policy.restore", &self.restore)
    }
}

fn decode<M: Message + Default>(path: &str, section: &[u8]) -> Result<M, FieldError> {
    // What the reader wrote decodes; only a policy made by hand can fail here.
    M::decode(section).map_err(|error| FieldError::at(path, format!("does not decode: {error}")))
}
