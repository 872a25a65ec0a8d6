//! Whether the filter's virtual machines are alive: a trap takes a worker's traffic down.

use super::Envoy;

/// What Envoy writes when a module traps or misbehaves.
/// (`Wasm VM failed Failed to configure` is no trap: so Envoy refuses a policy.)
const TRAP_SIGNS: [&str; 4] =
    ["in-VM backtrace", "Uncaught RuntimeError", "Failed to call function", "panicked at"];

impl Envoy {
    /// Panics when Envoy died or one of its VMs trapped. Tests end with it.
    pub fn assert_healthy(&self) {
        let ready = self.admin("/ready");
        assert_eq!(ready.status, 200, "Envoy is not ready: {}", ready.text());
        let log = self.log();
        for line in log.lines() {
            let sign = TRAP_SIGNS.iter().find(|sign| line.contains(**sign));
            assert!(sign.is_none(), "a VM trapped: {line}");
            let failed = line.contains("Function: ") && line.contains("failed");
            assert!(!failed, "a VM trapped: {line}");
        }
        for (name, value) in self.stats("vm_reload|wasm\\..*fail") {
            assert_eq!(value, 0, "{name} says that a VM was lost");
        }
    }
}
