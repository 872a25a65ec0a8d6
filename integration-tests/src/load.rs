//! Offered load: a fixed rate from a fixed number of connections, whether or not answers keep up.

use crate::http::{H1Conn, Request, Response};
use crate::wait::sleep_until;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Make = dyn Fn(u64) -> (String, Request) + Send + Sync;
type Look = dyn Fn(Instant, &Response) + Send + Sync;

/// `rate` requests a second for `lasts`, dealt out evenly to the connections.
pub struct Load {
    address: SocketAddr,
    connections: u32,
    rate: u32,
    lasts: Duration,
    make: Arc<Make>,
    look: Option<Arc<Look>>,
}

/// What the clients counted.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// From the first request sent to the last one sent.
    pub elapsed: Duration,
    /// Answers by the request's label and the status.
    pub answers: BTreeMap<(String, u16), u64>,
    /// When each answer came, and its status; unordered.
    pub timeline: Vec<(Instant, u16)>,
    /// How long each of these took from when its request was due: what waited behind another
    /// request of its connection waited. In the order of the timeline.
    pub took: Vec<Duration>,
    /// Requests without an answer, with the reason of the last one.
    pub failed: u64,
    pub failure: Option<String>,
    /// Requests that each connection sent.
    pub by_connection: Vec<u64>,
}

impl Load {
    /// One request after the other, all alike.
    pub fn new(address: SocketAddr, request: Request) -> Self {
        Self::labelled(address, move |_| (String::new(), request.clone()))
    }

    /// Requests made by their number, each with a label to count it under.
    pub fn labelled(
        address: SocketAddr,
        make: impl Fn(u64) -> (String, Request) + Send + Sync + 'static,
    ) -> Self {
        Self {
            address,
            connections: 16,
            rate: 1000,
            lasts: Duration::from_secs(5),
            make: Arc::new(make),
            look: None,
        }
    }

    /// Shows each answer as it comes, for what the report does not hold.
    pub fn look(mut self, look: impl Fn(Instant, &Response) + Send + Sync + 'static) -> Self {
        self.look = Some(Arc::new(look));
        self
    }

    /// Default 16.
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Requests a second over all connections.
    pub fn rate(mut self, rate: u32) -> Self {
        self.rate = rate;
        self
    }

    pub fn lasts(mut self, lasts: Duration) -> Self {
        self.lasts = lasts;
        self
    }

    /// Runs while the caller does something else, such as an edit of the policy.
    pub fn start(self) -> std::thread::JoinHandle<LoadReport> {
        std::thread::spawn(|| self.run())
    }

    /// Runs to the end and adds up.
    pub fn run(self) -> LoadReport {
        // All connections stand before the first request is due.
        let sockets: Vec<_> = (0..self.connections)
            .map(|_| H1Conn::connect(self.address).expect("Envoy accepts connections"))
            .collect();
        let load = Arc::new(self);
        let start = Instant::now();
        let threads: Vec<_> = sockets
            .into_iter()
            .zip(0..)
            .map(|(socket, index)| {
                let load = load.clone();
                std::thread::spawn(move || load.drive(socket, index, start))
            })
            .collect();
        let mut total = LoadReport::default();
        for thread in threads {
            total.add(thread.join().expect("a load thread does not panic"));
        }
        total
    }

    /// One connection's part: request n of the whole is due at `start + n / rate`.
    fn drive(&self, mut socket: H1Conn, index: u64, start: Instant) -> LoadReport {
        let mut report = LoadReport::default();
        let mut sent = 0;
        let all = f64::from(self.rate) * self.lasts.as_secs_f64();
        let all = all as u64;
        for n in (index..all).step_by(self.connections as usize) {
            let due = start + Duration::from_secs_f64(n as f64 / f64::from(self.rate));
            sleep_until(due);
            let (label, request) = (self.make)(n);
            report.elapsed = start.elapsed();
            sent += 1;
            match socket.send(&request) {
                Ok(answer) => {
                    let now = Instant::now();
                    if let Some(look) = &self.look {
                        look(now, &answer);
                    }
                    report.timeline.push((now, answer.status));
                    report.took.push(now.saturating_duration_since(due));
                    *report.answers.entry((label, answer.status)).or_default() += 1;
                }
                Err(e) => {
                    report.failed += 1;
                    report.failure = Some(e.to_string());
                    match H1Conn::connect(self.address) {
                        Ok(fresh) => socket = fresh,
                        Err(e) => report.failure = Some(e.to_string()),
                    }
                }
            }
        }
        report.by_connection.push(sent);
        report
    }
}

impl LoadReport {
    /// Answers with this status, over all labels.
    pub fn status(&self, status: u16) -> u64 {
        let matching = self.answers.iter().filter(|((_, s), _)| *s == status);
        matching.map(|(_, n)| n).sum()
    }

    /// Answers with this status to requests of this label.
    pub fn of(&self, label: &str, status: u16) -> u64 {
        let key = (label.to_owned(), status);
        self.answers.get(&key).copied().unwrap_or(0)
    }

    /// Answers with this status that came after `from`, up to `until`.
    pub fn between(&self, status: u16, from: Instant, until: Instant) -> u64 {
        let inside = |(at, s): &&(Instant, u16)| *s == status && *at > from && *at <= until;
        self.timeline.iter().filter(inside).count() as u64
    }

    /// When the last answer came.
    pub fn end(&self) -> Instant {
        let last = self.timeline.iter().map(|(at, _)| *at).max();
        last.expect("at least one request was answered")
    }

    pub fn total(&self) -> u64 {
        self.answers.values().sum::<u64>() + self.failed
    }

    fn add(&mut self, other: Self) {
        self.elapsed = self.elapsed.max(other.elapsed);
        for (key, n) in other.answers {
            *self.answers.entry(key).or_default() += n;
        }
        self.timeline.extend(other.timeline);
        self.took.extend(other.took);
        self.failed += other.failed;
        self.failure = other.failure.or(self.failure.take());
        self.by_connection.extend(other.by_connection);
    }
}

/// Panics unless each worker took at least a tenth of the load's connections, all of which sent
/// alike: a test over several workers that ran on one proves nothing.
pub fn assert_spread(report: &LoadReport, by_worker: &[u64], workers: usize) {
    let (least, most) = (
        report.by_connection.iter().min().copied().unwrap_or(0),
        report.by_connection.iter().max().copied().unwrap_or(0),
    );
    assert!(least + 1 >= most, "uneven connections: {least} to {most}");
    assert_eq!(by_worker.len(), workers, "workers that took connections: {by_worker:?}");
    let all: u64 = by_worker.iter().sum();
    for taken in by_worker {
        assert!(taken * 10 >= all, "a worker had less than 10 %: {by_worker:?}");
    }
}
