//! The policy as a YAML file that is put live whenever it is saved.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weir_integration_tests::{Envoy, policy};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What became of a saved policy.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// On every worker, so long after it was seen.
    Live(Duration),
    /// The one in force already, word for word.
    Same,
    /// With the reason; the one before it stays.
    Refused(String),
}

pub struct PolicyFile {
    path: PathBuf,
    verdicts: Receiver<Verdict>,
    done: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl PolicyFile {
    /// Writes the policy that Envoy has already, and watches the file from then on.
    pub fn watch(envoy: Arc<Envoy>, text: &str) -> Self {
        let path = envoy.directory().join("policy.yaml");
        write(&path, text);
        let (report, verdicts) = mpsc::channel();
        let done = Arc::new(AtomicBool::new(false));
        let mut watcher = Watcher {
            path: path.clone(),
            seen: text.to_owned(),
            fresh: String::new(),
            in_force: policy::to_json(text),
            envoy,
        };
        let until = done.clone();
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                if let Some(verdict) = watcher.look()
                    && report.send(verdict).is_err()
                {
                    return;
                }
            }
        });
        Self { path, verdicts, done, watcher: Some(thread) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Saves the file and gives the moment of it.
    pub fn save(&self, text: &str) -> Instant {
        let now = Instant::now();
        write(&self.path, text);
        now
    }

    /// The next verdict, if one comes in time. Panics when the watcher is gone.
    pub fn verdict(&self, patience: Duration) -> Option<Verdict> {
        match self.verdicts.recv_timeout(patience) {
            Ok(verdict) => Some(verdict),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                panic!("nobody watches the policy file any more")
            }
        }
    }
}

impl Drop for PolicyFile {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// Aside and renamed, so that nobody reads half of it.
fn write(path: &Path, text: &str) {
    let aside = path.with_extension("yaml.new");
    std::fs::write(&aside, text).expect("the demo's directory is writable");
    std::fs::rename(&aside, path).expect("the same file system");
}

struct Watcher {
    path: PathBuf,
    envoy: Arc<Envoy>,
    /// What a verdict was given on last.
    seen: String,
    /// What the last look found. Editors may write in several steps: a text counts when two looks
    /// find the same.
    fresh: String,
    in_force: String,
}

impl Watcher {
    fn look(&mut self) -> Option<Verdict> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let is_stable = text == self.fresh;
        self.fresh = text;
        // An empty or missing file is an editor in the middle of saving.
        if !is_stable || self.fresh == self.seen || self.fresh.trim().is_empty() {
            return None;
        }
        self.seen = self.fresh.clone();
        Some(self.put(Instant::now()))
    }

    fn put(&mut self, since: Instant) -> Verdict {
        let json = match policy::try_json(&self.seen) {
            Ok(json) => json,
            Err(reason) => return Verdict::Refused(reason),
        };
        // Envoy does not load an equal configuration anew.
        if json == self.in_force {
            return Verdict::Same;
        }
        match self.envoy.put_configuration(&json).verdict() {
            Ok(()) => {
                self.in_force = json;
                Verdict::Live(since.elapsed())
            }
            Err(log) => Verdict::Refused(reason(&log)),
        }
    }
}

/// What our module said, out of Envoy's log.
fn reason(log: &str) -> String {
    let said = log.lines().find_map(|line| {
        let json = line.get(line.find("{\"level\":\"error\"")?..)?;
        let record: serde_json::Value = serde_json::from_str(json.trim_end()).ok()?;
        let message = record["message"].as_str()?;
        Some(message.strip_prefix("policy refused, the one in force stays: ")?.to_owned())
    });
    said.unwrap_or_else(|| format!("Envoy says:\n{}", log.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_the_module_said() {
        let log = "[2026-01-01 00:00:00.000][1][info][main] something else\n\
            [2026-01-01 00:00:00.001][1][error][wasm] wasm log weir.rate_limit: \
            {\"level\":\"error\",\"filter\":\"rate_limit\",\"message\":\"policy refused, the one in force \
            stays: policy.name: \\\"A\\\" must be lower case\"}\n";
        assert_eq!(reason(log), "policy.name: \"A\" must be lower case");
    }

    #[test]
    fn another_refusal_is_shown_as_it_is() {
        assert_eq!(reason("[error] no such module\n"), "Envoy says:\n[error] no such module");
    }
}
