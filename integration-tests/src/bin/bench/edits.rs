//! How long it takes until an edit decides: policies, modules, a proxy that starts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_integration_tests::{
    Client, Envoy, Filter, Listener, Load, Request, Route, paths, variant,
};

use crate::quantiles::Quantiles;

const EDITS: u32 = 100;
const MODULES: u32 = 20;
const STARTS: u32 = 5;
const RATE: u32 = 2000;
const CONNECTIONS: u32 = 16;
/// Requirement: an edit of a policy decides so soon, in 95 of 100.
const AT_MOST_MS: f64 = 50.0;

const FILTERS: [&str; 5] =
    ["traffic_color", "trace_context", "rate_limit", "circuit_breaker", "suite"];

pub fn lab() -> Result<Value, String> {
    println!(
        "Two workers, file-based discovery; from the rename to the first answer by the new policy on both workers. \
         Load: {RATE} requests/s on {CONNECTIONS} connections of the same machine"
    );
    println!("{:32}  {:>6}  {:>9}  {:>9}  {:>9}", "", "times", "P50, ms", "P95, ms", "most, ms");
    let mut rows = Vec::new();
    for (state, is_loaded) in [("idle", false), ("under load", true)] {
        let stage = Stage::start();
        let load = Loaded::start(&stage.envoy, is_loaded);
        let times = (1..=EDITS).map(|n| stage.edit(n)).collect::<Result<_, _>>()?;
        rows.push(row(&format!("edit of a policy, {state}"), times));
        let times = (1..=MODULES).map(|n| stage.swap(n)).collect::<Result<_, _>>()?;
        rows.push(row(&format!("new module, {state}"), times));
        load.end()?;
    }
    for filter in FILTERS {
        rows.push(row(
            &format!("start with {filter}"),
            (0..STARTS).map(|_| start(Some(filter))).collect(),
        ));
    }
    rows.push(row("start without a filter", (0..STARTS).map(|_| start(None)).collect()));
    let within = |row: &&Value| row["name"].as_str().is_some_and(|name| name.starts_with("edit"));
    let is_met = rows.iter().filter(within).all(|row| row["p95_ms"].as_f64() <= Some(AT_MOST_MS));
    let verdict = if is_met { "as required" } else { "MISSED" };
    println!("P95 of edits, at most {AT_MOST_MS} ms: {verdict}");
    Ok(json!({"rows": rows, "edit_p95_at_most_ms": AT_MOST_MS, "is_met": is_met}))
}

fn row(name: &str, times: Vec<Duration>) -> Value {
    let (count, times) = (times.len(), Quantiles::of(times));
    let [p50, p95, most] = [50, 95, 100].map(|percent| times.ms(percent));
    println!("{name:32}  {count:>6}  {p50:>9.1}  {p95:>9.1}  {most:>9.1}");
    json!({"name": name, "times": count, "p50_ms": p50, "p95_ms": p95, "most_ms": most})
}

/// The page for the repository.
pub fn page(figures: &Value, machine: &str) -> String {
    let verdict = match figures["is_met"].as_bool() {
        Some(true) => "is met",
        _ => "is MISSED",
    };
    let mut page = format!(
        "# How soon an edit decides\n\n\
         Written by `cargo xtask bench -- --only edits --update`, on {machine}.\n\n\
         One Envoy with two workers and the suite over file-based discovery. A time runs from the rename of the \
         discovery file\nto the first answer by the new policy on connections to both workers; a start, from the \
         start of the process to the\nfirst answer through the filter. A new module is the same one with a section \
         more, so that V8 compiles it anew. Load is\n{RATE} requests a second on {CONNECTIONS} connections, made on \
         the same machine; none of them failed, and each was answered\nthrough the filter.\n\n\
         | | times | P50, ms | P95, ms | most, ms |\n|---|---:|---:|---:|---:|\n"
    );
    for row in figures["rows"].as_array().into_iter().flatten() {
        let ms = |name: &str| row[name].as_f64().unwrap_or_default();
        page += &format!(
            "| {} | {} | {:.1} | {:.1} | {:.1} |\n",
            row["name"].as_str().unwrap_or_default(),
            row["times"],
            ms("p50_ms"),
            ms("p95_ms"),
            ms("most_ms")
        );
    }
    page + &format!(
        "\nThat an edit of a policy decides within {AT_MOST_MS} ms at the 95th percentile {verdict}.\n"
    )
}

/// Every answer tells the limit that it was held against.
fn policy(limit: u32) -> String {
    format!(
        "{{name: bench, rate_limit: {{rules: [{{id: all, max_tokens: {limit}, tokens_per_fill: 1000, fill_interval: 0.001s, \
         at_limit: {{quota_headers: ALWAYS}}}}]}}}}"
    )
}

struct Stage {
    envoy: Envoy,
}

impl Stage {
    fn start() -> Stage {
        let listener = Listener::inbound("in").without_access_log();
        let listener = listener.filter(Filter::weir()).route(Route::direct("/", 200));
        let builder = Envoy::builder().workers(2).module(paths::single("suite")).listener(listener);
        Stage { envoy: builder.policy(&policy(10_000)).start() }
    }

    fn edit(&self, number: u32) -> Result<Duration, String> {
        let limit = 20_000 + number;
        let (clients, begun) = (self.clients(), Instant::now());
        let put = self.envoy.put_policy(&policy(limit));
        let took = decides(clients, limit, begun)?;
        put.accepted();
        Ok(took)
    }

    fn swap(&self, number: u32) -> Result<Duration, String> {
        let limit = 30_000 + number;
        let module = variant::of(&paths::single("suite"), number, self.envoy.directory());
        let (clients, begun) = (self.clients(), Instant::now());
        let put = self.envoy.put_module(&module, &policy(limit));
        let took = decides(clients, limit, begun)?;
        put.accepted();
        Ok(took)
    }

    /// Connections are dealt out to the workers in turn.
    fn clients(&self) -> [Client; 2] {
        let mut clients = [(); 2].map(|()| self.envoy.client("in"));
        clients.iter_mut().for_each(|client| drop(client.get("/")));
        clients
    }
}

/// Asks until both connections are answered by the policy with this limit.
fn decides(clients: [Client; 2], limit: u32, begun: Instant) -> Result<Duration, String> {
    let wanted = format!("q={limit};");
    for mut client in clients {
        loop {
            let answer = client.get("/");
            let line = answer.header("ratelimit-policy").unwrap_or_default();
            if line.contains(&wanted) {
                break;
            }
            if answer.status != 200 || line.is_empty() || begun.elapsed() > Duration::from_secs(20)
            {
                return Err(format!("{wanted} does not come: {} {line:?}", answer.status));
            }
        }
    }
    Ok(begun.elapsed())
}

struct Loaded(Option<Box<dyn FnOnce() -> Result<(), String>>>);

impl Loaded {
    fn start(envoy: &Envoy, is_wanted: bool) -> Loaded {
        if !is_wanted {
            return Loaded(None);
        }
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
        let (address, is_done) = (envoy.address("in"), Arc::new(AtomicBool::new(false)));
        let (done, bare) = (is_done.clone(), Arc::new(AtomicU64::new(0)));
        let clients = std::thread::spawn(move || {
            let mut failed = 0;
            while !done.load(Ordering::Relaxed) {
                let bare = bare.clone();
                let load =
                    Load::new(address, Request::get("/")).connections(CONNECTIONS).rate(RATE);
                let load = load.lasts(Duration::from_secs(1)).look(move |_, answer| {
                    bare.fetch_add(
                        u64::from(answer.header("ratelimit-policy").is_none()),
                        Ordering::Relaxed,
                    );
                });
                let report = load.run();
                failed += report.total() - report.status(200);
            }
            match (failed, bare.load(Ordering::Relaxed)) {
                (0, 0) => Ok(()),
                (failed, bare) => {
                    Err(format!("{failed} requests failed, {bare} passed without the filter"))
                }
            }
        });
        Loaded(Some(Box::new(move || {
            is_done.store(true, Ordering::Relaxed);
            clients.join().unwrap_or_else(|_| Err("the load fell over".to_owned()))
        })))
    }

    fn end(self) -> Result<(), String> {
        self.0.map_or(Ok(()), |end| end())
    }
}

/// From the process to the first answer: without a policy in force there is none.
fn start(filter: Option<&str>) -> Duration {
    let mut listener = Listener::inbound("in").without_access_log();
    let mut builder = Envoy::builder();
    if let Some(filter) = filter {
        listener = listener.filter(Filter::weir_without_default());
        builder = builder.module(paths::single(filter)).policy("{name: bench}");
    }
    let begun = Instant::now();
    let envoy = builder.listener(listener.route(Route::direct("/", 200))).start();
    while envoy.client("in").get("/").status != 200 {
        std::thread::sleep(Duration::from_millis(1));
    }
    begun.elapsed()
}
