//! The scene of trace context: four services whose applications forget to forward their trace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_integration_tests::collector::Received;
use weir_integration_tests::wait::wait_for;
use weir_integration_tests::{
    Account, Chain, Cluster, Collector, Crowd, Forward, Manner, Request, Response, Think, paths,
};

use crate::table::Table;

const HOPS: usize = 4;
const REQUESTS: u64 = 400;

fn policy(hop: usize, restores: bool) -> String {
    let service = ["shop", "orders", "stock", "prices"][hop];
    let restore =
        if restores { "restore: {keys: [{header: x-request-id}], mint: true}, " } else { "" };
    format!(
        "{{name: demo, {restore}trace_context: {{spans: {{cluster: collector, service_name: {service}, \
         interval: 0.1s}}}}}}"
    )
}

pub fn play(table: &mut Table) {
    println!(
        "6  A trace over four services. Their applications forward `x-request-id` and forget the rest ..."
    );
    let collector = Collector::start();
    let think = Think::Random { seed: 11, most: Duration::from_millis(10) };
    let manner = Manner { forward: Forward::Only(&["x-request-id"]), think, ..Manner::default() };
    let chain = Chain::builder()
        .hops(HOPS)
        .module(paths::module("trace_context"))
        .cluster(Cluster::h2("collector", collector.grpc))
        .policies(|hop| policy(hop, false))
        .manner(manner)
        .start();
    let without = run(&chain);
    show("without restoring", &chain, &collector, 1 + 2 * (HOPS - 1));
    for (number, hop) in chain.hops.iter().enumerate() {
        hop.envoy.put_policy(&policy(number, true)).accepted();
    }
    let with = run(&chain);
    show("with restoring", &chain, &collector, 1 + 2 * (HOPS - 1));

    let section = table.section("6  a trace over four services that forward x-request-id alone");
    section.figure("complete traces without restoring", without, 0..=0);
    section.figure("complete traces with restoring", with, REQUESTS..=REQUESTS);
    let restored = REQUESTS * (HOPS as u64 - 1);
    // And one for the tree.
    let more = HOPS as u64 - 1;
    let counted = counted(&chain, restored + more);
    section.equal("calls restored", restored + more, counted);
    section.figure(
        "spans that were lost",
        chain.metric(&["spans_total", "outcome=.=dropped"]),
        0..=0,
    );
}

/// How many of the requests were in one trace at every service.
fn run(chain: &Chain) -> u64 {
    let complete = AtomicU64::new(0);
    Crowd::new(chain.entry(), REQUESTS).run(
        |_| Request::get("/basket"),
        |_, answer, _| {
            complete.fetch_add(u64::from(is_complete(&answer)), Ordering::Relaxed);
        },
    );
    complete.into_inner()
}

fn is_complete(answer: &Response) -> bool {
    let account = Account::of(answer);
    let trail = account.trail();
    let trace_of =
        |account: &&Account| account.header("traceparent").map(|value| value[3..35].to_owned());
    let traces: Vec<_> = trail.iter().map(trace_of).collect();
    traces.len() == HOPS && traces[0].is_some() && traces.iter().all(|trace| *trace == traces[0])
}

/// Sends one more request and draws the spans that it made.
fn show(title: &str, chain: &Chain, collector: &Collector, spans: usize) {
    let marked = format!("/basket/{}", title.replace(' ', "-"));
    let request = Request::get(&marked);
    chain.trail(&request);
    let of_this = || -> Vec<Received> {
        let is_this = |span: &Received| span.attribute("url.path").as_deref() == Some(&marked);
        collector.spans().into_iter().filter(is_this).collect()
    };
    let found = wait_for("the spans of a request", Duration::from_secs(10), || {
        let found = of_this();
        (found.len() >= spans).then_some(found)
    });
    println!("   {title}:\n{}", tree(&found));
}

/// Spans under their parents; each root begins a trace.
fn tree(spans: &[Received]) -> String {
    let mut children: BTreeMap<Option<String>, Vec<&Received>> = BTreeMap::new();
    let known = |id: &String| spans.iter().any(|span| span.span_id() == *id);
    for span in spans {
        children.entry(span.parent_id().filter(known)).or_default().push(span);
    }
    for list in children.values_mut() {
        list.sort_by_key(|span| span.span.start_time_unix_nano);
    }
    let mut text = String::new();
    draw(&children, None, "", &mut text);
    text
}

fn draw(
    children: &BTreeMap<Option<String>, Vec<&Received>>,
    parent: Option<String>,
    indent: &str,
    text: &mut String,
) {
    for span in children.get(&parent).into_iter().flatten() {
        let service = span.resource.get("service.name").map_or("?", String::as_str);
        let kind = if span.span.kind == 2 { "server" } else { "client" };
        let took = span.span.end_time_unix_nano.saturating_sub(span.span.start_time_unix_nano);
        let trace = &span.trace_id()[..8];
        let branch =
            if parent.is_none() { format!("trace {trace}…  ") } else { "└─ ".to_owned() };
        let _ = writeln!(
            text,
            "      {indent}{branch}{service} {kind} {} ms",
            (took as f64 / 1e5).round() / 10.0
        );
        draw(children, Some(span.span_id()), &format!("{indent}   "), text);
    }
}

/// Envoy's count, once the workers have handed theirs over.
fn counted(chain: &Chain, expected: u64) -> u64 {
    let begun = std::time::Instant::now();
    loop {
        let counted = chain.metric(&["restores_total", "outcome=.=restored"]);
        if counted >= expected || begun.elapsed() > Duration::from_secs(3) {
            return counted;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
