//! Of what took how long.

use std::time::Duration;

/// The times in order, and how many of them a share is.
pub struct Quantiles(Vec<Duration>);

impl Quantiles {
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Milliseconds that so many percent did not exceed; 0 of nothing.
    pub fn ms(&self, percent: usize) -> f64 {
        let place = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    /// The share that took longer.
    pub fn past(&self, bound: Duration) -> f64 {
        let past = self.0.len() - self.0.partition_point(|time| *time <= bound);
        past as f64 / self.0.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let times = Quantiles::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((times.ms(50), times.ms(95), times.ms(100)), (50.0, 95.0, 100.0));
        assert_eq!(times.past(Duration::from_millis(90)), 0.1);
        assert_eq!(Quantiles::of(Vec::new()).ms(50), 0.0);
    }
}
