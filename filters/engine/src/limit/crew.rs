//! How many workers share the work: each registers in shared data that it serves requests.

use crate::core::ports::{BLIND, Nanos, SetError, SharedStore};

/// A worker that served nothing for so long does not count. 10 s.
const SEEN: Nanos = 10_000_000_000;

/// How often a worker renews its entry. 1 s.
const RENEW: Nanos = 1_000_000_000;

/// More workers than any proxy runs; the list stays small whatever stands in it.
pub const MOST_WORKERS: u32 = 256;
const MOST: usize = MOST_WORKERS as usize;

const ENTRY: usize = 16;

#[derive(Debug)]
pub struct Crew {
    key: Vec<u8>,
    /// This VM's own, at random.
    id: u64,
    renewed_at: Option<Nanos>,
    served: bool,
    /// The first request after a quiet time, and the last one.
    woke_at: Nanos,
    served_at: Nanos,
    count: u32,
}

impl Crew {
    pub fn new(state_prefix: &str, id: u64) -> Crew {
        let key = format!("{state_prefix}/rl/workers").into_bytes();
        Crew { key, id, renewed_at: None, served: false, woke_at: 0, served_at: 0, count: 1 }
    }

    /// Workers that served a request lately, this one included. At least 1.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Notes a request; the first one, and the first after a quiet time, registers at once, so that
    /// two workers never both believe for long that they are alone.
    pub fn serve(&mut self, now: Nanos, store: &mut impl SharedStore) {
        self.served = true;
        let is_first = self.renewed_at.is_none() || now.saturating_sub(self.served_at) >= SEEN;
        self.served_at = now;
        if is_first {
            self.woke_at = now;
            self.renewed_at = None;
            self.refresh(now, store);
        }
    }

    /// Counts the workers from time to time; `often` where rates depend on the count.
    pub fn tick(&mut self, often: bool, now: Nanos, store: &mut impl SharedStore) {
        let due = self.renewed_at.is_none_or(|at| now.saturating_sub(at) >= RENEW);
        if often || (self.served && due) {
            self.refresh(now, store);
        }
    }

    /// Counts the workers, and renews this one's entry where it is due.
    fn refresh(&mut self, now: Nanos, store: &mut impl SharedStore) {
        let due = self.renewed_at.is_none_or(|at| now.saturating_sub(at) >= RENEW);
        let renews = self.served && due;
        for _ in 0..8 {
            let (bytes, cas) = store.get(&self.key).unwrap_or((Vec::new(), BLIND));
            let mut entries = read(&bytes);
            // A time to come is no worker's of this process.
            entries.retain(|(id, seen)| *id != self.id && seen.abs_diff(now) < SEEN);
            let others = entries.len();
            let alive = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
            // Workers that rested together wake together: until they have had time to register
            // they count as before.
            let is_settled = now.saturating_sub(self.woke_at) >= SEEN
                && now.saturating_sub(self.served_at) < SEEN;
            self.count = if is_settled { alive } else { alive.max(self.count) };
            if !renews {
                return;
            }
            entries.truncate(MOST - 1);
            entries.push((self.id, now));
            let written = store.set(&self.key, &write(&entries), cas);
            // A first entry is written blindly and may be lost to another's: the next one counts.
            if written != Err(SetError::Mismatch) {
                self.renewed_at = Some(if cas == BLIND { now.saturating_sub(RENEW) } else { now });
                self.served = false;
                return;
            }
        }
    }
}

fn read(bytes: &[u8]) -> Vec<(u64, Nanos)> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
    let entries = bytes.chunks_exact(ENTRY).take(MOST);
    entries
        .filter_map(|entry| entry.split_at_checked(8))
        .map(|(id, seen)| (number(id), number(seen)))
        .collect()
}

fn write(entries: &[(u64, Nanos)]) -> Vec<u8> {
    entries.iter().flat_map(|(id, seen)| [id.to_le_bytes(), seen.to_le_bytes()]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Store;

    #[test]
    fn workers_are_counted_while_they_serve() {
        let store = Store::default();
        let mut crew: Vec<Crew> = (1..=4).map(|id| Crew::new("p", id)).collect();
        for member in &mut crew {
            member.serve(0, &mut store.handle());
        }
        assert_eq!(crew[3].count(), 4);
        for member in &mut crew {
            member.refresh(1, &mut store.handle());
        }
        assert_eq!(crew[0].count(), 4);
        // Only the first goes on serving.
        for second in 1..=11 {
            crew[0].serve(second * RENEW, &mut store.handle());
            crew[0].refresh(second * RENEW, &mut store.handle());
        }
        assert_eq!(crew[0].count(), 1);
    }

    #[test]
    fn workers_that_rested_together_wake_as_many() {
        let store = Store::default();
        let mut crew: Vec<Crew> = (1..=4).map(|id| Crew::new("p", id)).collect();
        for second in 0..20 {
            for member in &mut crew {
                member.serve(second * RENEW, &mut store.handle());
                member.tick(true, second * RENEW, &mut store.handle());
            }
        }
        for second in 20..60 {
            crew.iter_mut()
                .for_each(|member| member.tick(true, second * RENEW, &mut store.handle()));
        }
        crew[0].serve(60 * RENEW, &mut store.handle());
        assert_eq!(crew[0].count(), 4);
    }
}
