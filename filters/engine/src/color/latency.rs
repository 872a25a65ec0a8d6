//! Latencies in cells that grow by a third: five milliseconds to three quarters of an hour in some forty
//! counts. What is faster is all alike: there a busy machine makes more of a difference than a version.

use crate::core::bytes::Reader;
use crate::core::ports::Nanos;

pub const CELLS: usize = 48;

const FIRST: Nanos = 5_000_000;

/// 16 bits a cell: a window in which one cell sees more is told by the others just as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram([u16; CELLS]);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram([0; CELLS])
    }
}

impl Histogram {
    pub fn record(&mut self, latency: Nanos) {
        if let Some(cell) = self.0.get_mut(cell(latency)) {
            *cell = cell.saturating_add(1);
        }
    }

    pub fn add(&mut self, more: &Histogram) {
        for (cell, more) in self.0.iter_mut().zip(more.0) {
            *cell = cell.saturating_add(more);
        }
    }

    /// The cell in which the 95th percentile lies: what is in later ones is slower.
    pub fn percentile_95(&self) -> usize {
        let all: u32 = self.0.iter().map(|count| u32::from(*count)).fold(0, u32::saturating_add);
        let mut below = 0_u32;
        for (place, count) in self.0.iter().enumerate() {
            below = below.saturating_add((*count).into());
            if below.saturating_mul(20) >= all.saturating_mul(19) {
                return place;
            }
        }
        CELLS
    }

    /// How many lie in later cells.
    pub fn above(&self, place: usize) -> u32 {
        let later = self.0.iter().skip(place.saturating_add(1));
        later.map(|count| u32::from(*count)).fold(0, u32::saturating_add)
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Histogram> {
        let mut histogram = Histogram::default();
        for cell in &mut histogram.0 {
            *cell = reader.u16()?;
        }
        Some(histogram)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|cell| out.extend_from_slice(&cell.to_le_bytes()));
    }
}

/// Bounds of 5, 20/3, 80/9 … milliseconds.
fn cell(latency: Nanos) -> usize {
    let mut bound = FIRST;
    for place in 0..CELLS.saturating_sub(1) {
        if latency < bound {
            return place;
        }
        bound = bound.saturating_add(bound / 3);
    }
    CELLS.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_percentile_is_where_a_sorted_list_has_it(times in proptest::collection::vec(0_u64..100_000_000_000, 1..300)) {
            let mut histogram = Histogram::default();
            times.iter().for_each(|time| histogram.record(*time));
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let rank = (sorted.len() * 19).div_ceil(20) - 1;
            prop_assert_eq!(histogram.percentile_95(), cell(sorted[rank]));
            let bound = histogram.percentile_95();
            let above = times.iter().filter(|time| cell(**time) > bound).count();
            prop_assert_eq!(histogram.above(bound) as usize, above);
            prop_assert!(above * 20 <= times.len());
            let mut bytes = Vec::new();
            histogram.write(&mut bytes);
            prop_assert_eq!(Histogram::read(&mut Reader(&bytes)), Some(histogram));
        }

        #[test]
        fn longer_is_never_in_an_earlier_cell(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(cell(a.min(b)) <= cell(a.max(b)));
        }
    }
}
