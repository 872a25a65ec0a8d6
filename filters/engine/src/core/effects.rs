//! What a decision does to a stream. The host layer carries it out; nothing in the engine does.

use super::reply::LocalReply;

/// For the request side.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// Answer with this; nothing goes upstream.
    pub reply: Option<LocalReply>,
    /// To be set on the request. Envoy selects the route anew.
    pub request_headers: Vec<(String, String)>,
    /// What the access log and later filters should know, where there is something to say.
    pub state: Option<String>,
    /// The request is not to be charged again when an internal redirect brings it back.
    pub is_charged: bool,
}

/// One change of the response headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    Set(String, String),
}
