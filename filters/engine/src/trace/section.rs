//! The section `trace_context` of a policy, at work.

use std::cell::Cell;
use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::format::Value as Format;
use weir_protos::v1::propagation::Mode;
use weir_protos::v1::{Policy, direction, mode};

use super::baggage::BaggageRules;
use super::call::{Call, Shared};
use super::context::{Carried, SpanContext};
use super::deadline::{DeadlineRules, Left};
use super::formats::ot::Ot;
use super::formats::tracestate::Own;
use super::hop::{Open, Place, SpanRules};
use super::metrics::{Contexts, Counts};
use super::propagation::{Before, Found, Propagation, fresh, remove};
use super::response::ResponseRules;
use super::restoring::{Recalled, Restoring};
use super::sampling::{self, Candidate, SERIES_PER_RULE, Sampler};
use super::worker::Worker;
use crate::core::answer::{Client, DEADLINE_EXCEEDED, body};
use crate::core::effects::{Effects, HeaderEdit};
use crate::core::headers::HeaderMap;
use crate::core::matcher::Matcher;
use crate::core::policy::{Common, effective_mode};
use crate::core::ports::{Metrics, Nanos, Ports, Rng, SharedStore};
use crate::core::reply::{LocalReply, Problem};
use crate::core::request::Request;

/// Each is tested on every request from outside.
const MAX_TRUSTED: usize = 16;

/// What is to be done with a request, and what is to be kept until it is logged.
#[derive(Debug, Default)]
pub struct Decision {
    pub effects: Effects,
    pub call: Option<Call>,
}

pub struct Tracer {
    common: Common,
    mode: mode::Value,
    trusted: Vec<Matcher>,
    propagation: Propagation,
    baggage: BaggageRules,
    sampler: Sampler,
    deadline: Option<DeadlineRules>,
    restoring: Option<Restoring>,
    spans: Option<SpanRules>,
    shared: Rc<Shared>,
    /// Sampling rules with this number or a higher one share a label.
    labelled: usize,
}

impl Tracer {
    /// `plugin` is the name under which Envoy runs the filter.
    #[cold]
    pub fn compile(policy: &Policy, plugin: &str) -> Result<Tracer, FieldError> {
        let common = Common::compile(policy, plugin)?;
        let section = policy.trace()?;
        let is_absent = section.is_none();
        let section = section.unwrap_or_default();
        let path = "policy.trace_context";
        let at = |field: &str| format!("{path}.{field}");
        if section.trusted.len() > MAX_TRUSTED {
            let remedy = "entries: must be at most 16, since each is tested on every request";
            return Err(FieldError::value(at("trusted"), section.trusted.len(), remedy));
        }
        let plain = common.match_defaults(direction::Value::Any).plain();
        let trusted = section.trusted.iter().enumerate().map(|(place, source)| {
            Matcher::compile(Some(source), &at(&format!("trusted[{place}]")), &plain)
        });
        let propagation = section.propagation.clone().unwrap_or_default();
        let propagation = Propagation::compile(&propagation, &at("propagation"))?;
        let baggage = section.baggage.clone().unwrap_or_default();
        let spans = match &section.spans {
            Some(spans) => Some(SpanRules::compile(spans, &common, &at("spans"))?),
            None => None,
        };
        if spans.is_some() && matches!(propagation.mode, Mode::Preserve | Mode::Observe) {
            let remedy =
                "need a span id of their own; they go with propagation.mode PROPAGATE or RESTART";
            return Err(FieldError::at(at("spans"), remedy));
        }
        Ok(Tracer {
            // A section that says nothing asks for all defaults; none at all asks for nothing.
            mode: if is_absent {
                mode::Value::Off
            } else {
                effective_mode(&[common.mode, section.mode()])
            },
            trusted: trusted.collect::<Result<_, _>>()?,
            propagation,
            baggage: BaggageRules::compile(&baggage, &common.color_header, &at("baggage"))?,
            sampler: Sampler::compile(section.sampling.as_ref(), &common, &at("sampling"))?,
            deadline: match &section.deadline {
                Some(deadline) => Some(DeadlineRules::compile(deadline, &at("deadline"))?),
                None => None,
            },
            restoring: Restoring::compile(&policy.restore()?, &common, "policy.restore")?,
            spans,
            shared: Rc::new(Shared {
                response: ResponseRules::compile(section.response.as_ref(), &at("response"))?,
                counts: Counts::default(),
            }),
            labelled: (common.max_series / SERIES_PER_RULE) as usize,
            common,
        })
    }

    pub fn common(&self) -> &Common {
        &self.common
    }

    /// Makes what workers would otherwise race to make. What is there already is never touched.
    pub fn prepare(&self, worker: &mut Worker, ports: &mut impl Ports) {
        if self.mode == mode::Value::Off {
            return;
        }
        worker.export(&self.common.identity.state_prefix, self.spans.as_ref());
        self.sampler.prepare(ports);
        if let Some(restoring) = &self.restoring {
            worker.secret.prepare(ports);
            restoring.prepare(ports);
        }
    }

    pub fn on_request(
        &self,
        worker: &mut Worker,
        headers: &HeaderMap,
        ports: &mut impl Ports,
    ) -> Decision {
        if self.mode == mode::Value::Off {
            return Decision::default();
        }
        let mut request = Request::new(headers);
        if self.common.is_exempt(&mut request, ports) {
            self.shared.counts.context(Contexts::Exempt);
            return Decision::default();
        }
        let is_shadow = self.mode == mode::Value::Shadow;
        let decision = Desk { tracer: self, worker, is_shadow }.decide(&mut request, ports);
        if is_shadow { Decision::default() } else { decision }
    }

    /// The sampling rules as a request finds them, for people who ask why: their ids, and whether they
    /// mean it.
    #[cfg(any(test, feature = "sim"))]
    pub fn look(&self, headers: &HeaderMap, ports: &mut impl Ports) -> Vec<(String, bool)> {
        self.sampler.look(&mut Request::new(headers), ports)
    }

    /// Whether the context of a request counts that it brings along.
    #[cfg(any(test, feature = "sim"))]
    pub fn trusts(&self, headers: &HeaderMap, ports: &mut impl Ports) -> bool {
        let mut request = Request::new(headers);
        !self.common.is_edge || self.trusted.iter().any(|from| from.matches(&mut request, ports))
    }

    /// Writes the counters that have gathered.
    pub fn tick(&self, ports: &mut (impl SharedStore + Metrics)) {
        let policy = &self.common.identity.policy;
        if let Some(restoring) = &self.restoring {
            restoring.tick(&self.shared.counts, ports);
        }
        self.shared.counts.flush(policy, ports);
        self.sampler.flush(policy, self.labelled, ports);
    }
}

/// All that one decision works with.
struct Desk<'t> {
    tracer: &'t Tracer,
    worker: &'t mut Worker,
    is_shadow: bool,
}

impl<'t> Desk<'t> {
    fn decide<'r>(self, request: &mut Request<'r>, ports: &mut impl Ports) -> Decision
    where
        't: 'r,
    {
        let Desk { tracer, worker, is_shadow } = self;
        let Tracer {
            common,
            trusted,
            propagation,
            baggage,
            sampler,
            deadline,
            restoring,
            spans,
            shared,
            ..
        } = tracer;
        let headers: &'r HeaderMap = request.headers;
        let counts = &shared.counts;
        let mut effects = Effects::default();
        let is_trusted =
            !common.is_edge || trusted.iter().any(|source| source.matches(request, ports));

        // What came, or what is remembered of the request that this one is made for.
        let mut found = propagation.extract(headers);
        // An id that is not of a trace makes one where nothing better is known.
        let has_own = found.format.is_some_and(|format| format != Format::RequestId);
        let own = if has_own { found.carried } else { Carried::default() };
        let restoring = restoring.as_ref().filter(|_| common.is_edge || !request.is_mirrored());
        let recalled = match restoring {
            Some(restoring) => restoring.recall(&own, request, worker, counts, ports),
            None => Recalled::default(),
        };
        let known = recalled.trace();
        if let Some(trace) = known {
            if has_own {
                // The application may have passed on half of the id.
                found.carried.trace_id = trace.trace_id;
            } else {
                found.carried = trace;
                found.state = recalled.state();
                found.is_recalled = true;
            }
        }
        let is_restored = !has_own && known.is_some();
        let restarts = propagation.mode == Mode::Restart && !(common.is_edge && is_trusted);
        if restarts {
            found.is_broken |= has_own;
            found.carried = Carried::default();
            found.state = None;
            found.is_recalled = false;
        }
        // What this proxy remembers, it has let in itself.
        let is_ours = is_trusted || known.is_some();
        if !is_ours {
            found.carried.is_debug = false;
        }

        // The context that goes on.
        let carried = found.carried;
        let is_new = carried.trace_id.is_none();
        let (trace_id, span_id) = fresh(carried.trace_id, &mut || ports.random());
        let fate = match (is_new, is_restored && !restarts, found.is_broken) {
            (true, _, true) => Contexts::Restarted,
            (true, _, false) => Contexts::Started,
            (false, true, _) => Contexts::Restored,
            (false, false, _) => Contexts::Continued,
        };
        counts.context(fate);
        let is_whole = carried.span_id.is_some() && !is_new && !is_restored;
        let keeps = propagation.mode == Mode::Preserve && is_whole && is_ours;
        let candidate = candidate(&found, trace_id, is_ours, is_new, ports);
        let randomness = candidate.randomness;
        let sampled = if keeps {
            // Nothing that is said of it changes.
            sampling::Decision {
                is_sampled: carried.sampled.unwrap_or(true),
                ..sampling::Decision::default()
            }
        } else {
            sampler.decide(&candidate, request, &mut worker.found, ports)
        };
        let mut context = SpanContext {
            trace_id,
            span_id,
            sampled: sampled.is_sampled || carried.is_debug,
            is_random: is_new || carried.is_random,
            is_debug: carried.is_debug,
        };
        if let (true, Some(span_id)) = (keeps, carried.span_id) {
            context.span_id = span_id;
        }
        let before = match keeps {
            _ if restarts || !is_ours => Before::Goes,
            true => Before::Stays,
            false => Before::Continues,
        };
        let is_observed = propagation.mode == Mode::Observe;
        if !is_observed {
            let edits = &mut effects.headers;
            propagation.strip(headers, edits);
            if before == Before::Goes {
                propagation.strip_foreign(headers, edits);
            }
            propagation.inject(&context, &found, sampled.ot, before, headers, edits);
        }
        if sampled.forces_envoy {
            effects.headers.push(HeaderEdit::Set("x-envoy-force-trace".into(), "true".into()));
        }

        // What travels with it.
        let mut note = None;
        let members = baggage.apply(
            request,
            is_ours,
            recalled.baggage(),
            &mut note,
            ports,
            &mut effects.headers,
        );
        recalled.carry(headers, &mut effects.headers);
        let left = match deadline {
            Some(deadline) => {
                let edits = &mut effects.headers;
                deadline.apply(request, is_ours, recalled.deadline(), counts, ports, edits)
            }
            None => {
                if !is_ours {
                    remove("x-weir-deadline-ms", headers, &mut effects.headers);
                }
                Left::Unbounded
            }
        };
        if let (Some(restoring), false, false) = (restoring, is_shadow, left == Left::Spent) {
            let until = match left {
                Left::Until { at, .. } => Some(at),
                _ => None,
            };
            let goes_on = Passed {
                context: &context,
                found: &found,
                edits: &effects.headers,
                baggage: members.as_deref(),
                deadline: until,
                is_trusted,
                is_edge: common.is_edge,
            };
            let minted = restoring.record(&goes_on, &mut note, request, worker, counts, ports);
            effects.headers.extend(minted);
            effects.note = note.filter(|note| note.matters(common.is_edge));
        }

        let is_grpc = request.is_grpc();
        if left == Left::Spent {
            let trace_id = trace_id.to_string();
            effects.reply = Some(spent(Client { is_grpc, trace_id: Some(&trace_id) }));
            effects.state = Some("deadline spent".into());
        } else if is_restored && !restarts {
            effects.state = Some("restored".into());
        }
        let known = !(is_observed && is_new);
        let open = sampled.score.filter(|_| !context.sampled).and_then(|score| {
            let scoring = sampler.scoring()?;
            Some(Open { scoring, score, randomness })
        });
        let hop = match spans {
            Some(spans) if !is_shadow && (context.sampled || open.is_some()) => {
                let tracestate = tracestate(&found, &effects.headers);
                let fate = fate.word();
                let place = Place { context, parent: carried.span_id, tracestate, fate };
                Some(spans.begin(request, place, open, ports))
            }
            _ => None,
        };
        let call = Call {
            shared: Rc::clone(shared),
            context: known.then_some(context),
            is_grpc,
            is_timed: matches!(left, Left::Until { is_ours: true, .. }),
            links: propagation.server_timing && restarts,
            status: Cell::new(None),
            hop,
        };
        Decision { effects, call: Some(call).filter(Call::matters) }
    }
}

/// What of a request goes on to the application, and so into a record.
pub(super) struct Passed<'a, 'r> {
    pub context: &'a SpanContext,
    pub found: &'a Found<'r>,
    pub edits: &'a [HeaderEdit],
    pub baggage: Option<&'a str>,
    pub deadline: Option<Nanos>,
    pub is_trusted: bool,
    pub is_edge: bool,
}

impl Passed<'_, '_> {
    /// Whether the trace began here.
    pub fn is_new(&self) -> bool {
        self.found.carried.trace_id.is_none()
    }

    pub fn tracestate(&self) -> Option<String> {
        tracestate(self.found, self.edits)
    }
}

/// As it goes on.
fn tracestate(found: &Found<'_>, edits: &[HeaderEdit]) -> Option<String> {
    let written = edits.iter().rev().find_map(|edit| match edit {
        HeaderEdit::Set(name, value) if name == "tracestate" => Some(Some(value.clone())),
        HeaderEdit::Remove(name) if name == "tracestate" => Some(None),
        _ => None,
    });
    written.unwrap_or_else(|| {
        let state = found.state.as_ref().filter(|state| !state.is_empty());
        state.map(|state| state.write(Own::Keep))
    })
}

/// The randomness by which the trace is decided on. An untrusted client must not choose it: it chose
/// its trace id.
fn candidate<'c>(
    found: &'c Found<'_>,
    trace_id: super::context::TraceId,
    is_trusted: bool,
    is_new: bool,
    ports: &mut impl Rng,
) -> Candidate<'c> {
    let is_own_randomness = !is_trusted && !is_new;
    let randomness = if is_own_randomness {
        ports.random() >> 8
    } else {
        let member = found.state.as_ref().and_then(|state| state.get(b"ot"));
        let said = member.and_then(|value| Ot::parse(value).randomness);
        said.unwrap_or_else(|| trace_id.randomness())
    };
    Candidate { carried: &found.carried, is_trusted, randomness, is_own_randomness }
}

/// The answer to a request whose time is up. Nobody should try it again.
fn spent(client: Client<'_>) -> LocalReply {
    let reason = "deadline_exceeded";
    let mut headers = vec![
        ("x-weir-reason".into(), reason.into()),
        ("x-envoy-ratelimited".into(), "true".into()),
    ];
    let problem = Problem {
        kind: "about:blank",
        title: "Gateway Timeout",
        status: 504,
        detail: "the deadline of this request was over before it came here",
        reason,
        violated: &[],
        trace_id: client.trace_id,
    };
    let body = body(&mut headers, client, &problem);
    LocalReply {
        status: 504,
        details: "weir_deadline_exceeded".into(),
        headers,
        body,
        grpc_status: client.is_grpc.then_some(DEADLINE_EXCEEDED),
    }
}
