//! What is compared: one Envoy for each, equal but for its filter.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_integration_tests::envoy::{RATE_LIMIT, metric_name};
use weir_integration_tests::{Envoy, Filter, Listener, Request, Route, paths, policy};

use crate::options::Options;

pub const NONE: &str = "no filter";
pub const NOOP: &str = "wasm, does nothing (SDK)";
/// The key of every request.
pub const HEADER: &str = "x-user: hot";
const PATH: &str = "/orders/17";
const LISTENER: &str = "in";
/// Ample for any machine, so that every request passes.
const BUCKET: &str = "max_tokens: 100000, tokens_per_fill: 1000000, fill_interval: 1s";

pub struct Variant {
    pub name: String,
    filter: Option<Filter>,
    proof: Proof,
}

/// How one sees that the filter did its work.
#[derive(Clone)]
enum Proof {
    /// There is nothing to see.
    None,
    /// A counter that stands at the number of requests.
    Counter(String),
    /// The second of two requests of the user `stop` gets this status.
    Stops(u16),
}

pub struct Running {
    pub name: String,
    pub envoy: Envoy,
    proof: Proof,
}

/// What the options ask for; without a filter comes first.
pub fn chosen(options: &Options) -> Vec<Variant> {
    let wanted = |variant: &Variant| {
        let name = variant.name.to_lowercase();
        let is_reference = variant.name == NONE || variant.name == NOOP;
        is_reference
            || options.only.is_empty()
            || options.only.iter().any(|word| name.contains(word))
    };
    let others = options.against.iter().flat_map(|module| {
        let stem = module.file_stem().unwrap_or_default().to_string_lossy();
        [
            weir(&format!("{stem}, one limit"), module, &one_limit(), "r"),
            weir(&format!("{stem}, by header"), module, &by_user(), "r"),
        ]
    });
    standing().into_iter().filter(wanted).chain(others).collect()
}

fn standing() -> Vec<Variant> {
    let ok = Proof::Counter("bench.http_local_rate_limit.ok".to_owned());
    let noop = wasm("noop", &paths::built("noop_sdk.wasm"), "");
    let ours = paths::module("rate_limit");
    vec![
        Variant::new(NONE, None, Proof::None),
        Variant::new("native local_ratelimit", Some(native(&json!({}))), ok),
        Variant::new(
            "native local_ratelimit, by header",
            Some(native(&by_header())),
            Proof::Stops(429),
        ),
        Variant::new("Lua, reads one header", Some(Filter::lua(LUA)), Proof::Stops(418)),
        Variant::new(NOOP, Some(noop), Proof::None),
        weir("weir, one limit", &ours, &one_limit(), "r"),
        weir("weir, by header", &ours, &by_user(), "r"),
        weir("weir, by header, 10 000 rules", &ours, &many(), UNLABELLED),
    ]
}

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
fn native(more: &Value) -> Filter {
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
fn by_header() -> Value {
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

fn weir(name: &str, module: &Path, rules: &str, rule: &str) -> Variant {
    let text = format!("{{name: bench, rate_limit: {{rules: [{rules}]}}}}");
    let filter = wasm(RATE_LIMIT, module, &policy::to_json(&text));
    Variant::new(name, Some(filter), Proof::Counter(metric_name("bench", rule, "admitted")))
}

/// Rules past the policy's `telemetry.max_series` are counted under this label.
const UNLABELLED: &str = "other";

/// A module in place, not over discovery, so that ours and the one that does nothing are alike.
pub fn wasm(name: &str, module: &Path, configuration: &str) -> Filter {
    Filter::inline(
        name,
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": name.replace('.', "_"),
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": configuration,
                },
                "failure_policy": "FAIL_CLOSED",
            },
        }),
    )
}

impl Variant {
    fn new(name: &str, filter: Option<Filter>, proof: Proof) -> Self {
        Self { name: name.to_owned(), filter, proof }
    }

    pub fn start(self) -> Running {
        let mut listener = Listener::inbound(LISTENER).without_access_log();
        if let Some(filter) = self.filter {
            listener = listener.filter(filter);
        }
        let envoy = Envoy::builder().listener(listener.route(Route::direct("/", 200))).start();
        let running = Running { name: self.name, envoy, proof: self.proof };
        if let Proof::Stops(status) = running.proof {
            let mut client = running.envoy.client(LISTENER);
            let stop = Request::get(PATH).header("x-user", "stop");
            client.send(&stop);
            let second = client.send(&stop).status;
            assert_eq!(second, status, "{}: the filter does not do its work", running.name);
        }
        running
    }
}

impl Running {
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.envoy.address(LISTENER))
    }

    /// Fails when the filter did not see each of so many requests: then its cost means nothing.
    pub fn prove(&self, requests: u64) -> Result<(), String> {
        let Proof::Counter(name) = &self.proof else { return Ok(()) };
        let start = Instant::now();
        loop {
            let counted = self.envoy.counter(name);
            if counted == requests {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(5) {
                return Err(format!("{}: {name} is {counted}, not {requests}", self.name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
