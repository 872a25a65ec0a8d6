//! How the cost of a request grows: with the rules of a policy, the keys that are live, the workers of an
//! Envoy and the hops of a request.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use plotters::prelude::*;
use serde_json::{Value, json};
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Route, Scripted, paths, policy};

use crate::limit::BUCKET;
use crate::machine::Machine;
use crate::options::Options;
use crate::report::median;
use crate::runs::{self, Measured};
use crate::subject::{NONE, Running, Subject, wasm};
use crate::suite::{STEADY, steady_lines};

const RULES: [usize; 4] = [10, 100, 1000, 10_000];
const KEYS: [u64; 3] = [100, 10_000, 1_000_000];
const WORKERS: [u32; 3] = [1, 2, 4];
const HOPS: [usize; 4] = [1, 2, 3, 4];

/// Of the keys that are live, a round asks for so many, spread over all of them.
const ASKED: u64 = 5000;

#[derive(serde::Serialize, serde::Deserialize)]
struct Axis {
    name: String,
    what: String,
    /// How many, and nanoseconds per request over the same Envoys without a filter.
    points: Vec<(u64, f64)>,
}

pub fn lab(options: &Options, machine: &Machine) -> Result<Value, String> {
    let requests = (options.requests / 4).max(1000);
    let mut axes = vec![rules(options.requests, options, machine)?];
    let (keys, memory) = keys(options, machine)?;
    axes.push(keys);
    let upstream = Scripted::start(weir_integration_tests::Script::Ok);
    axes.push(workers(&upstream, requests, options, machine)?);
    axes.push(hops(&upstream, requests, options, machine)?);
    println!("\nCPU time of Envoy per request, over the same Envoys without a filter");
    for axis in &axes {
        for (many, nanoseconds) in &axis.points {
            let times = nanoseconds / axis.points[0].1;
            println!("{:8} {many:>9}  {:>7.2} us  {times:>5.2} x", axis.name, nanoseconds / 1e3);
        }
    }
    for (many, bytes) in &memory {
        println!("memory with {many} live keys: {:.1} MB", *bytes as f64 / 1e6);
    }
    Ok(json!({"axes": axes, "memory": memory}))
}

/// One rule of so many means the request.
fn rules(requests: u64, options: &Options, machine: &Machine) -> Result<Axis, String> {
    let rule = |n: usize, of: usize| {
        let path = if n + 1 == of { "/orders/17".to_owned() } else { format!("/path/{n}") };
        format!(
            "{{id: r{n}, match: {{path: {{exact: {path}}}}}, key: [{{header: x-user}}], {BUCKET}}}"
        )
    };
    let subject = |of: usize| {
        let text: Vec<String> = (0..of).map(|n| rule(n, of)).collect();
        let filter = limiter(&text.join(", "));
        Subject::new(&of.to_string(), move || direct(Some(filter)).line("x-user: hot"))
    };
    let mut subjects = vec![Subject::new(NONE, || direct(None).line("x-user: hot"))];
    subjects.extend(RULES.map(subject));
    let measured = runs::measure(subjects, requests, options, machine)?;
    let points = RULES.iter().zip(&measured[1..]);
    let points = points.map(|(rules, with)| (*rules as u64, over(with, &measured[0]))).collect();
    Ok(Axis {
        name: "rules".into(),
        what: "rate limiting, rules by path, keyed by a header".into(),
        points,
    })
}

/// All keys have been asked for once before the rounds. Gives Envoy's allocated memory as well.
fn keys(options: &Options, machine: &Machine) -> Result<(Axis, Vec<(u64, u64)>), String> {
    let folder = paths::root().join("target/weir");
    let file = |name: String, paths: &mut dyn Iterator<Item = u64>| -> Result<PathBuf, String> {
        let path = folder.join(name);
        let lines: String = paths.fold(String::new(), |mut lines, key| {
            let _ = writeln!(lines, "/k/{key}");
            lines
        });
        std::fs::write(&path, lines)
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(path)
    };
    let asked = |keys: u64| (0..ASKED).map(move |n| n * (keys / 100).max(1) * 37 % keys);
    let rule = format!("{{id: r, key: [{{path: {{whole: true}}}}], max_keys: 1000000, {BUCKET}}}");
    let mut memory = Vec::new();
    let mut points = Vec::new();
    for keys in KEYS {
        let (all, some) = (
            file(format!("keys-{keys}.txt"), &mut (0..keys))?,
            file(format!("asked-{keys}.txt"), &mut asked(keys))?,
        );
        let subject = |name: &str, filter: Option<Filter>| {
            let some = some.clone();
            Subject::new(name, move || direct(filter).paths(some))
        };
        let none = subject(NONE, None).start()?;
        let with = subject("weir", Some(limiter(&rule))).start()?;
        println!("{keys} keys ...");
        ask_for_all(&with, keys, &all)?;
        memory.push((keys, with.envoy.allocated_memory()));
        let measured = runs::measure_running(
            vec![(NONE.to_owned(), none), ("weir".to_owned(), with)],
            ASKED * 2,
            options,
            machine,
        )?;
        points.push((keys, over(&measured[1], &measured[0])));
    }
    let what = "rate limiting, one rule keyed by the path, of which a round asks for 5000";
    Ok((Axis { name: "keys".into(), what: what.into(), points }, memory))
}

fn ask_for_all(running: &Running, keys: u64, file: &std::path::Path) -> Result<(), String> {
    let mut h2load = Command::new("h2load");
    h2load.args(["--requests", &keys.to_string(), "--clients", "1"]);
    h2load.args(["--max-concurrent-streams", "64", "--base-uri", running.url()]);
    let output = h2load
        .arg("--input-file")
        .arg(file)
        .output()
        .map_err(|e| format!("cannot start h2load; run: cargo xtask setup ({e})"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let good = format!("status codes: {keys} 2xx");
    said.contains(&good).then_some(()).ok_or_else(|| format!("not {keys} good answers:\n{said}"))
}

/// All workers share one core, so that the price of sharing shows, not the machine's.
fn workers(
    upstream: &Scripted,
    requests: u64,
    options: &Options,
    machine: &Machine,
) -> Result<Axis, String> {
    let points = pairs(&WORKERS, requests, options, machine, |workers, filter| {
        let listener = steady_listener("in", filter()).route(Route::prefix("/", "up"));
        let envoy = Envoy::builder()
            .workers(workers)
            .cluster(Cluster::h1("up", upstream.address))
            .listener(listener)
            .start();
        steady_lines(Running::new(envoy, "in", "/orders/17"))
    })?;
    let what = "the suite under bench/steady.yaml, all workers on one core";
    Ok(Axis { name: "workers".into(), what: what.into(), points })
}

/// Each hop is a listener with the suite of its own.
fn hops(
    upstream: &Scripted,
    requests: u64,
    options: &Options,
    machine: &Machine,
) -> Result<Axis, String> {
    let points = pairs(&HOPS, requests, options, machine, |hops, filter| {
        let mut builder = Envoy::builder().cluster(Cluster::h1("up", upstream.address));
        for hop in 1..=hops {
            let to = if hop == hops { "up".to_owned() } else { format!("to-{}", hop + 1) };
            let name = if hop == 1 { "in".to_owned() } else { format!("hop-{hop}") };
            let mut listener = steady_listener(&name, filter());
            if hop > 1 {
                listener = listener.internal();
                builder = builder.cluster(Cluster::listener(&format!("to-{hop}"), &name));
            }
            builder = builder.listener(listener.route(Route::prefix("/", &to)));
        }
        steady_lines(Running::new(builder.start(), "in", "/orders/17"))
    })?;
    let what = "the suite under bench/steady.yaml at each hop, all hops in one Envoy";
    Ok(Axis { name: "hops".into(), what: what.into(), points })
}

/// With and without the suite, for each of these.
fn pairs<N: Copy + TryInto<u64>>(
    each: &[N],
    requests: u64,
    options: &Options,
    machine: &Machine,
    start: impl Fn(N, &dyn Fn() -> Option<Filter>) -> Running,
) -> Result<Vec<(u64, f64)>, String> {
    let start = &start;
    let subjects = each.iter().flat_map(|many| {
        [false, true].map(|is_with| {
            let filter = move || {
                is_with
                    .then(|| wasm("weir.suite", &paths::module("suite"), &policy::to_json(STEADY)))
            };
            Subject::new(if is_with { "weir" } else { NONE }, move || start(*many, &filter))
        })
    });
    let measured = runs::measure(subjects.collect(), requests, options, machine)?;
    let points = each.iter().zip(measured.chunks_exact(2));
    Ok(points
        .map(|(many, pair)| ((*many).try_into().unwrap_or_default(), over(&pair[1], &pair[0])))
        .collect())
}

fn over(with: &Measured, none: &Measured) -> f64 {
    median(&with.over(none))
}

fn limiter(rules: &str) -> Filter {
    let text = format!("{{name: bench, rate_limit: {{rules: [{rules}]}}}}");
    wasm("weir.rate_limit", &paths::module("rate_limit"), &policy::to_json(&text))
}

fn steady_listener(name: &str, filter: Option<Filter>) -> Listener {
    let listener = Listener::inbound(name).without_access_log();
    match filter {
        Some(filter) => listener.filter(filter),
        None => listener,
    }
}

/// Envoy itself answers.
fn direct(filter: Option<Filter>) -> Running {
    let listener = steady_listener("in", filter).route(Route::direct("/", 200));
    Running::new(Envoy::builder().listener(listener).start(), "in", "/orders/17")
}

/// The page of the documentation, and its plot.
pub fn page(figures: &Value, machine: &str) -> Result<(String, String), String> {
    let axes: Vec<Axis> =
        serde_json::from_value(figures["axes"].clone()).map_err(|e| e.to_string())?;
    let mut page = format!(
        "# How the cost grows\n\n\
         Written by `cargo xtask bench -- --update --only growth`, on {machine}: CPU time of Envoy per\n\
         request over the same Envoys without a filter, median of interleaved rounds. A cost that does\n\
         not grow is a flat line; hops are to grow by as much each.\n\n![growth](growth.svg)\n\n\
         | what grows | how many | us more | x the first |\n|---|---:|---:|---:|\n"
    );
    for Axis { name, what, points } in &axes {
        let first = points.first().map_or(1.0, |point| point.1);
        for (many, nanoseconds) in points {
            let (us, times) = (nanoseconds / 1e3, nanoseconds / first);
            let _ = writeln!(page, "| {name}: {what} | {many} | {us:.1} | {times:.2} |");
        }
    }
    page.push_str(
        "\nMemory that Envoy has allocated, one worker, after each key was asked for once:\n\n",
    );
    page.push_str("| live keys | MB |\n|---:|---:|\n");
    for memory in figures["memory"].as_array().into_iter().flatten() {
        let megabytes = memory[1].as_f64().unwrap_or_default() / 1e6;
        let _ = writeln!(page, "| {} | {megabytes:.1} |", memory[0]);
    }
    let plot = plot(&axes).map_err(|e| format!("the plot cannot be drawn: {e}"))?;
    Ok((page, plot))
}

/// One panel for each axis; the ordinate begins at zero.
fn plot(axes: &[Axis]) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (960, 640)).into_drawing_area();
        root.fill(&WHITE)?;
        for (panel, Axis { name, points, .. }) in root.split_evenly((2, 2)).iter().zip(axes) {
            let most = points.iter().map(|point| point.1 / 1e3).fold(0.0, f64::max);
            let ends = |point: Option<&(u64, f64)>| point.map_or(1.0, |point| point.0 as f64);
            let (first, last) = (ends(points.first()), ends(points.last()));
            let line = points.iter().map(|(many, ns)| (*many as f64, ns / 1e3));
            let mut chart = ChartBuilder::on(panel);
            chart
                .caption(name, ("sans-serif", 18))
                .margin(14)
                .x_label_area_size(36)
                .y_label_area_size(48);
            // Tens of thousands and ones on one axis need a logarithm.
            if last / first > 10.0 {
                let mut chart =
                    chart.build_cartesian_2d((first..last).log_scale(), 0.0..most * 1.2)?;
                chart.configure_mesh().x_desc(name).y_desc("us more").draw()?;
                chart.draw_series(LineSeries::new(line, BLUE.stroke_width(2)).point_size(4))?;
            } else {
                let mut chart = chart.build_cartesian_2d(first..last, 0.0..most * 1.2)?;
                chart.configure_mesh().x_desc(name).y_desc("us more").draw()?;
                chart.draw_series(LineSeries::new(line, BLUE.stroke_width(2)).point_size(4))?;
            }
        }
        root.present()?;
    }
    Ok(svg)
}
