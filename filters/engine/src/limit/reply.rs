//! What a client is told: refusals, degraded answers, quota headers.

use weir_protos::FieldError;
use weir_protos::v1::RateLimitRule;
use weir_protos::v1::at_limit::QuotaHeaders;

use crate::core::answer::{
    Client, Degrade, RESOURCE_EXHAUSTED, UNAVAILABLE, body, check_body, checked_headers,
    compile_degrade, content_type, reason_headers, seconds, status,
};
use crate::core::ports::Nanos;
use crate::core::reply::{LocalReply, Problem};

/// Spreads clients that were refused together over a little time.
const DEFAULT_JITTER_PERCENT: u32 = 10;

#[derive(Debug)]
pub struct AtLimit {
    status: u16,
    body: Option<(String, String)>,
    headers: Vec<(String, String)>,
    pub degrade: Option<Degrade>,
    pub quota_headers: QuotaHeaders,
    pub draft_03: bool,
    jitter_percent: u32,
}

impl AtLimit {
    #[cold]
    pub fn compile(rule: &RateLimitRule, path: &str) -> Result<AtLimit, FieldError> {
        let path = format!("{path}.at_limit");
        let source = rule.at_limit.clone().unwrap_or_default();
        let jitter = source.retry_after_jitter_percent.unwrap_or(DEFAULT_JITTER_PERCENT);
        if jitter > 100 {
            let path = format!("{path}.retry_after_jitter_percent");
            return Err(FieldError::value(path, jitter, "must be from 0 to 100"));
        }
        if !source.content_type.is_empty() && source.body.is_none() {
            let remedy = "goes with `body` alone; remove it";
            return Err(FieldError::value(
                format!("{path}.content_type"),
                source.content_type,
                remedy,
            ));
        }
        let quota_headers = match source.quota_headers() {
            QuotaHeaders::Unspecified => QuotaHeaders::OnRefusal,
            given => given,
        };
        if source.draft_03_headers && quota_headers == QuotaHeaders::Never {
            let remedy = "goes with quota_headers ON_REFUSAL or ALWAYS";
            return Err(FieldError::value(format!("{path}.draft_03_headers"), true, remedy));
        }
        let body = source.body.map(|body| {
            check_body(&body, &format!("{path}.body"))?;
            Ok((body, content_type(&source.content_type, &format!("{path}.content_type"))?))
        });
        Ok(AtLimit {
            status: status(source.status, 429, 400, &format!("{path}.status"))?,
            body: body.transpose()?,
            headers: checked_headers(&source.headers, &format!("{path}.headers"))?,
            degrade: match &source.degrade {
                Some(degrade) => Some(compile_degrade(degrade, &format!("{path}.degrade"))?),
                None => None,
            },
            quota_headers,
            draft_03: source.draft_03_headers,
            jitter_percent: jitter,
        })
    }

    /// The refusal of `rule`.
    pub fn refusal(
        &self,
        rule: &str,
        exceeded: Exceeded,
        client: Client<'_>,
        random: u64,
    ) -> LocalReply {
        let (reason, title, wait) = match exceeded {
            Exceeded::Quota { wait, .. } => ("rate_limited", "Quota exceeded", wait),
            Exceeded::InFlight { .. } => {
                ("too_many_in_flight", "Too many requests in flight", IN_FLIGHT_WAIT)
            }
        };
        let seconds = seconds(wait);
        let spread = seconds.saturating_mul(self.jitter_percent.into()) / 100;
        // Up to `spread` more, ends included.
        let jitter = random.checked_rem(spread.saturating_add(1)).unwrap_or(0);
        let retry_after = seconds.saturating_add(jitter);
        let mut headers = reason_headers(reason, rule);
        headers.push(("retry-after".into(), retry_after.to_string()));
        if self.quota_headers != QuotaHeaders::Never {
            match exceeded {
                Exceeded::Quota { allowance, .. } => {
                    headers.push(("ratelimit-policy".into(), policy_item(rule, allowance)));
                    headers.push(("ratelimit".into(), limit_item(rule, 0, seconds)));
                    if self.draft_03 {
                        headers.extend(draft_03(rule, allowance, 0, seconds));
                    }
                }
                Exceeded::InFlight { most } => {
                    let policy = format!("\"{rule}\";q={most};qu=\"concurrent-requests\"");
                    headers.push(("ratelimit-policy".into(), policy));
                    headers.push(("ratelimit".into(), format!("\"{rule}\";r=0")));
                }
            }
        }
        if client.is_grpc {
            let pushback = wait.div_ceil(1_000_000).max(1).to_string();
            headers.push(("grpc-retry-pushback-ms".into(), pushback));
        }
        for (name, value) in &self.headers {
            headers.retain(|(known, _)| known != name);
            headers.push((name.clone(), value.clone()));
        }
        let detail = match exceeded {
            Exceeded::Quota { .. } => {
                format!("rate limit {rule} is used up; retry in {retry_after} s")
            }
            Exceeded::InFlight { most } => format!(
                "rate limit {rule} has {most} requests in flight, as many as it lets; \
                 retry in {retry_after} s"
            ),
        };
        let body = match &self.body {
            Some((body, kind)) => {
                if !client.is_grpc {
                    headers.push(("content-type".into(), kind.clone()));
                }
                body.clone().into_bytes()
            }
            None => body(
                &mut headers,
                client,
                &Problem {
                    kind: "https://iana.org/assignments/http-problem-types#quota-exceeded",
                    title,
                    status: self.status,
                    detail: &detail,
                    reason,
                    violated: &[rule],
                    trace_id: client.trace_id,
                },
            ),
        };
        LocalReply {
            status: self.status,
            details: format!("weir_rate_limited{{{rule}}}"),
            headers,
            body,
            grpc_status: client.is_grpc.then_some(RESOURCE_EXHAUSTED),
        }
    }
}

/// What a refused request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Tokens are there again after `wait`.
    Quota { allowance: Allowance, wait: Nanos },
    /// So many requests are in flight.
    InFlight { most: u32 },
}

/// Nobody knows when a request will end.
const IN_FLIGHT_WAIT: Nanos = 1_000_000_000;

/// A quota as clients are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub tokens: u64,
    /// The window in which it is restored.
    pub seconds: u64,
}

/// The answer when shared state could not be had and the rule says DENY.
pub fn state_unavailable(rule: &str, client: Client<'_>) -> LocalReply {
    let detail = format!("rate limit {rule} could not be decided; retry in 1 s");
    let mut headers = reason_headers("state_unavailable", rule);
    headers.push(("retry-after".into(), "1".into()));
    let problem = Problem {
        kind: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        title: "Temporarily reduced capacity",
        status: 503,
        detail: &detail,
        reason: "state_unavailable",
        violated: &[rule],
        trace_id: client.trace_id,
    };
    let body = body(&mut headers, client, &problem);
    let details = format!("weir_state_unavailable{{{rule}}}");
    LocalReply {
        status: 503,
        details,
        headers,
        body,
        grpc_status: client.is_grpc.then_some(UNAVAILABLE),
    }
}

/// An item of `RateLimit-Policy`: the quota and the window in which it is restored
/// (draft-ietf-httpapi-ratelimit-headers-10, section 2.1).
pub fn policy_item(rule: &str, Allowance { tokens, seconds }: Allowance) -> String {
    format!("\"{rule}\";q={tokens};w={seconds}")
}

/// An item of `RateLimit` (same draft, section 2.2).
pub fn limit_item(rule: &str, remaining: u64, reset: u64) -> String {
    format!("\"{rule}\";r={remaining};t={reset}")
}

/// The three headers of draft-polli-ratelimit-headers-03, as Envoy's own limiters write them.
pub fn draft_03(
    rule: &str,
    Allowance { tokens, seconds }: Allowance,
    remaining: u64,
    reset: u64,
) -> [(String, String); 3] {
    let limit = format!("{tokens}, {tokens};w={seconds};name=\"{rule}\"");
    [
        ("x-ratelimit-limit".into(), limit),
        ("x-ratelimit-remaining".into(), remaining.to_string()),
        ("x-ratelimit-reset".into(), reset.to_string()),
    ]
}
