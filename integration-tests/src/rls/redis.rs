//! A Redis of a test's own, and the two commands that an engine needs of it.

use crate::paths;
use crate::wait::{DEADLINE, wait_for};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Killed with the value. It keeps nothing.
pub struct Redis {
    child: Child,
    pub address: SocketAddr,
}

impl Redis {
    pub fn start() -> Redis {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free.expect("a free port");
        let port = address.port().to_string();
        let child = Command::new(paths::built("redis-server"))
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"])
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("Redis starts");
        wait_for("Redis opens its port", DEADLINE, || std::net::TcpStream::connect(address).ok());
        Redis { child, address }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counters over one connection, made anew after a failure.
pub struct Counters {
    address: SocketAddr,
    connection: Mutex<Option<BufReader<TcpStream>>>,
}

impl Counters {
    pub fn new(address: SocketAddr) -> Counters {
        Counters { address, connection: Mutex::new(None) }
    }

    /// What a counter stands at after so many more; it ends some time after its window.
    pub async fn add(&self, key: &str, hits: u32, seconds: u32) -> Option<u64> {
        let mut held = self.connection.lock().await;
        let mut connection = match held.take() {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(self.address).await.ok()?),
        };
        let commands = format!("INCRBY {key} {hits}\r\nEXPIRE {key} {}\r\n", seconds * 2);
        connection.get_mut().write_all(commands.as_bytes()).await.ok()?;
        let counted = integer(&mut connection).await?;
        integer(&mut connection).await?;
        *held = Some(connection);
        Some(counted)
    }
}

async fn integer(connection: &mut BufReader<TcpStream>) -> Option<u64> {
    let mut line = String::new();
    connection.read_line(&mut line).await.ok()?;
    line.strip_prefix(':')?.trim().parse().ok()
}
