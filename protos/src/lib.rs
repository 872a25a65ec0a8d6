//! The policy messages of weir (`weir.v1`), generated from `weir/v1/*.proto`, and the reader that
//! turns a policy in proto3-JSON spelling into them.
//!
//! ```
//! use weir_protos::{Section, decode_json};
//!
//! let policy = decode_json(br#"{"name": "shop"}"#, Section::RateLimit).unwrap();
//! assert_eq!(policy.name, "shop");
//!
//! let refused = decode_json(br#"{"nmae": "shop"}"#, Section::RateLimit).unwrap_err();
//! assert_eq!(refused.to_string(), "policy.nmae: unknown field; did you mean `name`?");
//! ```

mod error;
mod json;
mod scalar;
mod sections;
mod table;

pub use error::FieldError;
pub use json::{decode, decode_json};
/// As the messages hold it.
pub use prost_types::Duration;
pub use sections::Section;

/// The messages of `weir/v1/*.proto`; the field comments there are the reference.
#[allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/weir.v1.rs"));
}

#[cfg(test)]
mod compatibility_tests;
