//! The trip of one request: what each module sees, says and changes.

use weir_engine::core::effects::HeaderEdit;
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::reply::LocalReply;
use weir_protos::v1::{Policy, zone};

use super::Args;
use super::rules::{self, Rule};
use crate::clock;
use crate::direction::Direction;
use crate::metrics::{self, Counted};
use crate::proxy::{MODULES, Module, Pairs, Passed, Proxy, pairs};
use crate::source::Sections;

pub struct Explanation {
    /// The request in one line.
    pub request: String,
    pub method: String,
    pub path: String,
    pub authority: String,
    pub direction: &'static str,
    pub at: String,
    pub is_exempt: bool,
    pub modules: Vec<Seen>,
    /// What goes on; none where a module answered.
    pub upstream: Option<Pairs>,
    pub answer: Answer,
}

/// A module and the request.
pub struct Seen {
    pub module: Module,
    /// An earlier one has answered.
    pub is_reached: bool,
    /// Whether what the request brings along counts here, where that is a question.
    pub is_trusted: Option<bool>,
    /// What it leaves for the access log.
    pub state: Option<String>,
    pub rules: Vec<Rule>,
    /// Rules that only miss for the direction of the listener.
    pub elsewhere: Vec<String>,
    pub edits: Vec<HeaderEdit>,
    pub counted: Vec<Counted>,
    /// What it does to the response.
    pub response: Vec<HeaderEdit>,
}

/// What the client gets.
pub struct Answer {
    pub status: u16,
    pub headers: Pairs,
    pub body: String,
    /// Of a module: its section, and `%RESPONSE_CODE_DETAILS%`.
    pub by: Option<(&'static str, String)>,
    pub grpc_status: Option<i32>,
}

pub fn run(args: &Args, policy: &Policy, sections: Sections) -> anyhow::Result<Explanation> {
    let at = args.at.unwrap_or_else(clock::now);
    let mut proxy = Proxy::new(policy, sections, at)?;
    for (name, value) in &args.attributes {
        // Names of filters have dots of their own.
        let segments: Vec<String> = name.split('.').map(|part| part.replace("%2E", ".")).collect();
        let path = segments.join("\0").into_bytes();
        proxy.ports.attributes.insert(path, value.clone().into_bytes());
    }
    set_direction(&mut proxy, args.direction);
    proxy.ports.set_attribute("source.address", args.source.to_string().as_bytes());

    if let Some(state) = args.states.iter().find(|state| !sections.has(state.module())) {
        let section = state.module().section();
        anyhow::bail!("--state {}: the policy has no section {section}", state.rule);
    }

    let headers = request(args);
    let authority = headers
        .get(b":authority")
        .map(|host| String::from_utf8_lossy(host).into_owned())
        .unwrap_or_default();
    let (method, path) = &args.request;
    let is_exempt = proxy.is_exempt(&headers);
    let mut passed = Passed::new(headers);
    let mut modules = Vec::new();
    for module in MODULES.into_iter().filter(|module| sections.has(*module)) {
        modules.push(see(module, args, policy, &mut proxy, &mut passed)?);
    }

    let upstream = passed.reply.is_none().then(|| pairs(&passed.headers));
    let answer = answer(args, &mut proxy, &mut passed, &mut modules);
    Ok(Explanation {
        request: format!(
            "{method} {authority}{path}, {}, at {}",
            args.direction.word(),
            clock::show(at)
        ),
        method: method.clone(),
        path: path.clone(),
        authority,
        direction: args.direction.word(),
        at: clock::show(at),
        is_exempt,
        modules,
        upstream,
        answer,
    })
}

fn set_direction(proxy: &mut Proxy, direction: Direction) {
    proxy.ports.set_attribute("xds.listener_direction", &direction.number().to_le_bytes());
}

/// As Envoy hands it to the first filter.
fn request(args: &Args) -> HeaderMap {
    let (method, path) = &args.request;
    let host = args.headers.iter().find(|(name, _)| name == "host");
    let authority = host.map_or(&b"localhost"[..], |(_, value)| value);
    let mut all = vec![
        (":method", method.as_bytes()),
        (":path", path.as_bytes()),
        (":authority", authority),
        (":scheme", &b"http"[..]),
    ];
    let rest = args.headers.iter().filter(|(name, _)| name != "host");
    all.extend(rest.map(|(name, value)| (name.as_str(), value.as_slice())));
    HeaderMap::from_pairs(&all)
}

fn see(
    module: Module,
    args: &Args,
    policy: &Policy,
    proxy: &mut Proxy,
    passed: &mut Passed,
) -> anyhow::Result<Seen> {
    let mut seen = Seen {
        module,
        is_reached: passed.reply.is_none(),
        is_trusted: None,
        state: None,
        rules: Vec::new(),
        elsewhere: Vec::new(),
        edits: Vec::new(),
        counted: Vec::new(),
        response: Vec::new(),
    };
    for state in &args.states {
        state.apply(module, proxy, &passed.headers)?;
    }
    if !seen.is_reached {
        return Ok(seen);
    }
    if policy.zone() == zone::Value::Edge {
        seen.is_trusted = match (module, &proxy.tracer, &proxy.painter) {
            (Module::Trace, Some(tracer), _) => {
                Some(tracer.trusts(&passed.headers, &mut proxy.ports))
            }
            (Module::Color, _, Some(painter)) => {
                Some(painter.trusts(&passed.headers, &mut proxy.ports))
            }
            _ => None,
        };
    }
    seen.rules = rules::look(module, policy, proxy, &passed.headers)?;
    seen.elsewhere = elsewhere(module, args, policy, proxy, &seen.rules, &passed.headers)?;
    // What the states of `--state` counted is not the request's.
    if module == Module::Breaker {
        proxy.tick_module(module);
    }
    metrics::take(&mut proxy.ports);
    let before = passed.steps.len();
    proxy.step(module, passed);
    for step in passed.steps.drain(before..) {
        seen.edits.extend(step.edits);
        seen.state = step.state;
    }
    proxy.tick_module(module);
    seen.counted = metrics::take(&mut proxy.ports);
    for rule in &mut seen.rules {
        let own = seen.counted.iter().filter(|counted| counted.label("rule") == rule.id);
        let outcomes = own.map(|counted| counted.label("outcome").to_string());
        rule.outcomes = outcomes.filter(|outcome| !outcome.is_empty()).collect();
    }
    name_what_was_given_back(module, &mut seen);
    Ok(seen)
}

/// A limit that admitted counts nothing when a later one refuses, as it did not take part in the end;
/// and what comes after the end of the search is not looked at.
fn name_what_was_given_back(module: Module, seen: &mut Seen) {
    if !matches!(module, Module::Limit | Module::Breaker) || seen.counted.is_empty() {
        return;
    }
    let last = seen.rules.iter().rposition(|rule| !rule.outcomes.is_empty());
    for (place, rule) in seen.rules.iter_mut().enumerate() {
        if rule.matches && rule.outcomes.is_empty() {
            let is_before = last.is_some_and(|last| place < last);
            let is_limit = module == Module::Limit;
            if is_before && is_limit {
                rule.outcomes = vec!["given_back".into()];
            } else if !is_before {
                rule.outcomes = vec!["not_asked".into()];
            }
        }
    }
}

/// Rules that mean the request on another listener.
fn elsewhere(
    module: Module,
    args: &Args,
    policy: &Policy,
    proxy: &mut Proxy,
    here: &[Rule],
    headers: &HeaderMap,
) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for direction in [Direction::Inbound, Direction::Outbound] {
        if direction == args.direction {
            continue;
        }
        set_direction(proxy, direction);
        let there = rules::look(module, policy, proxy, headers)?;
        let only_there =
            here.iter().zip(&there).filter(|(here, there)| !here.matches && there.matches);
        found.extend(only_there.map(|(rule, _)| format!("{} on {}", rule.id, direction.word())));
    }
    set_direction(proxy, args.direction);
    Ok(found)
}

/// The response, through the modules that saw the request.
fn answer(args: &Args, proxy: &mut Proxy, passed: &mut Passed, modules: &mut [Seen]) -> Answer {
    let reply = passed.reply.take();
    let (status, mut headers) = match &reply {
        Some((_, reply)) => (reply.status, of_reply(reply)),
        None => (args.upstream, HeaderMap::from_pairs(&[(":status", args.upstream.to_string())])),
    };
    let details = match &reply {
        Some((_, reply)) => reply.details.clone(),
        None => "via_upstream".into(),
    };
    let attempts = u64::from(reply.is_none());
    let ports = &mut proxy.ports;
    ports.set_attribute("upstream.request_attempt_count", &attempts.to_le_bytes());
    ports.set_attribute("response.code", &u64::from(status).to_le_bytes());
    ports.set_attribute("response.code_details", details.as_bytes());
    let mut stream = std::mem::take(&mut passed.stream);
    for step in proxy.response(&mut stream, &mut headers) {
        if let Some(seen) = modules.iter_mut().find(|seen| seen.module == step.module) {
            seen.response.extend(step.edits);
        }
    }
    let (status, headers) = without_status(&headers, status);
    Answer {
        status,
        headers,
        body: reply
            .as_ref()
            .map(|(_, reply)| String::from_utf8_lossy(&reply.body).into_owned())
            .unwrap_or_default(),
        grpc_status: reply.as_ref().and_then(|(_, reply)| reply.grpc_status),
        by: reply.map(|(module, _)| (module.section(), details)),
    }
}

fn of_reply(reply: &LocalReply) -> HeaderMap {
    let mut all = vec![(":status".to_string(), reply.status.to_string())];
    all.extend(reply.headers.iter().cloned());
    HeaderMap::from_pairs(&all)
}

fn without_status(headers: &HeaderMap, status: u16) -> (u16, Pairs) {
    let mut all = pairs(headers);
    let written = all.iter().find(|(name, _)| name == ":status");
    let status = written.and_then(|(_, text)| text.parse().ok()).unwrap_or(status);
    all.retain(|(name, _)| name != ":status");
    (status, all)
}
