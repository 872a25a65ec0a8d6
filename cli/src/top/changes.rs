//! What is different from one look to the next.

use crate::live::{Reading, Resource, Standing, rows};

pub fn between(before: &Reading, now: &Reading) -> Vec<String> {
    let mut changes = Vec::new();
    if before.ready != now.ready {
        changes.push(format!("Envoy: {} to {}", before.ready, now.ready));
    }
    for resource in &now.resources {
        let then = before.resources.iter().find(|known| known.name == resource.name);
        changes.extend(then.and_then(|then| update(then, resource, now)));
    }
    for version in &now.versions {
        let is_same = |known: &&crate::live::Version| {
            (&known.module, &known.policy) == (&version.module, &version.policy)
        };
        let then = before.versions.iter().find(is_same).map(|known| known.number);
        if then != Some(version.number) {
            let (module, number) = (&version.module, version.number);
            changes.push(format!("{module}: policy {:?} is in version {number}", version.policy));
        }
    }
    let earlier = rows(before, None);
    for row in rows(now, None) {
        let is_same = |known: &&crate::live::Row| {
            (&known.filter, &known.policy, &known.rule) == (&row.filter, &row.policy, &row.rule)
        };
        // How many are in flight changes all the time.
        let state = |row: &crate::live::Row| {
            row.state
                .iter()
                .find(|state| !state.ends_with("in flight"))
                .cloned()
                .unwrap_or_default()
        };
        let Some(then) = earlier.iter().find(is_same).map(state) else { continue };
        if then != state(&row) {
            let shown =
                |state: &str| if state.is_empty() { "as usual".into() } else { state.to_owned() };
            let (then, now) = (shown(&then), shown(&state(&row)));
            changes.push(format!("{} {}: {then} to {now}", row.filter, row.rule));
        }
    }
    for (plugin, count) in &now.failures {
        if *count > before.failures.get(plugin).copied().unwrap_or(0) {
            changes.push(format!("{plugin}: a module failed"));
        }
    }
    changes
}

fn update(then: &Resource, now: &Resource, reading: &Reading) -> Option<String> {
    let name = &now.name;
    if now.in_force != then.in_force {
        return Some(format!(
            "{name}: {} is in force",
            now.in_force.as_deref().unwrap_or("another")
        ));
    }
    if now.failed > then.failed {
        return Some(format!("{name}: a discovery file could not be read"));
    }
    if now.rejected > then.rejected {
        return match now.standing(&reading.numbers()) {
            Standing::Refused(why) | Standing::FirstRefused(why) => Some(format!(
                "{name}: {} was refused: {why}",
                now.tried.as_deref().unwrap_or("a policy")
            )),
            _ => Some(format!("{name}: a policy was refused, and another taken")),
        };
    }
    None
}
