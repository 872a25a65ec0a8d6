//! An engine of two kinds, and proxies that ask it, under a clock that the test moves.

use std::collections::HashMap;

use super::wire::{Value, each, field, varint};
use crate::core::headers::HeaderMap;
use crate::core::ports::Nanos;
use crate::limit::plan::Waiting;
use crate::limit::testkit::Vm;

const S: Nanos = 1_000_000_000;

/// How an engine counts and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Limitador's: checks, then counts; no word on what is left.
    Bare,
    /// Limitador's with `X-RateLimit-*`.
    Headers,
    /// envoyproxy/ratelimit's: counts, then checks; statuses.
    Statuses,
}

/// Fixed windows, one counter for each descriptor.
pub struct Engine {
    pub style: Style,
    pub limit: u64,
    pub window: Nanos,
    counts: HashMap<Vec<u8>, (u64, u64)>,
    pub calls: u64,
    /// Hits of all answers that were good.
    pub granted: u64,
}

impl Engine {
    pub fn new(style: Style, limit: u64, window: Nanos) -> Engine {
        Engine { style, limit, window, counts: HashMap::new(), calls: 0, granted: 0 }
    }

    pub fn answer(&mut self, request: &[u8], now: Nanos) -> Vec<u8> {
        self.calls += 1;
        let (mut descriptor, mut hits) = (Vec::new(), 0);
        each(request, &mut |number, value| {
            match (number, value) {
                (2, Value::Bytes(bytes)) => descriptor = bytes.to_vec(),
                (3, Value::Number(given)) => hits = given,
                _ => {}
            }
            Some(())
        });
        let window = now / self.window;
        let count = self.counts.entry(descriptor).or_default();
        if count.0 != window {
            *count = (window, 0);
        }
        let is_over = count.1 + hits > self.limit;
        if !is_over || self.style == Style::Statuses {
            count.1 += hits;
        }
        if !is_over {
            self.granted += hits;
        }
        let left = self.limit.saturating_sub(count.1);
        let rest = self.window - now % self.window;
        let mut out = number(1, if is_over { 2 } else { 1 });
        match self.style {
            Style::Bare => {}
            Style::Headers => {
                out.extend(header("X-RateLimit-Remaining", left));
                out.extend(header("X-RateLimit-Reset", rest / S));
            }
            Style::Statuses => {
                let code = number(1, if is_over { 2 } else { 1 });
                let reset = nested(4, &number(1, rest.div_ceil(S)));
                let left = number(3, if is_over { 0 } else { left });
                out.extend(nested(2, &[code, left, reset].concat()));
            }
        }
        out
    }
}

fn number(name: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(name << 3, &mut out);
    varint(value, &mut out);
    out
}

fn nested(number: u64, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(number, inner, &mut out);
    out
}

fn header(name: &str, value: u64) -> Vec<u8> {
    let value = nested(2, value.to_string().as_bytes());
    nested(5, &[nested(1, name.as_bytes()), value].concat())
}

/// What became of a request, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passed,
    Refused,
    Waits,
}

/// A worker with the requests that wait in it.
pub struct Asker {
    pub vm: Vm,
    headers: HeaderMap,
    waiting: Vec<Waiting>,
    /// Calls that are under way: when they were made, token and message.
    pub calls: Vec<(Nanos, u32, Vec<u8>)>,
    seen: usize,
}

impl Asker {
    pub fn new(vm: Vm) -> Asker {
        let headers = HeaderMap::from_pairs(&[(":method", "GET"), (":path", "/")]);
        Asker { vm, headers, waiting: Vec::new(), calls: Vec::new(), seen: 0 }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn send(&mut self, now: Nanos) -> Fate {
        let Vm { limiter, worker, ports } = &mut self.vm;
        let decision = limiter.on_request(worker, &self.headers, ports);
        self.take(decision, now)
    }

    /// What a call got, `None` where it failed, is told to those who wait for it.
    pub fn hear(&mut self, token: u32, answer: Option<&[u8]>, now: Nanos) -> Vec<Fate> {
        self.calls.retain(|(_, known, _)| *known != token);
        let Vm { worker, ports, .. } = &mut self.vm;
        worker.on_call(token, answer, ports);
        let woken: Vec<_> = self.waiting.extract_if(.., |it| it.token == token).collect();
        let resume = |waiting: Waiting| {
            let Vm { limiter, worker, ports } = &mut self.vm;
            let decision = limiter.resume(Some(waiting), worker, &self.headers, ports);
            self.take(decision, now)
        };
        woken.into_iter().map(resume).collect()
    }

    fn take(&mut self, decision: crate::limit::Decision, now: Nanos) -> Fate {
        for (_, message) in self.vm.ports.calls.iter().skip(self.seen) {
            self.seen += 1;
            self.calls.push((now, u32::try_from(self.seen).unwrap(), message.clone()));
        }
        if decision.effects.waits_for.is_some() {
            self.waiting.extend(decision.response.and_then(|plan| plan.waiting));
            return Fate::Waits;
        }
        if decision.passes() { Fate::Passed } else { Fate::Refused }
    }
}

/// A policy of one rule.
pub fn policy(limit: u64, mesh: &str, rule: &str) -> String {
    format!(
        "name: t\nrate_limit:\n  mesh: {{cluster: engine, domain: shop, {mesh}}}\n  rules:\n  \
         - {{id: r, scope: MESH, max_tokens: {limit}, tokens_per_fill: {limit}, \
         fill_interval: 1s, {rule}}}\n"
    )
}
