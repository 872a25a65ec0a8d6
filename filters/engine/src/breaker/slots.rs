//! How breakers lie in shared data.
//!
//! As with the limiter's buckets, a keyed rule owns a fixed number of values, each a set of a few
//! slots. A full set forgets the breaker that is missed least: a closed one before one that is not,
//! and among the closed the one with the fewest failures in its window. A new breaker starts with a
//! generation that no forgotten one of its set ever had, so that a late result finds no stranger.

use super::cell::{Cell, Permit, Reason, State};
use super::window::{Shape, Sums, Window};
use crate::core::bytes::Reader;
use crate::core::key::Fingerprint;
use crate::core::ports::Nanos;

/// Slots of a set.
pub const WAYS: usize = 8;

const VERSION: u8 = 1;

/// More permits than a policy can ask for mean bytes that are not ours.
const MAX_PERMITS: u8 = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    pub shape: Shape,
    /// The generation of the next new breaker.
    floor: u32,
    slots: Vec<(Fingerprint, Cell)>,
}

impl Set {
    pub fn new(shape: Shape) -> Set {
        Set { shape, floor: 0, slots: Vec::with_capacity(1) }
    }

    /// Takes the breaker of a key out of the set, to be put back with [`Set::put`]; a new one where
    /// the set does not know the key.
    pub fn take(&mut self, fingerprint: Fingerprint) -> Cell {
        match self.slots.iter().position(|(known, _)| *known == fingerprint) {
            Some(place) => self.slots.swap_remove(place).1,
            None => Cell::new(self.floor, Window::new(self.shape)),
        }
    }

    pub fn knows(&self, fingerprint: Fingerprint) -> bool {
        self.slots.iter().any(|(known, _)| *known == fingerprint)
    }

    /// Puts a breaker in. Gives the state of the one that had to make room, if that lost anything.
    pub fn put(&mut self, fingerprint: Fingerprint, cell: Cell, now: Nanos) -> Option<State> {
        let mut lost = None;
        if self.slots.len() >= WAYS {
            let worth = |cell: &mut Cell| {
                let failures = cell.window.sums(now);
                (cell.state, failures.failed.saturating_add(failures.slow), cell.used_at)
            };
            let worths = self.slots.iter_mut().map(|(_, cell)| worth(cell)).enumerate();
            if let Some((place, (_, failures, _))) = worths.min_by_key(|(_, worth)| *worth) {
                let (_, gone) = self.slots.swap_remove(place);
                self.floor = self.floor.max(gone.generation.wrapping_add(1));
                lost = (gone.state != State::Closed || failures > 0).then_some(gone.state);
            }
        }
        self.slots.push((fingerprint, cell));
        lost
    }

    /// Takes the set over to another shape of window: the states stay, the counts go.
    pub fn reshape(&mut self, shape: Shape) {
        if self.shape != shape {
            self.shape = shape;
            for (_, cell) in &mut self.slots {
                cell.window = Window::new(shape);
            }
        }
    }

    /// `None` for what is not ours: another format, or a stranger's value.
    pub fn read(bytes: &[u8]) -> Option<Set> {
        let mut reader = Reader(bytes);
        if reader.u8()? != VERSION {
            return None;
        }
        let (kind, size, width) = (reader.u8()?, reader.u16()?, reader.u64()?);
        let shape = match kind {
            0 if size > 0 => Shape::Count(size),
            1 if size > 0 && width > 0 => Shape::Time { buckets: u8::try_from(size).ok()?, width },
            _ => return None,
        };
        let (floor, count) = (reader.u32()?, reader.u8()?);
        if usize::from(count) > WAYS {
            return None;
        }
        let mut slots = Vec::with_capacity(WAYS);
        for _ in 0..count {
            slots.push((reader.u64()?, read_cell(shape, &mut reader)?));
        }
        reader.0.is_empty().then_some(Set { shape, floor, slots })
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let (kind, size, width) = match self.shape {
            Shape::Count(calls) => (0, calls, 0),
            Shape::Time { buckets, width } => (1, u16::from(buckets), width),
        };
        out.extend_from_slice(&[VERSION, kind]);
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&width.to_le_bytes());
        out.extend_from_slice(&self.floor.to_le_bytes());
        out.push(u8::try_from(self.slots.len()).unwrap_or(0));
        for (fingerprint, cell) in &self.slots {
            out.extend_from_slice(&fingerprint.to_le_bytes());
            write_cell(cell, out);
        }
    }
}

fn read_cell(shape: Shape, reader: &mut Reader<'_>) -> Option<Cell> {
    let mut cell = Cell::new(0, Window::new(shape));
    cell.state = match reader.u8()? {
        0 => State::Closed,
        1 => State::Open,
        2 => State::HalfOpen,
        _ => return None,
    };
    cell.reason = match reader.u8()? {
        0 => Reason::FailureRate,
        1 => Reason::SlowRate,
        2 => Reason::ConsecutiveFailures,
        3 => Reason::Probes,
        4 => Reason::NoAnswer,
        5 => Reason::Header,
        _ => return None,
    };
    cell.level = reader.u8()?;
    let permits = reader.u8().filter(|permits| *permits <= MAX_PERMITS)?;
    cell.generation = reader.u32()?;
    cell.consecutive = reader.u32()?;
    (cell.since, cell.until) = (reader.u64()?, reader.u64()?);
    (cell.last_open, cell.used_at) = (reader.u64()?, reader.u64()?);
    (cell.succeeded, cell.failed) = (reader.u16()?, reader.u16()?);
    for _ in 0..permits {
        let (id, taken_at, leased_until) = (reader.u64()?, reader.u64()?, reader.u64()?);
        cell.permits.push(Permit { id, taken_at, leased_until });
    }
    read_window(&mut cell.window, reader)?;
    Some(cell)
}

fn write_cell(cell: &Cell, out: &mut Vec<u8>) {
    let permits = cell.permits.iter().take(MAX_PERMITS.into());
    out.extend_from_slice(&[cell.state as u8, cell.reason as u8, cell.level]);
    out.push(u8::try_from(permits.len()).unwrap_or(0));
    out.extend_from_slice(&cell.generation.to_le_bytes());
    out.extend_from_slice(&cell.consecutive.to_le_bytes());
    for time in [cell.since, cell.until, cell.last_open, cell.used_at] {
        out.extend_from_slice(&time.to_le_bytes());
    }
    out.extend_from_slice(&cell.succeeded.to_le_bytes());
    out.extend_from_slice(&cell.failed.to_le_bytes());
    for permit in permits {
        for number in [permit.id, permit.taken_at, permit.leased_until] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    write_window(&cell.window, out);
}

/// A COUNT window is stored as two bits a call, four calls a byte.
const FAILED: u8 = 1;
const SLOW: u8 = 2;

fn read_window(window: &mut Window, reader: &mut Reader<'_>) -> Option<()> {
    let count = reader.u16()?;
    match window.shape {
        Shape::Count(calls) => {
            if count > calls {
                return None;
            }
            let mut byte = 0;
            for place in 0..count {
                byte = if place % 4 == 0 { reader.u8()? } else { byte >> 2 };
                window.restore(0, Sums::call(byte & FAILED != 0, byte & SLOW != 0));
            }
        }
        Shape::Time { buckets, .. } => {
            if count > buckets.into() {
                return None;
            }
            let mut before = None;
            for _ in 0..count {
                let bucket = reader.u64()?;
                if before.is_some_and(|before| before >= bucket) {
                    return None;
                }
                before = Some(bucket);
                let sums =
                    Sums { total: reader.u32()?, failed: reader.u32()?, slow: reader.u32()? };
                window.restore(bucket, sums);
            }
        }
    }
    Some(())
}

fn write_window(window: &Window, out: &mut Vec<u8>) {
    let entries = window.entries();
    out.extend_from_slice(&u16::try_from(entries.len()).unwrap_or(0).to_le_bytes());
    match window.shape {
        Shape::Count(_) => {
            for (place, (_, call)) in entries.enumerate() {
                let mut bits = 0;
                bits |= if call.failed > 0 { FAILED } else { 0 };
                bits |= if call.slow > 0 { SLOW } else { 0 };
                match out.last_mut() {
                    Some(byte) if place % 4 != 0 => *byte |= bits << (place % 4 * 2),
                    _ => out.push(bits),
                }
            }
        }
        Shape::Time { .. } => {
            for (bucket, sums) in entries {
                out.extend_from_slice(&bucket.to_le_bytes());
                for number in [sums.total, sums.failed, sums.slow] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(shape: Shape, calls: &[(bool, bool)]) -> Set {
        let mut set = Set::new(shape);
        for fingerprint in 0..3 {
            let mut cell = set.take(fingerprint);
            for (n, (failed, slow)) in calls.iter().enumerate() {
                cell.window.record(Sums::call(*failed, *slow), n as u64 * 300);
            }
            cell.permits.push(Permit { id: 7, taken_at: 1, leased_until: 2 });
            set.put(fingerprint, cell, 0);
        }
        set
    }

    #[test]
    fn an_open_breaker_is_kept_and_the_least_missed_goes() {
        let shape = Shape::Time { buckets: 10, width: 1000 };
        let mut set = Set::new(shape);
        for fingerprint in 0..8 {
            let mut cell = set.take(fingerprint);
            if fingerprint != 5 {
                cell.window.record(Sums::FAILED, 0);
            }
            if fingerprint == 2 {
                cell.state = State::Open;
            }
            cell.generation = 40;
            set.put(fingerprint, cell, 0);
        }
        assert_eq!(set.put(100, Cell::new(0, Window::new(shape)), 0), None, "5 knew nothing");
        assert_eq!(set.take(5).generation, 41);
        for fingerprint in 200..300 {
            let cell = set.take(fingerprint);
            set.put(fingerprint, cell, 0);
        }
        assert_eq!(set.take(2).state, State::Open);
    }

    #[test]
    fn another_shape_keeps_states_and_forgets_counts() {
        let mut set = filled(Shape::Count(9), &[(true, true); 5]);
        set.slots[0].1.state = State::Open;
        set.reshape(Shape::Count(10));
        let cell = set.take(0);
        assert!(cell.state == State::Open && cell.window.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            calls in proptest::collection::vec(any::<(bool, bool)>(), 0..80), is_time in any::<bool>(),
        ) {
            let shape = if is_time { Shape::Time { buckets: 10, width: 1000 } } else { Shape::Count(50) };
            let set = filled(shape, &calls);
            let mut bytes = Vec::new();
            set.write(&mut bytes);
            prop_assert_eq!(Set::read(&bytes), Some(set));
            prop_assert_eq!(Set::read(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0_u8..3,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Some(second) = bytes.get_mut(1) {
                *second = kind;
            }
            if let Some(set) = Set::read(&bytes) {
                let mut again = Vec::new();
                set.write(&mut again);
                prop_assert_eq!(Set::read(&again), Some(set));
            }
        }
    }
}
