//! The calls that count: a ring of the last n calls, or buckets of time. Exact counts, no averages
//! that decay: in those a tight burst of failures would have no weight.

use std::collections::VecDeque;

use crate::core::ports::Nanos;

/// How a window is cut. Windows of different shapes have nothing to say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The last so many calls.
    Count(u16),
    /// So many buckets of `width` each, the youngest of which is being filled.
    Time { buckets: u8, width: Nanos },
}

/// Calls counted. In ADAPTIVE mode `total` are requests on arrival, `failed` the accepted ones and
/// `slow` those that turned out to be neither (see [`super::adaptive`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub total: u32,
    pub failed: u32,
    pub slow: u32,
}

impl Sums {
    pub const FAILED: Sums = Sums { total: 1, failed: 1, slow: 0 };

    pub fn call(failed: bool, slow: bool) -> Sums {
        Sums { total: 1, failed: failed.into(), slow: slow.into() }
    }

    fn add(&mut self, other: Sums) {
        self.total = self.total.saturating_add(other.total);
        self.failed = self.failed.saturating_add(other.failed);
        self.slow = self.slow.saturating_add(other.slow);
    }

    fn remove(&mut self, other: Sums) {
        self.total = self.total.saturating_sub(other.total);
        self.failed = self.failed.saturating_sub(other.failed);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

/// Entries in order, the youngest last. For a COUNT window each is one call and its place says
/// nothing; for a TIME window each is a bucket that has calls, by its number since time began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub shape: Shape,
    sums: Sums,
    entries: VecDeque<(u64, Sums)>,
}

impl Window {
    pub fn new(shape: Shape) -> Window {
        Window { shape, sums: Sums::default(), entries: VecDeque::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.sums = Sums::default();
    }

    /// What counts now.
    pub fn sums(&mut self, now: Nanos) -> Sums {
        self.forget(now);
        self.sums
    }

    pub fn record(&mut self, call: Sums, now: Nanos) {
        self.push(self.bucket(now), call);
        self.forget(now);
    }

    /// Takes over what another window of the same shape has counted since it was emptied.
    pub fn merge(&mut self, other: &Window, now: Nanos) {
        if self.shape != other.shape {
            return;
        }
        for (bucket, sums) in &other.entries {
            self.push(*bucket, *sums);
        }
        self.forget(now);
    }

    /// Entries as they are stored: for a TIME window the bucket's number.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (u64, Sums)> {
        self.entries.iter().copied()
    }

    /// For reading a stored window: entries come in order.
    pub fn restore(&mut self, bucket: u64, sums: Sums) {
        self.push(bucket, sums);
    }

    fn bucket(&self, now: Nanos) -> u64 {
        match self.shape {
            Shape::Count(_) => 0,
            Shape::Time { width, .. } => now.checked_div(width).unwrap_or(0),
        }
    }

    /// How many entries there can be.
    fn room(&self) -> usize {
        match self.shape {
            Shape::Count(calls) => calls.into(),
            Shape::Time { buckets, .. } => buckets.into(),
        }
    }

    fn push(&mut self, bucket: u64, sums: Sums) {
        self.sums.add(sums);
        match self.shape {
            Shape::Count(_) => self.entries.push_back((0, sums)),
            Shape::Time { .. } => {
                let place = self.entries.partition_point(|(number, _)| *number < bucket);
                match self.entries.get_mut(place).filter(|(number, _)| *number == bucket) {
                    Some((_, known)) => known.add(sums),
                    None => self.entries.insert(place, (bucket, sums)),
                }
            }
        }
        while self.entries.len() > self.room() {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, sums)) = self.entries.pop_front() {
            self.sums.remove(sums);
        }
    }

    fn forget(&mut self, now: Nanos) {
        let Shape::Time { buckets, .. } = self.shape else { return };
        let current = self.bucket(now);
        while let Some((bucket, _)) = self.entries.front()
            && bucket.saturating_add(buckets.into()) <= current
        {
            self.pop();
        }
        // A clock that stepped back would otherwise keep these for as long as it stepped. What is a
        // little ahead is another worker's, which read the clock later.
        while let Some((bucket, sums)) = self.entries.back().copied()
            && bucket > current.saturating_add(buckets.into())
        {
            self.entries.pop_back();
            self.sums.remove(sums);
        }
    }
}

/// Failures in a row over a stretch of calls, such that stretches can be put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Failures before the first success.
    first: u32,
    /// Failures after the last success.
    last: u32,
    longest: u32,
    is_broken: bool,
}

impl Run {
    pub fn record(&mut self, failed: bool) {
        if !failed {
            self.is_broken = true;
            self.last = 0;
            return;
        }
        self.last = self.last.saturating_add(1);
        if !self.is_broken {
            self.first = self.last;
        }
        self.longest = self.longest.max(self.last);
    }

    /// The longest run and the one at the end, when this stretch follows `before` failures.
    pub fn after(&self, before: u32) -> (u32, u32) {
        let joined = before.saturating_add(self.first);
        (joined.max(self.longest), if self.is_broken { self.last } else { joined })
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
