//! The secret of the process, under which keys are hashed.

use super::key::Secret;
use super::ports::{BLIND, Rng, SharedStore};

const KEY: &[u8] = b"weir/1/secret";

/// A worker's copy of the secret.
#[derive(Debug, Default)]
pub struct SecretCopy(Option<Secret>);

impl SecretCopy {
    /// Makes sure that the process has a secret. Called while a policy is configured, which happens
    /// on the main thread before any worker sees the policy, so that no two workers ever make one
    /// at the same time. It is not state of a policy: an existing one is never touched.
    pub fn prepare(&mut self, ports: &mut (impl SharedStore + Rng)) {
        if read(ports).is_none() {
            let secret = [ports.random(), ports.random()].map(u64::to_le_bytes).concat();
            let _ = ports.set(KEY, &secret, BLIND);
        }
    }

    pub fn get(&mut self, ports: &mut (impl SharedStore + Rng)) -> Option<Secret> {
        if self.0.is_none() {
            self.prepare(ports);
            self.0 = read(ports);
        }
        self.0
    }

    /// Adopts the secret that stands in shared data, should it ever have been made twice. True where
    /// it is another one: what was hashed under the old one is not to be found any more.
    pub fn refresh(&mut self, ports: &mut impl SharedStore) -> bool {
        if self.0.is_none() {
            return false;
        }
        let current = read(ports);
        let is_other = current.is_some() && current != self.0;
        if is_other {
            self.0 = current;
        }
        is_other
    }
}

fn read(ports: &mut impl SharedStore) -> Option<Secret> {
    let (bytes, _) = ports.get(KEY)?;
    bytes.try_into().ok()
}
