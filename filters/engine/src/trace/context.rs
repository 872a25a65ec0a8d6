//! What a request carries of its trace, whatever the form.

use std::fmt;

/// 128 bits, not zero. Shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// 64 bits, not zero. Shown as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl TraceId {
    pub fn new(id: u128) -> Option<TraceId> {
        (id != 0).then_some(TraceId(id))
    }

    /// Where a host has no randomness at all: valid, and told by its look.
    pub const ONE: TraceId = TraceId(1);

    pub fn get(self) -> u128 {
        self.0
    }

    /// The 56 bits that are random where the random flag says so (W3C Trace Context Level 2,
    /// section 3.2.3.4): the rightmost.
    pub fn randomness(self) -> u64 {
        #[allow(clippy::cast_possible_truncation)] // The rightmost bits are what is wanted.
        let low = self.0 as u64;
        low & ((1 << 56) - 1)
    }
}

impl SpanId {
    pub fn new(id: u64) -> Option<SpanId> {
        (id != 0).then_some(SpanId(id))
    }

    /// See [`TraceId::ONE`].
    pub const ONE: SpanId = SpanId(1);

    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What one carrier said. A carrier may hold a decision alone (`b3: 0`), or an id alone
/// (`x-request-id`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub trace_id: Option<TraceId>,
    /// The caller's span: the parent of ours.
    pub span_id: Option<SpanId>,
    /// `None`: the decision is left to whoever comes next.
    pub sampled: Option<bool>,
    /// Whether the rightmost 56 bits of the trace id are known to be random.
    pub is_random: bool,
    /// A person asked for this trace: sampled, whatever a sampler would say (B3 and Jaeger).
    pub is_debug: bool,
}

/// A context that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub sampled: bool,
    pub is_random: bool,
    pub is_debug: bool,
}
