//! How leases lie in shared data: sets of a few, as buckets do. A set that is full forgets a lease that
//! holds nothing, else the one that was filled the longest ago: its hits are lost, none is won.

use super::lease::{Lease, Lot};
use super::settings::Settings;
use crate::core::bytes::Reader;
use crate::core::key::Fingerprint;
use crate::core::ports::Nanos;

const WAYS: usize = 8;
const VERSION: u8 = 1;
/// A lease, written.
const SIZE: usize = 100;

#[derive(Debug, Default)]
pub struct Set {
    leases: Vec<Lease>,
}

impl Set {
    /// `None` for what is not ours.
    pub fn read(bytes: &[u8]) -> Option<Set> {
        let mut reader = Reader(bytes);
        if reader.u8()? != VERSION || reader.0.len() > WAYS.saturating_mul(SIZE) {
            return None;
        }
        let mut leases = Vec::new();
        while !reader.0.is_empty() {
            leases.push(read(&mut reader)?);
        }
        Some(Set { leases })
    }

    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        self.leases.iter().for_each(|lease| write(lease, &mut bytes));
        bytes
    }

    pub fn known(&self, fingerprint: Fingerprint) -> Option<Lease> {
        self.leases.iter().find(|lease| lease.fingerprint == fingerprint).copied()
    }

    pub fn find(&self, fingerprint: Fingerprint, settings: &Settings) -> Lease {
        self.known(fingerprint).unwrap_or_else(|| Lease::new(fingerprint, settings))
    }

    /// True where another lease had to go that held something.
    pub fn put(&mut self, lease: Lease, now: Nanos) -> bool {
        if let Some(place) =
            self.leases.iter_mut().find(|other| other.fingerprint == lease.fingerprint)
        {
            *place = lease;
            return false;
        }
        let mut evicts = false;
        if self.leases.len() >= WAYS {
            let worth = |lease: &Lease| (!lease.is_idle(now), lease.fetched_at);
            let least = self.leases.iter().enumerate().min_by_key(|(_, lease)| worth(lease));
            if let Some((place, worst)) = least {
                evicts = !worst.is_idle(now);
                self.leases.swap_remove(place);
            }
        }
        self.leases.push(lease);
        evicts
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Lease> {
    let fingerprint = reader.u64()?;
    let lots = [pair(reader)?, pair(reader)?].map(|(hits, ends)| Lot { hits, ends });
    let (fetched, fetched_at) = pair(reader)?;
    let (size, claimed_until) = pair(reader)?;
    let (refused, refused_at) = pair(reader)?;
    let (room, room_until) = pair(reader)?;
    let (share, refused_until) = pair(reader)?;
    let resets_at = reader.u64()?;
    Some(Lease {
        fingerprint,
        lots,
        fetched,
        fetched_at,
        size,
        claimed_until,
        refused,
        refused_at,
        refused_until,
        resets_at,
        room,
        room_until,
        share,
    })
}

#[inline(never)]
fn pair(reader: &mut Reader<'_>) -> Option<(u32, Nanos)> {
    Some((reader.u32()?, reader.u64()?))
}

fn write(lease: &Lease, bytes: &mut Vec<u8>) {
    let [older, newer] = lease.lots;
    bytes.extend_from_slice(&lease.fingerprint.to_le_bytes());
    for (count, time) in [
        (older.hits, older.ends),
        (newer.hits, newer.ends),
        (lease.fetched, lease.fetched_at),
        (lease.size, lease.claimed_until),
        (lease.refused, lease.refused_at),
        (lease.room, lease.room_until),
        (lease.share, lease.refused_until),
    ] {
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&time.to_le_bytes());
    }
    bytes.extend_from_slice(&lease.resets_at.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..800)) {
            if let Some(set) = Set::read(&bytes) {
                prop_assert_eq!(set.write(), bytes);
            }
        }

        #[test]
        fn leases_come_back_as_they_were(numbers in proptest::array::uniform16(any::<u32>())) {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, _] = numbers;
            let lease = Lease {
                fingerprint: a.into(),
                lots: [Lot { hits: b, ends: c.into() }, Lot { hits: d, ends: e.into() }],
                fetched: f,
                fetched_at: g.into(),
                size: h,
                claimed_until: i.into(),
                refused: j,
                refused_at: k.into(),
                refused_until: l.into(),
                resets_at: m.into(),
                room: n,
                room_until: o.into(),
                share: a,
            };
            let mut set = Set::default();
            set.put(lease, 0);
            let bytes = set.write();
            prop_assert_eq!(bytes.len(), 1 + SIZE);
            prop_assert_eq!(Set::read(&bytes).unwrap().known(a.into()), Some(lease));
        }
    }
}
