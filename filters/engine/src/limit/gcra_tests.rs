use super::*;
use proptest::prelude::*;

const MS: Nanos = 1_000_000;

#[test]
fn vectors() {
    let text = include_str!("../../../../integration-tests/vectors/gcra.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let rate = Rate::new(number(&vectors["burst"]), number(&vectors["rate_per_s"]), 1000 * MS);
    // The vectors start at zero with a TAT of zero.
    let mut bucket = Bucket::full(0);
    let events = vectors["events"].as_array().unwrap();
    assert!(events.len() >= 12);
    for event in events {
        let now = number(&event["t_ms"]) * MS;
        bucket.settle(rate, rate.max, now);
        let admits = bucket.available(rate, now) > 0;
        assert_eq!(admits, event["admit"].as_bool().unwrap(), "{event}");
        if admits {
            bucket.take(rate, 1, 0);
            assert_eq!(bucket.tat, number(&event["tat_ms"]) * MS, "{event}");
        } else {
            assert_eq!(bucket.wait(rate, 1, now), number(&event["wait_ms"]) * MS, "{event}");
        }
    }
}

fn rates() -> impl Strategy<Value = Rate> {
    (1_u64..200, 1_u64..2000, 1_u64..5000)
        .prop_map(|(max, tokens, interval)| Rate::new(max, tokens, interval * MS))
}

/// One thing that happens to a bucket with leases.
#[derive(Clone, Debug)]
enum Event {
    Wait(Nanos),
    /// Takes one to spend, and that many more on lease.
    Take(u32),
    /// Spends one of the n-th lease.
    Spend(usize),
    /// Ends the n-th lease and returns the rest.
    Return(usize),
    /// A worker dies with its leases.
    Die,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0_u64..400 * MS).prop_map(Event::Wait),
        1 => (0_u64..5000 * MS).prop_map(Event::Wait),
        5 => (0_u32..20).prop_map(Event::Take),
        5 => (0_usize..4).prop_map(Event::Spend),
        2 => (0_usize..4).prop_map(Event::Return),
        1 => Just(Event::Die),
    ];
    proptest::collection::vec(event, 1..200)
}

struct Held {
    epoch: u32,
    granted: u32,
    left: u32,
}

/// Plays events; gives the times at which tokens were spent.
fn spent(rate: Rate, events: &[Event]) -> Vec<Nanos> {
    let mut now = 5_000_000_000;
    let mut bucket = Bucket::full(now);
    let mut leases: Vec<Held> = Vec::new();
    let mut spent = Vec::new();
    for event in events {
        bucket.settle(rate, rate.max, now);
        match event {
            Event::Wait(time) => now += time,
            Event::Take(extra) => {
                let available = bucket.available(rate, now);
                if available > 0 {
                    let extra = (*extra).min(u32::try_from(available - 1).unwrap());
                    bucket.take(rate, 1, extra);
                    spent.push(now);
                    leases.push(Held { epoch: bucket.epoch, granted: extra, left: extra });
                }
            }
            Event::Spend(lease) => {
                if let Some(lease) = leases.get_mut(*lease)
                    && lease.left > 0
                    && now < lease_end(lease.epoch)
                {
                    lease.left -= 1;
                    spent.push(now);
                }
            }
            Event::Return(lease) if *lease < leases.len() => {
                let lease = leases.remove(*lease);
                bucket.release(rate, lease.epoch, lease.granted, lease.left, now);
            }
            Event::Return(_) => {}
            Event::Die => leases.clear(),
        }
    }
    spent
}

proptest! {
    /// Never more than burst + rate x time over any interval, leases included.
    #[test]
    fn never_more_than_the_limit(rate in rates(), events in events()) {
        let spent = spent(rate, &events);
        for (from, start) in spent.iter().enumerate() {
            for (count, end) in spent[from..].iter().enumerate() {
                let allowed = rate.max + (end - start) / rate.per_token;
                prop_assert!((count as u64) < allowed, "{} tokens in {} ns", count + 1, end - start);
            }
        }
    }

    /// Denied until exactly T, admitted at T.
    #[test]
    fn the_wait_is_exact(rate in rates(), takes in 1_u64..400, gap in 0_u64..50 * MS) {
        let mut now = 5_000_000_000;
        let mut bucket = Bucket::full(now);
        for _ in 0..takes {
            bucket.settle(rate, rate.max, now);
            if bucket.available(rate, now) == 0 {
                break;
            }
            bucket.take(rate, 1, 0);
            now += gap;
        }
        bucket.settle(rate, rate.max, now);
        if bucket.available(rate, now) == 0 {
            let wait = bucket.wait(rate, 1, now);
            prop_assert!(wait > 0);
            bucket.settle(rate, rate.max, now + wait - 1);
            prop_assert_eq!(bucket.available(rate, now + wait - 1), 0);
            bucket.settle(rate, rate.max, now + wait);
            prop_assert_eq!(bucket.available(rate, now + wait), 1);
        }
    }

    /// What was leased and returned is as if it had never been taken, and what died is back after
    /// two epochs.
    #[test]
    fn nothing_is_lost_for_long(rate in rates(), extra in 0_u32..100, returned in any::<bool>()) {
        let now = 5_000_000_000;
        let mut bucket = Bucket::full(now);
        let extra = extra.min(u32::try_from(rate.max - 1).unwrap());
        bucket.take(rate, 1, extra);
        if returned {
            bucket.release(rate, bucket.epoch, extra, extra, now);
            prop_assert_eq!(bucket.available(rate, now), rate.max - 1);
        }
        let later = now + (3 << EPOCH_BITS) + rate.fill_time();
        bucket.settle(rate, rate.max, later);
        prop_assert_eq!(bucket.available(rate, later), rate.max);
    }

    /// A clock that steps back neither freezes nor floods: at worst the bucket is empty, and it
    /// fills at its rate; the bound holds on the new time.
    #[test]
    fn a_step_back_of_the_clock(rate in rates(), used in 0_u64..200, back in 0_u64..4_000_000_000) {
        let now = 5_000_000_000;
        let mut bucket = Bucket::full(now);
        for _ in 0..used.min(rate.max) {
            bucket.take(rate, 1, 0);
        }
        let now = now - back;
        bucket.settle(rate, rate.max, now);
        prop_assert!(bucket.available(rate, now) <= rate.max);
        let later = now + rate.fill_time();
        bucket.settle(rate, rate.max, later);
        prop_assert_eq!(bucket.available(rate, later), rate.max);
    }

    /// Rule 4: what was used stays used under the new limit.
    #[test]
    fn rescaling_keeps_use(old in rates(), new in rates(), used in 0_u64..200) {
        let now = 5_000_000_000;
        let used = used.min(old.max);
        let mut bucket = Bucket::full(now);
        for _ in 0..used {
            bucket.take(old, 1, 0);
        }
        bucket.rescale(old, new, now);
        bucket.settle(new, old.max, now);
        prop_assert_eq!(bucket.available(new, now), new.max.saturating_sub(used));
    }
}

proptest! {
    /// Requests of any cost, and charges afterwards: over any interval at most burst + rate x time is
    /// admitted and paid, and what is owed stays within its bound and comes back at the rate.
    #[test]
    fn costs_and_debts(
        rate in rates(), max_debt in 0_u64..300,
        events in proptest::collection::vec((0_u64..900 * MS, 1_u64..250, 0_u64..400), 1..100),
    ) {
        let mut now = 5_000_000_000;
        let mut bucket = Bucket::full(now);
        let ceiling = rate.max + max_debt;
        let mut paid: Vec<(Nanos, u64)> = Vec::new();
        for (wait, cost, more) in events {
            now += wait;
            prop_assert!(!bucket.settle(rate, ceiling, now));
            if bucket.available(rate, now) >= cost {
                bucket.take(rate, cost, 0);
                paid.push((now, cost));
            } else if cost <= rate.max {
                let wait = bucket.wait(rate, cost, now);
                let mut later = bucket;
                later.settle(rate, ceiling, now + wait);
                prop_assert!(wait > 0 && later.available(rate, now + wait) >= cost);
                later.settle(rate, ceiling, now + wait - 1);
                prop_assert!(bucket.available(rate, now + wait - 1) < cost);
            }
            bucket.charge(rate, more, max_debt, now);
            prop_assert!(bucket.used(rate, now) <= ceiling);
        }
        for (from, (start, _)) in paid.iter().enumerate() {
            let mut sum = 0;
            for (end, cost) in &paid[from..] {
                sum += cost;
                prop_assert!(sum <= rate.max + (end - start) / rate.per_token);
            }
        }
    }
}

#[test]
fn forty_of_fifty_under_a_limit_of_thirty() {
    let (old, new) = (Rate::new(50, 50, 60_000 * MS), Rate::new(30, 30, 60_000 * MS));
    let mut now = 5_000_000_000;
    let mut bucket = Bucket::full(now);
    for _ in 0..40 {
        bucket.take(old, 1, 0);
    }
    bucket.rescale(old, new, now);
    // 40 used: the eleventh token that comes back is the first to be had, at 2 s a token.
    now += 22_000 * MS - 1;
    bucket.settle(new, old.max, now);
    assert_eq!(bucket.available(new, now), 0);
    now += 1;
    bucket.settle(new, old.max, now);
    assert_eq!(bucket.available(new, now), 1);
}

#[test]
fn extremes_do_not_overflow() {
    let rate = Rate { per_token: u64::MAX / 2, max: u64::MAX };
    let mut bucket = Bucket::full(u64::MAX - 1);
    bucket.settle(rate, u64::MAX, u64::MAX);
    bucket.take(rate, u64::MAX, u32::MAX);
    bucket.release(rate, bucket.epoch, u32::MAX, u32::MAX, u64::MAX);
    bucket.rescale(rate, Rate { per_token: 1, max: 1 }, 0);
    bucket.rescale(Rate { per_token: 1, max: 1 }, rate, 0);
    bucket.settle(rate, 0, 0);
    let _ = bucket.wait(rate, u64::MAX, 0);
    bucket.charge(rate, u64::MAX, u64::MAX, 0);
}
