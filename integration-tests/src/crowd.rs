//! A crowd of clients, each of which sends its next request once it has its answer: what many
//! callers at a time do, where the rate is not what is tested.

use crate::http::{Client, Request, Response};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many requests over so many connections.
pub struct Crowd {
    address: SocketAddr,
    connections: usize,
    requests: u64,
}

impl Crowd {
    pub fn new(address: SocketAddr, requests: u64) -> Self {
        Self { address, connections: 64, requests }
    }

    /// Default 64.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sends what `make` gives for each number and hands every answer to `look`, with the time that
    /// it took. Panics when one stays away.
    pub fn run(
        self,
        make: impl Fn(u64) -> Request + Sync,
        look: impl Fn(u64, Response, Duration) + Sync,
    ) {
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.connections {
                let mut client = Client::new(self.address);
                let (next, make, look) = (&next, &make, &look);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.requests {
                            return;
                        }
                        let request = make(number);
                        let start = Instant::now();
                        let answer = client.send(&request);
                        look(number, answer, start.elapsed());
                    }
                });
            }
        });
    }
}
