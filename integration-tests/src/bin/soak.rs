//! `cargo xtask soak`: all filters in one Envoy under everything at once, for minutes.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;
use weir_integration_tests::http::grpc;
use weir_integration_tests::random::Random;
use weir_integration_tests::{
    Cluster, Envoy, Filter, H1Conn, Listener, Request, Response, Route, Script, Scripted, paths,
};

const HELP: &str = "cargo xtask soak [--minutes <n>] [--seed <n>]; see cargo xtask soak --help";

/// Clients that send what clients send, and those that send what nobody should.
const PLAIN: u64 = 6;
const HOSTILE: u64 = 2;

/// What the policy may ask for, and what it says of answers that are none of ours. Any other with a status of
/// 500 and more is a fault.
const REASONS: [&str; 3] = ["circuit_open", "deadline_exceeded", "lane_unavailable"];

/// Memory that may come after the first half: each worker's V8 collects when it likes to.
const GROWTH: u64 = 48 << 20;

fn main() -> ExitCode {
    let (minutes, seed) = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("soak: {error}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let faults = soak(Duration::from_secs(60).mul_f64(minutes), seed);
    for fault in &faults {
        println!("FAULT  {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Result<(f64, u64), lexopt::Error> {
    use lexopt::prelude::*;
    let (mut minutes, mut seed) = (2.0, 1);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("minutes") => minutes = parser.value()?.parse()?,
            Long("seed") => seed = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    if !(0.1..=24.0 * 60.0).contains(&minutes) {
        return Err(format!("--minutes is {minutes}; it must be 0.1 to 1440").into());
    }
    Ok((minutes, seed))
}

/// What all threads know.
struct Soak {
    envoy: Envoy,
    upstream: Scripted,
    is_over: AtomicBool,
    seed: u64,
    /// Answers, by status and reason.
    answers: Mutex<BTreeMap<(u16, String), u64>>,
    unanswered: AtomicU64,
    edits: AtomicU64,
    refused_edits: AtomicU64,
    faults: Mutex<Vec<String>>,
}

fn soak(lasts: Duration, seed: u64) -> Vec<String> {
    let upstream = Scripted::start(Script::Ok);
    let listener = |listener: Listener| {
        listener
            .without_access_log()
            .hcm("max_request_headers_kb", json!(96))
            .filter(Filter::weir())
            .route(Route::prefix("/", "up"))
    };
    let envoy = Envoy::builder()
        .workers(2)
        .module(paths::single("suite"))
        .policy(&policy(0))
        .cluster(Cluster::followed("up", upstream.address))
        .listener(listener(Listener::inbound("in")))
        .listener(listener(Listener::outbound("out")))
        .start();
    let soak = Arc::new(Soak {
        envoy,
        upstream,
        is_over: AtomicBool::new(false),
        seed,
        answers: Mutex::default(),
        unanswered: AtomicU64::new(0),
        edits: AtomicU64::new(0),
        refused_edits: AtomicU64::new(0),
        faults: Mutex::default(),
    });
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for n in 0..PLAIN {
        threads.push(soak.spawn(move |soak| soak.send(n, plain)));
    }
    for n in PLAIN..PLAIN + HOSTILE {
        threads.push(soak.spawn(move |soak| soak.send(n, hostile)));
    }
    threads.push(soak.spawn(Soak::call));
    threads.push(soak.spawn(Soak::fail));
    threads.push(soak.spawn(Soak::edit));

    let memory = soak.watch(lasts);
    soak.is_over.store(true, Ordering::Relaxed);
    for thread in threads {
        if thread.join().is_err() {
            soak.fault("a thread panicked; what it said stands above".to_owned());
        }
    }
    soak.envoy.assert_healthy();
    soak.report(memory);
    std::mem::take(&mut *soak.faults.lock().expect("no thread panics with it"))
}

impl Soak {
    fn spawn(self: &Arc<Self>, run: impl FnOnce(&Soak) + Send + 'static) -> JoinHandle<()> {
        let soak = self.clone();
        thread::spawn(move || run(&soak))
    }

    fn is_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn fault(&self, what: String) {
        let mut faults = self.faults.lock().expect("no thread panics with it");
        if faults.len() < 20 {
            faults.push(what);
        }
    }

    /// One client, at most 200 requests a second.
    fn send(&self, n: u64, make: fn(&mut Random) -> Request) {
        let mut random = Random::new(self.seed.wrapping_mul(1000) + n);
        let listener = if n.is_multiple_of(2) { "in" } else { "out" };
        let mut connection = None;
        while self.is_on() {
            let request = make(&mut random);
            let due = Instant::now() + Duration::from_millis(5);
            let open = connection.take().or_else(|| {
                let open = H1Conn::connect(self.envoy.address(listener)).ok()?;
                open.patience(Duration::from_secs(10)).ok()?;
                Some(open)
            });
            let Some(mut open) = open else {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            match open.send(&request) {
                Ok(answer) => {
                    self.look(&answer);
                    let stays = answer.header("connection").is_none_or(|it| it != "close");
                    connection = stays.then_some(open);
                }
                // A reset in mid body ends the connection, and so does what the codec refuses.
                Err(_) => {
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                }
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    fn look(&self, answer: &Response) {
        let reason = answer.header("x-weir-reason").unwrap_or_default();
        if answer.status >= 500
            && !REASONS.contains(&reason.as_str())
            && !reason.starts_with("upstream_")
        {
            self.fault(format!("{} for {reason}: {}", answer.status, answer.text()));
        }
        let mut answers = self.answers.lock().expect("no thread panics with it");
        *answers.entry((answer.status, reason)).or_default() += 1;
    }

    /// gRPC, unary. The upstream answers as its script says, or not at all.
    fn call(&self) {
        while self.is_on() {
            let envoy = &self.envoy;
            let mut connection = envoy.h2("in");
            for _ in 0..50 {
                let reply = grpc::call(&mut connection, "/shop.Orders/Get", &[("x-user", "grpc")]);
                let mut answers = self.answers.lock().expect("no thread panics with it");
                let status = reply.status.map_or("none".to_owned(), |status| status.to_string());
                *answers.entry((200, format!("grpc {status}"))).or_default() += 1;
                drop(answers);
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Upstream faults, most of the time none.
    fn fail(&self) {
        let faults = [
            Script::Flaky { seed: 7, percent: 20, capacity: 50, busy: Duration::from_millis(2) },
            Script::Slow(Duration::from_millis(40)),
            Script::ResetBeforeHeaders,
            Script::Status(503, vec![]),
            Script::ResetMidBody,
            Script::GrpcTrailersOnly(14),
            Script::Refuse,
        ];
        for fault in faults.iter().cycle() {
            for (script, lasts) in [(Script::Ok, 2500), (fault.clone(), 700)] {
                if !self.is_on() {
                    return self.upstream.play(Script::Ok);
                }
                self.upstream.play(script);
                thread::sleep(Duration::from_millis(lasts));
            }
        }
    }

    /// Twice a second; every fifth policy is bad and has to be refused.
    fn edit(&self) {
        for n in 1.. {
            if !self.is_on() {
                return;
            }
            let is_bad = n % 5 == 4;
            let text = if is_bad { policy(n).replace("1s", "-1s") } else { policy(n) };
            let verdict = self.envoy.put_policy(&text).verdict();
            match (is_bad, verdict) {
                (true, Err(_)) => self.refused_edits.fetch_add(1, Ordering::Relaxed),
                (false, Ok(())) => self.edits.fetch_add(1, Ordering::Relaxed),
                (true, Ok(())) => return self.fault(format!("edit {n} is bad and was taken")),
                (false, Err(log)) => return self.fault(format!("edit {n} was refused: {log}")),
            };
            thread::sleep(Duration::from_millis(450));
        }
    }

    /// Waits, says how it goes, and gives the process's memory at half time and at the end: the modules' own
    /// is in it.
    fn watch(&self, lasts: Duration) -> [u64; 2] {
        let begun = Instant::now();
        let wait = |until: Duration| {
            while begun.elapsed() < until && self.is_on() {
                thread::sleep(Duration::from_secs(10).min(until.saturating_sub(begun.elapsed())));
                let answers: u64 =
                    self.answers.lock().expect("no thread panics with it").values().sum();
                println!(
                    "{:>5.0} s  {answers} answers, {} edits, {:.1} MB",
                    begun.elapsed().as_secs_f64(),
                    self.edits.load(Ordering::Relaxed),
                    self.envoy.resident_memory() as f64 / 1e6
                );
            }
            self.envoy.resident_memory()
        };
        [wait(lasts / 2), wait(lasts)]
    }

    fn report(&self, memory: [u64; 2]) {
        let answers = self.answers.lock().expect("no thread panics with it");
        println!("\nstatus  reason                 answers");
        for ((status, reason), count) in answers.iter() {
            println!("{status:>6}  {reason:<20} {count:>9}");
        }
        let (edits, refused) = (&self.edits, &self.refused_edits);
        println!(
            "{} without an answer; {} edits taken, {} bad ones refused; memory {:.1} MB at half time, {:.1} MB at the end",
            self.unanswered.load(Ordering::Relaxed),
            edits.load(Ordering::Relaxed),
            refused.load(Ordering::Relaxed),
            memory[0] as f64 / 1e6,
            memory[1] as f64 / 1e6,
        );
        // What ought to have happened did: a soak in which nothing was tried proves nothing.
        let seen = |status: u16, reason: &str| {
            answers.get(&(status, reason.to_owned())).copied().unwrap_or_default()
        };
        for (status, reason) in [(200, ""), (429, "rate_limited"), (503, "circuit_open")] {
            if seen(status, reason) == 0 {
                self.fault(format!("nobody got {status} {reason:?}"));
            }
        }
        if memory[1] > memory[0] + GROWTH {
            self.fault(format!("memory grew from {} to {} bytes", memory[0], memory[1]));
        }
        let (all, unanswered): (u64, u64) =
            (answers.values().sum(), self.unanswered.load(Ordering::Relaxed));
        if unanswered > all / 100 {
            self.fault(format!("{unanswered} of {all} requests got no answer"));
        }
        if seen(200, "grpc 0") == 0 {
            self.fault("no gRPC call ended well".to_owned());
        }
        if [edits, refused].iter().any(|count| count.load(Ordering::Relaxed) == 0) {
            self.fault("no good edit, or no bad one".to_owned());
        }
    }
}

/// All sections. What an edit changes: a rate, a weight, a mode, the number of keys, a rule.
fn policy(n: u64) -> String {
    let more = match n % 3 {
        0 => "",
        _ => ", {id: extra, match: {path: {prefix: /extra}}, max_tokens: 5, fill_interval: 1s}",
    };
    format!(
        "name: soak
zone: {zone}
restore: {{keys: [{{header: x-request-id}}, {{trace_id: true}}], mint: true, ttl: 2s, max_records: 1024}}
trace_context:
  propagation: {{inject: [W3C, B3_SINGLE]}}
  baggage: {{set: [{{key: user, value: {{header: x-user}}}}]}}
  sampling: {{percent: {percent}}}
  deadline: {{hop_margin: 0.001s}}
  response: {{trace_id_header: x-trace-id, error_context: true, envelope: true}}
traffic_color:
  colors: [base, gray]
  carry: {{in: [HEADER, BAGGAGE]}}
  session: {{principal: {{header: x-user}}}}
  response: {{echo_header: x-color, vary: true}}
  rules:
  - {{id: canary, shares: [{{color: gray, weight: {weight}}}], key: [{{header: x-user}}],
     on_missing_key: STICKY_COOKIE, guard: {{error_delta_points: 50, reset: r{reset}}}}}
rate_limit:
  rules:
  - {{id: user, match: {{direction: ANY}}, key: [{{header: x-user}}], max_tokens: {tokens}, tokens_per_fill: {tokens},
     fill_interval: 1s, max_keys: 1000, at_limit: {{quota_headers: ALWAYS}}}}
  - {{id: all, mode: {mode}, match: {{direction: ANY}}, max_tokens: 1000, fill_interval: 1s}}{more}
circuit_breaker:
  rules:
  - {{id: up, match: {{direction: ANY}}, window: {{count: 50}}, minimum_calls: 20, failure_rate_percent: 60, open_duration: 0.5s}}
  - {{id: user, match: {{direction: ANY}}, key: [{{header: x-user}}], minimum_calls: 10, open_duration: 0.2s}}
",
        zone = ["MESH", "EDGE"][(n / 7 % 2) as usize],
        percent = n * 13 % 101,
        weight = n * 997 % 10_000 + 1,
        reset = n / 20,
        tokens = 5 + n % 4 * 5,
        mode = ["ENFORCE", "SHADOW", "OFF"][(n % 3) as usize],
        more = more.replace(", {", "\n  - {"),
    )
}

/// A request as clients send it: of one of many users, some of whom are in a hurry.
fn plain(random: &mut Random) -> Request {
    let user = if random.below(4) == 0 { 7 } else { random.below(5000) };
    let mut request = Request::get(["/orders", "/extra", "/cart?q=1"][random.below(3)])
        .header("x-user", format!("user-{user}"))
        .header("x-request-id", format!("{:032x}", random.number()));
    if random.below(2) == 0 {
        let trace = format!(
            "00-{:016x}{:016x}-{:016x}-01",
            random.number(),
            random.number(),
            random.number()
        );
        request = request.header("traceparent", trace).header("baggage", "tenant=1,x-color=gray");
    }
    match random.below(10) {
        0 => request.header("x-weir-deadline-ms", "500"),
        1 => request.header("x-weir-color", "gray"),
        _ => request,
    }
}

/// Any bytes that the codec lets through, on lines that somebody reads.
fn hostile(random: &mut Random) -> Request {
    const NAMES: [&str; 16] = [
        "traceparent",
        "tracestate",
        "baggage",
        "b3",
        "x-request-id",
        "x-weir-color",
        "x-weir-deadline-ms",
        "cookie",
        "x-user",
        "x-trade-session-id",
        "content-type",
        "grpc-timeout",
        "x-forwarded-for",
        "authorization",
        "te",
        "x-test-status",
    ];
    let mut request = Request::get("/hostile");
    for _ in 0..random.below(24) {
        let longest = if random.below(50) == 0 { 20_000 } else { 60 };
        request = request.header(NAMES[random.below(NAMES.len())], random.token(longest));
    }
    request
}
