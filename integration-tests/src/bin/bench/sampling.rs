//! Rare errors among many requests: whose spans a score keeps, and a fixed rate that costs as much.

use serde_json::{Value, json};
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Cluster, Collector, Crowd, Envoy, Filter, Listener, Request, Route, Upstream, paths, wait_until,
};

use crate::subject::{comes_true, sum};

const LISTENER: &str = "out";
const REQUESTS: u64 = 20_000;
/// One request in so many fails.
const RARE: u64 = 100;
const SPANS: &str = "weir_trace_context_spans_total";
/// One in ten of the orders, none of the rest, and all that fails.
const SCORE: &str = "scoring: {weights: [{match: {path: {prefix: /orders}}, weight: 0.4}], \
                     statuses: [{http_statuses: [500-599], weight: 0.9}]}";

/// What arrived at the collector.
struct Kept {
    spans: u64,
    errors: u64,
}

pub fn lab() -> Result<Value, String> {
    let scored = run(SCORE)?;
    // As many spans, or some more: the fixed rate is not to lose for being cheaper.
    let percent = (scored.spans as f64 * 100.0 / REQUESTS as f64 * 10.0).ceil() / 10.0 + 0.2;
    let fixed = run(&format!("percent: {percent}"))?;
    let errors = REQUESTS / RARE;
    println!(
        "Spans of {REQUESTS} requests, of which {errors} fail; 40 % of them are orders\n\
         {:34}  {:>7}  {:>15}",
        "", "spans", "errors among it"
    );
    let fixed_name = format!("a fixed rate of {percent:.1} %");
    for (name, kept) in [("a score that includes the status", &scored), (&fixed_name, &fixed)] {
        println!("{name:34}  {:>7}  {:>15}", kept.spans, format!("{} of {errors}", kept.errors));
    }
    let ratio = scored.errors as f64 / fixed.errors.max(1) as f64;
    let volume = scored.spans as f64 / fixed.spans.max(1) as f64;
    // What a fixed rate would cost that keeps the same share of errors: that share of all.
    let share = scored.errors as f64 / errors as f64;
    let as_good = share * REQUESTS as f64 / scored.spans as f64;
    println!(
        "Errors kept, score : fixed rate = {ratio:.1} (at least 4.3 wanted), at {volume:.2} of the spans. To \
         keep as many errors a fixed rate would write {as_good:.1} times the spans of the score."
    );
    let figures = |kept: &Kept| json!({"spans": kept.spans, "errors": kept.errors});
    Ok(json!({
        "requests": REQUESTS, "errors": errors, "scored": figures(&scored), "fixed": figures(&fixed),
        "fixed_percent": percent, "errors_kept_ratio": ratio, "spans_ratio": volume,
        "fixed_rate_spans_for_as_many_errors": as_good,
    }))
}

fn run(sampling: &str) -> Result<Kept, String> {
    let (upstream, collector) = (Upstream::start("echo"), Collector::start());
    let envoy = Envoy::builder()
        .module(paths::module("trace_context"))
        .cluster(Cluster::h1("up", upstream.address))
        .cluster(Cluster::h2("collector", collector.grpc))
        .listener(
            Listener::outbound(LISTENER)
                .without_access_log()
                .filter(Filter::weir())
                .route(Route::prefix("/", "up")),
        )
        .policy(&format!(
            "{{name: bench, trace_context: {{sampling: {{{sampling}}}, spans: {{cluster: collector, \
             service_name: bench, max_queue: 65536, max_batch: 4096, interval: 0.1s}}}}}}"
        ))
        .start();
    Crowd::new(envoy.address(LISTENER), REQUESTS).connections(16).run(request, |n, answer, _| {
        let status = if n.is_multiple_of(RARE) { 503 } else { 200 };
        assert_eq!(answer.status, status, "{answer:?}");
    });
    let started = ["weir_trace_context_requests_total", "outcome=.=started;"];
    wait_until("each request is counted", DEADLINE, || sum(&envoy, &started) == REQUESTS);
    // The last batch is sent within the interval and a tick.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let counted = |outcome: &str| sum(&envoy, &[SPANS, &format!("outcome=.={outcome};")]);
    let is_all = comes_true(|| counted("exported") == collector.arrived() as u64);
    let spans = collector.spans();
    if !is_all || spans.is_empty() || counted("dropped") + counted("failed") > 0 {
        return Err(format!("{sampling}: spans get lost: {:?}", envoy.stats(SPANS)));
    }
    let is_error = |span: &&weir_integration_tests::collector::Received| {
        span.attribute("http.response.status_code").as_deref() == Some("503")
    };
    let errors = spans.iter().filter(is_error).count();
    Ok(Kept { spans: spans.len() as u64, errors: errors as u64 })
}

fn request(n: u64) -> Request {
    // Two in five are orders; errors fall on both kinds.
    let is_order = (n + n / RARE) % 5 < 2;
    let request =
        Request::get(if is_order { format!("/orders/{n}") } else { format!("/items/{n}") });
    if n.is_multiple_of(RARE) { request.header("x-test-status", "503") } else { request }
}
