//! The policy's way into Envoy: a discovery file that is replaced by rename.

use super::Envoy;
use crate::policy;
use crate::wait::{DEADLINE, wait_for, wait_until};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the filter, of its ECDS resource and of the plugin.
pub const RATE_LIMIT: &str = "weir.rate_limit";
pub(super) const WASM_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// The watched directory: nothing but the discovery file is in it.
/// What Envoy does with requests after a trap, unless a test says otherwise.
pub(super) const FAIL_CLOSED: &str = "FAIL_CLOSED";

pub(super) fn directory(base: &Path) -> PathBuf {
    base.join("ecds")
}

pub(super) fn path(base: &Path) -> PathBuf {
    directory(base).join("rate-limit.json")
}

/// The plugin with a policy in JSON.
pub(super) fn plugin(module: &Path, policy: &str, on_trap: &str) -> Value {
    json!({
        "@type": WASM_TYPE,
        "config": {
            "name": RATE_LIMIT,
            "root_id": "weir_rate_limit",
            "vm_config": {
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": module}},
            },
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": policy,
            },
            "failure_policy": on_trap,
        },
    })
}

/// Writes the discovery file aside and renames it: Envoy does not notice a file that is rewritten
/// in place, and would read half of it.
pub(super) fn write(base: &Path, module: &Path, policy: &str, on_trap: &str) {
    static VERSION: AtomicU64 = AtomicU64::new(1);
    let version = VERSION.fetch_add(1, Ordering::Relaxed);
    let file = json!({
        "version_info": version.to_string(),
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": RATE_LIMIT,
            "typed_config": plugin(module, policy, on_trap),
        }],
    });
    let aside = base.join("rate-limit.json.new");
    std::fs::write(&aside, file.to_string()).expect("the test's directory is writable");
    std::fs::rename(&aside, path(base)).expect("the same file system");
}

/// Envoy's counters for the resource.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    success: u64,
    rejected: u64,
    /// Updates that every worker has taken over; also counts refused ones.
    reload: u64,
}

/// A policy that was handed to Envoy; ask for what became of it.
#[must_use]
pub struct PolicyPut<'a> {
    envoy: &'a Envoy,
    before: Counts,
    log_start: usize,
}

impl PolicyPut<'_> {
    /// Waits until every worker runs the policy. Panics when it was refused.
    pub fn accepted(self) {
        if let Err(log) = self.verdict() {
            panic!("the policy was refused:\n{log}");
        }
    }

    /// Waits until Envoy refused the policy and gives what it logged about it. Panics when it was
    /// accepted.
    pub fn refused(self) -> String {
        let verdict = self.verdict();
        verdict.expect_err("the policy was accepted")
    }

    /// Waits for either: `Ok` once every worker runs the policy, or the log of its refusal.
    pub fn verdict(self) -> Result<(), String> {
        let before = self.before;
        wait_for("a verdict on the policy", DEADLINE, || {
            let now = self.envoy.ecds_counts();
            if now.rejected > before.rejected {
                return Some(Err(self.log()));
            }
            (now.success > before.success && now.reload > before.reload).then_some(Ok(()))
        })
    }

    fn log(&self) -> String {
        self.envoy.log().split_off(self.log_start)
    }
}

impl Envoy {
    /// Edits the policy, in YAML or JSON.
    pub fn put_policy(&self, text: &str) -> PolicyPut<'_> {
        self.put_configuration(&policy::to_json(text))
    }

    /// Hands Envoy a configuration as it is, also one that is no JSON.
    pub fn put_configuration(&self, configuration: &str) -> PolicyPut<'_> {
        let put =
            PolicyPut { envoy: self, before: self.ecds_counts(), log_start: self.log().len() };
        write(self.directory(), &self.module, configuration, self.on_trap);
        put
    }

    /// The same with another module, which takes the place of the one that runs.
    pub fn put_module(&self, module: &Path, text: &str) -> PolicyPut<'_> {
        let put =
            PolicyPut { envoy: self, before: self.ecds_counts(), log_start: self.log().len() };
        write(self.directory(), module, &policy::to_json(text), self.on_trap);
        put
    }

    pub(super) fn ecds_counts(&self) -> Counts {
        let prefix = format!("extension_config_discovery.http_filter.{RATE_LIMIT}");
        let stats = self.stats(&format!("^{}\\.", regex_lite::escape(&prefix)));
        let get = |name: &str| stats.get(&format!("{prefix}.{name}")).copied().unwrap_or(0);
        Counts {
            success: get("update_success"),
            rejected: get("update_rejected"),
            reload: get("config_reload"),
        }
    }

    /// Waits for the verdict on the policy that Envoy started with.
    pub(super) fn await_first_policy(&self, may_be_bad: bool) {
        wait_until("a verdict on the first policy", DEADLINE, || {
            let now = self.ecds_counts();
            assert!(
                may_be_bad || now.rejected == 0,
                "the first policy was refused:\n{}",
                self.log()
            );
            now.success + now.rejected > 0
        });
    }
}
