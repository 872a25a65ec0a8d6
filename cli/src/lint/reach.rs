//! Rules that no request gets to, since an earlier one takes all that they match.

use std::collections::BTreeMap;

use weir_protos::FieldError;
use weir_protos::v1::circuit_breaker_rule::{self, State};
use weir_protos::v1::key_part::OnMissing;
use weir_protos::v1::path_match::Operator;
use weir_protos::v1::{
    ColorRule, KeyPart, Match, PathMatch, Policy, direction, mode, rate_limit_rule, zone,
};

use super::Lint;

pub fn look(policy: &Policy, lint: &mut Lint<'_>) -> Result<(), FieldError> {
    let is_edge = policy.zone() == zone::Value::Edge;
    let by_default = |inside: direction::Value| match is_edge {
        true => direction::Value::Any,
        false => inside,
    };
    let limits = policy.rate_limit()?;
    let rules = limits.rules.iter().map(|rule| Rule {
        id: &rule.id,
        matched: rule.r#match.as_ref(),
        is_off: rule.mode() == mode::Value::Off,
        ends: rule.on_match() == rate_limit_rule::OnMatch::Stop && !skips(&rule.key),
        ..Rule::default()
    });
    let (path, default) = ("policy.rate_limit.rules", by_default(direction::Value::Inbound));
    report(&rules.collect::<Vec<_>>(), default, path, "stops the search", lint);

    let breakers = policy.circuit_breaker()?;
    let rules = breakers.rules.iter().map(|rule| Rule {
        id: &rule.id,
        matched: rule.r#match.as_ref(),
        is_off: rule.mode() == mode::Value::Off || rule.state() == State::Disabled,
        ends: rule.on_match() == circuit_breaker_rule::OnMatch::Stop && !skips(&rule.key),
        ..Rule::default()
    });
    let (path, default) = ("policy.circuit_breaker.rules", by_default(direction::Value::Outbound));
    report(&rules.collect::<Vec<_>>(), default, path, "stops the search", lint);

    let colors = policy.traffic_color()?;
    let rules = colors.rules.iter().map(|rule| Rule {
        id: &rule.id,
        matched: rule.r#match.as_ref(),
        is_off: rule.mode() == mode::Value::Off,
        ends: always_decides(rule),
        ..Rule::default()
    });
    let (path, any) = ("policy.traffic_color.rules", direction::Value::Any);
    report(&rules.collect::<Vec<_>>(), any, path, "always gives a color", lint);
    let lanes = colors.lanes.unwrap_or_default().lanes;
    let rules = lanes.iter().map(|lane| Rule {
        matched: lane.r#match.as_ref(),
        ends: true,
        ..Rule::default()
    });
    let path = "policy.traffic_color.lanes.lanes";
    report(&rules.collect::<Vec<_>>(), any, path, "comes first", lint);

    let sampling = policy.trace()?.unwrap_or_default().sampling.unwrap_or_default();
    let rules = sampling.rules.iter().map(|rule| Rule {
        id: &rule.id,
        matched: rule.r#match.as_ref(),
        ends: true,
        needs: [rule.trusted_only, !rule.override_parent],
        ..Rule::default()
    });
    let path = "policy.trace_context.sampling.rules";
    report(&rules.collect::<Vec<_>>(), any, path, "decides first", lint);
    Ok(())
}

/// What of a rule says whether others are reached behind it.
#[derive(Default)]
struct Rule<'p> {
    id: &'p str,
    matched: Option<&'p Match>,
    is_off: bool,
    /// No later rule is looked at where this one matches.
    ends: bool,
    /// Conditions beside the match.
    needs: [bool; 2],
}

fn report(
    rules: &[Rule<'_>],
    default: direction::Value,
    path: &str,
    does: &str,
    lint: &mut Lint<'_>,
) {
    let empty = Match::default();
    for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| !rule.is_off) {
        let matched = rule.matched.unwrap_or(&empty);
        let earlier = rules.iter().take(place).enumerate().find(|(_, earlier)| {
            let needs_no_more =
                earlier.needs.iter().zip(rule.needs).all(|(theirs, ours)| !theirs || ours);
            earlier.ends
                && !earlier.is_off
                && needs_no_more
                && covers(earlier.matched.unwrap_or(&empty), matched, default)
        });
        if let Some((first, earlier)) = earlier {
            let name =
                if earlier.id.is_empty() { String::new() } else { format!(" `{}`", earlier.id) };
            let remedy = format!(
                "is never reached: rules[{first}]{name} matches all that it does and {does}; \
                 put it before that one, or remove it"
            );
            lint.warn("never-reached", &format!("{path}[{place}]"), remedy);
        }
    }
}

/// A rule that was skipped for a missing part of its key does not end the search.
fn skips(key: &[KeyPart]) -> bool {
    key.iter().any(|part| matches!(part.on_missing(), OnMissing::Unspecified | OnMissing::SkipRule))
}

fn always_decides(rule: &ColorRule) -> bool {
    let is_enforced = !matches!(rule.mode(), mode::Value::Shadow | mode::Value::Off);
    is_enforced && rule.shares.is_empty() && rule.schedule.is_none() && rule.guard.is_none()
}

/// Whether every request that `b` matches is matched by `a`. May say no where it is so.
fn covers(a: &Match, b: &Match, default: direction::Value) -> bool {
    let direction = |matched: &Match| match matched.direction() {
        direction::Value::Unspecified => default,
        given => given,
    };
    let has_direction = direction(a) == direction::Value::Any || direction(a) == direction(b);
    has_direction
        && a.mirrored == b.mirrored
        && same_or_none(&a.authority, &b.authority)
        && same_or_none(&a.grpc, &b.grpc)
        && same_or_none(&a.peer_principal, &b.peer_principal)
        && same_or_none(&a.not, &b.not)
        && covers_path(a.path.as_ref(), b.path.as_ref())
        && holds_all(&a.methods, &b.methods)
        && holds_all(&a.source_addresses, &b.source_addresses)
        && holds_all(&a.colors, &b.colors)
        && is_part(&a.headers, &b.headers)
        && is_part(&a.query, &b.query)
        && is_part(&a.cookies, &b.cookies)
        && is_part(&a.jwt_claims, &b.jwt_claims)
        && is_part(&a.baggage, &b.baggage)
        && is_part(&a.properties, &b.properties)
        && a.all.iter().all(|item| b.all.contains(item))
        && (a.any.is_empty() || a.any == b.any)
}

fn same_or_none<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    a.is_none() || a == b
}

/// Any of a list: a shorter list means fewer requests, an empty one all.
fn holds_all(a: &[String], b: &[String]) -> bool {
    a.is_empty() || (!b.is_empty() && b.iter().all(|item| a.contains(item)))
}

fn is_part<T: PartialEq>(a: &BTreeMap<String, T>, b: &BTreeMap<String, T>) -> bool {
    a.iter().all(|(name, test)| b.get(name) == Some(test))
}

fn covers_path(a: Option<&PathMatch>, b: Option<&PathMatch>) -> bool {
    let Some(a) = a else { return true };
    let Some(b) = b else { return false };
    let Some(Operator::Prefix(prefix)) = &a.operator else { return a == b };
    match &b.operator {
        Some(Operator::Exact(path) | Operator::Prefix(path)) => path.starts_with(prefix.as_str()),
        Some(Operator::Template(template)) => {
            template.split('{').next().is_some_and(|literal| literal.starts_with(prefix.as_str()))
        }
        _ => false,
    }
}
