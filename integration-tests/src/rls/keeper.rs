//! How an engine counts, and what it says.

use super::messages::{
    Duration, Header, Limit as Told, OK, OVER_LIMIT, RateLimitRequest, RateLimitResponse, Status,
};
use super::redis::Counters;
use limitador::RateLimiter;
use limitador::limit::{Context, Expression, Limit};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

/// Which engine, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Limitador as it comes: it checks, then counts, and says yes or no.
    Limitador,
    /// With `--rate-limit-headers DRAFT_VERSION_03`.
    LimitadorWithHeaders,
    /// envoyproxy/ratelimit on this Redis: it counts, then checks, and says what is left.
    Ratelimit(SocketAddr),
}

const NAMESPACE: &str = "shop";

pub enum Keeper {
    Limitador { limiter: RateLimiter, has_headers: bool },
    Ratelimit { counters: Counters, limit: u32, seconds: u32, started: Instant },
}

impl Keeper {
    pub fn new(keeps: Keeps, limit: u32, seconds: u32) -> Keeper {
        if let Keeps::Ratelimit(address) = keeps {
            let counters = Counters::new(address);
            return Keeper::Ratelimit { counters, limit, seconds, started: Instant::now() };
        }
        let limiter = RateLimiter::new(10_000);
        // All requests of the tests have one entry, whatever its name.
        let value = Expression::parse("descriptors[0]['value']").expect("an expression");
        limiter.add_limit(Limit::new(NAMESPACE, u64::from(limit), u64::from(seconds), [], [value]));
        Keeper::Limitador { limiter, has_headers: keeps == Keeps::LimitadorWithHeaders }
    }

    /// `None` where its storage cannot be had.
    pub async fn decide(&self, request: &RateLimitRequest) -> Option<RateLimitResponse> {
        let entry = request.descriptors.first()?.entries.first()?;
        match self {
            Keeper::Limitador { limiter, has_headers } => {
                let values = HashMap::from([("value".to_string(), entry.value.clone())]);
                let mut context = Context::default();
                context.list_binding("descriptors".into(), vec![values]);
                let hits = u64::from(request.hits_addend);
                let namespace = NAMESPACE.into();
                let checked = limiter.check_rate_limited_and_update(&namespace, &context, hits);
                let mut checked = checked.ok()?;
                let headers = if *has_headers { checked.response_header() } else { HashMap::new() };
                let headers = headers.into_iter().map(|(key, value)| Header { key, value });
                Some(RateLimitResponse {
                    overall_code: if checked.limited { OVER_LIMIT } else { OK },
                    statuses: Vec::new(),
                    response_headers_to_add: headers.collect(),
                })
            }
            Keeper::Ratelimit { counters, limit, seconds, started } => {
                // Windows begin with the engine, so that a test need not wait for a boundary.
                let elapsed = started.elapsed().as_secs();
                let (window, within) =
                    (elapsed / u64::from(*seconds), elapsed % u64::from(*seconds));
                let key = format!("{NAMESPACE}_{}_{}_{window}", entry.key, entry.value);
                let counted = counters.add(&key, request.hits_addend, *seconds).await?;
                let is_over = counted > u64::from(*limit);
                let code = if is_over { OVER_LIMIT } else { OK };
                let left = u64::from(*limit).saturating_sub(counted);
                let rest = u64::from(*seconds) - within;
                let status = Status {
                    code,
                    current_limit: Some(Told { requests_per_unit: *limit, unit: 1 }),
                    limit_remaining: u32::try_from(left).unwrap_or(u32::MAX),
                    duration_until_reset: Some(Duration {
                        seconds: i64::try_from(rest).unwrap_or(i64::MAX),
                        nanos: 0,
                    }),
                };
                let statuses = vec![status];
                Some(RateLimitResponse {
                    overall_code: code,
                    statuses,
                    response_headers_to_add: Vec::new(),
                })
            }
        }
    }
}

pub fn too_much() -> RateLimitResponse {
    let status = Status {
        code: OK,
        current_limit: None,
        limit_remaining: u32::MAX,
        duration_until_reset: Some(Duration { seconds: i64::MAX, nanos: i32::MAX }),
    };
    RateLimitResponse {
        overall_code: OK,
        statuses: vec![status],
        response_headers_to_add: Vec::new(),
    }
}
