//! Two policies, section by section and rule by rule.

use std::collections::{BTreeMap, BTreeSet};

use super::{flat, meaning};
use crate::yaml::{Node, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Added,
    Removed,
    Changed,
    /// Rules stand in another order.
    Moved,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Changed => "changed",
            Kind::Moved => "in another order",
        }
    }
}

/// A field, its value before and after.
pub type Field = (String, Option<String>, Option<String>);

/// One thing that changes.
#[derive(Clone, Debug)]
pub struct Change {
    /// `policy` for what belongs to no section.
    pub section: String,
    pub rule: Option<String>,
    pub kind: Kind,
    pub fields: Vec<Field>,
    pub traffic: Vec<String>,
    pub state: Vec<String>,
}

impl Change {
    pub fn name(&self) -> String {
        match &self.rule {
            Some(rule) => format!("{} rule {rule}", self.section),
            None => self.section.clone(),
        }
    }

    /// Whether a field, or something in it, is among the changes.
    pub fn touches(&self, field: &str) -> bool {
        self.fields.iter().any(|(name, _, _)| {
            name.strip_prefix(field)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }
}

/// Lists of rules with ids, by the path to them.
const SECTIONS: [(&str, &[&str]); 5] = [
    ("trace_context", &["sampling", "rules"]),
    ("traffic_color", &["rules"]),
    ("rate_limit", &["rules"]),
    ("circuit_breaker", &["rules"]),
    ("restore", &[]),
];

pub fn compare(old: &Node, new: &Node) -> Vec<Change> {
    let mut changes = Vec::new();
    let heads = [old, new].map(|root| {
        let mut head = flat::fields(root);
        head.retain(|path, _| {
            let first = path.split(['.', '[']).next().unwrap_or_default();
            SECTIONS.iter().all(|(section, _)| *section != first)
        });
        head
    });
    changes.extend(changed("policy", None, &heads[0], &heads[1]));
    for (section, rules) in SECTIONS {
        let [before, after] = [old, new].map(|root| child(root, section));
        let [before_rules, after_rules] = [before, after].map(|node| list(node, rules));
        let rest = [before, after].map(|node| {
            let mut fields = node.map(flat::fields).unwrap_or_default();
            let path = rules.join(".");
            fields.retain(|name, _| rules.is_empty() || !name.starts_with(&path));
            fields
        });
        let kind = match (before, after) {
            (None, Some(_)) => Some(Kind::Added),
            (Some(_), None) => Some(Kind::Removed),
            _ => None,
        };
        match kind {
            Some(kind) => changes.push(Change {
                section: section.into(),
                rule: None,
                kind,
                fields: Vec::new(),
                traffic: Vec::new(),
                state: Vec::new(),
            }),
            None => changes.extend(changed(section, None, &rest[0], &rest[1])),
        }
        compare_rules(section, &before_rules, &after_rules, &mut changes);
    }
    for change in &mut changes {
        meaning::explain(change, old, new);
    }
    changes
}

fn compare_rules(
    section: &str,
    before: &[(String, &Node)],
    after: &[(String, &Node)],
    changes: &mut Vec<Change>,
) {
    let find = |rules: &[(String, &Node)], id: &str| {
        rules.iter().find(|(known, _)| known == id).map(|(_, rule)| flat::fields(rule))
    };
    let whole = |id: &str, kind| Change {
        section: section.into(),
        rule: Some(id.into()),
        kind,
        fields: Vec::new(),
        traffic: Vec::new(),
        state: Vec::new(),
    };
    for (id, _) in before.iter().filter(|(id, _)| find(after, id).is_none()) {
        changes.push(whole(id, Kind::Removed));
    }
    for (id, _) in after {
        let (was, is) = (find(before, id), find(after, id).unwrap_or_default());
        match was {
            Some(was) => changes.extend(changed(section, Some(id), &was, &is)),
            None => changes.push(whole(id, Kind::Added)),
        }
    }
    let common = |rules: &[(String, &Node)], others: &[(String, &Node)]| -> Vec<String> {
        let ids = rules.iter().map(|(id, _)| id);
        ids.filter(|id| others.iter().any(|(other, _)| other == *id)).cloned().collect()
    };
    let (was, is) = (common(before, after), common(after, before));
    if was != is {
        changes.push(Change {
            section: section.into(),
            rule: None,
            kind: Kind::Moved,
            fields: vec![("rules".into(), Some(was.join(", ")), Some(is.join(", ")))],
            traffic: Vec::new(),
            state: Vec::new(),
        });
    }
}

fn changed(
    section: &str,
    rule: Option<&str>,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Option<Change> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let fields: Vec<Field> = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| (name.clone(), before.get(name).cloned(), after.get(name).cloned()))
        .collect();
    (!fields.is_empty()).then(|| Change {
        section: section.into(),
        rule: rule.map(str::to_string),
        kind: Kind::Changed,
        fields,
        traffic: Vec::new(),
        state: Vec::new(),
    })
}

/// The value of a field in either spelling.
pub fn child<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| flat::field(&entry.key) == name).map(|entry| &entry.node)
}

/// The rules at the end of a path, by their ids.
pub fn list<'n>(node: Option<&'n Node>, path: &[&str]) -> Vec<(String, &'n Node)> {
    if path.is_empty() {
        return Vec::new();
    }
    let found = path.iter().try_fold(node, |node, name| Some(child(node?, name)));
    let Some(Value::List(items)) = found.flatten().map(|node| &node.value) else {
        return Vec::new();
    };
    let each = items
        .iter()
        .filter_map(|item| Some((child(&item.node, "id")?.text()?.to_string(), &item.node)));
    each.collect()
}

/// A rule of a section by its id.
pub fn rule<'n>(root: &'n Node, section: &str, id: &str) -> Option<&'n Node> {
    let (_, path) = SECTIONS.iter().find(|(known, _)| *known == section)?;
    let rules = list(child(root, section), path);
    rules.into_iter().find(|(known, _)| known == id).map(|(_, rule)| rule)
}
