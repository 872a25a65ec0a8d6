//! The rules of the store, its bounds, and a naive model of it.

use std::collections::HashMap;

use proptest::prelude::*;

use super::record::tests::trace;
use super::*;
use crate::core::key::Fingerprint;
use crate::core::ports::{BLIND, Nanos, SharedStore};
use crate::sim::{Process, SimPorts};

const S: Nanos = 1_000_000_000;
const TTL: Nanos = 60 * S;

struct Bench {
    process: Process,
    ports: SimPorts,
    records: Records,
}

impl Bench {
    fn sized(max_records: u32) -> Bench {
        let process = Process::start();
        let ports = process.ports(1);
        let mut bench = Bench { process, ports, records: Records::new("shop", TTL, max_records) };
        bench.records.prepare(bench.process.now(), &mut bench.ports);
        bench
    }

    fn record_in(&mut self, scope: Scope, id: Fingerprint, record: &Record) -> Outcome {
        self.records.record(id, record, scope, self.process.now(), &mut self.ports)
    }

    fn record(&mut self, id: Fingerprint, record: &Record) -> Outcome {
        self.record_in(Scope::Request, id, record)
    }

    fn look(&mut self, id: Fingerprint) -> Found {
        self.records.look(id, self.process.now(), &mut self.ports)
    }
}

fn of(trace_id: u128, span_id: u64) -> Record {
    Record { trace: Some(trace(trace_id, span_id)), ..Record::default() }
}

fn color(text: &str) -> Record {
    Record { color: Some(text.into()), ..Record::default() }
}

#[test]
fn a_record_is_found_for_a_ttl() {
    let mut bench = Bench::sized(1024);
    let record = Record { deadline: Some(7), color: Some(b"blue".to_vec()), ..of(1, 2) };
    assert_eq!(bench.look(5), Found::Missing);
    assert_eq!(bench.record(5, &record), Outcome::Recorded);
    assert_eq!(bench.look(5), Found::Record(record.clone()));
    // Another id of the same set.
    assert_eq!(bench.look(5 + 1024), Found::Missing);
    bench.process.advance(TTL - 1);
    assert_eq!(bench.look(5), Found::Record(record));
    bench.process.advance(1);
    assert_eq!(bench.look(5), Found::Missing);
    // What has expired is no second request.
    assert_eq!(bench.record(5, &of(2, 2)), Outcome::Recorded);
    assert_eq!(bench.look(5), Found::Record(of(2, 2)));
}

#[test]
fn requests_of_different_traces_with_one_id() {
    let mut bench = Bench::sized(1024);
    bench.record(5, &of(1, 1));
    assert_eq!(bench.record(5, &of(2, 1)), Outcome::Ambiguous);
    assert_eq!(bench.look(5), Found::Ambiguous);
    // Whatever comes keeps it so, for a ttl from then on.
    for record in [of(1, 1), of(2, 1), of(3, 1), color("blue")] {
        bench.process.advance(TTL - 1);
        assert_eq!(bench.record(5, &record), Outcome::Ambiguous);
        assert_eq!(bench.look(5), Found::Ambiguous);
    }
    bench.process.advance(TTL);
    assert_eq!(bench.look(5), Found::Missing);
    assert_eq!(bench.record(5, &of(1, 1)), Outcome::Recorded);
}

#[test]
fn filters_of_one_request_add_to_its_record() {
    for is_color_first in [true, false] {
        let mut bench = Bench::sized(1024);
        let mut parts = [of(1, 1), color("blue")];
        if is_color_first {
            parts.reverse();
        }
        for part in &parts {
            assert_eq!(bench.record(5, part), Outcome::Recorded);
        }
        let whole = Record { color: Some(b"blue".to_vec()), ..of(1, 1) };
        assert_eq!(bench.look(5), Found::Record(whole));
    }
}

#[test]
fn a_retry_has_the_newer_parent_and_the_later_deadline() {
    let mut bench = Bench::sized(1024);
    bench.record(5, &Record { deadline: Some(90), ..of(1, 1) });
    bench.record(5, &Record { deadline: Some(80), ..of(1, 2) });
    assert_eq!(bench.look(5), Found::Record(Record { deadline: Some(90), ..of(1, 2) }));
}

#[test]
fn a_session_is_as_its_newest_request() {
    let mut bench = Bench::sized(1024);
    let baggage = Record { baggage: Some(b"a=1".to_vec()), ..Record::default() };
    for record in [&color("blue"), &baggage, &color("green")] {
        assert_eq!(bench.record_in(Scope::Session, 5, record), Outcome::Recorded);
    }
    let both = Record { color: Some(b"green".to_vec()), ..baggage.clone() };
    assert_eq!(bench.look(5), Found::Record(both));
    // The newest request has no color.
    bench.record_in(Scope::Session, 5, &color(""));
    assert_eq!(bench.look(5), Found::Record(baggage));
}

#[test]
fn an_edit_of_the_scope_starts_anew() {
    let mut bench = Bench::sized(1024);
    bench.record_in(Scope::Session, 5, &color("blue"));
    bench.record(5, &of(1, 1));
    assert_eq!(bench.look(5), Found::Record(of(1, 1)));
    bench.record(5, &of(2, 2));
    assert_eq!(bench.record_in(Scope::Session, 5, &color("blue")), Outcome::Recorded);
    assert_eq!(bench.look(5), Found::Record(color("blue")));
}

#[test]
fn a_full_set_forgets_its_oldest_and_counts_it() {
    let mut bench = Bench::sized(1024);
    let id = |n: u64| 3 + n * 128;
    for n in 0..9 {
        bench.process.advance(1);
        bench.record(id(n), &of(1, 1));
    }
    assert_eq!(bench.records.take_evictions(), 1);
    assert_eq!(bench.records.take_evictions(), 0);
    assert_eq!(bench.look(id(0)), Found::Missing);
    assert!((1..9).all(|n| bench.look(id(n)) == Found::Record(of(1, 1))));
    bench.process.advance(TTL);
    bench.record(id(10), &of(1, 1));
    assert_eq!(bench.records.take_evictions(), 0, "they had expired");
}

#[test]
fn contention_is_told() {
    let mut bench = Bench::sized(1024);
    bench.process.store.contend(true);
    assert_eq!(bench.record(5, &of(1, 1)), Outcome::Lost(Lost::Contention));
}

#[test]
fn an_edit_of_the_size_loses_nothing() {
    let mut bench = Bench::sized(1024);
    let ids: Vec<Fingerprint> = (0..500).map(|n| n * 0x9e37_79b9).collect();
    let now = bench.process.now();
    for id in &ids {
        bench.record(*id, &of(1, 1));
    }
    assert_eq!(bench.records.take_evictions(), 0);
    // A worker that has not heard of the edit, and one that has.
    let old = std::mem::replace(&mut bench.records, Records::new("shop", TTL, 65_536));
    bench.records.prepare(now, &mut bench.ports);
    assert!(ids.iter().all(|id| bench.look(*id) == Found::Record(of(1, 1))));
    let (news, late, both) = (1_000_003, 1_000_033, 1_000_333);
    bench.record(news, &of(2, 1));
    assert_eq!(old.look(news, now, &mut bench.ports), Found::Record(of(2, 1)));
    old.record(late, &of(3, 1), Scope::Request, now, &mut bench.ports);
    assert_eq!(bench.look(late), Found::Record(of(3, 1)));
    bench.record(both, &of(4, 1));
    let outcome = old.record(both, &of(5, 1), Scope::Request, now, &mut bench.ports);
    assert_eq!(outcome, Outcome::Ambiguous);
    assert_eq!(bench.look(both), Found::Ambiguous);
    // Its tick tells it of the size, even should it never take the edit.
    old.refresh(&mut bench.ports);
    bench.process.advance(TTL + 10 * S);
    let now = bench.process.now();
    old.record(late, &of(6, 1), Scope::Request, now, &mut bench.ports);
    let gets = bench.process.store.operations().0;
    assert_eq!(bench.look(late), Found::Record(of(6, 1)));
    assert_eq!(bench.process.store.operations().0, gets + 1, "the old place is done with");
}

#[test]
fn a_million_ids_stay_within_the_store() {
    let mut bench = Bench::sized(1024);
    let sets = 1024 / WAYS;
    let mut full = (0, 0);
    for n in 0..1_000_000_u64 {
        bench.process.advance(1000);
        bench.record(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8, &of(1, 1));
        if n == 100_000 {
            full = bench.process.store.size();
        }
    }
    assert_eq!(bench.process.store.size(), full);
    assert_eq!(full.0, sets + 1);
    assert!(bench.records.take_evictions() > 900_000);
}

#[test]
fn no_record_is_longer_than_its_bound() {
    let mut bench = Bench::sized(1024);
    let long = |size| Some(vec![b'x'; size]);
    let record = Record { baggage: long(900), ..of(1, 1) };
    for id in 0..10_000 {
        bench.record(id, &record);
        bench.record(id, &Record { tracestate: long(900), color: long(90), ..of(1, 1) });
    }
    let (keys, bytes) = bench.process.store.size();
    assert!(bytes < (keys - 1) * WAYS * (MAX_RECORD + 24), "{bytes} bytes under {keys} keys");
}

#[test]
fn a_clock_that_steps() {
    for back in [1, S, TTL - 1] {
        let mut bench = Bench::sized(1024);
        bench.record(5, &of(1, 1));
        bench.process.set_time(bench.process.now() - back);
        assert_eq!(bench.look(5), Found::Record(of(1, 1)), "workers' clocks differ a little");
        assert_eq!(bench.record(5, &of(2, 1)), Outcome::Ambiguous);
    }
    let mut bench = Bench::sized(1024);
    bench.record(5, &of(1, 1));
    bench.process.set_time(bench.process.now() - 3600 / 4 * S);
    assert_eq!(bench.look(5), Found::Missing, "or it would live for as long as the clock steps");
    assert_eq!(bench.record(5, &of(2, 1)), Outcome::Recorded);
    bench.process.set_time(u64::MAX);
    assert_eq!(bench.look(5), Found::Missing);
    assert_eq!(bench.record(5, &of(3, 1)), Outcome::Recorded);
    assert_eq!(bench.look(5), Found::Record(of(3, 1)));
}

#[test]
fn ids_and_their_sources() {
    let of = |source: &[u8], id: &[u8]| fingerprint(&[7; 16], source, id);
    assert_eq!(of(b"x-request-id", b"a"), of(b"x-request-id", b"a"));
    assert_ne!(of(b"x-request-id", b"a"), of(b"x-request-i", b"da"));
    assert_ne!(of(b"x-request-id", b"a"), fingerprint(&[8; 16], b"x-request-id", b"a"));
    assert!(is_usable(b"a") && is_usable(&[b'a'; 256]));
    assert!(!is_usable(b"") && !is_usable(&[b'a'; 257]));
}

#[test]
fn settings_are_checked() {
    use weir_protos::Duration;
    use weir_protos::v1::Restore;
    let compile = |ttl: Option<i64>, max_records| {
        let ttl = ttl.map(|seconds| Duration { seconds, nanos: 0 });
        let restore = Restore { ttl, max_records, ..Restore::default() };
        Records::compile(&restore, "shop", "policy.restore").map(|_| ()).map_err(|e| e.to_string())
    };
    for (ttl, max_records) in [(None, None), (Some(1), Some(1024)), (Some(600), Some(1_048_576))] {
        assert_eq!(compile(ttl, max_records), Ok(()));
    }
    let cases = [
        (Some(0), None, r#"policy.restore.ttl: "0s" must be from "1s" to "600s""#),
        (Some(601), None, r#"policy.restore.ttl: "601s" must be from "1s" to "600s""#),
        (None, Some(1023), "policy.restore.max_records: 1023 must be from 1024 to 1048576"),
        (None, Some(1 << 21), "policy.restore.max_records: 2097152 must be from 1024 to 1048576"),
    ];
    for (ttl, max_records, message) in cases {
        assert_eq!(compile(ttl, max_records), Err(message.to_string()));
    }
}

/// The store as one would write it without shared data.
#[derive(Default)]
struct Model(HashMap<Fingerprint, (Nanos, Option<Record>)>);

impl Model {
    fn record(&mut self, id: Fingerprint, record: &Record, now: Nanos) {
        let live = self.0.remove(&id).filter(|(at, _)| now - at < TTL);
        let known = match live {
            None => Some(record.clone()),
            Some((_, None)) => None,
            Some((_, Some(old))) => {
                let traces = old.trace.zip(record.trace);
                let is_endless =
                    [&old, record].iter().any(|r| r.trace.is_some() && r.deadline.is_none());
                let colors = old.color.as_ref().zip(record.color.as_ref());
                let agree = traces.is_none_or(|(one, other)| one.trace_id == other.trace_id)
                    && colors.is_none_or(|(one, other)| one == other);
                agree.then(|| Record {
                    deadline: old.deadline.max(record.deadline).filter(|_| !is_endless),
                    trace: record.trace.or(old.trace),
                    color: record.color.clone().or(old.color),
                    ..Record::default()
                })
            }
        };
        self.0.insert(id, (now, known));
    }

    fn look(&self, id: Fingerprint, now: Nanos) -> Found {
        match self.0.get(&id).filter(|(at, _)| now - at < TTL) {
            None => Found::Missing,
            Some((_, None)) => Found::Ambiguous,
            Some((_, Some(record))) => Found::Record(record.clone()),
        }
    }
}

proptest! {
    #[test]
    fn it_is_as_a_naive_model(
        // Ids of one set of the smaller size, so few that none has to make room.
        events in proptest::collection::vec(
            (0_u64..40 * S, 0_u64..8, any::<bool>(), 0_u128..3, any::<Option<u64>>(),
             proptest::option::of("[a-z]{1,5}"), any::<bool>()),
            1..60,
        ),
    ) {
        let mut bench = Bench::sized(1024);
        let (mut model, mut size) = (Model::default(), 1024);
        for (wait, id, is_look, trace_id, deadline, color, resizes) in events {
            bench.process.advance(wait);
            let (now, id) = (bench.process.now(), id * 128);
            // In one ttl at most one edit of the size is made up for.
            if resizes && wait > 30 * S {
                size = 1024 + 4096 - size;
                bench.records = Records::new("shop", TTL, size);
                bench.records.prepare(now, &mut bench.ports);
            }
            if !is_look {
                let trace = (trace_id > 0).then(|| trace(trace_id, 1));
                let record = Record { trace, deadline, color: color.map(Into::into), ..Record::default() };
                bench.record(id, &record);
                model.record(id, &record, now);
            }
            for id in 0..8 {
                let id = id * 128;
                prop_assert_eq!(bench.look(id), model.look(id, now));
            }
        }
        prop_assert_eq!(bench.records.take_evictions(), 0);
    }

    #[test]
    fn whatever_stands_in_shared_data_is_no_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), has_head in any::<bool>(),
    ) {
        let mut bench = Bench::sized(1024);
        let bytes = if has_head { [vec![1, bytes.len() as u8 % 9], bytes].concat() } else { bytes };
        for key in bench.process.store.keys() {
            bench.ports.set(&key, &bytes, BLIND).unwrap();
        }
        let again = Records::new("shop", TTL, 1024);
        again.prepare(bench.process.now(), &mut bench.ports);
        bench.records.refresh(&mut bench.ports);
        let (id, now) = (5, bench.process.now());
        bench.look(id);
        bench.record(id, &of(1, 1));
        prop_assert_eq!(bench.look(id), Found::Record(of(1, 1)));
        prop_assert_eq!(again.look(id, now, &mut bench.ports), Found::Record(of(1, 1)));
    }
}
