//! What the engine asks of its surroundings. The wasm host, the simulated host of the tests and the
//! terminal each implement these; the engine knows nothing else of the world.

/// Nanoseconds of a monotonic clock that all workers of a process share.
pub type Nanos = u64;

/// The version of a shared value, as the store gave it out.
pub type Cas = u32;

/// Overwrites whatever stands there.
pub const BLIND: Cas = 0;

pub trait Clock {
    fn now(&mut self) -> Nanos;
    /// Nanoseconds since 1970 by the wall clock, which may step: for stamps, and to compare with
    /// stamps of Envoy's.
    fn wall(&mut self) -> Nanos;
}

/// Data that all workers of a process share, with the semantics of proxy-wasm's C++ host: there is
/// no create-if-absent (a set on a missing key succeeds whatever `cas` says), no delete and no
/// listing; versions come from one counter, so an equal version means an untouched value.
pub trait SharedStore {
    /// The value and its version, or `None` for a key that was never set.
    fn get(&mut self, key: &[u8]) -> Option<(Vec<u8>, Cas)>;
    /// Writes when the version is still `cas`, or always with [`BLIND`].
    fn set(&mut self, key: &[u8], value: &[u8], cas: Cas) -> Result<(), SetError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetError {
    /// Another worker wrote first.
    Mismatch,
    /// The store refused; trying again is of no use.
    Failed,
}

/// Envoy attributes, read only when a rule asks.
pub trait Attributes {
    /// `path` has its segments separated by NUL. The encoding is Envoy's: text as it is, integers
    /// as 8 bytes little-endian.
    fn attribute(&mut self, path: &[u8]) -> Option<Vec<u8>>;

    fn integer(&mut self, path: &[u8]) -> Option<u64> {
        self.attribute(path)?.try_into().ok().map(u64::from_le_bytes)
    }
}

pub trait Rng {
    fn random(&mut self) -> u64;
}

/// Counters and gauges by name; written by the tick, never per request.
pub trait Metrics {
    fn count(&mut self, name: &str, by: u64);
    fn gauge(&mut self, name: &str, value: u64);
    /// Moves a gauge up or down: for what all workers count together.
    fn shift(&mut self, name: &str, by: i64);
}

/// Calls to clusters of Envoy's, which outlive the request in hand. What becomes of one is told later, under its number.
pub trait Calls {
    /// A unary gRPC call. `None` where Envoy does not take it, e.g. for a cluster it does not know.
    fn grpc(&mut self, call: &GrpcCall<'_>) -> Option<u32>;
    /// A POST of bytes.
    fn http(&mut self, call: &HttpCall<'_>) -> Option<u32>;
}

pub struct GrpcCall<'a> {
    pub cluster: &'a str,
    pub service: &'a str,
    pub method: &'a str,
    pub metadata: &'a [(String, String)],
    pub message: &'a [u8],
    pub timeout: Nanos,
}

pub struct HttpCall<'a> {
    pub cluster: &'a str,
    pub path: &'a str,
    pub headers: &'a [(String, String)],
    pub body: &'a [u8],
    pub timeout: Nanos,
}

/// Labels the way Istio's `extraStatTags` reads them; the name of the metric follows.
pub fn labels(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}=.={value};.;")).collect()
}

/// All that a decision needs.
pub trait Ports: Clock + SharedStore + Attributes + Rng + Calls {}

impl<T: Clock + SharedStore + Attributes + Rng + Calls> Ports for T {}
