//! From a field path, as errors of the engine give it, to a place in the file.

use super::{Node, Span, Value};

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The path with the numbers that list items have in the file.
    pub path: String,
    pub parts: Vec<Part>,
    /// The last key on the way.
    pub key: Option<Span>,
    /// The last node on the way.
    pub value: Span,
    pub is_scalar: bool,
    /// Whether the whole path is there; else the rest of it is missing in the file.
    pub is_whole: bool,
}

/// One step down a tree: the place of an entry or item among its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Entry(usize),
    Item(usize),
}

impl Node {
    /// Follows a path such as `policy.rate_limit.rules[2].max_tokens` as far as it goes.
    pub fn locate(&self, path: &str) -> Found {
        let mut rest = path.strip_prefix("policy").unwrap_or(path);
        let mut found = Found {
            path: "policy".into(),
            parts: Vec::new(),
            key: None,
            value: self.span.clone(),
            is_scalar: false,
            is_whole: false,
        };
        let mut node = self;
        while let Some((step, next, left)) = node.step(rest) {
            match (&node.value, step) {
                (Value::Map(entries), Part::Entry(place)) => {
                    found.key = entries.get(place).map(|entry| entry.key_span.clone());
                    // As the path spells it.
                    found.path.push_str(rest.strip_suffix(left).unwrap_or(rest));
                }
                (Value::List(items), Part::Item(place)) => {
                    let place = items.get(place).map_or(place, |item| item.place);
                    found.path.push_str(&format!("[{place}]"));
                    found.key = None;
                }
                _ => {}
            }
            found.parts.push(step);
            (node, rest) = (next, left);
        }
        found.path.push_str(rest);
        found.value = node.span.clone();
        found.is_scalar = matches!(node.value, Value::Scalar(_));
        found.is_whole = rest.is_empty();
        found
    }

    fn step<'p>(&self, path: &'p str) -> Option<(Part, &Node, &'p str)> {
        match &self.value {
            Value::Map(entries) => {
                let path = path.strip_prefix('.')?;
                // A name may hold dots, such as that of a header: the longest that fits counts. Of
                // one given twice it is the second that an error is about.
                let fits = entries.iter().enumerate().filter_map(|(place, entry)| {
                    let left = path
                        .strip_prefix(&entry.key)
                        .or_else(|| path.strip_prefix(&snake(&entry.key)))?;
                    let ends = left.is_empty() || left.starts_with(['.', '[']);
                    ends.then_some((Part::Entry(place), &entry.node, left))
                });
                fits.min_by_key(|(part, _, left)| match part {
                    Part::Entry(place) | Part::Item(place) => {
                        (left.len(), usize::MAX.saturating_sub(*place))
                    }
                })
            }
            Value::List(items) => {
                let (number, left) = path.strip_prefix('[')?.split_once(']')?;
                let place = number.parse().ok()?;
                let item = items.get(place)?;
                Some((Part::Item(place), &item.node, left))
            }
            Value::Scalar(_) => None,
        }
    }

    /// Takes out what the last step of a path leads to. A list item takes the entry that the list
    /// stands under with it, unless `items` may go alone: their neighbours then move up.
    pub fn remove(&mut self, parts: &[Part]) -> bool {
        let last = parts.iter().rposition(|part| matches!(part, Part::Entry(_)));
        let Some((Part::Entry(place), above)) =
            last.and_then(|last| parts.get(..=last)).and_then(|parts| parts.split_last())
        else {
            return false;
        };
        match self.descend(above).map(|node| &mut node.value) {
            Some(Value::Map(entries)) if *place < entries.len() => {
                entries.remove(*place);
                true
            }
            _ => false,
        }
    }

    /// Takes out the outermost list item on the way whose list is called `rules`.
    pub fn remove_rule(&mut self, parts: &[Part]) -> bool {
        for depth in 0..parts.len() {
            let (above, Some(Part::Item(place))) = (&parts[..depth], parts.get(depth)) else {
                continue;
            };
            let Some((Part::Entry(list), map)) = above.split_last() else { return false };
            let Some(Value::Map(entries)) = self.descend(map).map(|node| &mut node.value) else {
                return false;
            };
            let Some(entry) = entries.get_mut(*list) else { return false };
            let is_rules = entry.key == "rules" || entry.key == "lanes";
            if let (true, Value::List(items)) = (is_rules, &mut entry.node.value)
                && *place < items.len()
            {
                items.remove(*place);
                return true;
            }
        }
        false
    }

    fn descend(&mut self, parts: &[Part]) -> Option<&mut Node> {
        let mut node = self;
        for part in parts {
            node = match (&mut node.value, part) {
                (Value::Map(entries), Part::Entry(place)) => &mut entries.get_mut(*place)?.node,
                (Value::List(items), Part::Item(place)) => &mut items.get_mut(*place)?.node,
                _ => return None,
            };
        }
        Some(node)
    }
}

/// `rate_limit` of `rateLimit`: both spellings are read, and errors use the first.
pub fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::super::load;

    const TEXT: &str = "\
rateLimit:
  rules:
  - id: a
    match: {headers: {x.y: {exact: p}, x: {y: q}}}
  - id: b
    max_tokens: 0
";

    fn at(path: &str) -> (&'static str, bool) {
        let (documents, _) = load(TEXT);
        let found = documents[0].locate(path);
        (TEXT.get(found.value).unwrap(), found.is_whole)
    }

    #[test]
    fn paths_lead_to_values() {
        assert_eq!(at("policy.rate_limit.rules[1].max_tokens"), ("0", true));
        assert_eq!(at("policy.rate_limit.rules[0].match.headers.x.y.exact"), ("p", true));
        assert!(!at("policy.rate_limit.rules[1].fill_interval").1);
        assert!(!at("policy.rate_limit.rules[7]").1);
        assert!(at("policy").1);
    }

    #[test]
    fn items_keep_their_number_when_others_go() {
        let (mut documents, _) = load(TEXT);
        let first = documents[0].locate("policy.rate_limit.rules[0].id");
        assert!(documents[0].remove_rule(&first.parts));
        let second = documents[0].locate("policy.rate_limit.rules[0].max_tokens");
        assert_eq!(second.path, "policy.rate_limit.rules[1].max_tokens");
        assert_eq!(TEXT.get(second.value), Some("0"));
        assert!(documents[0].remove(&second.parts));
        assert!(!documents[0].locate("policy.rate_limit.rules[0].max_tokens").is_whole);
    }
}
