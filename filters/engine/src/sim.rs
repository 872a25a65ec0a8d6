//! A host for tests: several workers on one process, under a clock that the test moves.
//!
//! Workers may run as real threads. A [`Schedule`] then decides which of them performs the next
//! operation on shared data, by a seed, so that gets and compare-and-sets interleave in every
//! hostile order and a failing order can be run again. A VM that dies is a worker that is dropped;
//! one that comes back is a new one on the same process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::core::ports::{
    Attributes, BLIND, Calls, Cas, Clock, GrpcCall, HttpCall, Metrics, Nanos, Rng, SetError,
    SharedStore,
};

/// What the wall clock says when the monotonic one says 0: in November 2026.
const WALL_START: Nanos = 1_795_000_000_000_000_000;

/// Shared data with the semantics of proxy-wasm's C++ host.
#[derive(Clone, Debug, Default)]
pub struct Store {
    inner: Arc<Mutex<Values>>,
}

#[derive(Debug, Default)]
struct Values {
    values: HashMap<Vec<u8>, (Vec<u8>, Cas)>,
    /// One counter for all keys, as in the host.
    version: Cas,
    /// Operations, for counting what a decision costs.
    gets: u64,
    sets: u64,
    fails: bool,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Values> {
        // A worker that panics in a test must not hide its message behind a poisoned lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn handle(&self) -> Store {
        self.clone()
    }

    /// Gets and sets so far.
    pub fn operations(&self) -> (u64, u64) {
        let values = self.lock();
        (values.gets, values.sets)
    }

    /// Keys and bytes held.
    pub fn size(&self) -> (usize, usize) {
        let values = self.lock();
        (
            values.values.len(),
            values.values.iter().map(|(key, (value, _))| key.len() + value.len()).sum(),
        )
    }

    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.lock().values.keys().cloned().collect()
    }

    pub fn dump(&self) -> HashMap<Vec<u8>, Vec<u8>> {
        self.lock().values.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect()
    }

    /// From now on every compare-and-set meets another writer's version.
    pub fn contend(&self, contend: bool) {
        self.lock().fails = contend;
    }
}

impl SharedStore for Store {
    fn get(&mut self, key: &[u8]) -> Option<(Vec<u8>, Cas)> {
        let mut values = self.lock();
        values.gets += 1;
        values.values.get(key).cloned()
    }

    fn set(&mut self, key: &[u8], value: &[u8], cas: Cas) -> Result<(), SetError> {
        let mut values = self.lock();
        values.sets += 1;
        let fails = values.fails;
        values.version += 1;
        let version = values.version;
        match values.values.get_mut(key) {
            Some((_, current)) if cas != BLIND && (*current != cas || fails) => {
                Err(SetError::Mismatch)
            }
            Some(entry) => {
                *entry = (value.to_vec(), version);
                Ok(())
            }
            None => {
                values.values.insert(key.to_vec(), (value.to_vec(), version));
                Ok(())
            }
        }
    }
}

/// A process: what its workers share.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub store: Store,
    clock: Arc<AtomicU64>,
}

impl Process {
    /// Starts some time after the machine did, as a monotonic clock does.
    pub fn start() -> Process {
        let process = Process::default();
        process.set_time(1_000_000_000_000);
        process
    }

    pub fn now(&self) -> Nanos {
        self.clock.load(Ordering::SeqCst)
    }

    pub fn set_time(&self, now: Nanos) {
        self.clock.store(now, Ordering::SeqCst);
    }

    pub fn advance(&self, by: Nanos) {
        self.clock.fetch_add(by, Ordering::SeqCst);
    }

    /// What a worker of this process sees of the world.
    pub fn ports(&self, seed: u64) -> SimPorts {
        SimPorts {
            process: self.clone(),
            random: seed,
            attributes: HashMap::new(),
            counters: HashMap::new(),
            gauges: HashMap::new(),
            wall_step: 0,
            calls: Vec::new(),
            takes_calls: true,
            turn: None,
        }
    }
}

/// The ports of one worker.
#[derive(Debug)]
pub struct SimPorts {
    process: Process,
    random: u64,
    /// Envoy attributes by path, segments separated by NUL.
    pub attributes: HashMap<Vec<u8>, Vec<u8>>,
    pub counters: HashMap<String, u64>,
    pub gauges: HashMap<String, u64>,
    /// How far somebody has moved the wall clock.
    pub wall_step: i64,
    /// Calls that were made: the cluster, and the message.
    pub calls: Vec<(String, Vec<u8>)>,
    /// Whether Envoy takes calls.
    pub takes_calls: bool,
    turn: Option<Turn>,
}

impl SimPorts {
    /// Filter state of weir's has one name, with dots; the rest are paths.
    pub fn set_attribute(&mut self, path: &str, value: &[u8]) {
        let path = if path.starts_with("weir.") { path.into() } else { path.replace('.', "\0") };
        self.attributes.insert(path.into_bytes(), value.to_vec());
    }

    /// The worker's share operations wait for their turn from now on.
    pub fn scheduled(mut self, schedule: &Schedule, worker: usize) -> SimPorts {
        self.turn = Some(Turn { schedule: schedule.clone(), worker });
        self
    }

    fn call(&mut self, cluster: &str, message: &[u8]) -> Option<u32> {
        self.takes_calls.then(|| {
            self.calls.push((cluster.to_string(), message.to_vec()));
            u32::try_from(self.calls.len()).unwrap_or(u32::MAX)
        })
    }

    /// The counter whose name holds all of `parts`, summed.
    pub fn counter(&self, parts: &[&str]) -> u64 {
        let named =
            self.counters.iter().filter(|(name, _)| parts.iter().all(|part| name.contains(part)));
        named.map(|(_, count)| count).sum()
    }
}

impl Clock for SimPorts {
    fn now(&mut self) -> Nanos {
        self.process.now()
    }

    fn wall(&mut self) -> Nanos {
        WALL_START.wrapping_add(self.process.now()).wrapping_add_signed(self.wall_step)
    }
}

impl SharedStore for SimPorts {
    fn get(&mut self, key: &[u8]) -> Option<(Vec<u8>, Cas)> {
        let _turn = self.turn.as_ref().map(Turn::take);
        self.process.store.get(key)
    }

    fn set(&mut self, key: &[u8], value: &[u8], cas: Cas) -> Result<(), SetError> {
        let _turn = self.turn.as_ref().map(Turn::take);
        self.process.store.set(key, value, cas)
    }
}

impl Attributes for SimPorts {
    fn attribute(&mut self, path: &[u8]) -> Option<Vec<u8>> {
        self.attributes.get(path).cloned()
    }
}

impl Rng for SimPorts {
    /// SplitMix64: the tests need variety, not secrecy.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Calls for SimPorts {
    fn grpc(&mut self, call: &GrpcCall<'_>) -> Option<u32> {
        self.call(call.cluster, call.message)
    }

    fn http(&mut self, call: &HttpCall<'_>) -> Option<u32> {
        self.call(call.cluster, call.body)
    }
}

impl Metrics for SimPorts {
    fn count(&mut self, name: &str, by: u64) {
        *self.counters.entry(name.to_string()).or_default() += by;
    }

    fn gauge(&mut self, name: &str, value: u64) {
        self.gauges.insert(name.to_string(), value);
    }

    fn shift(&mut self, name: &str, by: i64) {
        let gauge = self.gauges.entry(name.to_string()).or_default();
        *gauge = gauge.wrapping_add_signed(by);
    }
}

/// Lets one worker at a time touch shared data, in an order drawn from a seed.
#[derive(Clone, Debug)]
pub struct Schedule {
    inner: Arc<(Mutex<Turns>, Condvar)>,
}

#[derive(Debug)]
struct Turns {
    seed: u64,
    /// Workers that still run.
    running: usize,
    waiting: Vec<usize>,
    chosen: Option<usize>,
}

impl Turns {
    /// Once all that run are waiting, one of them is let go.
    fn choose(&mut self) {
        if self.chosen.is_none() && !self.waiting.is_empty() && self.waiting.len() >= self.running {
            self.seed = self
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            self.waiting.sort_unstable();
            let place = usize::try_from(self.seed >> 33).unwrap_or(0) % self.waiting.len();
            self.chosen = Some(self.waiting.remove(place));
        }
    }
}

impl Schedule {
    pub fn new(seed: u64, workers: usize) -> Schedule {
        let turns = Turns { seed, running: workers, waiting: Vec::new(), chosen: None };
        Schedule { inner: Arc::new((Mutex::new(turns), Condvar::new())) }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker is done: the others no longer wait for it.
    pub fn leave(&self) {
        let mut turns = self.lock();
        turns.running -= 1;
        turns.choose();
        self.inner.1.notify_all();
    }
}

#[derive(Debug)]
struct Turn {
    schedule: Schedule,
    worker: usize,
}

/// Held while an operation runs.
struct Running<'a>(&'a Schedule);

impl Turn {
    fn take(&self) -> Running<'_> {
        let mut turns = self.schedule.lock();
        turns.waiting.push(self.worker);
        turns.choose();
        self.schedule.inner.1.notify_all();
        while turns.chosen != Some(self.worker) {
            turns = self.schedule.inner.1.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        Running(&self.schedule)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // The next is chosen when this worker waits again or leaves.
        self.0.lock().chosen = None;
    }
}
