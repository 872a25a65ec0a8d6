//! What all four filters share: the request and its values, matching, keys, the ports.

pub mod answer;
pub mod baggage;
pub mod bytes;
pub mod checks;
pub mod effects;
pub mod headers;
pub mod index;
pub mod key;
pub mod matcher;
pub mod policy;
pub mod ports;
pub mod regex;
pub mod reloads;
pub mod reply;
pub mod request;
pub mod restore;
pub mod rules;
pub mod secret;
pub mod source;
pub mod statuses;
pub mod template;
pub mod text;
pub mod uuid;
pub mod value;
