//! What lets more through than somebody may think.

use weir_protos::FieldError;
use weir_protos::v1::key_part::Source;
use weir_protos::v1::path_match::Operator;
use weir_protos::v1::{KeyPart, Match, Policy, RateLimitRule, mode, zone};

use super::Lint;

/// Below so many requests in each group a guard is easily late or wrong.
const GUARD_REQUESTS: u32 = 200;

pub fn look(policy: &Policy, lint: &mut Lint<'_>) -> Result<(), FieldError> {
    if policy.mode() == mode::Value::Off {
        lint.warn("policy-off", "policy.mode", "turns every section off: nothing is decided");
    }
    limits(policy, lint)?;
    colors(policy, lint)?;
    let trusted = policy.trace()?.unwrap_or_default().trusted;
    trust(policy, &trusted, "policy.trace_context.trusted", lint);
    Ok(())
}

fn limits(policy: &Policy, lint: &mut Lint<'_>) -> Result<(), FieldError> {
    let section = policy.rate_limit()?;
    let is_edge = policy.zone() == zone::Value::Edge;
    let on = |rule: &&RateLimitRule| rule.mode() != mode::Value::Off;
    let is_any_keyed = section.rules.iter().filter(on).any(|rule| !rule.key.is_empty());
    for (place, rule) in section.rules.iter().enumerate().filter(|(_, rule)| on(rule)) {
        let path = format!("policy.rate_limit.rules[{place}]");
        if rule.key.is_empty() {
            if let Some(word) = one_of_many(&rule.id) {
                let remedy = format!(
                    "has no key, so all requests share one bucket; its id says `{word}`: \
                     give each its own, such as key: [{{header: x-user}}]"
                );
                lint.warn("no-key", &path, remedy);
            } else if is_edge && !is_any_keyed && names_no_client(rule.r#match.as_ref()) {
                let remedy = "has no key, nor has another limit: at the edge a single client can use it up \
                              for everybody; add one with key: [{source_address: {}}]";
                lint.warn("no-key", &path, remedy);
            }
        }
        keys(&rule.key, &format!("{path}.key"), lint);
        if rule.enforced_percent == Some(0.0) {
            let remedy = "of 0 refuses nothing; say mode: SHADOW where that is meant";
            lint.warn("enforces-nothing", &format!("{path}.enforced_percent"), remedy);
        }
        let path_match = rule.r#match.as_ref().and_then(|matched| matched.path.as_ref());
        if let Some(Operator::Regex(_)) = path_match.and_then(|path| path.operator.as_ref()) {
            let remedy = "does not match a path of more than 4096 bytes, so a long one gets past the limit; \
                          use a prefix or a template";
            lint.warn("regex-limit", &format!("{path}.match.path.regex"), remedy);
        }
    }
    Ok(())
}

/// Whether a match asks for nothing but what is requested, and where.
fn names_no_client(matched: Option<&Match>) -> bool {
    let Some(matched) = matched else { return true };
    let rest = Match {
        direction: 0,
        authority: None,
        path: None,
        methods: Vec::new(),
        grpc: None,
        ..matched.clone()
    };
    rest == Match::default()
}

/// The word of an id that says that the limit is meant for each of many.
fn one_of_many(id: &str) -> Option<&str> {
    const WORDS: [&str; 12] = [
        "per", "each", "user", "users", "client", "clients", "tenant", "tenants", "customer",
        "caller", "ip", "session",
    ];
    id.split(['-', '_']).find(|word| WORDS.contains(word))
}

/// Headers with an address that whoever sends the request may write.
fn keys(key: &[KeyPart], path: &str, lint: &mut Lint<'_>) {
    for (place, part) in key.iter().enumerate() {
        let Some(Source::Header(name)) = &part.source else { continue };
        let name = name.to_ascii_lowercase();
        if ["x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip"].contains(&name.as_str())
        {
            let remedy = format!(
                "`{name}` is what a client writes into it: with a new one each time it has a new bucket; \
                 use source_address, which is Envoy's own decision"
            );
            lint.warn("client-chosen-key", &format!("{path}[{place}].header"), remedy);
        }
    }
}

fn colors(policy: &Policy, lint: &mut Lint<'_>) -> Result<(), FieldError> {
    let section = policy.traffic_color()?;
    for (place, rule) in section.rules.iter().enumerate() {
        let Some(guard) = &rule.guard else { continue };
        let path = format!("policy.traffic_color.rules[{place}].guard");
        if guard.min_requests.is_some_and(|requests| requests < GUARD_REQUESTS) {
            let remedy =
                "below 200 leaves the guard to chance: of so few requests one error is a lot";
            lint.warn("small-guard", &format!("{path}.min_requests"), remedy);
        }
    }
    if let Some(cookie) = &section.sticky_cookie {
        let path = |field: &str| format!("policy.traffic_color.sticky_cookie.{field}");
        if cookie.secure == Some(false) {
            let remedy =
                "is off: the cookie also travels over plain HTTP, where others can read it";
            lint.warn("open-cookie", &path("secure"), remedy);
        }
        if cookie.http_only == Some(false) {
            let remedy = "is off: scripts of a page can read the cookie";
            lint.warn("open-cookie", &path("http_only"), remedy);
        }
    }
    trust(policy, &section.trusted, "policy.traffic_color.trusted", lint);
    Ok(())
}

fn trust(policy: &Policy, trusted: &[Match], path: &str, lint: &mut Lint<'_>) {
    if policy.zone() != zone::Value::Edge {
        if !trusted.is_empty() {
            let remedy = "has no effect in zone MESH, where everybody is trusted; say zone: EDGE";
            lint.warn("no-effect", path, remedy);
        }
        return;
    }
    for (place, source) in trusted.iter().enumerate() {
        if *source == Match::default() {
            let remedy = "is empty: at the edge it trusts everybody's headers; name the sources";
            lint.warn("trusts-all", &format!("{path}[{place}]"), remedy);
        }
    }
}
