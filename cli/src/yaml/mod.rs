//! YAML with positions, and without what means different things to different readers.
//!
//! A document becomes a tree of [`Node`]s that know where they stand. Duplicate keys, scalars that
//! YAML 1.1 and 1.2 read differently, merge keys and foreign tags are found on the way.

mod load;
mod locate;
mod read;
mod scalar;
mod write;

use std::ops::Range;

pub use load::{Trouble, load};
pub use locate::{Found, snake};
pub use scalar::Scalar;
pub use write::write;

/// Bytes of the file.
pub type Span = Range<usize>;

#[derive(Clone, Debug)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Item>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub struct Item {
    /// Its place in the file's list, also after others were taken out.
    pub place: usize,
    pub node: Node,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub node: Node,
}

impl Node {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The same without positions, in the order of the file.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar(Scalar::Null) => serde_json::Value::Null,
            Value::Scalar(Scalar::Bool(value)) => (*value).into(),
            Value::Scalar(Scalar::Unsigned(value)) => (*value).into(),
            Value::Scalar(Scalar::Negative(value)) => (*value).into(),
            Value::Scalar(Scalar::Float(value)) => (*value).into(),
            Value::Scalar(Scalar::Text(value)) => value.as_str().into(),
            Value::List(items) => items.iter().map(|item| item.node.to_json()).collect(),
            Value::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json()));
                serde_json::Value::Object(pairs.collect())
            }
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Scalar::Text(text)) => Some(text),
            _ => None,
        }
    }
}
