//! What is measured: an Envoy that differs from the others of its section in its filter alone, and
//! how one sees that the filter does its work.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use weir_integration_tests::{Envoy, Filter};

pub const NONE: &str = "no filter";
pub const NOOP: &str = "wasm, does nothing (SDK)";

/// Counters are written by a tick, and spans of a last batch take a moment.
const PATIENCE: Duration = Duration::from_secs(10);

/// Not started yet: only what the options ask for is.
pub struct Subject<'a> {
    pub name: String,
    start: Box<dyn FnOnce() -> Running + 'a>,
}

/// An Envoy that lives through all rounds.
pub struct Running {
    pub envoy: Envoy,
    url: String,
    /// Header lines of each request.
    lines: Vec<String>,
    /// Of the paths that requests have in turn, in place of one.
    file: Option<PathBuf>,
    proofs: Vec<Proof>,
    /// Requests of its own checks before the rounds that are counted along with the load.
    checks: u64,
}

/// Gets the Envoy and the number of requests.
type Look = Box<dyn Fn(&Envoy, u64) -> Result<(), String>>;

enum Proof {
    /// The sum of the statistics whose names hold all of these parts is the number of requests.
    Counts(Vec<String>),
    /// Looked at before and after the rounds.
    Check(Look),
    /// Looked at after the rounds.
    After(Look),
}

impl<'a> Subject<'a> {
    pub fn new(name: &str, start: impl FnOnce() -> Running + 'a) -> Self {
        Self { name: name.to_owned(), start: Box::new(start) }
    }

    pub fn is_reference(&self) -> bool {
        self.name == NONE || self.name == NOOP
    }

    /// Starts it, and fails where its filter does not work.
    pub fn start(self) -> Result<Running, String> {
        let running = (self.start)();
        running.check().map_err(|e| format!("{}: {e}", self.name))?;
        Ok(running)
    }
}

impl Running {
    pub fn new(envoy: Envoy, listener: &str, path: &str) -> Self {
        let url = format!("http://{}{path}", envoy.address(listener));
        Self { envoy, url, lines: Vec::new(), file: None, proofs: Vec::new(), checks: 0 }
    }

    /// Each request carries this line, `name: value`.
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Requests have the paths of this file in turn, over HTTP/2.
    pub fn paths(mut self, file: PathBuf) -> Self {
        self.file = Some(file);
        self
    }

    /// These statistics count each request.
    pub fn counts(mut self, parts: &[&str]) -> Self {
        self.proofs.push(Proof::Counts(parts.iter().map(|part| (*part).to_owned()).collect()));
        self
    }

    /// Looked at before and after the rounds.
    pub fn checked(mut self, check: impl Fn(&Envoy) -> Result<(), String> + 'static) -> Self {
        self.proofs.push(Proof::Check(Box::new(move |envoy, _| check(envoy))));
        self
    }

    /// So many requests of the checks show in [`Self::counts`].
    pub fn checks_count(mut self, requests: u64) -> Self {
        self.checks = requests;
        self
    }

    /// Gets the number of requests.
    pub fn after(mut self, proof: impl Fn(&Envoy, u64) -> Result<(), String> + 'static) -> Self {
        self.proofs.push(Proof::After(Box::new(proof)));
        self
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    fn check(&self) -> Result<(), String> {
        self.proofs.iter().try_for_each(|proof| match proof {
            Proof::Check(check) => check(&self.envoy, 0),
            _ => Ok(()),
        })
    }

    /// Fails when the filter did not do its work on each of so many requests: then its cost means
    /// nothing.
    pub fn prove(&self, load: u64) -> Result<(), String> {
        let requests = load + self.checks;
        for proof in &self.proofs {
            match proof {
                Proof::Check(_) => {}
                Proof::After(proof) => proof(&self.envoy, requests)?,
                Proof::Counts(parts) => {
                    let count = || sum(&self.envoy, parts);
                    if !comes_true(|| count() == requests) {
                        return Err(format!("{parts:?} is {}, not {requests}", count()));
                    }
                }
            }
        }
        self.check()
    }
}

/// Of the statistics whose names hold all of these parts.
pub fn sum(envoy: &Envoy, parts: &[impl AsRef<str>]) -> u64 {
    let first = parts.first().map_or("", AsRef::as_ref);
    let named = envoy.stats(&regex_lite::escape(first));
    let holds = |name: &str| parts.iter().all(|part| name.contains(part.as_ref()));
    named.iter().filter(|(name, _)| holds(name)).map(|(_, value)| value).sum()
}

/// Whether it holds, at once or soon.
pub fn comes_true(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A module in place, not over discovery, so that ours and the one that does nothing are alike.
pub fn wasm(name: &str, module: &Path, configuration: &str) -> Filter {
    Filter::inline(
        name,
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name,
                "root_id": name.replace('.', "_"),
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": configuration,
                },
                "failure_policy": "FAIL_CLOSED",
            },
        }),
    )
}
