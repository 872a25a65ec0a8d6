//! How many folders get the policy in each step.

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    Count(usize),
    Percent(f64),
}

pub fn read(text: &str) -> Result<Step, String> {
    let wrong =
        || "must be a count of folders from 1, such as 5, or a share, such as 10%".to_owned();
    match text.trim().strip_suffix('%') {
        Some(share) => percent(share).map(Step::Percent).map_err(|_| wrong()),
        None => {
            text.trim().parse().ok().filter(|count| *count > 0).map(Step::Count).ok_or_else(wrong)
        }
    }
}

pub fn percent(text: &str) -> Result<f64, String> {
    let share = text.trim().trim_end_matches('%').parse().ok();
    share
        .filter(|share| (0.0..=100.0).contains(share))
        .ok_or_else(|| "must be from 0 to 100".to_owned())
}

pub fn milliseconds(text: &str) -> Result<f64, String> {
    // Nothing is more than NaN, so as a bound it would let all pass.
    let time = text.trim().parse().ok().filter(|time: &f64| time.is_finite() && *time >= 0.0);
    time.ok_or_else(|| "must be a number of milliseconds from 0".to_owned())
}

/// How many of so many folders have the policy after each step; the last step is all of them.
pub fn sizes(steps: &[Step], all: usize) -> Vec<usize> {
    let size = |step: &Step| match step {
        Step::Count(count) => *count,
        // Up, so that a small share is one folder.
        Step::Percent(share) => (all as f64 * share / 100.0).ceil() as usize,
    };
    let mut sizes: Vec<usize> = steps.iter().map(size).chain([all]).map(|n| n.min(all)).collect();
    sizes.retain(|size| *size > 0);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str, all: usize) -> Vec<usize> {
        sizes(&text.split(',').map(|step| read(step).unwrap()).collect::<Vec<_>>(), all)
    }

    #[test]
    fn steps_grow_up_to_all() {
        assert_eq!(steps("1,10%,50%,100%", 172), [1, 18, 86, 172]);
        assert_eq!(steps("1,10%,50%,100%", 1), [1]);
        assert_eq!(steps("5", 12), [5, 12]);
        assert_eq!(steps("50%,1", 3), [1, 2, 3]);
        assert_eq!(steps("1", 0), [0; 0]);
    }

    #[test]
    fn a_bound_is_a_number() {
        assert_eq!(milliseconds("250"), Ok(250.0));
        for text in ["nan", "NaN", "inf", "-1", "1s"] {
            assert!(milliseconds(text).is_err() && percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_step() {
        for text in ["", "0", "-1", "101%", "a", "%"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
