//! What became of a call: what of it counts, and how.

use weir_protos::FieldError;
use weir_protos::v1::{Failures, Ignore};

use crate::core::statuses::Statuses;

/// What is known of a call when it is over, or of a stream when its response headers came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// How often the upstream was asked.
    pub attempts: u64,
    /// Envoy's response flags, as bits.
    pub flags: u64,
    /// None when no response came.
    pub status: Option<u16>,
    /// The status of a gRPC call: Envoy makes one up for every other response.
    pub grpc: Option<u64>,
    /// `response.code_details`: another filter may have put an answer of its own in the place of the
    /// upstream's.
    pub details: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure,
    /// The upstream sheds load: a probe fails by it, and otherwise it does not count.
    Overload,
    /// It says nothing about the upstream.
    Neither,
}

/// Short names of Envoy's response flags, by their bits.
const FLAGS: [(&str, u8); 29] = [
    ("LH", 0),
    ("UH", 1),
    ("UT", 2),
    ("LR", 3),
    ("UR", 4),
    ("UF", 5),
    ("UC", 6),
    ("UO", 7),
    ("NR", 8),
    ("DI", 9),
    ("FI", 10),
    ("RL", 11),
    ("UAEX", 12),
    ("RLSE", 13),
    ("DC", 14),
    ("URX", 15),
    ("SI", 16),
    ("IH", 17),
    ("DPE", 18),
    ("UMSDR", 19),
    ("RFCF", 20),
    ("NFCF", 21),
    ("DT", 22),
    ("UPE", 23),
    ("NC", 24),
    ("OM", 25),
    ("DF", 26),
    ("DO", 27),
    ("DR", 28),
];

const fn bit(place: u8) -> u64 {
    1 << place
}

/// The upstream failed, whatever the status says: UF, UH, UC, UT, UR, URX, UPE.
const FAILED: u64 = bit(5) | bit(1) | bit(6) | bit(2) | bit(4) | bit(15) | bit(23);

/// Nothing of this is the upstream's doing: UO, DPE, FI, DC, DR.
const UNRELATED: u64 = bit(7) | bit(18) | bit(10) | bit(14) | bit(28);

const RESOURCE_EXHAUSTED: u64 = 8;
const TOO_MANY_REQUESTS: u16 = 429;

/// 2 UNKNOWN, 4 `DEADLINE_EXCEEDED`, 13 INTERNAL, 14 UNAVAILABLE, 15 `DATA_LOSS`: what tells of the
/// server rather than of the request.
const DEFAULT_GRPC: [u32; 5] = [2, 4, 13, 14, 15];

#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    failed: Statuses,
    failed_grpc: u32,
    ignored: Statuses,
    ignored_grpc: u32,
    ignored_flags: u64,
}

impl Classes {
    #[cold]
    pub fn compile(
        failures: Option<&Failures>,
        ignore: Option<&Ignore>,
        path: &str,
    ) -> Result<Classes, FieldError> {
        let failures = failures.cloned().unwrap_or_default();
        let ignore = ignore.cloned().unwrap_or_default();
        let at = |field: &str| format!("{path}.{field}");
        let mut flags = 0;
        for (place, name) in ignore.response_flags.iter().enumerate() {
            let known = FLAGS.iter().find(|(known, _)| known == name).ok_or_else(|| {
                let remedy = "must be the short name of a response flag of Envoy's, such as UT";
                let path = at(&format!("ignore.response_flags[{place}]"));
                FieldError::value(path, format_args!("{name:?}"), remedy)
            })?;
            flags |= bit(known.1);
        }
        Ok(Classes {
            failed: Statuses::compile(&failures.http_statuses, &at("failures.http_statuses"))?
                .unwrap_or(Statuses::range(500, 599)),
            failed_grpc: codes(&failures.grpc_codes, &at("failures.grpc_codes"))?
                .unwrap_or_else(|| DEFAULT_GRPC.iter().fold(0, |codes, code| codes | 1 << code)),
            ignored: Statuses::compile(&ignore.http_statuses, &at("ignore.http_statuses"))?
                .unwrap_or_default(),
            ignored_grpc: codes(&ignore.grpc_codes, &at("ignore.grpc_codes"))?.unwrap_or(0),
            ignored_flags: flags,
        })
    }

    pub fn verdict(&self, facts: &Facts<'_>) -> Verdict {
        if facts.attempts == 0 || facts.flags & (UNRELATED | self.ignored_flags) != 0 {
            return Verdict::Neither;
        }
        if facts.flags & FAILED != 0 {
            return Verdict::Failure;
        }
        if !is_upstreams(facts.details) {
            return Verdict::Neither;
        }
        self.of_answer(facts)
    }

    /// By status alone.
    fn of_answer(&self, facts: &Facts<'_>) -> Verdict {
        let Some(status) = facts.status else { return Verdict::Failure };
        let code = facts.grpc.filter(|code| *code < 32);
        let has = |codes: u32| code.is_some_and(|code| codes & (1 << code) != 0);
        if self.ignored.has(status) || has(self.ignored_grpc) {
            Verdict::Neither
        } else if self.failed.has(status) || has(self.failed_grpc) {
            Verdict::Failure
        } else if status == TOO_MANY_REQUESTS || code == Some(RESOURCE_EXHAUSTED) {
            Verdict::Overload
        } else {
            Verdict::Success
        }
    }
}

/// The bit of a response flag by its short name.
#[cfg(any(test, feature = "sim"))]
pub fn flag(name: &str) -> Option<u64> {
    FLAGS.iter().find(|(known, _)| *known == name).map(|(_, place)| bit(*place))
}

/// Whether an answer is the upstream's, or the router's about the upstream.
fn is_upstreams(details: &[u8]) -> bool {
    const ROUTERS: [&[u8]; 5] = [
        b"via_upstream",
        b"upstream_",
        b"response_timeout",
        b"max_duration_timeout",
        b"stream_idle_timeout",
    ];
    details.is_empty() || ROUTERS.iter().any(|known| details.starts_with(known))
}

#[cold]
fn codes(codes: &[u32], path: &str) -> Result<Option<u32>, FieldError> {
    let mut bits = 0;
    for (place, code) in codes.iter().enumerate() {
        if !(1..=16).contains(code) {
            let remedy = "must be a gRPC code from 1 to 16, such as 14 for UNAVAILABLE";
            return Err(FieldError::value(format!("{path}[{place}]"), code, remedy));
        }
        bits |= 1 << code;
    }
    Ok((!codes.is_empty()).then_some(bits))
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
