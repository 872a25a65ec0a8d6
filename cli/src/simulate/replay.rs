//! Requests through a policy, in the order of time, under a clock that they move.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use weir_engine::core::headers::HeaderMap;
use weir_engine::core::ports::Nanos;
use weir_protos::FieldError;
use weir_protos::v1::Policy;

use super::log::Record;
use super::tally::Rule;
use crate::proxy::{MODULES, Module, Passed, Proxy, Stream};
use crate::source::Sections;

/// How often a proxy's timer runs. The breaker's own is faster, by its `sync_interval`.
const TICK: Nanos = 100_000_000;

/// After so many ticks without a request nothing is left to do, and time may leap.
const TICKS_IN_A_ROW: u32 = 20;

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passed,
    /// By the module with this number in [`MODULES`].
    Refused(u8),
}

pub struct Replay {
    proxy: Proxy,
    /// The wall clock at the start, and the proxy's clock there.
    first: Nanos,
    base: Nanos,
    tick: Nanos,
    ticked: Nanos,
    /// Requests on their way.
    coming: BinaryHeap<Reverse<Event>>,
    sequence: u64,
    pub limits: BTreeMap<String, Rule>,
    pub breakers: BTreeMap<String, Rule>,
    pub replies: BTreeMap<&'static str, u64>,
}

/// The response headers, or the end, of a request on its way.
struct Event {
    at: Nanos,
    sequence: u64,
    is_end: bool,
    ends: Nanos,
    stream: Stream,
    outcome: Outcome,
}

/// What the log says of the upstream.
struct Outcome {
    status: u16,
    flags: u64,
    attempts: u64,
    grpc_status: Option<u64>,
    details: Vec<u8>,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Event) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl Replay {
    /// `first` is when the first request comes; `direction` as Envoy numbers it.
    pub fn new(
        policy: &Policy,
        sections: Sections,
        first: Nanos,
        direction: u64,
    ) -> Result<Replay, FieldError> {
        let mut proxy = Proxy::new(policy, sections, first)?;
        proxy.ports.set_attribute("xds.listener_direction", &direction.to_le_bytes());
        // Nobody collects spans here.
        proxy.ports.takes_calls = false;
        let tick = proxy
            .breaker
            .as_ref()
            .map_or(TICK, |breaker| TICK.min(Nanos::from(breaker.tick_milliseconds()) * 1_000_000));
        let base = proxy.process.now();
        Ok(Replay {
            proxy,
            first,
            base,
            tick,
            ticked: base,
            coming: BinaryHeap::new(),
            sequence: 0,
            limits: BTreeMap::new(),
            breakers: BTreeMap::new(),
            replies: BTreeMap::new(),
        })
    }

    /// A request; they come in the order of time.
    pub fn request(&mut self, record: &Record<'_>) -> Fate {
        let now = self.base + record.start.saturating_sub(self.first);
        self.run_until(now);
        self.proxy.process.set_time(now);
        let headers = headers(record);
        let source = record.source.map(|source| source.to_string()).unwrap_or_default();
        attribute(&mut self.proxy, b"source\0address", source.as_bytes());
        let mut passed = Passed::new(headers);
        for module in MODULES {
            self.proxy.step(module, &mut passed);
            self.count(module, &passed);
        }
        if let Some((module, _)) = &passed.reply {
            *self.replies.entry(module.section()).or_default() += 1;
            let number = MODULES.iter().position(|known| known == module).unwrap_or(0);
            return Fate::Refused(u8::try_from(number).unwrap_or(0));
        }
        if passed.stream.waits() {
            self.sequence += 1;
            let ends = now.saturating_add(record.took);
            self.coming.push(Reverse(Event {
                at: now.saturating_add(record.answered.unwrap_or(record.took)).min(ends),
                sequence: self.sequence,
                is_end: false,
                ends,
                stream: passed.stream,
                outcome: Outcome {
                    status: record.status,
                    flags: record.flags,
                    attempts: record.is_upstreams.into(),
                    grpc_status: record.grpc_status,
                    details: record.details.as_bytes().to_vec(),
                },
            }));
        }
        Fate::Passed
    }

    fn count(&mut self, module: Module, passed: &Passed) {
        let (headers, Proxy { ports, limiter, breaker, .. }) = (&passed.headers, &mut self.proxy);
        match (module, limiter, breaker) {
            (Module::Limit, Some(limiter), _) => {
                let rules = &mut self.limits;
                limiter.take_outcomes(headers, ports, |id, outcome, key| {
                    rule(rules, id).add(outcome.word(), key);
                });
            }
            (Module::Breaker, _, Some(breaker)) => {
                let rules = &mut self.breakers;
                breaker.take_outcomes(headers, ports, |id, outcome, key| {
                    rule(rules, id).add(outcome.word(), key);
                });
            }
            _ => {}
        }
    }

    /// Whatever happens before `now`: responses, ends, ticks.
    fn run_until(&mut self, now: Nanos) {
        let mut in_a_row = 0;
        loop {
            let tick = self.ticked.saturating_add(self.tick);
            let event = self.coming.peek().map(|Reverse(event)| event.at);
            match event {
                Some(at) if at <= tick && at <= now => {
                    in_a_row = 0;
                    if let Some(Reverse(event)) = self.coming.pop() {
                        self.handle(event);
                    }
                }
                _ if tick <= now => {
                    in_a_row += 1;
                    if in_a_row > TICKS_IN_A_ROW && event.is_none_or(|at| at > now) {
                        // The last tick before `now`.
                        self.ticked = now - (now - self.ticked) % self.tick;
                    } else {
                        self.ticked = tick;
                    }
                    self.proxy.process.set_time(self.ticked);
                    self.proxy.tick();
                }
                _ => return,
            }
        }
    }

    fn handle(&mut self, mut event: Event) {
        let proxy = &mut self.proxy;
        proxy.process.set_time(event.at);
        let Outcome { status, flags, attempts, grpc_status, details } = &event.outcome;
        number(proxy, b"response\0code", (*status).into());
        number(proxy, b"response\0flags", *flags);
        number(proxy, b"upstream\0request_attempt_count", *attempts);
        attribute(proxy, b"response\0code_details", details);
        match grpc_status {
            Some(code) => number(proxy, b"response\0grpc_status", *code),
            None => drop(proxy.ports.attributes.remove(&b"response\0grpc_status"[..])),
        }
        if event.is_end {
            return proxy.end(event.stream);
        }
        if *status != 0 {
            let mut headers = HeaderMap::from_pairs(&[(":status", status.to_string())]);
            proxy.response(&mut event.stream, &mut headers);
        }
        if event.ends <= event.at {
            return proxy.end(event.stream);
        }
        (event.at, event.is_end) = (event.ends, true);
        self.coming.push(Reverse(event));
    }

    /// All is over. Gives what the modules counted beside the rules of limits and breakers.
    pub fn finish(&mut self) -> BTreeMap<String, u64> {
        let last = self.coming.iter().map(|Reverse(event)| event.ends).max();
        let last = last.unwrap_or(0).max(self.proxy.process.now()) + 2 * self.tick;
        self.run_until(last);
        self.proxy.tick();
        self.proxy.ports.counters.iter().map(|(name, count)| (name.clone(), *count)).collect()
    }
}

fn rule<'r>(rules: &'r mut BTreeMap<String, Rule>, id: &str) -> &'r mut Rule {
    if !rules.contains_key(id) {
        rules.insert(id.to_string(), Rule::default());
    }
    rules.entry(id.to_string()).or_default()
}

fn headers(record: &Record<'_>) -> HeaderMap {
    let authority = if record.authority.is_empty() { "localhost" } else { &record.authority };
    let mut all: Vec<(&str, &str)> = Vec::with_capacity(4 + record.headers.len());
    all.extend([
        (":method", &*record.method),
        (":path", &*record.path),
        (":authority", authority),
        (":scheme", "http"),
    ]);
    all.extend(record.headers.iter().map(|(name, value)| (&**name, &**value)));
    HeaderMap::from_pairs(&all)
}

fn number(proxy: &mut Proxy, path: &[u8], value: u64) {
    attribute(proxy, path, &value.to_le_bytes());
}

/// Without a copy of the name each time.
fn attribute(proxy: &mut Proxy, path: &[u8], value: &[u8]) {
    match proxy.ports.attributes.get_mut(path) {
        Some(there) => {
            there.clear();
            there.extend_from_slice(value);
        }
        None => {
            proxy.ports.attributes.insert(path.to_vec(), value.to_vec());
        }
    }
}
