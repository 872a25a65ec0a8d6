//! A collector that is unwell, and the requests, which must not notice.

use std::time::Duration;

use serde_json::{Value, json};
use weir_integration_tests::{
    Cluster, Collector, Collects, Envoy, Filter, Listener, Load, Request, Route, Script, Scripted,
    paths,
};

use crate::quantiles::Quantiles;
use crate::subject::{comes_true, sum};

const LISTENER: &str = "out";
const ROUNDS: usize = 4;
const RATE: u32 = 500;
const LASTS: Duration = Duration::from_secs(1);
const SPANS: &str = "weir_trace_context_spans_total";
/// An unwell collector fails an export within a second, and the queue holds two of them.
const EXPORT: &str =
    "timeout: 1s, max_queue: 512, max_batch: 256, interval: 0.1s, service_name: bench";

struct Case {
    name: &'static str,
    /// None: no spans.
    collector: Option<Collector>,
    envoy: Envoy,
    took: Vec<Duration>,
}

pub fn lab() -> Result<Value, String> {
    let upstream = Scripted::start(Script::Ok);
    let states = [
        ("no spans", None),
        ("healthy", Some(Collects::Ok)),
        ("slow: answers after 30 s", Some(Collects::Slow(Duration::from_secs(30)))),
        ("refusing: UNAVAILABLE", Some(Collects::Error)),
        ("dead: connections refused", Some(Collects::Refuse)),
    ];
    let mut cases: Vec<_> =
        states.into_iter().map(|(name, does)| start(name, does, &upstream)).collect();
    println!(
        "Latency with each request's span exported, {ROUNDS} interleaved rounds of {} requests at {RATE}/s",
        u64::from(RATE) * LASTS.as_secs()
    );
    for round in 0..=ROUNDS {
        for place in 0..cases.len() {
            let at = (place + round) % cases.len();
            let case = &mut cases[at];
            let report = Load::new(case.envoy.address(LISTENER), Request::get("/orders"))
                .connections(8)
                .rate(RATE)
                .lasts(LASTS)
                .run();
            if report.status(200) != report.total() {
                return Err(format!(
                    "{}: not all are answered with 200: {:?}",
                    case.name, report.answers
                ));
            }
            // The first round opens connections and compiles.
            if round > 0 {
                case.took.extend(report.took);
            }
        }
        println!(
            "{}",
            if round == 0 { "warm".to_owned() } else { format!("round {round} of {ROUNDS}") }
        );
    }
    let requests = u64::from(RATE) * LASTS.as_secs() * (ROUNDS as u64 + 1);
    println!(
        "{:28}  {:>8}  {:>8}  {:>10}  {:>10}  {:>8}  {:>8}  {:>8}",
        "collector", "P50, ms", "P99, ms", "P50 more", "P99 more", "exported", "dropped", "failed"
    );
    let mut figures = Vec::new();
    let mut without = None;
    for case in cases {
        let counted = |outcome: &str| sum(&case.envoy, &[SPANS, &format!("outcome=.={outcome};")]);
        let expected = if case.collector.is_some() { requests } else { 0 };
        let is_all = comes_true(|| sum(&case.envoy, &[SPANS]) == expected);
        let [exported, dropped, failed] = ["exported", "dropped", "failed"].map(counted);
        if !is_all {
            let all = exported + dropped + failed;
            return Err(format!("{}: {all} spans are accounted for, not {expected}", case.name));
        }
        if case.name == "healthy" {
            let arrived = case.collector.as_ref().map_or(0, Collector::arrived) as u64;
            if arrived != expected || exported != expected {
                return Err(format!(
                    "spans get lost: {arrived} of {expected} arrived, {exported} count as exported"
                ));
            }
        }
        let took = Quantiles::of(case.took);
        let (p50, p99) = (took.ms(50), took.ms(99));
        let (least50, least99) = *without.get_or_insert((p50, p99));
        println!(
            "{:28}  {p50:>8.2}  {p99:>8.2}  {:>+10.2}  {:>+10.2}  {exported:>8}  {dropped:>8}  {failed:>8}",
            case.name,
            p50 - least50,
            p99 - least99,
        );
        figures.push(json!({
            "collector": case.name, "p50_ms": p50, "p99_ms": p99,
            "exported": exported, "dropped": dropped, "failed": failed,
        }));
    }
    Ok(json!({"requests": requests, "cases": figures}))
}

fn start(name: &'static str, does: Option<Collects>, upstream: &Scripted) -> Case {
    let collector = does.map(|does| {
        let collector = Collector::counting();
        collector.play(does);
        collector
    });
    let mut builder = Envoy::builder()
        .module(paths::module("trace_context"))
        .cluster(Cluster::h1("up", upstream.address))
        .listener(
            Listener::outbound(LISTENER)
                .without_access_log()
                .filter(Filter::weir())
                .route(Route::prefix("/", "up")),
        );
    let spans = match &collector {
        Some(collector) => {
            builder = builder.cluster(Cluster::h2("collector", collector.grpc));
            format!("spans: {{cluster: collector, {EXPORT}}}")
        }
        None => String::new(),
    };
    let envoy = builder.policy(&format!("{{name: bench, trace_context: {{{spans}}}}}")).start();
    Case { name, collector, envoy, took: Vec::new() }
}
