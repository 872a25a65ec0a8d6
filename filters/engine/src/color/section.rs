//! The section `traffic_color` of a policy, at work.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::carry::Carrier;
use weir_protos::v1::key_part::Source as Part;
use weir_protos::v1::lanes::LaneMode;
use weir_protos::v1::traffic_color::OnExisting;
use weir_protos::v1::{Match, Policy, TrafficColor, direction, mode};

use super::call::{Call, Shared};
use super::carry::{CarryRules, Color, Existing};
use super::cookie::CookieRules;
use super::guard::Group;
use super::lanes::{Lane, LaneRules, color};
use super::metrics::{Came, Counts, Lanes, add};
use super::rule::{Answer, Rule};
use super::session::Session;
use super::worker::Worker;
use crate::core::answer::{Client, UNAVAILABLE, body, checked_name, reason_headers};
use crate::core::effects::{Effects, HeaderEdit};
use crate::core::headers::HeaderMap;
use crate::core::index::Index;
use crate::core::matcher::Matcher;
use crate::core::policy::{Common, effective_mode, identifier};
use crate::core::ports::{Metrics, Nanos, Ports, SharedStore, labels};
use crate::core::reply::{LocalReply, Problem, trace_id};
use crate::core::request::Request;
use crate::core::restore::{Comer, Key, Memory, Note, Recall, Record};
use crate::core::rules::{Ids, check_unindexed};

const MAX_COLORS: usize = 32;
const MAX_RULES: usize = 10_000;
const MAX_TRUSTED: usize = 16;

/// Colors of one rule, and what its guard and share say.
const SERIES_PER_RULE: u32 = 11;

/// What is to be done with a request, and what is to be kept until it is logged.
#[derive(Default)]
pub struct Decision {
    pub effects: Effects,
    pub call: Option<Call>,
}

pub struct Painter {
    common: Common,
    mode: mode::Value,
    colors: Vec<String>,
    default: Color,
    trusted: Vec<Matcher>,
    on_existing: OnExisting,
    rules: Vec<Rc<Rule>>,
    index: Index,
    /// Rules with a guard, looked at for colors that came along.
    guarded: Vec<Rc<Rule>>,
    /// Whether a rule asks for the cookie's key.
    sticks: bool,
    carry: CarryRules,
    lanes: Option<LaneRules>,
    session: Option<Session>,
    memory: Option<Memory>,
    shared: Rc<Shared>,
    counts: Counts,
    /// Rules with this number or a higher one share a label.
    labelled: usize,
}

impl Painter {
    /// `plugin` is the name under which Envoy runs the filter.
    #[cold]
    pub fn compile(policy: &Policy, plugin: &str) -> Result<Painter, FieldError> {
        let common = Common::compile(policy, plugin)?;
        let section = policy.traffic_color()?;
        let path = "policy.traffic_color";
        let at = |field: &str| format!("{path}.{field}");
        let is_absent = section == TrafficColor::default();
        let colors = colors(&section, is_absent, &at("colors"))?;
        if section.trusted.len() > MAX_TRUSTED {
            let remedy = "entries: must be at most 16, since each is tested on every request";
            return Err(FieldError::value(at("trusted"), section.trusted.len(), remedy));
        }
        if section.rules.len() > MAX_RULES {
            let remedy = "rules: must be at most 10000";
            return Err(FieldError::value(at("rules"), section.rules.len(), remedy));
        }
        let plain = common.match_defaults(direction::Value::Any).plain();
        let trusted = section.trusted.iter().enumerate().map(|(place, source)| {
            Matcher::compile(Some(source), &at(&format!("trusted[{place}]")), &plain)
        });
        let mut ids = Ids::default();
        let mut rules = Vec::with_capacity(section.rules.len());
        for (place, rule) in section.rules.iter().enumerate() {
            let path = at(&format!("rules[{place}]"));
            let compiled = Rule::compile(rule, &colors, &common, section.mode(), &path)?;
            ids.insert(&rule.id, place, &path)?;
            rules.extend(compiled.map(Rc::new));
        }
        let index = Index::build(rules.iter().map(|rule| &rule.matcher));
        let id = |rule: usize| rules.get(rule).map(|rule| rule.id.as_str());
        check_unindexed(&index, id, &at("rules"))?;
        let carry = section.carry.clone().unwrap_or_default();
        // A fallback stands in the header, and the color in baggage.
        let lanes = section.lanes.as_ref();
        let winner = match lanes.is_some_and(|lanes| lanes.mode() != LaneMode::Strict) {
            true => Carrier::Baggage,
            false => Carrier::Header,
        };
        let carry = CarryRules::compile(&carry, &common.color_header, winner, &at("carry"))?;
        let lanes = match lanes {
            Some(lanes) => {
                let path = at("lanes");
                Some(LaneRules::compile(lanes, &colors, &carry, &common, &path)?)
            }
            None => None,
        };
        let response = section.response.clone().unwrap_or_default();
        let echo = match response.echo_header.as_str() {
            "" => None,
            name => Some(checked_name(name, &at("response.echo_header"))?),
        };
        let cookie = section.sticky_cookie.clone().unwrap_or_default();
        Ok(Painter {
            mode: if is_absent {
                mode::Value::Off
            } else {
                effective_mode(&[common.mode, section.mode()])
            },
            default: match section.default.as_str() {
                "" => 0,
                name => color(name, &colors, &at("default"))?,
            },
            trusted: trusted.collect::<Result<_, _>>()?,
            on_existing: section.on_existing(),
            guarded: rules.iter().filter(|rule| rule.guard.is_some()).map(Rc::clone).collect(),
            sticks: rules.iter().any(|rule| rule.sticks()),
            carry,
            lanes,
            session: match &section.session {
                Some(session) => {
                    Some(Session::compile(session, &common.color_header, &at("session"))?)
                }
                None => None,
            },
            memory: Memory::compile(&policy.restore()?, &common.identity.policy, "policy.restore")?,
            shared: Rc::new(Shared {
                echo,
                vary: if response.vary { vary(&section) } else { None },
                cookie: CookieRules::compile(&cookie, &at("sticky_cookie"))?,
            }),
            counts: Counts::new(colors.len()),
            labelled: (common.max_series / SERIES_PER_RULE) as usize,
            rules,
            index,
            colors,
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
        let now = ports.now();
        if let Some(memory) = &self.memory {
            worker.secret.prepare(ports);
            memory.prepare(now, ports);
        }
        for rule in &self.rules {
            if let Some(Ok(mut auto)) = rule.auto.as_ref().map(|auto| auto.try_borrow_mut()) {
                auto.prepare(now, ports);
            }
            if let Some(Ok(mut guard)) = rule.guard.as_ref().map(|guard| guard.try_borrow_mut()) {
                guard.prepare(now, ports);
            }
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
            self.counts.came(Came::Exempt);
            return self.pass(&mut request, ports);
        }
        let decision = self.decide(&mut request, worker, ports);
        add(Some(&self.counts.not_a_number), request.odd_numbers.into());
        if self.mode == mode::Value::Shadow { Decision::default() } else { decision }
    }

    /// What nobody looks at gets no color; at the edge it loses the one that a client wrote.
    fn pass<'r>(&'r self, request: &mut Request<'r>, ports: &mut impl Ports) -> Decision {
        let is_trusted = !self.common.is_edge
            || self.trusted.iter().any(|source| source.matches(request, ports));
        let mut effects = Effects::default();
        if !is_trusted && self.mode == mode::Value::Enforce {
            self.carry.clean(request.headers, &mut effects.headers);
        }
        Decision { effects, call: None }
    }

    fn decide<'r>(
        &'r self,
        request: &mut Request<'r>,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) -> Decision {
        let headers = request.headers;
        let mut effects = Effects::default();
        let is_trusted = !self.common.is_edge
            || self.trusted.iter().any(|source| source.matches(request, ports));
        let existing = self.carry.read(headers, &self.colors);
        let came = self.came(&existing, is_trusted, request, worker, ports);

        let mut choice = Choice { sticky: self.shared.cookie.read(headers), ..Choice::default() };
        let decided = match self.on_existing {
            OnExisting::Override => self.by_rules(&mut choice, request, worker, ports).or(came),
            _ => came.or_else(|| self.by_rules(&mut choice, request, worker, ports)),
        };
        let color = decided.unwrap_or(self.default);
        let name = self.name(color);
        if choice.rule.is_none() {
            add(self.counts.others.get(color), 1);
        }
        // Of a color that came along the request's header tells.
        effects.state = choice.rule.map(|rule| format!("color={name} rule={}", rule.id));

        // On this hop the color may have nobody to go to.
        let lane = self
            .lanes
            .as_ref()
            .map_or(Lane::Own, |lanes| lanes.of(color, request, &mut worker.found_lanes, ports));
        let here = match lane {
            Lane::Own => name,
            Lane::Fallback(other) => {
                self.counts.lane(Lanes::Fallback);
                self.name(other)
            }
            Lane::Closed => {
                self.counts.lane(Lanes::Refused);
                let is_grpc = request.is_grpc();
                effects.reply = Some(closed(name, Client { is_grpc, trace_id: trace_id(request) }));
                name
            }
        };
        self.carry.write(&existing, (here, name), is_trusted, headers, &mut effects.headers);
        let new_session = self.session.as_ref().and_then(|session| {
            let wall = ports.wall();
            let id = session.begin(request, is_trusted, &mut worker.stamps, wall, ports)?;
            session.write(&id, headers, &mut effects.headers);
            Some((session.header(), id))
        });
        if self.mode != mode::Value::Shadow && lane != Lane::Closed {
            let new_session = new_session.as_ref().map(|(header, id)| (*header, id.as_str()));
            let trace_id = self.memory.as_ref().and_then(|_| own_trace(request));
            let (note, is_edge) = (&mut None, self.common.is_edge);
            let comer =
                Comer { trace_id, is_trusted, is_new_trace: false, is_edge, new_session, note };
            let minted = self.record(name, comer, request, worker, ports);
            effects.headers.extend(minted);
            if let Some(member) = self.carry.member().filter(|_| is_edge) {
                note.get_or_insert_with(|| Note::left(ports)).member = Some(member.to_string());
            }
            effects.note = note.take().filter(|note| note.matters(is_edge));
        }

        let watched = choice.watched(color);
        let started = if watched.is_empty() { 0 } else { ports.now() };
        let call = Call {
            shared: Rc::clone(&self.shared),
            color: name.to_string(),
            clears: choice.sticky.is_some() && !self.sticks,
            minted: choice.minted,
            watched,
            started,
            is_grpc: request.is_grpc(),
            answered_at: Cell::new(None),
            status: Cell::new(None),
        };
        Decision { effects, call: Some(call).filter(Call::matters) }
    }

    fn name(&self, color: Color) -> &str {
        self.colors.get(color).map_or("", String::as_str)
    }

    /// The color that the request has from before, where that counts.
    fn came<'r>(
        &'r self,
        existing: &Existing,
        is_trusted: bool,
        request: &mut Request<'r>,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) -> Option<Color> {
        let counts = &self.counts;
        if existing.is_unknown {
            counts.came(Came::Unknown);
        }
        if existing.is_conflict {
            counts.came(Came::Conflict);
        }
        let counts_here = is_trusted && self.on_existing != OnExisting::Strip;
        if existing.color.is_some() {
            counts.came(if counts_here { Came::Trusted } else { Came::Removed });
        }
        let came = existing.color.filter(|_| counts_here);
        let came = came.or_else(|| self.recall(request, worker, ports))?;
        // A guard that has tripped turns its color away wherever it was decided.
        let is_off = self.guarded.iter().any(|rule| {
            rule.enforces()
                && !rule.keeps_trusted
                && rule.first() == came
                && rule.is_tripped()
                && rule.matcher.matches(request, ports)
        });
        Some(if is_off { 0 } else { came })
    }

    fn recall(
        &self,
        request: &mut Request<'_>,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) -> Option<Color> {
        let memory = self.memory.as_ref()?;
        if !self.common.is_edge && request.is_mirrored() {
            return None;
        }
        let trace_id = own_trace(request);
        let Recall::Record(record) = memory.recall(trace_id, request, &mut worker.secret, ports)
        else {
            return None;
        };
        let color = record.any_color()?;
        let place = self.colors.iter().position(|known| known.as_bytes() == color.as_slice())?;
        self.counts.came(Came::Restored);
        Some(place)
    }

    /// Remembers the color for the calls that the application makes. Gives the edit that hands it
    /// an id to forward, where one was made.
    fn record(
        &self,
        color: &str,
        comer: Comer<'_>,
        request: &mut Request<'_>,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) -> Option<HeaderEdit> {
        let memory = self.memory.as_ref()?;
        if !self.common.is_edge && request.is_mirrored() {
            return None;
        }
        let make = |_: &Key| Record { color: Some(color.as_bytes().to_vec()), ..Record::default() };
        let minted = memory.record(comer, request, &mut worker.secret, ports, make, |_| {});
        minted.map(|(name, id)| HeaderEdit::Set(name, id))
    }

    fn by_rules<'r>(
        &'r self,
        choice: &mut Choice<'r>,
        request: &mut Request<'r>,
        worker: &mut Worker,
        ports: &mut impl Ports,
    ) -> Option<Color> {
        let found = &mut worker.found;
        self.index.candidates(request, found);
        for rule in found.iter().filter_map(|place| self.rules.get(*place as usize)) {
            if !rule.matcher.matches(request, ports) {
                continue;
            }
            if let Some(Ok(mut auto)) = rule.auto.as_ref().map(|auto| auto.try_borrow_mut()) {
                auto.count();
            }
            let Some(weight) = rule.first_weight(|| ports.wall()) else { continue };
            if rule.is_tripped() {
                continue;
            }
            if rule.guard.is_some() {
                choice.met.push(rule);
            }
            let mut answer = rule.answer(request, weight, choice.key(), ports);
            if answer == Answer::NeedsKey {
                let random = (u128::from(ports.random()) << 64) | u128::from(ports.random());
                choice.minted = Some(CookieRules::mint(random));
                answer = rule.answer(request, weight, choice.key(), ports);
            }
            if let Answer::Color(color) = answer {
                rule.count(color);
                if rule.enforces() {
                    choice.rule = Some(rule);
                    return Some(color);
                }
            }
        }
        None
    }

    /// Writes the counters that have gathered, and the gauges.
    pub fn tick(&self, ports: &mut (impl SharedStore + Metrics + crate::core::ports::Clock)) {
        if self.mode == mode::Value::Off {
            return;
        }
        let policy = &self.common.identity.policy;
        self.counts.flush(policy, &self.colors, ports);
        if let Some(memory) = &self.memory {
            memory.tick(ports);
        }
        let now = ports.now();
        for (place, rule) in self.rules.iter().enumerate() {
            let id = if place < self.labelled { rule.id.as_str() } else { "other" };
            self.tick_rule(rule, policy, id, now, ports);
        }
    }

    fn tick_rule(
        &self,
        rule: &Rule,
        policy: &str,
        id: &str,
        now: Nanos,
        ports: &mut (impl SharedStore + Metrics + crate::core::ports::Clock),
    ) {
        let own = || labels(&[("policy", policy), ("rule", id)]);
        for (color, count) in &rule.counts {
            let count = count.take();
            if count > 0 {
                let outcome = labels(&[("outcome", self.name(*color))]);
                ports.count(&format!("{}{outcome}weir_traffic_color_requests_total", own()), count);
            }
        }
        if let Some(Ok(mut auto)) = rule.auto.as_ref().map(|auto| auto.try_borrow_mut()) {
            auto.tick(now, ports);
        }
        if let Some(Ok(mut guard)) = rule.guard.as_ref().map(|guard| guard.try_borrow_mut()) {
            let was = guard.is_tripped();
            if guard.tick(now, ports).is_some() {
                ports.count(&format!("{}weir_traffic_color_guard_trips_total", own()), 1);
            }
            if was != guard.is_tripped() {
                let is = u64::from(guard.is_tripped());
                ports.gauge(&format!("{}weir_traffic_color_guard_tripped", own()), is);
            }
        }
        if rule.moves() && id != "other" {
            let wall = ports.wall();
            let share = rule.first_weight(|| wall).unwrap_or(0);
            if rule.written_share.replace(Some(share)) != Some(share) {
                ports.gauge(&format!("{}weir_traffic_color_share", own()), share.into());
            }
        }
    }
}

#[cfg(any(test, feature = "sim"))]
#[path = "look.rs"]
mod look;
#[cfg(any(test, feature = "sim"))]
pub use look::{Look, Share};

/// A decision on its way.
#[derive(Default)]
struct Choice<'r> {
    /// The key of the client's cookie.
    sticky: Option<&'r [u8]>,
    minted: Option<String>,
    /// Rules with a guard that mean the request.
    met: Vec<&'r Rc<Rule>>,
    rule: Option<&'r Rule>,
}

impl<'r> Choice<'r> {
    fn key(&self) -> Option<&[u8]> {
        self.sticky.or(self.minted.as_deref().map(str::as_bytes))
    }

    /// Whose guards count the request, now that its color is known.
    fn watched(&self, color: Color) -> Vec<(Rc<Rule>, Group)> {
        let each = self.met.iter().filter_map(|rule| {
            let is_its = self.rule.is_some_and(|decided| decided.id == rule.id);
            let group = match color {
                color if is_its && color == rule.first() => Group::Color,
                0 => Group::Base,
                _ => return None,
            };
            Some((Rc::clone(rule), group))
        });
        each.collect()
    }
}

fn own_trace(request: &Request<'_>) -> Option<u128> {
    u128::from_str_radix(trace_id(request)?, 16).ok()
}

#[cold]
fn colors(section: &TrafficColor, is_absent: bool, path: &str) -> Result<Vec<String>, FieldError> {
    if is_absent {
        return Ok(Vec::new());
    }
    if section.colors.is_empty() || section.colors.len() > MAX_COLORS {
        let remedy = "colors: must be 1 to 32, the base first";
        return Err(FieldError::value(path, section.colors.len(), remedy));
    }
    for (place, name) in section.colors.iter().enumerate() {
        let path = format!("{path}[{place}]");
        identifier(name, &path)?;
        if name.len() > 32 {
            let remedy = "must be 1 to 32 of a-z, 0-9, - and _";
            return Err(FieldError::value(path, format_args!("{name:?}"), remedy));
        }
        if section.colors.iter().take(place).any(|earlier| earlier == name) {
            let remedy = "is given twice; keep one";
            return Err(FieldError::value(path, format_args!("{name:?}"), remedy));
        }
    }
    Ok(section.colors.clone())
}

/// The request headers by which rules tell requests apart.
fn vary(section: &TrafficColor) -> Option<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for rule in &section.rules {
        if let Some(matched) = &rule.r#match {
            looked_at(matched, &mut names);
        }
        for part in &rule.key {
            match &part.source {
                Some(Part::Header(name)) => names.insert(name.to_ascii_lowercase()),
                Some(Part::Cookie(_)) => names.insert("cookie".into()),
                Some(Part::JwtClaim(_)) => names.insert("authorization".into()),
                Some(Part::Baggage(_)) => names.insert("baggage".into()),
                _ => false,
            };
        }
        if rule.on_missing_key() == weir_protos::v1::color_rule::OnMissingKey::StickyCookie {
            names.insert("cookie".into());
        }
    }
    (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join(", "))
}

fn looked_at(matched: &Match, names: &mut BTreeSet<String>) {
    names.extend(matched.headers.keys().map(|name| name.to_ascii_lowercase()));
    for (is_there, name) in [
        (!matched.cookies.is_empty(), "cookie"),
        (!matched.jwt_claims.is_empty(), "authorization"),
        (!matched.baggage.is_empty(), "baggage"),
    ] {
        if is_there {
            names.insert(name.into());
        }
    }
    matched.all.iter().chain(&matched.any).for_each(|inner| looked_at(inner, names));
    if let Some(inner) = &matched.not {
        looked_at(inner, names);
    }
}

/// The answer where a color has no instances and nobody else may stand in.
fn closed(color: &str, client: Client<'_>) -> LocalReply {
    let reason = "lane_unavailable";
    let detail = format!("no instance of color {color} serves this");
    let mut headers = reason_headers(reason, color);
    let problem = Problem {
        kind: "about:blank",
        title: "Service Unavailable",
        status: 503,
        detail: &detail,
        reason,
        violated: &[],
        trace_id: client.trace_id,
    };
    let body = body(&mut headers, client, &problem);
    LocalReply {
        status: 503,
        details: format!("weir_lane_unavailable{{{color}}}"),
        headers,
        body,
        grpc_status: client.is_grpc.then_some(UNAVAILABLE),
    }
}
