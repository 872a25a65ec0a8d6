//! The dispatcher: from the host's callbacks to the filter, and from its decisions to host calls.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use proxy_wasm::types::MapType;
use weir_engine::core::effects::{Effects, HeaderEdit};
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::policy::stable_plugin;
use weir_engine::core::ports::{Metrics, Rng, labels};
use weir_engine::core::reloads::{ReloadCount, version};
use weir_engine::core::restore::NOTE;
use weir_protos::v1::telemetry::LogLevel;
use weir_protos::{FieldError, decode_json};

use crate::abi;
use crate::filter::Filter;
use crate::logger;
use crate::ports::HostPorts;
use crate::roots::Roots;

/// Refusals are looked for in every n-th tick: they are rare, and the look costs a host call.
const REFUSALS_EVERY: u32 = 10;

/// All that one VM keeps.
pub struct Vm<F: Filter> {
    ports: HostPorts,
    worker: F::Worker,
    roots: Roots<Root<F>>,
    streams: ByStream<F::Stream>,
    /// Stream contexts whose request headers are still to come, and their roots. The host makes a
    /// stream's context when the request reaches the filter, right before the request's headers, so
    /// there is hardly ever more than one.
    coming: Vec<(u32, u32)>,
    /// Streams that were charged and have had no response yet, and their roots.
    charged: ByStream<u32>,
    /// Requests that are held until a call is answered.
    waiting: Vec<Waiting>,
    /// Tells this VM from others; made at the first policy.
    id: Option<u64>,
}

#[derive(Clone, Copy)]
struct Waiting {
    token: u32,
    context: u32,
    root: u32,
}

/// The host numbers contexts one after the other, and no client has a say in it: nothing to defend
/// against, and hardly anything to hash.
type ByStream<T> = HashMap<u32, T, BuildHasherDefault<Number>>;

#[derive(Default)]
struct Number(u64);

impl Hasher for Number {
    fn finish(&self) -> u64 {
        // Spreads neighbours over the upper bits, which hash maps look at as well.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number);
    }
}

struct Root<F> {
    filter: F,
    reloads: ReloadCount,
    version: u32,
    /// Whether the first tick has reported the policy.
    reported: bool,
    ticks: u32,
}

impl<F: Filter> Default for Vm<F> {
    fn default() -> Vm<F> {
        Vm {
            ports: HostPorts::default(),
            worker: F::Worker::default(),
            roots: Roots::default(),
            streams: ByStream::default(),
            coming: Vec::new(),
            charged: ByStream::default(),
            waiting: Vec::new(),
            id: None,
        }
    }
}

impl<F: Filter> Vm<F> {
    pub fn on_context_create(&mut self, context: u32, parent: u32) {
        if parent != 0 {
            self.coming.push((context, parent));
        }
    }

    /// Changes no state of a policy. What it writes is what workers would race to make (see
    /// [`Filter::prepare`]) and the count of refusals.
    pub fn on_configure(&mut self, root: u32, size: usize) -> bool {
        logger::start(LogLevel::Warn);
        let plugin = abi::property(b"plugin_name").unwrap_or_default();
        let plugin = stable_plugin(&String::from_utf8_lossy(&plugin));
        let reloads = ReloadCount::new(&format!("{plugin}/{}", F::NAME));
        let text = abi::plugin_configuration(size);
        match text.ok_or_else(|| FieldError::at("policy", "could not be had from Envoy")) {
            Ok(text) => match self.compile(&text, &plugin) {
                Ok(mut filter) => {
                    logger::start(filter.common().log_level);
                    if let Some(mark) = filter.mark() {
                        abi::declare_request_property(mark);
                    }
                    filter.prepare(&mut self.worker, &mut self.ports);
                    let tick_period = filter.tick_period();
                    reloads.prepare(&mut self.ports);
                    let version = version(&text);
                    let entry = Root { filter, reloads, version, reported: false, ticks: 0 };
                    self.roots.insert(root, entry);
                    abi::set_tick_period(tick_period);
                    true
                }
                Err(error) => self.refuse(&reloads, &error),
            },
            Err(error) => self.refuse(&reloads, &error),
        }
    }

    fn compile(&mut self, text: &[u8], plugin: &str) -> Result<F, FieldError> {
        let vm = *self.id.get_or_insert_with(|| self.ports.random());
        F::compile(&decode_json(text, F::SECTION)?, plugin, vm)
    }

    fn refuse(&mut self, reloads: &ReloadCount, error: &FieldError) -> bool {
        log::error!(target: F::NAME, "policy refused, the one in force stays: {error}");
        reloads.refuse(&mut self.ports);
        false
    }

    pub fn on_request_headers(&mut self, context: u32) -> u32 {
        let place = self.coming.iter().rposition(|(coming, _)| *coming == context);
        let Some((_, root_id)) = place.map(|place| self.coming.swap_remove(place)) else {
            return abi::CONTINUE;
        };
        let Some(root) = self.roots.get_mut(root_id) else { return abi::CONTINUE };
        let mut headers = abi::header_map(MapType::HttpRequestHeaders);
        self.ports.enter(context, root_id);
        let decision = root.filter.on_request(&mut self.worker, &mut headers, &mut self.ports);
        self.ports.leave();
        match self.carry_out(context, root_id, decision) {
            Fate::GoesOn => abi::CONTINUE,
            Fate::IsHeld => abi::PAUSE,
        }
    }

    /// Does to a request what the filter decided.
    fn carry_out(
        &mut self,
        context: u32,
        root: u32,
        (effects, stream): (Effects, Option<F::Stream>),
    ) -> Fate {
        let is_marked = self.roots.get_mut(root).is_some_and(|root| root.filter.mark().is_some());
        if let Some(state) = &effects.state {
            self.ports.set_state(F::NAME, state);
        }
        if let Some(note) = &effects.note {
            abi::set_property(NOTE, &note.write());
        }
        if effects.is_charged && is_marked {
            self.charged.insert(context, root);
        }
        edit(MapType::HttpRequestHeaders, &effects.headers);
        if let Some(stream) = stream {
            self.streams.insert(context, stream);
        }
        if let Some(token) = effects.waits_for {
            self.waiting.push(Waiting { token, context, root });
            return Fate::IsHeld;
        }
        match effects.reply {
            // A reply that the host refuses would leave the stream waiting for ever.
            Some(reply) if abi::send_local_reply(&reply) => Fate::IsHeld,
            _ => Fate::GoesOn,
        }
    }

    pub fn on_response_headers(&mut self, context: u32) -> u32 {
        self.charged.remove(&context);
        // Envoy has answered a request that waited.
        self.waiting.retain(|waiting| waiting.context != context);
        let mut gone;
        let stream = if F::KEEPS_STREAMS {
            self.streams.get_mut(&context)
        } else {
            gone = self.streams.remove(&context);
            gone.as_mut()
        };
        let Some(stream) = stream else { return abi::CONTINUE };
        let mut upstream = if F::reads_response(stream) {
            abi::header_map(MapType::HttpResponseHeaders)
        } else {
            HeaderMap::default()
        };
        let effects = F::on_response(stream, &mut self.worker, &mut upstream, &mut self.ports);
        match effects.reply {
            Some(reply) if abi::send_local_reply(&reply) => abi::PAUSE,
            _ => {
                edit(MapType::HttpResponseHeaders, &effects.headers);
                abi::CONTINUE
            }
        }
    }

    /// A call has ended. Requests that it held are decided now.
    pub fn on_call(&mut self, token: u32, message: Option<&[u8]>) {
        F::on_call(&mut self.worker, token, message, &mut self.ports);
        let held: Vec<Waiting> =
            self.waiting.extract_if(.., |waiting| waiting.token == token).collect();
        for Waiting { context, root, .. } in held {
            self.resume(context, root);
        }
    }

    fn resume(&mut self, context: u32, root_id: u32) {
        let kept = self.streams.remove(&context);
        // The client may have left, though its log callback would have told.
        if !abi::act_for(context) {
            return;
        }
        let Some(root) = self.roots.get_mut(root_id) else { return abi::continue_request() };
        let mut headers = abi::header_map(MapType::HttpRequestHeaders);
        self.ports.enter(context, root_id);
        let decision = root.filter.resume(kept, &mut self.worker, &mut headers, &mut self.ports);
        self.ports.leave();
        if let Fate::GoesOn = self.carry_out(context, root_id, decision) {
            // No header can be touched after this.
            abi::continue_request();
        }
        abi::act_for(root_id);
    }

    /// Runs once for every stream, whatever became of it.
    pub fn on_log(&mut self, context: u32) {
        // Of a stream whose headers never came: an earlier filter answered, or the codec refused it.
        self.coming.retain(|(coming, _)| *coming != context);
        self.waiting.retain(|waiting| waiting.context != context);
        // A stream that ends without a response may be about to run again: an internal redirect takes
        // the upstream's answer before any filter sees it. The mark goes along.
        let stream = self.streams.remove(&context);
        let root = self.charged.remove(&context).and_then(|root| self.roots.get_mut(root));
        if let Some(mark) = root.and_then(|root| root.filter.mark()) {
            let carried = stream.as_ref().map(F::carries).unwrap_or_default();
            abi::set_property(mark, if carried.is_empty() { b"1" } else { &carried });
        }
        if let Some(stream) = stream {
            F::on_log(stream, &mut self.worker, &mut self.ports);
        }
    }

    pub fn on_tick(&mut self, root: u32) {
        while let Some(token) = F::overdue(&self.worker, &mut self.ports) {
            self.on_call(token, None);
        }
        let Vm { ports, worker, roots, .. } = self;
        for mut gone in roots.tick(root) {
            gone.filter.tick(ports);
        }
        F::tick_worker(worker, ports);
        if let Some(ticked) = roots.get_mut(root) {
            ticked.report(ports);
        }
        // The counters of roots that are about to go are written with those that stay.
        for root in roots.values_mut() {
            root.filter.tick(ports);
        }
    }
}

/// What becomes of a request for now.
enum Fate {
    GoesOn,
    /// It waits, or was answered.
    IsHeld,
}

fn edit(map: MapType, edits: &[HeaderEdit]) {
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => abi::set_header(map, name, value),
            HeaderEdit::Remove(name) => abi::remove_header(map, name),
            HeaderEdit::Add(name, value) => abi::add_header(map, name, value),
        };
    }
}

impl<F: Filter> Root<F> {
    /// The policy in force, and how reloads went, once per process.
    fn report(&mut self, ports: &mut HostPorts) {
        let policy = &self.filter.common().identity.policy;
        let reloads = |result: &str| {
            let labels = labels(&[("policy", policy), ("result", result)]);
            format!("{labels}weir_{}_reloads_total", F::NAME)
        };
        if !std::mem::replace(&mut self.reported, true) {
            let labels = labels(&[("policy", policy)]);
            ports.gauge(&format!("{labels}weir_{}_policy_version", F::NAME), self.version.into());
            if self.reloads.accept(self.version, ports) {
                ports.count(&reloads("accepted"), 1);
            }
        }
        if self.ticks.is_multiple_of(REFUSALS_EVERY) {
            let refused = self.reloads.claim_refused(ports);
            if refused > 0 {
                ports.count(&reloads("refused"), refused);
            }
        }
        self.ticks = self.ticks.wrapping_add(1);
    }
}
