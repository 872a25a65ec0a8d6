use super::*;
use crate::core::ports::Rng;
use crate::sim::{Process, SimPorts};

/// Four workers of one process under one guard.
struct Lab {
    process: Process,
    workers: Vec<(Guard, SimPorts)>,
}

fn source() -> Source {
    Source {
        error_delta_points: Some(5.0),
        slow_share_delta_points: Some(10.0),
        window: Some(weir_protos::Duration { seconds: 2, nanos: 0 }),
        ..Source::default()
    }
}

impl Lab {
    fn start(source: &Source, seed: u64) -> Lab {
        let process = Process::start();
        let workers = (0..4).map(|n| {
            let mut ports = process.ports(seed.wrapping_mul(1000) + n);
            let mut guard = Guard::compile(source, "weir/1/t/g", "p").unwrap();
            guard.prepare(process.now(), &mut ports);
            (guard, ports)
        });
        let workers = workers.collect();
        Lab { process, workers }
    }

    fn edit(&mut self, source: &Source) {
        for (guard, ports) in &mut self.workers {
            *guard = Guard::compile(source, "weir/1/t/g", "p").unwrap();
            guard.prepare(self.process.now(), ports);
        }
    }

    /// A tenth of a second: 20 requests of each group, with these shares of errors in a thousand and
    /// these latencies in milliseconds. Gives the reason where a tick trips.
    fn tenth(&mut self, errors: [u64; 2], latency: [u64; 2]) -> Option<Tripped> {
        let mut reason = None;
        for (guard, ports) in &mut self.workers {
            for _ in 0..5 {
                for (group, errors, latency) in
                    [(Group::Color, errors[0], latency[0]), (Group::Base, errors[1], latency[1])]
                {
                    let is_error = ports.random() % 1000 < errors;
                    let spread = ports.random() % (latency * MS).max(1);
                    guard.record(group, is_error, latency * MS / 2 + spread);
                }
            }
            reason = reason.or(guard.tick(self.process.now(), ports));
        }
        self.process.advance(100 * MS);
        reason
    }

    fn tripped(&self) -> usize {
        self.workers.iter().filter(|(guard, _)| guard.is_tripped()).count()
    }
}

#[test]
fn a_failing_color_is_off_within_two_windows_on_every_worker() {
    for seed in 0..20 {
        let mut lab = Lab::start(&source(), seed);
        for _ in 0..100 {
            assert_eq!(lab.tenth([10, 10], [20, 20]), None, "seed {seed}");
        }
        let reason = (0..38).find_map(|_| lab.tenth([200, 10], [20, 20]));
        assert_eq!(reason, Some(Tripped::Errors), "seed {seed}");
        // Everybody knows by the next tick.
        lab.tenth([200, 10], [20, 20]);
        assert_eq!(lab.tripped(), 4);
    }
}

#[test]
fn a_slow_color_is_cut_off_too() {
    let mut lab = Lab::start(&source(), 1);
    (0..100).for_each(|_| assert_eq!(lab.tenth([10, 10], [20, 20]), None));
    let reason = (0..38).find_map(|_| lab.tenth([10, 10], [60, 20]));
    assert_eq!(reason, Some(Tripped::Latency));
}

/// Both healthy, at 1 % and at 5 % errors, 100 000 requests, 10 seeds.
#[test]
fn a_healthy_color_is_never_cut_off() {
    let mut cut = 0;
    for seed in 0..10 {
        for errors in [10, 50] {
            let mut lab = Lab::start(&source(), 100 + seed);
            cut += usize::from((0..2500).any(|_| lab.tenth([errors; 2], [20; 2]).is_some()));
        }
    }
    println!("{cut} of 20 healthy runs of 100 000 requests were cut off");
    assert_eq!(cut, 0);
}

#[test]
fn it_stays_off_until_reset_is_edited() {
    let mut lab = Lab::start(&source(), 3);
    assert!((0..40).any(|_| lab.tenth([500, 0], [20, 20]).is_some()));
    lab.process.advance(3600 * S);
    (0..50).for_each(|_| assert_eq!(lab.tenth([0, 0], [20, 20]), None));
    assert_eq!(lab.tripped(), 4);
    // An edit of anything else changes nothing.
    lab.edit(&Source { min_requests: Some(300), ..source() });
    assert_eq!(lab.tripped(), 4);
    lab.edit(&Source { reset: "2".into(), ..source() });
    assert_eq!(lab.tripped(), 0);
    lab.tenth([0, 0], [20, 20]);
    assert_eq!(lab.tripped(), 0);
    assert!((0..40).any(|_| lab.tenth([500, 0], [20, 20]).is_some()), "and watches again");
}

#[test]
fn few_requests_prove_nothing() {
    let mut lab = Lab::start(&Source { min_requests: Some(1000), ..source() }, 4);
    // 400 of each in a window of 2 s.
    assert!((0..200).all(|_| lab.tenth([1000, 0], [20, 20]).is_none()));
}

#[test]
fn whatever_stands_in_shared_data_is_read_or_replaced() {
    use crate::core::ports::SharedStore;
    for bytes in [vec![], vec![0; 5], vec![255; 4000], vec![1; 1], vec![7; 1700]] {
        let mut lab = Lab::start(&source(), 5);
        lab.process.store.set(b"weir/1/t/g", &bytes, BLIND).unwrap();
        lab.tenth([10, 10], [20, 20]);
        assert!((0..40).any(|_| lab.tenth([500, 0], [20, 20]).is_some()), "{} bytes", bytes.len());
    }
    let value = Value { now: 7, reset: 3, is_tripped: true, ..Value::default() };
    assert!(value.write().len() < 4096);
    assert_eq!(Value::read(&value.write()), Some(value));
}

#[test]
fn a_clock_that_steps_starts_the_window_anew() {
    let mut lab = Lab::start(&source(), 6);
    (0..20).for_each(|_| assert_eq!(lab.tenth([0, 0], [20, 20]), None));
    let back = lab.process.now() - 500 * S;
    lab.process.set_time(back);
    (0..5).for_each(|_| assert_eq!(lab.tenth([0, 0], [20, 20]), None));
    assert!((0..40).any(|_| lab.tenth([500, 0], [20, 20]).is_some()));
}

/// Requests that one stall took along are slow together, and prove as much as one slow request.
#[test]
fn one_stall_is_no_reason() {
    let mut lab = Lab::start(&source(), 8);
    for round in 0..10 {
        // 0.2 s of 2 s: in one slot, or over the border of two.
        for tenth in 0..20 {
            let is_stalled = (7..9).contains(&tenth);
            let (errors, slow) = if is_stalled { (300, 200) } else { (10, 20) };
            assert_eq!(lab.tenth([errors, 10], [slow, 20]), None, "{round} {tenth}");
        }
    }
}

/// Slower than all of the base, by less than a third.
#[test]
fn slower_by_a_hair_is_no_reason() {
    let guard = Guard::compile(&source(), "k", "p").unwrap();
    for base in [7_000_000, 13_000_000, 170_000_000] {
        let mut value = Value::default();
        for slot in &mut value.slots {
            for (group, latency) in [(0, base / 4 * 5), (1, base)] {
                slot[group].requests = 100;
                (0..100).for_each(|_| slot[group].latency.record(latency));
            }
        }
        assert_eq!(guard.judge(&value), None, "{base}");
        value.slots.iter_mut().for_each(|slot| {
            slot[0].latency = Histogram::default();
            (0..100).for_each(|_| slot[0].latency.record(base * 2));
        });
        assert_eq!(guard.judge(&value), Some(Tripped::Latency), "{base}");
    }
}

/// How often two groups that are alike look different, counted over all that can happen.
#[test]
fn chance_alone_trips_one_window_in_two_hundred_thousand() {
    let guard = Guard::compile(&Source { min_requests: Some(20), ..source() }, "k", "p").unwrap();
    let delta = guard.error_delta.unwrap();
    for (color, base, share) in [
        (200_u32, 200_u32, 0.01),
        (200, 200, 0.05),
        (200, 3800, 0.001),
        (200, 3800, 0.01),
        (200, 3800, 0.05),
        (200, 3800, 0.2),
        (20, 2000, 0.05),
    ] {
        let (colors, bases) = (binomial(color, share), binomial(base, share));
        let mut chance = 0.0;
        for (base_errors, base_chance) in bases.iter().filter(|(_, chance)| *chance > 1e-12) {
            for (errors, color_chance) in &colors {
                let (one, other) = ((*errors, color.into()), (*base_errors, base.into()));
                let is_above = one.0 / one.1 - other.0 / other.1 >= delta.min(0.01);
                if is_above && is_beyond_chance(one, other) {
                    chance += base_chance * color_chance;
                }
            }
        }
        println!("{color} against {base} at {share}: {chance:.1e}");
        assert!(chance < 5e-6, "{color} against {base} at {share}: {chance:e}");
    }
}

/// The chance of each number of events.
fn binomial(of: u32, share: f64) -> Vec<(f64, f64)> {
    // As logarithms: the first of them are smaller than any number.
    let mut chance = f64::from(of) * (1.0 - share).ln();
    let each = (0..=of).map(|events| {
        let this = (f64::from(events), chance.exp());
        chance += (f64::from(of - events) / f64::from(events + 1) * share / (1.0 - share)).ln();
        this
    });
    let all: Vec<_> = each.collect();
    let sum: f64 = all.iter().map(|(_, chance)| chance).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    all
}
