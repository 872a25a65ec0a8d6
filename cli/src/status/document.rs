//! The state of Envoys for programs.

use serde_json::{Value, json};

use super::{Asked, apart, problems};
use crate::live::{Reading, Resource, Row, Standing, rows};

pub fn all(asked: &[Asked]) -> Value {
    let apart = apart(asked);
    let is_well = apart.is_empty() && asked.iter().all(|one| problems(one).is_empty());
    let envoys: Vec<Value> = asked.iter().map(envoy).collect();
    json!({ "is_well": is_well, "differing": apart, "envoys": envoys })
}

fn envoy(asked: &Asked) -> Value {
    let mut envoy = json!({
        "admin": asked.url.to_string(),
        "is_reachable": asked.now.is_ok(),
        "problems": problems(asked),
    });
    if let Ok(reading) = &asked.now {
        let traffic = &reading.traffic;
        envoy["ready"] = json!(reading.ready);
        envoy["filters"] = reading.resources.iter().map(|r| filter(r, reading)).collect();
        envoy["modules"] = reading
            .versions
            .iter()
            .map(|version| {
                json!({
                    "module": version.module,
                    "policy": version.policy,
                    "version": version.number,
                    "accepted": version.accepted,
                    "refused": version.refused,
                })
            })
            .collect();
        envoy["module_failures"] = json!(reading.failed());
        envoy["requests"] = json!({
            "completed": traffic.completed,
            "errors": traffic.errors,
            "in_flight": traffic.active,
            "p99_ms": traffic.p99(),
        });
        envoy["rules"] = rows(reading, asked.before.as_ref()).iter().map(rule).collect();
    }
    envoy
}

fn filter(resource: &Resource, reading: &Reading) -> Value {
    let (state, reason) = match resource.standing(&reading.numbers()) {
        Standing::Waiting => ("waiting", None),
        Standing::InForce => ("in_force", None),
        Standing::Refused(why) => ("refused", Some(why)),
        Standing::FirstRefused(why) => ("first_refused", Some(why)),
        Standing::StandIn(filter) => ("replaced", Some(filter)),
    };
    json!({
        "name": resource.name,
        "resource_version": resource.in_force,
        "tried_version": resource.tried,
        "module": resource.module,
        "state": state,
        "reason": reason,
        "accepted": resource.accepted,
        "refused": resource.rejected,
        "unreadable": resource.failed,
    })
}

fn rule(row: &Row) -> Value {
    let outcomes: Vec<Value> = row
        .outcomes
        .iter()
        .map(|(outcome, all, rate)| json!({ "outcome": outcome, "total": all, "per_second": rate }))
        .collect();
    json!({
        "filter": row.filter,
        "policy": row.policy,
        "rule": row.rule,
        "state": row.state,
        "outcomes": outcomes,
    })
}
