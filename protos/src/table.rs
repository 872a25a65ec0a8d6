//! The shape of the messages, for the JSON reader. Filled in by the build script.

pub(crate) struct Message {
    pub name: &'static str,
    pub fields: &'static [Field],
}

pub(crate) struct Field {
    /// As in the proto file; both spellings are read.
    pub name: &'static str,
    pub json: &'static str,
    pub number: u32,
    pub shape: Shape,
    pub kind: Kind,
    /// Fields of one message with the same number other than 0 exclude each other.
    pub oneof: i32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Single,
    Repeated,
    /// With string keys.
    Map,
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Bool,
    Uint32,
    Uint64,
    Double,
    String,
    Duration,
    /// A place in [`MESSAGES`].
    Message(usize),
    /// A place in [`ENUMS`].
    Enum(usize),
}

include!(concat!(env!("OUT_DIR"), "/tables.rs"));
