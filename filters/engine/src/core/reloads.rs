//! Counts policy reloads once per process, although every worker configures each policy, and the
//! main thread tries it out first.
//!
//! `on_configure` may record nothing, and a refused policy is seen by the trial alone. So the count
//! stands in shared data: the first tick after an accepted policy adds to it, a refusal adds to it at
//! once, and whichever worker's tick sees a refusal first puts it into the metric.

use super::ports::{BLIND, SharedStore};

/// Counts of one plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reloads {
    /// The version accepted last.
    version: u32,
    refused: u32,
    /// How many of these stand in the metric.
    published: u32,
}

pub struct ReloadCount {
    key: Vec<u8>,
}

impl ReloadCount {
    pub fn new(plugin: &str) -> ReloadCount {
        ReloadCount { key: format!("weir/1/{plugin}/reloads").into_bytes() }
    }

    /// Makes the count, on the main thread first: two workers that made it at once would each count.
    pub fn prepare(&self, store: &mut impl SharedStore) {
        if store.get(&self.key).is_none() {
            let _ = store.set(&self.key, &Reloads::default().write(), BLIND);
        }
    }

    /// Notes that a policy is in force. True for the one worker that is to count it.
    pub fn accept(&self, version: u32, store: &mut impl SharedStore) -> bool {
        self.change(store, |reloads| {
            let is_news = reloads.version != version;
            reloads.version = version;
            is_news.then_some(())
        })
        .is_some()
    }

    pub fn refuse(&self, store: &mut impl SharedStore) {
        self.change(store, |reloads| {
            reloads.refused = reloads.refused.wrapping_add(1);
            Some(())
        });
    }

    /// Refusals that are not in the metric yet, and are the caller's to put there.
    pub fn claim_refused(&self, store: &mut impl SharedStore) -> u64 {
        let claimed = self.change(store, |reloads| {
            let open = reloads.refused.wrapping_sub(reloads.published);
            reloads.published = reloads.refused;
            (open != 0).then_some(open)
        });
        claimed.unwrap_or(0).into()
    }

    fn change<T>(
        &self,
        store: &mut impl SharedStore,
        change: impl Fn(&mut Reloads) -> Option<T>,
    ) -> Option<T> {
        for _ in 0..8 {
            let (bytes, cas) = store.get(&self.key).unwrap_or((Vec::new(), BLIND));
            let mut reloads = Reloads::read(&bytes);
            let result = change(&mut reloads)?;
            if store.set(&self.key, &reloads.write(), cas).is_ok() {
                return Some(result);
            }
        }
        None
    }
}

impl Reloads {
    fn read(bytes: &[u8]) -> Reloads {
        let mut numbers =
            bytes.chunks_exact(4).map(|chunk| chunk.try_into().map_or(0, u32::from_le_bytes));
        let mut next = || numbers.next().unwrap_or(0);
        Reloads { version: next(), refused: next(), published: next() }
    }

    fn write(self) -> Vec<u8> {
        [self.version, self.refused, self.published].map(u32::to_le_bytes).concat()
    }
}

/// A number that changes with the text of a policy: FNV-1a 32, never 0.
pub fn version(text: &[u8]) -> u32 {
    let hash = text
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Store;

    #[test]
    fn each_reload_counts_once_over_all_workers() {
        let store = Store::default();
        let count = ReloadCount::new("p");
        let accepted =
            |version| (0..5).filter(|_| count.accept(version, &mut store.handle())).count();
        assert_eq!((accepted(7), accepted(8), accepted(7)), (1, 1, 1));
        count.refuse(&mut store.handle());
        count.refuse(&mut store.handle());
        let claimed: Vec<u64> = (0..3).map(|_| count.claim_refused(&mut store.handle())).collect();
        assert_eq!(claimed, [2, 0, 0]);
    }

    #[test]
    fn versions() {
        assert_eq!(version(b"foobar"), 0xbf9c_f968);
        assert_eq!(version(b""), 0x811c_9dc5);
    }
}
