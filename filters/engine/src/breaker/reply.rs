//! What a client is told while a breaker is open.

use weir_protos::FieldError;
use weir_protos::v1::WhileOpen as Source;

use crate::core::answer::{
    Client, Degrade, UNAVAILABLE, body, check_body, checked_headers, compile_degrade, content_type,
    reason_headers, seconds, status,
};
use crate::core::ports::Nanos;
use crate::core::reply::{LocalReply, Problem};

/// Spreads clients that were refused together over a little time.
const DEFAULT_JITTER_PERCENT: u32 = 10;

#[derive(Debug)]
pub struct WhileOpen {
    status: u16,
    body: Option<(String, String)>,
    headers: Vec<(String, String)>,
    pub fallback: Option<Degrade>,
    jitter_percent: u32,
}

impl WhileOpen {
    #[cold]
    pub fn compile(source: Option<&Source>, path: &str) -> Result<WhileOpen, FieldError> {
        let source = source.cloned().unwrap_or_default();
        let jitter = source.retry_after_jitter_percent.unwrap_or(DEFAULT_JITTER_PERCENT);
        if jitter > 100 {
            let path = format!("{path}.retry_after_jitter_percent");
            return Err(FieldError::value(path, jitter, "must be from 0 to 100"));
        }
        if !source.content_type.is_empty() && source.body.is_none() {
            let path = format!("{path}.content_type");
            let given = format!("{:?}", source.content_type);
            return Err(FieldError::value(path, given, "goes with `body` alone; remove it"));
        }
        let body = source.body.map(|body| {
            check_body(&body, &format!("{path}.body"))?;
            Ok((body, content_type(&source.content_type, &format!("{path}.content_type"))?))
        });
        Ok(WhileOpen {
            status: status(source.status, 503, 400, &format!("{path}.status"))?,
            body: body.transpose()?,
            headers: checked_headers(&source.headers, &format!("{path}.headers"))?,
            fallback: match &source.fallback {
                Some(fallback) => Some(compile_degrade(fallback, &format!("{path}.fallback"))?),
                None => None,
            },
            jitter_percent: jitter,
        })
    }

    /// The refusal of `rule`, when it may be worth asking again after `wait`.
    pub fn refusal(&self, rule: &str, wait: Nanos, client: Client<'_>, random: u64) -> LocalReply {
        let seconds = seconds(wait);
        let spread = seconds.saturating_mul(self.jitter_percent.into()) / 100;
        // Up to `spread` more, ends included.
        let jitter = random.checked_rem(spread.saturating_add(1)).unwrap_or(0);
        let retry_after = seconds.saturating_add(jitter);
        let mut headers = reason_headers("circuit_open", rule);
        headers.push(("retry-after".into(), retry_after.to_string()));
        if client.is_grpc {
            let pushback = wait.div_ceil(1_000_000).max(1).to_string();
            headers.push(("grpc-retry-pushback-ms".into(), pushback));
        }
        for (name, value) in &self.headers {
            headers.retain(|(known, _)| known != name);
            headers.push((name.clone(), value.clone()));
        }
        let detail = format!(
            "circuit breaker {rule} is open, the service behind it is failing; retry in {retry_after} s"
        );
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
                    kind: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
                    title: "Temporarily reduced capacity",
                    status: self.status,
                    detail: &detail,
                    reason: "circuit_open",
                    violated: &[rule],
                    trace_id: client.trace_id,
                },
            ),
        };
        LocalReply {
            status: self.status,
            details: format!("weir_circuit_open{{{rule}}}"),
            headers,
            body,
            grpc_status: client.is_grpc.then_some(UNAVAILABLE),
        }
    }
}
