//! The traffic direction of a listener.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    Inbound,
    Outbound,
    /// A listener that does not say.
    Unspecified,
}

impl Direction {
    /// As Envoy numbers it.
    pub fn number(self) -> u64 {
        match self {
            Direction::Unspecified => 0,
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Direction::Unspecified => "unspecified",
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}
