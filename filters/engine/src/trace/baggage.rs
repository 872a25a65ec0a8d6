//! The section `baggage`: what passes, how much, and what is added.

use weir_protos::FieldError;
use weir_protos::v1::BaggagePolicy as Source;

use super::propagation::{remove, replace};
use crate::core::baggage::Baggage;
use crate::core::effects::HeaderEdit;
use crate::core::headers::HeaderMap;
use crate::core::key::{MAX_PARTS, value_source};
use crate::core::ports::Attributes;
use crate::core::request::Request;
use crate::core::restore::{Note, baggage_key};
use crate::core::source;

/// What every party has to pass on (W3C Baggage section 3.3.2), and so the most that makes sense.
const MAX_MEMBERS: u32 = 64;
const MAX_BYTES: u32 = 8192;
/// Each is compared with every member.
const MAX_ALLOWED: usize = 64;

#[derive(Debug)]
pub struct BaggageRules {
    allow: Vec<String>,
    max_members: usize,
    max_bytes: usize,
    set: Vec<(String, source::Source)>,
}

impl BaggageRules {
    #[cold]
    pub fn compile(
        given: &Source,
        color_header: &[u8],
        path: &str,
    ) -> Result<BaggageRules, FieldError> {
        let bound = |given: Option<u32>, most: u32, field: &str| match given.unwrap_or(most) {
            bound if bound <= most => Ok(bound as usize),
            bound => {
                let remedy = format!("must be at most {most}, the W3C's own bound");
                Err(FieldError::value(format!("{path}.{field}"), bound, remedy))
            }
        };
        if given.allow.len() > MAX_ALLOWED {
            let remedy = "keys: must be at most 64";
            return Err(FieldError::value(format!("{path}.allow"), given.allow.len(), remedy));
        }
        for (place, key) in given.allow.iter().enumerate() {
            baggage_key(key, &format!("{path}.allow[{place}]"))?;
        }
        if given.set.len() > MAX_PARTS {
            let remedy = "members: must be at most 16";
            return Err(FieldError::value(format!("{path}.set"), given.set.len(), remedy));
        }
        let members = given.set.iter().enumerate().map(|(place, member)| {
            let path = format!("{path}.set[{place}]");
            baggage_key(&member.key, &format!("{path}.key"))?;
            let value = member.value.as_ref().ok_or_else(|| {
                FieldError::at(
                    format!("{path}.value"),
                    "is missing; say where the value comes from",
                )
            })?;
            let value = value_source(value, color_header, &format!("{path}.value"))?;
            Ok((member.key.clone(), value))
        });
        Ok(BaggageRules {
            allow: given.allow.clone(),
            max_members: bound(given.max_members, MAX_MEMBERS, "max_members")?,
            max_bytes: bound(given.max_bytes, MAX_BYTES, "max_bytes")?,
            set: members.collect::<Result<_, _>>()?,
        })
    }

    /// Brings the request's baggage within the rules. `restored` stands in for baggage that the
    /// application did not forward, `note` is what earlier filters left. Gives what goes on, where that
    /// matters for a record.
    pub fn apply<'r>(
        &'r self,
        request: &mut Request<'r>,
        is_trusted: bool,
        restored: Option<&str>,
        note: &mut Option<Note>,
        attributes: &mut impl Attributes,
        edits: &mut Vec<HeaderEdit>,
    ) -> Option<String> {
        let headers: &HeaderMap = request.headers;
        let is_there = headers.get(b"baggage").is_some();
        let restored = restored.filter(|_| !is_there);
        if !is_there && restored.is_none() && self.set.is_empty() {
            return None;
        }
        let lines = headers.all(b"baggage").chain(restored.map(str::as_bytes));
        let mut baggage = Baggage::parse(lines);
        let is_strange = !is_trusted && restored.is_none();
        if is_strange || !self.allow.is_empty() {
            // The color's member is not the stranger's where a filter of this hop wrote it.
            let own = if is_strange && is_there {
                note.get_or_insert_with(|| Note::left(attributes)).member.as_deref()
            } else {
                None
            };
            let allowed = self.allow.iter().map(String::as_str).chain(own);
            let allowed: Vec<&str> = allowed.collect();
            baggage.retain(|key| allowed.iter().any(|allowed| allowed.as_bytes() == key));
        }
        for (key, source) in &self.set {
            if let Some(value) = source.read(request, attributes) {
                baggage.set(key, &value);
            }
        }
        baggage.limit(self.max_members, self.max_bytes);
        let text = baggage.write();
        if baggage.is_changed() || restored.is_some() {
            if text.is_empty() {
                remove("baggage", headers, edits);
            } else {
                replace("baggage", text.clone(), headers, edits);
            }
        }
        (!text.is_empty()).then_some(text)
    }
}
