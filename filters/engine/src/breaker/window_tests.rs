use super::*;
use proptest::prelude::*;

const TIME: Shape = Shape::Time { buckets: 10, width: 1000 };

/// The slow way: all calls are kept, and counted anew.
#[derive(Default)]
struct Naive(Vec<(Nanos, bool, bool)>);

impl Naive {
    fn sums(&self, shape: Shape, now: Nanos) -> Sums {
        let counted: Vec<_> = match shape {
            Shape::Count(calls) => self.0.iter().rev().take(calls.into()).collect(),
            Shape::Time { buckets, width } => {
                let oldest = (now / width + 1).saturating_sub(buckets.into()) * width;
                self.0.iter().filter(|(at, ..)| *at >= oldest).collect()
            }
        };
        let mut sums = Sums::default();
        counted.iter().for_each(|(_, failed, slow)| sums.add(Sums::call(*failed, *slow)));
        sums
    }
}

#[test]
fn failures_older_than_the_window_do_not_count() {
    let mut window = Window::new(TIME);
    window.record(Sums::FAILED, 500);
    assert_eq!(window.sums(9_999).failed, 1);
    assert_eq!(window.sums(10_000).failed, 0);
    assert!(window.is_empty());
}

#[test]
fn a_clock_that_steps_back_leaves_nothing_behind() {
    let mut window = Window::new(TIME);
    window.record(Sums::FAILED, 1_000_000);
    assert_eq!(window.sums(500_000), Sums::default());
    window.record(Sums::FAILED, 500_000);
    assert_eq!(window.sums(500_000).failed, 1);
}

#[test]
fn a_window_never_has_more_entries_than_room() {
    for (shape, room) in [(Shape::Count(5), 5), (TIME, 10)] {
        let mut window = Window::new(shape);
        (0..1000).for_each(|n| window.record(Sums::FAILED, n * 400));
        assert!(window.entries().len() <= room);
    }
}

proptest! {
    #[test]
    fn sums_equal_a_naive_recount(
        calls in proptest::collection::vec((0_u64..3000, any::<bool>(), any::<bool>(), 0_usize..4), 0..200),
        is_time in any::<bool>(), size in 1_u8..30,
    ) {
        let shape = if is_time {
            Shape::Time { buckets: size, width: 1000 }
        } else {
            Shape::Count(size.into())
        };
        // Each of three workers counts apart and hands over now and then; the fourth choice hands
        // over. A COUNT window is in the order of handing over, so there the recount is as well.
        let mut shared = Window::new(shape);
        let mut workers = vec![(Window::new(shape), Vec::new()); 3];
        let (mut naive, mut now, mut next) = (Naive::default(), 0, 0);
        for (wait, failed, slow, worker) in calls {
            now += wait;
            match workers.get_mut(worker) {
                Some((window, calls)) => {
                    window.record(Sums::call(failed, slow), now);
                    calls.push((now, failed, slow));
                }
                None => {
                    let (window, calls) = &mut workers[next % 3];
                    next += 1;
                    shared.merge(window, now);
                    window.clear();
                    naive.0.append(calls);
                    prop_assert_eq!(shared.sums(now), naive.sums(shape, now));
                }
            }
        }
        for (window, calls) in &mut workers {
            shared.merge(window, now);
            naive.0.append(calls);
        }
        prop_assert_eq!(shared.sums(now), naive.sums(shape, now));
    }

    #[test]
    fn runs_put_together_equal_one_run(
        calls in proptest::collection::vec(any::<bool>(), 0..60), cut in 0_usize..60,
    ) {
        let (before, after) = calls.split_at(cut.min(calls.len()));
        let longest = |calls: &[bool]| {
            calls.split(|failed| !failed).map(<[bool]>::len).max().unwrap_or(0)
        };
        let at_end = |calls: &[bool]| calls.iter().rev().take_while(|failed| **failed).count();
        let mut run = Run::default();
        after.iter().for_each(|failed| run.record(*failed));
        let (long, last) = run.after(at_end(before).try_into().unwrap());
        prop_assert_eq!(last as usize, at_end(&calls));
        // Runs that ended before the stretch were looked at before.
        prop_assert!(long as usize <= longest(&calls) && long >= last);
        prop_assert!(long as usize >= longest(after));
    }
}
