//! What a response is still to tell the cost of, over an internal redirect.
//!
//! The first stream ends without a response and a second one begins, maybe under other rules. What the
//! first one took stays with the request, in the attribute that marks it as charged.

use std::rc::Rc;

use super::bucket::Bill;
use super::plan::PendingBill;
use super::rule::{Rule, RuleScope};
use crate::core::bytes::Reader;

/// Nothing where nothing is owed.
pub fn write(bills: &[PendingBill]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for PendingBill { bill, .. } in bills {
        let Bill { rule, set, fingerprint, paid, .. } = bill;
        let Ok(length) = u16::try_from(rule.len()) else { continue };
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(rule);
        bytes.extend_from_slice(&set.to_le_bytes());
        bytes.extend_from_slice(&fingerprint.to_le_bytes());
        bytes.extend_from_slice(&paid.to_le_bytes());
    }
    bytes
}

/// The bills of rules that are still there.
pub fn read<'r>(bytes: &[u8], rules: impl Iterator<Item = &'r Rule> + Clone) -> Vec<PendingBill> {
    let mut bytes = Reader(bytes);
    let next = || {
        let length = bytes.u16()?;
        let name = bytes.take(length.into())?;
        Some((name, bytes.u32()?, bytes.u64()?, bytes.u64()?))
    };
    let bill = |(name, set, fingerprint, paid): (&[u8], u32, u64, u64)| {
        let rule = rules.clone().find(|rule| &*rule.state == name)?;
        let cost = Rc::clone(rule.cost.of_response()?);
        let (rule, max_debt, is_local) =
            (Rc::clone(&rule.state), cost.max_debt, rule.scope != RuleScope::Process);
        let bill = Bill { rule, set, fingerprint, paid, max_debt };
        Some(PendingBill { bill, cost, is_local })
    };
    std::iter::from_fn(next).filter_map(bill).collect()
}
