//! What a decision does to a stream. The host layer carries it out; nothing in the engine does.

use super::reply::LocalReply;
use super::restore::Note;

/// For the request side, or for the response side.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// Answer with this: in place of asking the upstream, or in place of what came.
    pub reply: Option<LocalReply>,
    /// Changes of the headers in hand. On a request, Envoy selects the route anew.
    pub headers: Vec<HeaderEdit>,
    /// What the access log and later filters should know, where there is something to say.
    pub state: Option<String>,
    /// The request is not to be charged again when an internal redirect brings it back.
    pub is_charged: bool,
    /// The request waits for the answer to this call, and is decided then.
    pub waits_for: Option<u32>,
    /// What later filters of this hop should know of the request.
    pub note: Option<Note>,
}

impl From<Vec<HeaderEdit>> for Effects {
    fn from(headers: Vec<HeaderEdit>) -> Effects {
        Effects { headers, ..Effects::default() }
    }
}

/// One change of a header map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// One line with this value, in place of all of that name.
    Set(String, String),
    /// All lines of that name go.
    Remove(String),
    /// One line more.
    Add(String, String),
}
