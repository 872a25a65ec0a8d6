//! What buckets owe beyond their size once a quota of the calendar has become a steady rate.
//!
//! A quota comes back whole when its window ends, so nobody is to owe it for longer than that: from then
//! on a bucket is as empty as its terms allow, and no emptier. It is noted for a set rather than taken
//! off at the edit, since a worker that still runs the old policy may turn the set back, with all that
//! was used.

use crate::core::ports::Nanos;

/// 2^32 ns: in 24 bits an end lies within a year of any time that asks for it.
const UNIT_BITS: u32 = 32;
const BITS: u32 = 24;
const MASK: u64 = (1 << BITS) - 1;

/// When the overdraft of a set ends, rounded up to 4.3 s; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overdraft(u32);

impl Overdraft {
    /// None for a time of 0.
    #[allow(clippy::cast_possible_truncation)] // Masked.
    pub fn until(end: Nanos) -> Overdraft {
        let units = (end >> UNIT_BITS).saturating_add(1) & MASK;
        Overdraft(if end == 0 { 0 } else { units.max(1) as u32 })
    }

    pub fn is_open(self) -> bool {
        self.0 != 0
    }

    /// When an open one ends, or has ended.
    pub fn end(self, now: Nanos) -> Nanos {
        let units = now >> UNIT_BITS;
        let ahead = u64::from(self.0).wrapping_sub(units) & MASK;
        let behind = (MASK.saturating_add(1)).saturating_sub(ahead);
        let end = if ahead <= MASK / 2 {
            units.saturating_add(ahead)
        } else {
            units.saturating_sub(behind)
        };
        end << UNIT_BITS
    }

    /// The one of two that ends later.
    pub fn or_later(self, other: Overdraft, now: Nanos) -> Overdraft {
        match (self.is_open(), other.is_open()) {
            (_, false) => self,
            (true, true) if self.end(now) >= other.end(now) => self,
            _ => other,
        }
    }

    pub fn to_bytes(self) -> [u8; 3] {
        let [low, middle, high, _] = self.0.to_le_bytes();
        [low, middle, high]
    }

    pub fn from_bytes([low, middle, high]: [u8; 3]) -> Overdraft {
        Overdraft(u32::from_le_bytes([low, middle, high, 0]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Nanos = 86_400_000_000_000;

    proptest! {
        #[test]
        fn it_ends_a_little_later_and_is_known_within_a_year(
            end in 1_u64..10_000 * DAY, apart in -390 * 86_400_i64..390 * 86_400,
        ) {
            let now = end.saturating_add_signed(apart * 1_000_000_000);
            let overdraft = Overdraft::until(end);
            prop_assert!(overdraft.is_open());
            prop_assert_eq!(Overdraft::from_bytes(overdraft.to_bytes()), overdraft);
            // One unit more where the end is 0 in 24 bits, which stands for none.
            let late = overdraft.end(now) - end;
            prop_assert!(late > 0 && late <= 2 << UNIT_BITS, "{late}");
        }
    }

    #[test]
    fn none_never_wins() {
        let (none, some) = (Overdraft::until(0), Overdraft::until(DAY));
        assert!(!none.is_open());
        assert_eq!((none.or_later(some, 0), some.or_later(none, 0)), (some, some));
        assert_eq!(some.or_later(Overdraft::until(2 * DAY), 3 * DAY), Overdraft::until(2 * DAY));
    }
}
