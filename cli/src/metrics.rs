//! What decisions counted: the metrics that a module would write.

use std::collections::BTreeMap;

use weir_engine::sim::SimPorts;

/// One counter that moved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

impl Counted {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// All counters that have moved since the last call.
pub fn take(ports: &mut SimPorts) -> Vec<Counted> {
    let moved = std::mem::take(&mut ports.counters);
    let mut counted: Vec<Counted> = moved.keys().map(|name| read(name)).collect();
    counted.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
    counted
}

/// Labels first, the name last, as the engine writes them.
pub fn read(text: &str) -> Counted {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((pair, after)) = rest.split_once(";.;") {
        if let Some((name, value)) = pair.split_once("=.=") {
            labels.insert(name.to_string(), value.to_string());
        }
        rest = after;
    }
    Counted { name: rest.to_string(), labels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        let counted = read("policy=.=shop;.;rule=.=a;.;outcome=.=limited;.;weir_x_total");
        assert_eq!(counted.name, "weir_x_total");
        assert_eq!((counted.label("rule"), counted.label("outcome")), ("a", "limited"));
    }
}
