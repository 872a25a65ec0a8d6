//! Requests, errors and times of an Envoy's listeners.

use serde_json::Value;

/// Over all connection managers but that of the admin interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    pub completed: u64,
    /// Answers with 500 to 599, whoever gave them.
    pub errors: u64,
    pub active: u64,
    /// Bounds in milliseconds, and how many requests took at most so long. Envoy adds up anew at each of its
    /// `stats_flush_interval`s.
    buckets: Vec<(f64, u64)>,
}

impl Traffic {
    pub const REGEX: &str = r"^http\..*\.downstream_rq_(completed|5xx|active|time)$";

    /// Takes what is its own of a statistic.
    pub fn count(&mut self, name: &str, value: u64) {
        match counted(name) {
            Some("completed") => self.completed = self.completed.saturating_add(value),
            Some("5xx") => self.errors = self.errors.saturating_add(value),
            Some("active") => self.active = self.active.saturating_add(value),
            _ => {}
        }
    }

    pub fn times(&mut self, histogram: &Value) {
        if counted(histogram["name"].as_str().unwrap_or_default()) != Some("time") {
            return;
        }
        for bucket in histogram["buckets"].as_array().into_iter().flatten() {
            let bound = bucket["upper_bound"].as_f64().unwrap_or(f64::INFINITY);
            let count = bucket["cumulative"].as_u64().unwrap_or(0);
            match self.buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, known)) => *known = known.saturating_add(count),
                None => self.buckets.push((bound, count)),
            }
        }
        self.buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    }

    /// What came since an earlier look. Counters that went back are those of a process that started anew.
    pub fn since(&self, before: &Traffic) -> Traffic {
        let less = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
        let earlier = |bound: f64| {
            before.buckets.iter().find(|(known, _)| *known == bound).map_or(0, |(_, count)| *count)
        };
        let buckets =
            self.buckets.iter().map(|(bound, count)| (*bound, less(*count, earlier(*bound))));
        Traffic {
            completed: less(self.completed, before.completed),
            errors: less(self.errors, before.errors),
            active: self.active,
            buckets: buckets.collect(),
        }
    }

    /// From 0 to 1; none without requests.
    pub fn error_rate(&self) -> Option<f64> {
        (self.completed > 0).then(|| self.errors as f64 / self.completed as f64)
    }

    /// How many requests have a time.
    pub fn timed(&self) -> u64 {
        self.buckets.last().map_or(0, |(_, count)| *count)
    }

    /// Milliseconds that 99 % of the requests took at most, straight within a bucket as Prometheus does it.
    pub fn p99(&self) -> Option<f64> {
        let rank = self.timed() as f64 * 0.99;
        let mut below = (0.0, 0);
        for (bound, count) in &self.buckets {
            if *count > 0 && *count as f64 >= rank {
                let (low, few) = below;
                let share = (rank - few as f64) / (count - few) as f64;
                return Some(low + (bound - low) * share);
            }
            below = (*bound, *count);
        }
        None
    }
}

fn counted(name: &str) -> Option<&str> {
    let (manager, what) = name.strip_prefix("http.")?.rsplit_once(".downstream_rq_")?;
    (manager != "admin").then_some(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn traffic(counts: &[(f64, u64)]) -> Traffic {
        let mut traffic = Traffic::default();
        let buckets: Vec<_> = counts
            .iter()
            .map(|(bound, count)| json!({"upper_bound": bound, "interval": 0, "cumulative": count}))
            .collect();
        traffic.times(&json!({"name": "http.in.downstream_rq_time", "buckets": buckets}));
        traffic
    }

    #[test]
    fn times_are_those_since_the_look_before() {
        let before = traffic(&[(1.0, 900), (5.0, 1000), (10.0, 1000)]);
        assert_eq!(before.p99(), Some(4.6));
        let now = traffic(&[(1.0, 900), (5.0, 1000), (10.0, 1100)]);
        assert_eq!(now.since(&before).p99(), Some(9.95));
        assert_eq!(now.since(&now).p99(), None);
    }

    #[test]
    fn the_admin_interface_is_no_traffic() {
        let mut traffic = Traffic::default();
        for (name, value) in [
            ("http.admin.downstream_rq_completed", 50),
            ("http.in.downstream_rq_completed", 8),
            ("http.out.downstream_rq_completed", 2),
            ("http.in.downstream_rq_5xx", 1),
        ] {
            traffic.count(name, value);
        }
        assert_eq!((traffic.completed, traffic.error_rate()), (10, Some(0.1)));
        let restarted = Traffic { completed: 3, ..Traffic::default() };
        assert_eq!(restarted.since(&traffic).completed, 3);
    }
}
