//! A proxy with the modules of a policy, one worker, and a clock that the caller moves.
//!
//! It stands in for the host layer: the engines decide, their effects are carried out on headers. The
//! order is that of the chain: color, trace, limiter, breaker on a request, the other way round on a
//! response.

use std::rc::Rc;

use weir_engine::breaker::{self, Breaker};
use weir_engine::color::{self, Painter};
use weir_engine::core::effects::{Effects, HeaderEdit};
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::ports::{Clock as _, Nanos};
use weir_engine::core::reply::LocalReply;
use weir_engine::core::request::Request;
use weir_engine::core::restore::NOTE;
use weir_engine::limit::{self, Limiter, ResponsePlan};
use weir_engine::sim::{Process, SimPorts};
use weir_engine::trace::{self, Tracer};
use weir_protos::FieldError;
use weir_protos::v1::Policy;

use crate::source::{PLUGIN, Sections};

pub type Pairs = Vec<(String, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    Trace,
    Color,
    Limit,
    Breaker,
}

/// In the order in which they see a request.
pub const MODULES: [Module; 4] = [Module::Color, Module::Trace, Module::Limit, Module::Breaker];

impl Module {
    /// As its section is called.
    pub fn section(self) -> &'static str {
        match self {
            Module::Trace => "trace_context",
            Module::Color => "traffic_color",
            Module::Limit => "rate_limit",
            Module::Breaker => "circuit_breaker",
        }
    }
}

pub struct Proxy {
    pub process: Process,
    pub ports: SimPorts,
    pub tracer: Option<Tracer>,
    pub painter: Option<Painter>,
    pub limiter: Option<Limiter>,
    pub breaker: Option<Breaker>,
    pub trace_worker: trace::Worker,
    pub color_worker: color::Worker,
    pub limit_worker: limit::Worker,
    pub breaker_worker: breaker::Worker,
}

/// A request that went on, until it is logged.
#[derive(Default)]
pub struct Stream {
    trace: Option<trace::Call>,
    color: Option<color::Call>,
    limit: Option<ResponsePlan>,
    breaker: Option<Rc<breaker::Call>>,
}

impl Stream {
    /// Whether the end of the request matters to a breaker or to a guard.
    pub fn waits(&self) -> bool {
        self.breaker.is_some() || self.color.is_some()
    }
}

/// What a module did to a request, or to its response.
pub struct Step {
    pub module: Module,
    pub edits: Vec<HeaderEdit>,
    /// What it left for the access log.
    pub state: Option<String>,
}

/// A request after the modules.
pub struct Passed {
    /// As it goes on, or as it stood when it was answered.
    pub headers: HeaderMap,
    pub steps: Vec<Step>,
    /// By the module that answered it.
    pub reply: Option<(Module, LocalReply)>,
    pub stream: Stream,
}

impl Proxy {
    /// `wall` is the time by the wall clock, since 1970.
    pub fn new(policy: &Policy, sections: Sections, wall: Nanos) -> Result<Proxy, FieldError> {
        // Rules past the bound would share a name in metrics; decisions do not depend on it.
        let mut policy = policy.clone();
        policy.telemetry.get_or_insert_default().max_series = Some(100_000);
        let policy = &policy;
        let process = Process::start();
        let mut ports = process.ports(SEED);
        let step = i128::from(wall) - i128::from(ports.wall());
        ports.wall_step = i64::try_from(step).unwrap_or(0);
        let mut proxy = Proxy {
            tracer: sections.trace.then(|| Tracer::compile(policy, PLUGIN)).transpose()?,
            painter: sections.color.then(|| Painter::compile(policy, PLUGIN)).transpose()?,
            limiter: sections.limit.then(|| Limiter::compile(policy, PLUGIN, 1)).transpose()?,
            breaker: sections.breaker.then(|| Breaker::compile(policy, PLUGIN)).transpose()?,
            trace_worker: trace::Worker::default(),
            color_worker: color::Worker::default(),
            limit_worker: limit::Worker::default(),
            breaker_worker: breaker::Worker::default(),
            process,
            ports,
        };
        proxy.prepare();
        Ok(proxy)
    }

    /// Another policy comes into force, as over ECDS: engines are new, workers and shared data stay.
    #[cfg(test)]
    pub fn edit(&mut self, policy: &Policy, sections: Sections) -> Result<(), FieldError> {
        self.tracer = sections.trace.then(|| Tracer::compile(policy, PLUGIN)).transpose()?;
        self.painter = sections.color.then(|| Painter::compile(policy, PLUGIN)).transpose()?;
        self.limiter = sections.limit.then(|| Limiter::compile(policy, PLUGIN, 1)).transpose()?;
        self.breaker = sections.breaker.then(|| Breaker::compile(policy, PLUGIN)).transpose()?;
        self.prepare();
        Ok(())
    }

    fn prepare(&mut self) {
        let ports = &mut self.ports;
        if let Some(tracer) = &self.tracer {
            tracer.prepare(&mut self.trace_worker, ports);
        }
        if let Some(painter) = &self.painter {
            painter.prepare(&mut self.color_worker, ports);
        }
        if let Some(limiter) = &mut self.limiter {
            limiter.stand_in();
            limiter.prepare(&mut self.limit_worker, ports);
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.prepare(&mut self.breaker_worker, ports);
        }
    }

    /// A request through all modules.
    #[cfg(test)]
    pub fn request(&mut self, headers: HeaderMap) -> Passed {
        let mut passed = Passed::new(headers);
        MODULES.into_iter().for_each(|module| self.step(module, &mut passed));
        passed
    }

    /// One module looks at a request, unless an earlier one has answered it.
    pub fn step(&mut self, module: Module, passed: &mut Passed) {
        if passed.reply.is_some() {
            return;
        }
        let (headers, stream, ports) = (&passed.headers, &mut passed.stream, &mut self.ports);
        if Some(&module) == MODULES.first() {
            // Of the request before.
            ports.set_attribute(NOTE, b"");
        }
        let effects = match module {
            Module::Trace => self.tracer.as_ref().map(|tracer| {
                let decision = tracer.on_request(&mut self.trace_worker, headers, ports);
                stream.trace = decision.call;
                decision.effects
            }),
            Module::Color => self.painter.as_ref().map(|painter| {
                let decision = painter.on_request(&mut self.color_worker, headers, ports);
                stream.color = decision.call;
                decision.effects
            }),
            Module::Limit => self.limiter.as_mut().map(|limiter| {
                let decision = limiter.on_request(&mut self.limit_worker, headers, ports);
                stream.limit = decision.response;
                decision.effects
            }),
            Module::Breaker => self.breaker.as_mut().map(|breaker| {
                let decision = breaker.on_request(&mut self.breaker_worker, headers, ports);
                stream.breaker = decision.call;
                decision.effects
            }),
        };
        if let Some(effects) = effects {
            if let Some(note) = &effects.note {
                self.ports.set_attribute(NOTE, &note.write());
            }
            passed.take(module, effects);
        }
    }

    /// Whether a module would pass over a request.
    pub fn is_exempt(&mut self, headers: &HeaderMap) -> bool {
        let common = [
            self.tracer.as_ref().map(Tracer::common),
            self.painter.as_ref().map(Painter::common),
            self.limiter.as_ref().map(Limiter::common),
            self.breaker.as_ref().map(Breaker::common),
        ];
        // All say the same: exemptions are the policy's.
        let common = common.into_iter().flatten().next();
        common.is_some_and(|common| common.is_exempt(&mut Request::new(headers), &mut self.ports))
    }

    /// The response headers come, the upstream's or those of a reply.
    pub fn response(&mut self, stream: &mut Stream, headers: &mut HeaderMap) -> Vec<Step> {
        let mut steps = Vec::new();
        let ports = &mut self.ports;
        let mut step = |module, effects: Effects, headers: &mut HeaderMap| {
            let mut edits = effects.headers;
            if let Some(reply) = effects.reply {
                // It takes the response's place: an envelope around an error of Envoy's.
                *headers = HeaderMap::from_pairs(&[(":status", reply.status.to_string())]);
                edits = reply.headers.into_iter().map(|(n, v)| HeaderEdit::Set(n, v)).collect();
            }
            headers.edit(&edits);
            if !edits.is_empty() {
                steps.push(Step { module, edits, state: None });
            }
        };
        if let Some(call) = &stream.breaker {
            let edits = call.on_response(&mut self.breaker_worker, headers, ports);
            step(Module::Breaker, edits.into(), headers);
        }
        if let Some(plan) = &mut stream.limit {
            let edits = plan.respond(&mut self.limit_worker, headers, ports);
            step(Module::Limit, edits.into(), headers);
        }
        if let Some(call) = &stream.trace {
            let effects = call.on_response(headers, ports);
            step(Module::Trace, effects, headers);
        }
        if let Some(call) = &stream.color {
            let effects = call.on_response(headers, ports);
            step(Module::Color, effects, headers);
        }
        steps
    }

    /// The stream is over.
    pub fn end(&mut self, stream: Stream) {
        let ports = &mut self.ports;
        if let Some(call) = stream.breaker {
            call.on_log(&mut self.breaker_worker, ports);
        }
        if let Some(plan) = stream.limit {
            plan.end(&mut self.limit_worker, ports);
        }
        if let Some(call) = stream.color {
            call.on_log(ports);
        }
        if let Some(call) = stream.trace {
            call.on_log(&mut self.trace_worker, ports);
        }
    }

    /// Slow work of all modules, as a real proxy's timer does it.
    pub fn tick(&mut self) {
        MODULES.into_iter().for_each(|module| self.tick_module(module));
    }

    pub fn tick_module(&mut self, module: Module) {
        let ports = &mut self.ports;
        match module {
            Module::Trace => {
                if let Some(tracer) = &self.tracer {
                    self.trace_worker.tick(ports);
                    tracer.tick(ports);
                }
            }
            Module::Color => {
                if let Some(painter) = &self.painter {
                    self.color_worker.tick(ports);
                    painter.tick(ports);
                }
            }
            Module::Limit => {
                if let Some(limiter) = &mut self.limiter {
                    self.limit_worker.tick(ports);
                    limiter.tick(ports);
                }
            }
            Module::Breaker => {
                if let Some(breaker) = &mut self.breaker {
                    self.breaker_worker.tick(ports);
                    breaker.tick(ports);
                }
            }
        }
    }
}

/// Random choices are the same in every run, so that outputs can be compared.
const SEED: u64 = 1;

impl Passed {
    pub fn new(headers: HeaderMap) -> Passed {
        Passed { headers, steps: Vec::new(), reply: None, stream: Stream::default() }
    }

    fn take(&mut self, module: Module, effects: Effects) {
        self.headers.edit(&effects.headers);
        if !effects.headers.is_empty() || effects.state.is_some() {
            self.steps.push(Step { module, edits: effects.headers, state: effects.state });
        }
        self.reply = effects.reply.map(|reply| (module, reply));
    }
}

/// For people and JSON: bytes that are no text are shown as such.
pub fn pairs(headers: &HeaderMap) -> Pairs {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}
