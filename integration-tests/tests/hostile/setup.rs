//! The three listeners, and the comparison.

use serde_json::json;
use std::fmt::Debug;
use weir_integration_tests::{Envoy, Filter, Listener, Route};

/// Reads every part of a request. `shut` is an outbound listener, `open` an inbound one: that is how
/// one policy tells them apart.
const POLICY: &str = r"
name: hostile
color_header: x-lane
exempt:
- {path: {prefix: /never}, headers: {x-never: {regex: '(a|b)+c'}}}
rate_limit:
  rules:
  - id: everything
    match:
      direction: ANY
      any:
      - path: {regex: '/.*'}
      - query: {q: {contains: x}}
      - cookies: {s: {suffix: x}}
      - headers: {x-key: {number: {ge: 1}}}
      - source_addresses: [127.0.0.0/8]
      - authority: {suffix: test}
      - baggage: {t: {prefix: x}}
      - colors: [blue]
    key:
    - {header: x-key, on_missing: EMPTY}
    - {cookie: s, on_missing: EMPTY}
    - {query: q, on_missing: EMPTY}
    - {baggage: t, on_missing: EMPTY}
    - {path: {whole: true}, on_missing: EMPTY}
    - {path: {segments: 2}, on_missing: EMPTY}
    - {path: {template: {template: '/{a}/{b**}', name: b}}, on_missing: EMPTY}
    - {method: true, on_missing: EMPTY}
    - {authority: true, on_missing: EMPTY}
    - {grpc_service: true, on_missing: EMPTY}
    - {grpc_method: true, on_missing: EMPTY}
    - {source_address: {}, on_missing: EMPTY}
    - {color: true, on_missing: EMPTY}
    - {jwt_claim: payload.sub, on_missing: EMPTY}
    - {peer_principal: true, on_missing: EMPTY}
    - {property: request.headers.x-key, on_missing: EMPTY}
    max_tokens: 1000000000
    tokens_per_fill: 10000000
    fill_interval: 1s
    max_keys: 1000
    at_limit: {quota_headers: ALWAYS, draft_03_headers: true}
  # Reads costs, classes and overrides, and counts what is in flight; refuses nobody.
  - id: counted
    mode: SHADOW
    match: {direction: ANY}
    key: [{header: x-key, on_missing: EMPTY}]
    max_tokens: 100
    calendar: MINUTE
    cost: {request_header: x-key, response_header: content-length}
    overrides: [{exact: ['1', ''], max_tokens: 10}, {prefix: a, max_tokens: 20}]
    max_concurrent: 1
    priority: {header: x-key, reserve_percent: 10}
  - id: grpc
    match: {direction: ANY, grpc: {service: shop.v1.Orders}}
    max_tokens: 1000000000
    tokens_per_fill: 10000000
    fill_interval: 1s
  - id: none-passes
    match: {direction: OUTBOUND}
    max_tokens: 1
    fill_interval: 86400s
";

pub const LISTENERS: [&str; 3] = ["plain", "open", "shut"];

pub fn start() -> Envoy {
    // Large requests and many lines reach the filter instead of ending in the codec.
    let generous = |l: Listener| {
        l.hcm("max_request_headers_kb", json!(96))
            .hcm("common_http_protocol_options", json!({"max_headers_count": 5000}))
            // Envoy waits so long before it closes a connection on a broken header block.
            .hcm("delayed_close_timeout", json!("0.001s"))
            .route(Route::direct("/", 200))
    };
    let envoy = Envoy::builder()
        .listener(generous(Listener::inbound("plain")))
        .listener(generous(Listener::inbound("open").filter(Filter::weir())))
        .listener(generous(Listener::outbound("shut").filter(Filter::weir())))
        .policy(POLICY)
        .start();
    let mut client = envoy.client("shut");
    assert_eq!([client.get("/").status, client.get("/").status], [200, 429]);
    envoy
}

/// What went wrong over many cases: one run shows all of it.
#[derive(Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// The answers of the three listeners, in the order of [`LISTENERS`]: `open` answers as `plain`;
    /// `shut` refuses what `plain` answers with 200, and otherwise also answers as `plain`, unless
    /// that was the router's answer, which comes after the filter.
    pub fn compare<T: PartialEq + Debug>(
        &mut self,
        case: &str,
        answers: &[T; 3],
        refused: T,
        ok: T,
    ) {
        let [plain, open, shut] = answers;
        if !agree(answers, refused, ok) {
            self.0.push(format!("{case}: {plain:?} plain, {open:?} open, {shut:?} shut"));
        }
    }

    pub fn assert_none(self) {
        let shown: Vec<_> = self.0.iter().take(30).cloned().collect();
        assert!(self.0.is_empty(), "{} findings:\n{}", self.0.len(), shown.join("\n"));
    }
}

/// Whether the three answers are as [`Findings::compare`] says.
pub fn agree<T: PartialEq>([plain, open, shut]: &[T; 3], refused: T, ok: T) -> bool {
    open == plain && (*shut == refused || (shut == plain && *plain != ok))
}

/// No 5xx on a listener with the filter, and every VM is alive.
pub fn assert_unharmed(envoy: &Envoy) {
    let errors = |listener: &str| envoy.counter(&format!("http.{listener}.downstream_rq_5xx"));
    let plain = errors("plain");
    assert_eq!(errors("open"), plain, "5xx with the filter");
    assert!(errors("shut") <= plain, "5xx at the limit");
    assert_eq!(envoy.client("open").get("/alive").status, 200);
    assert_eq!(envoy.client("shut").get("/alive").status, 429);
    envoy.assert_healthy();
}
