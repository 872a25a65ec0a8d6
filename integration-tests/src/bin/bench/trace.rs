//! Trace context, beside Envoy's own tracer and a Lua script.

use serde_json::json;
use weir_integration_tests::{
    Cluster, Collector, Envoy, Filter, Listener, Request, Response, Route, Script, Scripted,
    Upstream, paths, policy,
};

use crate::subject::{NONE, NOOP, Running, Subject, comes_true, sum, wasm};

const PATH: &str = "/orders/17";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const ID: &str = "5f2c1b0e-8f2e-4a3c-9c3d-2f6a1f0f7a55";
const SPANS: &str = "weir_trace_context_spans_total";

/// What any of the requests carries.
const LINES: [(&str, &str); 6] = [
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "shop=00f067aa0ba902b7,other=t61rcWkgMzE"),
    ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"),
    ("baggage", "user=4711,tier=gold"),
    // Below the route's timeout, so that Envoy's own is written too.
    ("x-weir-deadline-ms", "5000"),
    ("x-request-id", ID),
];
const W3C: &[&str] = &["traceparent", "tracestate"];

/// Queue and batches so large that spans are exported and not dropped, whatever the rate.
macro_rules! concat_spans {
    ($more:literal) => {
        concat!(
            "trace_context: {",
            $more,
            "spans: {cluster: collector, service_name: bench, max_queue: 65536, max_batch: 4096, \
             interval: 0.1s}}"
        )
    };
}

/// Where requests and spans go.
pub struct Surroundings {
    upstream: Scripted,
    /// For a look at what an upstream sees.
    echo: Upstream,
    collector: Collector,
}

impl Surroundings {
    pub fn start() -> Self {
        Self {
            upstream: Scripted::start(Script::Ok),
            echo: Upstream::start("echo"),
            collector: Collector::counting(),
        }
    }
}

/// One Envoy with `in` and `out`.
struct Case<'a> {
    around: &'a Surroundings,
    filters: fn() -> Option<Filter>,
    tracing: Option<u32>,
    policy: Option<&'static str>,
    listener: &'static str,
    /// Of [`LINES`]; the others go under names that mean nothing, so that all requests are alike in
    /// number and size of their headers.
    lines: &'static [&'static str],
    /// Unsampled, where there is a parent.
    is_sampled: bool,
}

impl<'a> Case<'a> {
    fn new(around: &'a Surroundings, lines: &'static [&'static str]) -> Self {
        Case {
            around,
            filters: || None,
            tracing: None,
            policy: None,
            listener: "out",
            lines,
            is_sampled: true,
        }
    }

    fn weir(
        around: &'a Surroundings,
        policy: &'static str,
        lines: &'static [&'static str],
    ) -> Self {
        Case { policy: Some(policy), ..Case::new(around, lines) }
    }

    fn lines(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let (lines, is_sampled) = (self.lines, self.is_sampled);
        LINES.iter().map(move |(name, value)| {
            let name = match lines.contains(name) {
                true => (*name).to_owned(),
                false => format!("x-idle-{name}"),
            };
            let value = match name == "traceparent" && !is_sampled {
                true => value.replace("-01", "-00"),
                false => (*value).to_owned(),
            };
            (name, value)
        })
    }

    /// A request with those lines, of which the echo tells.
    fn echo(&self) -> Request {
        let lines = self.lines();
        lines.fold(Request::get("/echo"), |request, (name, value)| request.header(name, value))
    }

    fn filter(&self) -> Option<Filter> {
        match self.policy {
            Some(text) => {
                let policy = policy::to_json(&format!("{{name: bench, {text}}}"));
                Some(wasm("weir.trace_context", &paths::module("trace_context"), &policy))
            }
            None => (self.filters)(),
        }
    }

    fn start(&self) -> Running {
        let around = self.around;
        let mut builder = Envoy::builder()
            .cluster(Cluster::h1("up", around.upstream.address))
            .cluster(Cluster::h1("echo", around.echo.address))
            .cluster(Cluster::h2("collector", around.collector.grpc));
        for listener in [Listener::inbound("in"), Listener::outbound("out")] {
            let mut listener = listener
                .without_access_log()
                .route(Route::prefix("/echo", "echo"))
                .route(Route::prefix("/", "up"));
            if let Some(percent) = self.tracing {
                listener = tracing(listener, percent);
            }
            if let Some(filter) = self.filter() {
                listener = listener.filter(filter);
            }
            builder = builder.listener(listener);
        }
        let running = Running::new(builder.start(), self.listener, PATH);
        self.lines()
            .fold(running, |running, (name, value)| running.line(format!("{name}: {value}")))
    }

    /// The upstream sees this of a request.
    fn seeing(self, sees: fn(&Response) -> bool) -> Running {
        let (request, listener) = (self.echo(), self.listener);
        self.start().checked(move |envoy| {
            let answer = envoy.client(listener).send(&request);
            let is_right = answer.status == 200 && sees(&answer);
            is_right.then_some(()).ok_or_else(|| format!("the upstream sees {}", answer.text()))
        })
    }

    /// The module counts each request under these outcomes, and the upstream sees this.
    fn counting(self, totals: &[(&str, &str)], sees: fn(&Response) -> bool) -> Running {
        totals.iter().fold(self.seeing(sees).checks_count(1), |running, (name, outcome)| {
            let name = format!("weir_trace_context_{name}_total");
            running.counts(&[&name, &format!("outcome=.={outcome};")])
        })
    }
}

/// Without a filter comes first.
pub fn subjects(around: &Surroundings) -> Vec<Subject<'_>> {
    let restore = "restore: {keys: [{header: x-request-id}], ttl: 600s}, trace_context: {}";
    vec![
        Subject::new(NONE, || Case::new(around, W3C).start()),
        Subject::new(NOOP, || {
            let noop = || Some(wasm("noop", &paths::built("noop_sdk.wasm"), ""));
            Case { filters: noop, ..Case::new(around, W3C) }.start()
        }),
        Subject::new("native OpenTelemetry, 0 %", || {
            let case = Case { tracing: Some(0), is_sampled: false, ..Case::new(around, W3C) };
            case.seeing(|answer| goes_on(answer, "00"))
        }),
        Subject::new("native OpenTelemetry, 100 %", || {
            let case = Case { tracing: Some(100), ..Case::new(around, W3C) };
            let name = "tracing.opentelemetry.spans_sent";
            case.seeing(|answer| goes_on(answer, "01")).after(move |envoy, requests| {
                let sent = || sum(envoy, &[name]);
                match comes_true(|| sent() >= requests) {
                    true => Ok(()),
                    false => Err(format!("{name} is {}, not {requests}", sent())),
                }
            })
        }),
        Subject::new("Lua, W3C alone", || {
            let case = Case { filters: || Some(Filter::lua(LUA)), ..Case::new(around, W3C) };
            case.seeing(|answer| goes_on(answer, "01")).checked(|envoy| {
                let answer = envoy.client("out").send(&Request::get("/echo"));
                begins(&answer).then_some(()).ok_or_else(|| "it mints none".to_owned())
            })
        }),
        Subject::new("weir, continues W3C", || {
            let case = Case::weir(around, "trace_context: {}", W3C);
            case.counting(&[("requests", "continued")], |answer| goes_on(answer, "01"))
        }),
        Subject::new("weir, mints", || {
            let case = Case::weir(around, "trace_context: {}", &[]);
            case.counting(&[("requests", "started")], begins)
        }),
        Subject::new("weir, B3 to W3C", || {
            let case = Case::weir(around, "trace_context: {}", &["b3"]);
            case.counting(&[("requests", "continued")], |answer| goes_on(answer, "01"))
        }),
        Subject::new("weir, baggage and deadline", || {
            let policy = "trace_context: {baggage: {allow: [user, tier]}, \
                          deadline: {hop_margin: 0.01s}}";
            let lines = &["traceparent", "tracestate", "baggage", "x-weir-deadline-ms"];
            let totals = [("requests", "continued"), ("deadlines", "carried")];
            Case::weir(around, policy, lines).counting(&totals, |answer| {
                let left = answer.echoed("x-weir-deadline-ms").and_then(|ms| ms.parse().ok());
                goes_on(answer, "01")
                    && answer.echoed("baggage").is_some_and(|line| line == "user=4711,tier=gold")
                    && left.is_some_and(|ms: u32| ms <= 4990)
            })
        }),
        Subject::new("weir, records (inbound)", || {
            let lines = &["traceparent", "tracestate", "x-request-id"];
            let case = Case { listener: "in", ..Case::weir(around, restore, lines) };
            let totals = [("requests", "continued"), ("restores", "recorded")];
            case.counting(&totals, |answer| goes_on(answer, "01"))
        }),
        Subject::new("weir, restores (outbound)", || {
            let case = Case::weir(around, restore, &["x-request-id"]);
            let recorded = Case::new(around, &["traceparent", "tracestate", "x-request-id"]).echo();
            let totals = [("requests", "restored"), ("restores", "restored")];
            let running = case.counting(&totals, |answer| goes_on(answer, "01"));
            running.envoy.client("in").send(&recorded);
            running
        }),
        Subject::new("weir, spans, 1 %", || {
            let policy = concat_spans!("sampling: {percent: 1}, ");
            let case = Case::weir(around, policy, &[]);
            let running = case.counting(&[("requests", "started")], begins);
            running.after(|envoy, requests| all_spans(envoy, requests / 200..=requests / 50))
        }),
        Subject::new("weir, spans, 100 %", || {
            let case = Case::weir(around, concat_spans!(""), W3C);
            let totals = [("requests", "continued")];
            let running = case.counting(&totals, |answer| goes_on(answer, "01"));
            running.after(|envoy, requests| all_spans(envoy, requests..=requests))
        }),
    ]
}

/// Each span is accounted for, and most arrived.
fn all_spans(envoy: &Envoy, bounds: std::ops::RangeInclusive<u64>) -> Result<(), String> {
    let counted = |outcome: &str| sum(envoy, &[SPANS, &format!("outcome=.={outcome};")]);
    let is_all = || bounds.contains(&sum(envoy, &[SPANS]));
    let is_all = comes_true(is_all);
    let [exported, dropped, failed] = ["exported", "dropped", "failed"].map(counted);
    let said = format!("{exported} spans exported, {dropped} dropped, {failed} failed");
    if !is_all || exported < *bounds.start() / 2 {
        return Err(format!("{said}: not {bounds:?}, most of them exported"));
    }
    if dropped + failed > 0 {
        println!("(weir, spans: {said})");
    }
    Ok(())
}

/// The upstream sees the trace of [`LINES`], under a new span, with these flags.
fn goes_on(answer: &Response, flags: &str) -> bool {
    let parent = answer.echoed("traceparent").unwrap_or_default();
    let parts: Vec<_> = parent.split('-').collect();
    matches!(parts[..], ["00", TRACE, span, seen] if span != SPAN && span.len() == 16 && seen == flags)
}

/// The upstream sees some trace.
fn begins(answer: &Response) -> bool {
    let parent = answer.echoed("traceparent").unwrap_or_default();
    let lengths: Vec<_> = parent.split('-').map(str::len).collect();
    lengths == [2, 32, 16, 2] && !parent.contains(TRACE)
}

/// Envoy's own tracer.
pub fn tracing(listener: Listener, percent: u32) -> Listener {
    // Its decision goes by the request id.
    listener.hcm("generate_request_id", json!(true)).hcm(
        "tracing",
        json!({
            "random_sampling": {"value": percent},
            "provider": {
                "name": "envoy.tracers.opentelemetry",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                    "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}, "timeout": "5s"},
                    "service_name": "bench",
                },
            },
        }),
    )
}

/// As one finds it on the web, but it checks what came.
pub const LUA: &str = "\
math.randomseed(os.time())
local function hex(bytes)
  local out = {}
  for n = 1, bytes do out[n] = string.format('%02x', math.random(0, 255)) end
  return table.concat(out)
end
function envoy_on_request(handle)
  local headers = handle:headers()
  local came = headers:get('traceparent')
  local trace, flags
  if came then
    local version, id, parent, bits = came:match('^(%x%x)%-(%x+)%-(%x+)%-(%x%x)$')
    if version and version ~= 'ff' and #id == 32 and #parent == 16 and came == came:lower()
      and id:find('[^0]') and parent:find('[^0]') then
      trace, flags = id, bits
    end
  end
  if not trace then
    trace, flags = hex(16), '01'
    headers:remove('tracestate')
  end
  headers:replace('traceparent', '00-' .. trace .. '-' .. hex(8) .. '-' .. flags)
end";
