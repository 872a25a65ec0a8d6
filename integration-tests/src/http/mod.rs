//! Clients that see every byte: HTTP/1.1 and HTTP/2 over plain sockets, and gRPC on top.

pub mod grpc;
mod h1;
mod h2;
mod h2_wire;
mod message;

pub use h1::{Client, H1Conn};
pub use h2::{H2Conn, H2Reply};
pub use message::{Request, Response};

use std::time::Duration;

/// No answer within this time means that the stream hangs.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(20);
