//! How leases are sized, over many proxies: a simulation that writes `docs/mesh-model.md`.
//!
//! `WEIR_BLESS=1 cargo test -p weir-engine the_table_of_the_model` writes it anew.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::path::Path;

use super::testkit::{Asker, Engine, Fate, Style, policy};
use crate::core::ports::Nanos;
use crate::limit::testkit::Vm;
use crate::sim::Process;

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;

/// Hits in each window of a second.
const LIMIT: u64 = 2000;
const WINDOWS: u64 = 3;
/// From a proxy to the engine, or back.
const HALF_WAY: Nanos = 500_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Load {
    /// Every proxy has as much as the others.
    Even,
    /// Each has all of its requests within a fifth of each second.
    Bursty,
    /// A tenth of the proxies has nine tenths of the requests.
    Skewed,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request {
        proxy: usize,
    },
    Decide {
        proxy: usize,
        token: u32,
    },
    /// The engine's answer is in `answers`.
    Hear {
        proxy: usize,
        token: u32,
        answer: usize,
    },
}

struct Mesh {
    proxies: Vec<(Process, Asker)>,
    /// The last call of each that is on its way.
    sent: Vec<u32>,
    engine: Engine,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    number: u64,
    answers: Vec<Vec<u8>>,
    /// When, where and how requests were decided.
    decided: Vec<(Nanos, usize, bool)>,
    held: u64,
}

impl Mesh {
    fn new(instances: usize, style: Style) -> Mesh {
        let yaml = policy(LIMIT, &format!("instances: {instances}, on_error: DENY"), "");
        let start = |number: usize| {
            let process = Process::start();
            let vm = Vm::start(&process, &yaml, number as u64);
            (process, Asker::new(vm))
        };
        Mesh {
            proxies: (0..instances).map(start).collect(),
            sent: vec![0; instances],
            engine: Engine::new(style, LIMIT, S),
            events: BinaryHeap::new(),
            number: 0,
            answers: Vec::new(),
            decided: Vec::new(),
            held: 0,
        }
    }

    fn at(&mut self, time: Nanos, event: Event) {
        self.number += 1;
        self.events.push(Reverse((time, self.number, event)));
    }

    fn run(&mut self) {
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            let fates = match event {
                Event::Request { proxy } => {
                    let (process, asker) = &mut self.proxies[proxy];
                    process.set_time(now);
                    let fate = asker.send(now);
                    self.held += u64::from(fate == Fate::Waits);
                    vec![(proxy, fate)]
                }
                Event::Decide { proxy, token } => {
                    let calls = &self.proxies[proxy].1.calls;
                    let call = calls.iter().find(|(_, known, _)| *known == token);
                    let answer = self.engine.answer(&call.expect("under way").2, now);
                    self.answers.push(answer);
                    let answer = self.answers.len() - 1;
                    self.at(now + HALF_WAY, Event::Hear { proxy, token, answer });
                    continue;
                }
                Event::Hear { proxy, token, answer } => {
                    let (process, asker) = &mut self.proxies[proxy];
                    process.set_time(now);
                    let heard = asker.hear(token, Some(&self.answers[answer]), now);
                    heard.into_iter().map(|fate| (proxy, fate)).collect()
                }
            };
            for (proxy, fate) in fates {
                if fate != Fate::Waits {
                    self.decided.push((now, proxy, fate == Fate::Passed));
                }
            }
            let (Event::Request { proxy }
            | Event::Hear { proxy, .. }
            | Event::Decide { proxy, .. }) = event;
            let calls = self.proxies[proxy].1.calls.iter().map(|(_, token, _)| *token);
            let new: Vec<u32> = calls.filter(|token| *token > self.sent[proxy]).collect();
            self.sent[proxy] = new.iter().copied().max().unwrap_or(self.sent[proxy]);
            for token in new {
                self.at(now + HALF_WAY, Event::Decide { proxy, token });
            }
        }
    }
}

/// SplitMix64: the same requests in every run.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// A whole second after the clocks' start, on a boundary of the engine's windows.
fn begin(mesh: &Mesh) -> Nanos {
    (mesh.proxies[0].0.now() + 1).next_multiple_of(S)
}

/// Percentages: of the limit that was used, of requests asked about, of requests held.
fn offered(instances: usize, load: Load, style: Style) -> [f64; 3] {
    let mut mesh = Mesh::new(instances, style);
    let begin = begin(&mesh);
    let requests = LIMIT * 3 / 2 * WINDOWS;
    for number in 0..requests {
        let at = number * S * WINDOWS / requests;
        let (dice, many) = (mixed(number), instances as u64);
        let proxy = match load {
            Load::Skewed if dice % 10 < 9 => (dice >> 8) % (many / 10).max(1),
            _ => (dice >> 8) % many,
        };
        let at = match load {
            // Its own fifth of the second.
            Load::Bursty => at / S * S + (at % S / 5 + mixed(proxy) % 5 * (S / 5)),
            _ => at,
        };
        mesh.at(begin + at, Event::Request { proxy: usize::try_from(proxy).unwrap() });
    }
    mesh.run();
    let passed = mesh.decided.iter().filter(|(_, _, passed)| *passed).count() as u64;
    assert_eq!(mesh.decided.len() as u64, requests, "nobody waits for ever");
    assert!(passed <= mesh.engine.granted);
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
    [
        percent(passed, LIMIT * WINDOWS),
        percent(mesh.engine.calls, requests),
        percent(mesh.held, requests),
    ]
}

/// All of the load goes to one proxy, and in the middle of a window to another that had none: how long until
/// that one passes 95 % of a slice of 20 ms.
fn shift(instances: usize, style: Style) -> Option<Nanos> {
    let mut mesh = Mesh::new(instances.max(2), style);
    let begin = begin(&mesh);
    let moved = begin + S + S / 2;
    let slice = 20 * MS;
    for number in 0..LIMIT * 2 {
        let at = begin + number * S / LIMIT;
        mesh.at(at, Event::Request { proxy: usize::from(at >= moved) });
    }
    mesh.run();
    let within = |start: Nanos| {
        let inside = mesh
            .decided
            .iter()
            .filter(|(at, proxy, _)| *proxy == 1 && *at >= start && *at < start + slice);
        let (all, passed) =
            inside.fold((0, 0), |(all, passed), (_, _, is)| (all + 1, passed + i32::from(*is)));
        all > 10 && passed * 100 >= all * 95
    };
    (0..S / slice).map(|n| n * slice).find(|after| within(moved + after)).map(|after| after + slice)
}

const TEXT: &str = "\
# Leases over many proxies, simulated

One limit of 2000 a second for all, in an engine with windows of a second, a millisecond away; 3000 requests a second
are offered, for three seconds. `instances` is right, everything else is left at its default. So `lease.max` is
500 / `instances`: with a thousand proxies it is 1, each request is asked about, and a larger one is worth its place in
the bound (docs/mesh.md).

*Bursty*: a proxy has all of its requests within a fifth of each second. *Skewed*: a tenth of the proxies has nine tenths
of the requests. *Shift*: all of the limit is offered to one proxy, and then to another that was idle: until that one
passes 95 % of it, in steps of 20 ms.

Written by `WEIR_BLESS=1 cargo test -p weir-engine the_table_of_the_model`, which also checks it.

";

fn table() -> String {
    let mut out = TEXT.to_string();
    for (style, name) in [
        (Style::Bare, "An engine that says yes or no (Limitador)"),
        (
            Style::Statuses,
            "An engine that counts what it refuses, and says what is left (envoyproxy/ratelimit)",
        ),
    ] {
        let _ = writeln!(out, "## {name}\n");
        out.push_str(
            "| proxies | load | limit used | calls for 100 requests | held of 100 | shift |\n",
        );
        out.push_str("|---|---|---|---|---|---|\n");
        for instances in [1, 10, 100, 1000] {
            let shift = shift(instances, style);
            let shift = shift.map_or("next window".into(), |time| format!("{} ms", time / MS));
            for load in [Load::Even, Load::Bursty, Load::Skewed] {
                let [used, calls, held] = offered(instances, load, style);
                let load = format!("{load:?}").to_lowercase();
                let _ = writeln!(
                    out,
                    "| {instances} | {load} | {used:.1} % | {calls:.1} | {held:.1} | {shift} |"
                );
            }
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

#[test]
fn the_table_of_the_model() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mesh-model.md");
    let table = table();
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap();
    assert!(file == table, "docs/mesh-model.md is old; WEIR_BLESS=1 writes it anew:\n{table}");
}
