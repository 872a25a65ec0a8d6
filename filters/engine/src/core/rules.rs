//! What the rules of every section have in common.

use std::collections::BTreeMap;

use weir_protos::FieldError;

use super::index::Index;
use super::policy::identifier;

/// Rules that no index finds are tested on every request.
const MAX_UNINDEXED: usize = 64;

/// A rule's id: it goes into metric labels, header values and keys of shared state.
#[cold]
pub fn rule_id(id: &str, path: &str) -> Result<(), FieldError> {
    identifier(id, path)?;
    if id == "none" || id == "other" {
        let remedy = "must not be `none` or `other`: metrics use these for what is no single rule";
        return Err(FieldError::value(path, format_args!("{id:?}"), remedy));
    }
    Ok(())
}

/// Sees to it that ids differ.
#[derive(Default)]
pub struct Ids<'p>(BTreeMap<&'p str, usize>);

impl<'p> Ids<'p> {
    /// `path` is that of the rule at `place`.
    #[cold]
    pub fn insert(&mut self, id: &'p str, place: usize, path: &str) -> Result<(), FieldError> {
        if let Some(first) = self.0.insert(id, place) {
            let remedy = format!("must be unique; rules[{first}] has it already");
            return Err(FieldError::value(format!("{path}.id"), format_args!("{id:?}"), remedy));
        }
        Ok(())
    }
}

/// Refuses more rules without an anchor than each request can be tested against. `id` names a rule
/// by its number, `path` is that of the list.
#[cold]
pub fn check_unindexed<'r>(
    index: &Index,
    id: impl Fn(usize) -> Option<&'r str>,
    path: &str,
) -> Result<(), FieldError> {
    let Some(id) = index.unindexed().get(MAX_UNINDEXED).and_then(|rule| id(*rule as usize)) else {
        return Ok(());
    };
    let remedy = "is one of more than 64 rules without an exact or prefix condition on path, \
                  authority or a header; give it one";
    Err(FieldError::value(path, format_args!("{id:?}"), remedy))
}
