//! The rate limiter beside Envoy's own; Envoy itself answers.

use std::path::Path;

use serde_json::{Value, json};
use weir_integration_tests::envoy::{RATE_LIMIT, metric_name};
use weir_integration_tests::{Envoy, Filter, Listener, Request, Route, paths, policy};

use crate::options::Options;
use crate::subject::{NONE, NOOP, Running, Subject, wasm};

/// The key of every request.
const HEADER: &str = "x-user: hot";
const PATH: &str = "/orders/17";
const LISTENER: &str = "in";
/// Ample for any machine, so that every request passes.
pub const BUCKET: &str = "max_tokens: 100000, tokens_per_fill: 1000000, fill_interval: 1s";

/// Without a filter comes first.
pub fn subjects(options: &Options) -> Vec<Subject<'static>> {
    let counted = |running: Running| running.counts(&["bench.http_local_rate_limit.ok"]);
    let ours = paths::module("rate_limit");
    let mut subjects = vec![
        Subject::new(NONE, || start(None)),
        Subject::new("native local_ratelimit", move || counted(start(Some(native(&json!({})))))),
        Subject::new("native local_ratelimit, by header", || {
            stops(start(Some(native(&by_header()))), 429)
        }),
        Subject::new("Lua, reads one header", || stops(start(Some(Filter::lua(LUA))), 418)),
        Subject::new(NOOP, || start(Some(wasm("noop", &paths::built("noop_sdk.wasm"), "")))),
        weir("weir, one limit", &ours, one_limit(), "r"),
        weir("weir, by header", &ours, by_user(), "r"),
        weir("weir, by header, 10 000 rules", &ours, many(), UNLABELLED),
    ];
    for module in &options.against {
        let stem = module.file_stem().unwrap_or_default().to_string_lossy();
        subjects.push(weir(&format!("{stem}, one limit"), module, one_limit(), "r"));
        subjects.push(weir(&format!("{stem}, by header"), module, by_user(), "r"));
    }
    subjects
}

fn start(filter: Option<Filter>) -> Running {
    let mut listener = Listener::inbound(LISTENER).without_access_log();
    if let Some(filter) = filter {
        listener = listener.filter(filter);
    }
    let envoy = Envoy::builder().listener(listener.route(Route::direct("/", 200))).start();
    Running::new(envoy, LISTENER, PATH).line(HEADER)
}

/// The second of two requests of the user `stop` gets this status.
fn stops(running: Running, status: u16) -> Running {
    running.checked(move |envoy| {
        let mut client = envoy.client(LISTENER);
        let stop = Request::get(PATH).header("x-user", "stop");
        client.send(&stop);
        let second = client.send(&stop).status;
        let works = second == status;
        works.then_some(()).ok_or_else(|| format!("a request to be stopped gets {second}"))
    })
}

fn weir(name: &str, module: &Path, rules: String, rule: &'static str) -> Subject<'static> {
    let module = module.to_owned();
    Subject::new(name, move || {
        let text = format!("{{name: bench, rate_limit: {{rules: [{rules}]}}}}");
        let filter = wasm(RATE_LIMIT, &module, &policy::to_json(&text));
        start(Some(filter)).counts(&[&metric_name("bench", rule, "admitted")])
    })
}

/// Rules past the policy's `telemetry.max_series` are counted under this label.
const UNLABELLED: &str = "other";

fn one_limit() -> String {
    format!("{{id: r, {BUCKET}}}")
}

fn by_user() -> String {
    format!("{{id: r, key: [{{header: x-user}}], {BUCKET}}}")
}

/// The last of them means the request.
fn many() -> String {
    let path = |n| if n == 9999 { PATH.to_owned() } else { format!("/path/{n}") };
    let rule = |n| {
        let path = path(n);
        format!(
            "{{id: r{n}, match: {{path: {{exact: {path}}}}}, key: [{{header: x-user}}], {BUCKET}}}"
        )
    };
    (0..10_000).map(rule).collect::<Vec<_>>().join(", ")
}

const LUA: &str = "\
function envoy_on_request(handle)
  if handle:headers():get('x-user') == 'stop' then
    handle:respond({[':status'] = '418'}, '')
  end
end";

/// Envoy's own limiter, with buckets that never run dry.
pub fn native(more: &Value) -> Filter {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "bench",
        "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
        "filter_enabled": always,
        "filter_enforced": always,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    Filter::inline("envoy.filters.http.local_ratelimit", config)
}

/// A bucket for each of two users.
pub fn by_header() -> Value {
    let descriptor = |user: &str, tokens: u64, interval: &str| {
        json!({
            "entries": [{"key": "user", "value": user}],
            "token_bucket": {
                "max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": interval,
            },
        })
    };
    json!({
        "rate_limits": [{"actions": [
            {"request_headers": {"header_name": "x-user", "descriptor_key": "user"}},
        ]}],
        "descriptors": [descriptor("hot", 1_000_000, "1s"), descriptor("stop", 1, "3600s")],
    })
}
