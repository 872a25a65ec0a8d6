//! How many of the keys of a color rule change their color.

use crate::yaml::{Node, Scalar, Value};

use super::compare::child;

const BUCKETS: u64 = 10_000;

/// Basis points of the key space that are another color after the edit, of a rule whose keys keep
/// their buckets. `None` where a rule has no shares.
pub fn moved(before: &Node, after: &Node) -> Option<u64> {
    let (before, after) = (ranges(before)?, ranges(after)?);
    let moves = (0..BUCKETS).filter(|bucket| pick(&before, *bucket) != pick(&after, *bucket));
    Some(moves.count() as u64)
}

/// Colors and the ends of their ranges, in order.
fn ranges(rule: &Node) -> Option<Vec<(String, u64)>> {
    let Value::List(shares) = &child(rule, "shares")?.value else { return None };
    let mut end = 0;
    let each = shares.iter().map(|share| {
        let color = child(&share.node, "color")?.text()?.to_string();
        end += match &child(&share.node, "weight")?.value {
            Value::Scalar(Scalar::Unsigned(weight)) => *weight,
            Value::Scalar(Scalar::Text(weight)) => weight.parse().ok()?,
            _ => return None,
        };
        Some((color, end))
    });
    each.collect()
}

fn pick(ranges: &[(String, u64)], bucket: u64) -> Option<&str> {
    ranges.iter().find(|(_, end)| bucket < *end).map(|(color, _)| color.as_str())
}
