//! What a proxy remembers for applications that forget to forward headers.

use crate::common::{ONLY_THE_ID, Sidecar, Traceparent, chain, lab, traced};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Account, Chain, Crowd, Forward, H2Conn, Manner, Request, Think, wait_until, whole,
};

const ON: &str = "trace_context: {}, restore: {keys: [{header: x-request-id}], mint: true}";
const OFF: &str = "trace_context: {}";

/// Four services whose applications forward only the id, and think for a while.
fn forgetful(seed: u64) -> Chain {
    whole::forgetful(&lab(ON), seed)
}

#[test]
fn all_traces_are_whole_although_applications_forward_only_the_id() {
    let chain = forgetful(1);
    let with = whole::count(&chain, 10_000);
    chain.put_policy(&lab(OFF));
    let without = whole::count(&chain, 2000);

    println!("whole over four hops: {with} of 10000 with restoring, {without} of 2000 without it");
    assert_eq!((with, without), (10_000, 0));
    chain.assert_healthy();
}

/// Every tenth request shares its id with the one before it.
#[test]
fn nobody_gets_the_context_of_another_with_the_same_id() {
    let chain = forgetful(2);
    let (whole, restored) = (AtomicU64::new(0), AtomicU64::new(0));
    let request = |n: u64| traced(n, &format!("id-{}", if n % 20 == 1 { n - 1 } else { n }));
    Crowd::new(chain.entry(), 4000).run(request, |n, answer, _| {
        assert_eq!(answer.status, 200, "{answer:?}");
        let (account, sent) = (Account::of(&answer), Traceparent::of_client(n));
        for trace in whole::traces(&account).iter().flatten() {
            let is_anothers = trace.is_of_a_client() && trace.trace_id != sent.trace_id;
            assert!(!is_anothers, "request {n} got the context of another: {account:?}");
        }
        let is_whole = whole::is_whole(&account, &sent);
        let count = if n % 20 < 2 { &restored } else { &whole };
        count.fetch_add(u64::from(is_whole), Ordering::Relaxed);
    });

    let (whole, restored) = (whole.into_inner(), restored.into_inner());
    println!("unique ids: {whole} of 3600 whole; duplicates: {restored} of 400");
    assert_eq!(whole, 3600);
    // A request that went out before its duplicate came in was alone until then; at the end of the
    // chain it is not.
    assert!(restored < 200, "{restored} of 400");
    wait_until("the ambiguous are counted", DEADLINE, || {
        chain.metric(&["outcome=.=ambiguous", "restores_total"]) >= 200
    });
    chain.assert_healthy();
}

#[test]
fn two_live_records_with_one_id_restore_nothing() {
    let sidecar = Sidecar::start(&lab(ON));
    sidecar.comes_in(&traced(1, "shared"));
    let alone = Traceparent::read(
        sidecar.goes_out(&Request::get("/").header("x-request-id", "shared")).echoed("traceparent"),
    );
    assert_eq!(alone.trace_id, Traceparent::of_client(1).trace_id);

    sidecar.comes_in(&traced(2, "shared"));
    for _ in 0..2 {
        let request = Request::get("/").header("x-request-id", "shared");
        let fresh = Traceparent::read(sidecar.goes_out(&request).echoed("traceparent"));
        assert!(!fresh.is_of_a_client(), "{fresh:?}");
    }
    // The second that came in, and both that went out.
    sidecar.await_metric("restores", "ambiguous", 3);
    sidecar.await_metric("restores", "restored", 1);

    // The same trace again, as a retry would bring it, is no other request.
    sidecar.comes_in(&traced(3, "retried"));
    sidecar.comes_in(&traced(3, "retried"));
    let request = Request::get("/").header("x-request-id", "retried");
    let again = Traceparent::read(sidecar.goes_out(&request).echoed("traceparent"));
    assert_eq!(again.trace_id, Traceparent::of_client(3).trace_id);
    sidecar.envoy.assert_healthy();
}

#[test]
fn context_of_another_request_is_not_put_onto_a_trace_that_is_there() {
    let sidecar = Sidecar::start(&lab(ON));
    sidecar.comes_in(&traced(1, "id").header("baggage", "user=one"));
    let answer = sidecar.goes_out(&traced(2, "id"));
    let trace = Traceparent::read(answer.echoed("traceparent"));
    assert_eq!(trace.trace_id, Traceparent::of_client(2).trace_id);
    assert_eq!(answer.echoed("baggage"), None);
    sidecar.envoy.assert_healthy();
}

#[test]
fn all_of_the_context_is_restored() {
    let sidecar = Sidecar::start(&lab(ON));
    let request = traced(1, "id")
        .header("tracestate", "shop=1,other=2")
        .header("baggage", "user=one,tier=gold")
        .header("x-weir-color", "blue");
    let came = sidecar.comes_in(&request);
    let answer = sidecar.goes_out(&Request::get("/").header("x-request-id", "id"));

    let (came, went) = (
        Traceparent::read(came.echoed("traceparent")),
        Traceparent::read(answer.echoed("traceparent")),
    );
    assert_eq!((&went.trace_id, went.flags & 1), (&came.trace_id, 1));
    assert_ne!(went.parent_id, came.parent_id);
    let state = answer.echoed("tracestate").unwrap_or_default();
    assert!(state.contains("shop=1") && state.contains("other=2"), "{state:?}");
    assert_eq!(answer.echoed("baggage").as_deref(), Some("user=one,tier=gold"));
    assert_eq!(answer.echoed("x-weir-color").as_deref(), Some("blue"));
    sidecar.envoy.assert_healthy();
}

#[test]
fn an_expired_record_means_a_fresh_trace() {
    let policy = "trace_context: {}, restore: {keys: [{header: x-request-id}], ttl: 1s}";
    let think = Think::Fixed(Duration::from_millis(1500));
    let forward = Forward::Only(ONLY_THE_ID);
    let manner = Manner { forward, think, ..Manner::default() };
    let chain = chain(2, &lab(policy)).manner(manner).start();

    let late = chain.trail(&traced(1, "late"));
    assert!(!Traceparent::read(late[1].header("traceparent")).is_of_a_client(), "{late:?}");
    chain.await_metric(&["outcome=.=missing", "restores_total"], 1);

    chain.change(|manner| manner.think = Think::None);
    let quick = chain.trail(&traced(2, "quick"));
    let trace = Traceparent::read(quick[1].header("traceparent"));
    assert_eq!(trace.trace_id, Traceparent::of_client(2).trace_id);
    chain.assert_healthy();
}

#[test]
fn an_evicted_record_means_a_fresh_trace() {
    let policy = "trace_context: {}, restore: {keys: [{header: x-request-id}], max_records: 1024}";
    let sidecar = Sidecar::start(&lab(policy));
    sidecar.comes_in(&traced(1, "evicted"));
    // Eight times as many as are kept: all sets overflow.
    flood(&sidecar, 0..8192);
    // Of several connections none is sure to be the last.
    sidecar.comes_in(&traced(2, "newest"));
    let out = |id: &str| {
        let request = Request::get("/").header("x-request-id", id);
        Traceparent::read(sidecar.goes_out(&request).echoed("traceparent"))
    };
    assert!(!out("evicted").is_of_a_client());
    assert!(out("newest").is_of_a_client(), "the newest is there");
    sidecar.await_metric("restores", "missing", 1);
    wait_until("evictions are counted", DEADLINE, || {
        sidecar.metric("restores", "evicted") >= 8192 - 1024
    });
    sidecar.envoy.assert_healthy();
}

#[test]
fn a_session_restores_what_is_listed_and_no_trace() {
    let policy = "trace_context: {}, restore: {keys: \
                  [{header: x-trade-session-id, scope: SESSION, baggage: [user]}]}";
    let sidecar = Sidecar::start(&lab(policy));
    let comes = |n: u64, user: &str| {
        let request = traced(n, "unused")
            .header("x-trade-session-id", "s1")
            .header("baggage", format!("user={user},secret=s"))
            .header("x-weir-color", "blue");
        sidecar.comes_in(&request)
    };
    let goes = || {
        let request = Request::get("/").header("x-trade-session-id", "s1");
        sidecar.goes_out(&request)
    };
    for (n, user) in [(1, "u1"), (2, "u2")] {
        comes(n, user);
        let answer = goes();
        assert!(!Traceparent::read(answer.echoed("traceparent")).is_of_a_client());
        assert_eq!(answer.echoed("baggage"), Some(format!("user={user}")), "the newest counts");
        assert_eq!(answer.echoed("x-weir-color").as_deref(), Some("blue"));
    }
    assert_eq!(sidecar.metric("restores", "ambiguous"), 0);
    sidecar.envoy.assert_healthy();
}

#[test]
fn an_id_is_minted_where_none_came() {
    let sidecar = Sidecar::start(&lab(ON));
    let mint = || sidecar.comes_in(&Request::get("/")).echoed("x-request-id").expect("an id");
    let ids: BTreeSet<_> = (0..100).map(|_| mint()).collect();
    assert_eq!(ids.len(), 100);
    let uuid =
        regex_lite::Regex::new("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$");
    let uuid = uuid.unwrap();
    assert!(ids.iter().all(|id| uuid.is_match(id)), "{ids:?}");
    let kept = sidecar.comes_in(&traced(1, "its own")).echoed("x-request-id");
    assert_eq!(kept.as_deref(), Some("its own"));
    // A call of the application's own accord belongs to no request that came in.
    let own = sidecar.goes_out(&Request::get("/")).echoed("x-request-id");
    assert_eq!(own, None);
    sidecar.envoy.assert_healthy();
}

#[test]
fn ids_of_clients_outside_the_mesh_are_not_recorded() {
    let policy = "zone: EDGE, trace_context: {trusted: [{headers: {x-partner: {exact: yes}}}]}, \
                  restore: {keys: [{header: x-request-id}]}";
    let sidecar = Sidecar::start(&lab(&policy.replace("exact: yes", "exact: 'yes'")));
    let out = |id: &str| {
        let request = Request::get("/").header("x-request-id", id);
        Traceparent::read(sidecar.goes_out(&request).echoed("traceparent"))
    };
    sidecar.comes_in(&traced(1, "strange").header("baggage", "user=root"));
    assert!(!out("strange").is_of_a_client());
    sidecar.await_metric("restores", "untrusted", 1);
    sidecar.comes_in(&traced(2, "known").header("x-partner", "yes"));
    assert_eq!(out("known").trace_id, Traceparent::of_client(2).trace_id);
    sidecar.envoy.assert_healthy();
}

const CONNECTIONS: u64 = 4;
/// Requests that a connection writes before it reads the answers.
const BATCH: u64 = 50;

/// Requests that come in with ids and traces that were never seen before.
fn flood(sidecar: &Sidecar, ids: Range<u64>) {
    let address = sidecar.envoy.address("in");
    let each = (ids.end - ids.start) / CONNECTIONS;
    std::thread::scope(|scope| {
        for n in 0..CONNECTIONS {
            let from = ids.start + n * each;
            let ids = from..(if n + 1 == CONNECTIONS { ids.end } else { from + each });
            scope.spawn(move || {
                let mut connection = H2Conn::connect(address).expect("Envoy accepts connections");
                let ids: Vec<_> = ids.collect();
                for batch in ids.chunks(BATCH as usize) {
                    let batch: Vec<_> = batch.iter().map(|n| lines(*n)).collect();
                    let batch: Vec<Vec<_>> = batch
                        .iter()
                        .map(|lines| lines.iter().map(|(n, v)| (*n, v.as_bytes())).collect())
                        .collect();
                    let statuses = connection.batch(&batch).expect("every request is answered");
                    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
                }
            });
        }
    });
}

fn lines(n: u64) -> Vec<(&'static [u8], String)> {
    vec![
        (b":method", "GET".to_owned()),
        (b":scheme", "http".to_owned()),
        (b":path", "/direct".to_owned()),
        (b":authority", "shop.test".to_owned()),
        (b"x-request-id", format!("flood-{n}")),
        (b"traceparent", Traceparent::of_client(1_000_000 + n).write()),
    ]
}

/// What is kept has a bound: in Envoy's allocator, which holds shared data, and in the process,
/// which holds the modules' memories as well.
#[test]
fn a_million_ids_take_no_more_memory_than_a_hundred_thousand() {
    const MIB: u64 = 1 << 20;
    let sidecar = Sidecar::start(&lab(ON));
    flood(&sidecar, 0..100_000);
    let (allocated, resident) = (sidecar.envoy.allocated_memory(), sidecar.envoy.resident_memory());
    flood(&sidecar, 100_000..1_000_000);
    sidecar.await_metric("restores", "recorded", 1_000_000);
    let grown = sidecar.envoy.allocated_memory().saturating_sub(allocated);
    let grown_resident = sidecar.envoy.resident_memory().saturating_sub(resident);

    println!("from 100 000 to 1 000 000 ids: {grown} bytes allocated, {grown_resident} resident");
    assert!(grown <= 8 * MIB, "allocated memory grew by {grown} bytes");
    assert!(grown_resident <= 16 * MIB, "the process grew by {grown_resident} bytes");
    sidecar.comes_in(&traced(1, "after"));
    let request = Request::get("/").header("x-request-id", "after");
    let after = Traceparent::read(sidecar.goes_out(&request).echoed("traceparent"));
    assert_eq!(after.trace_id, Traceparent::of_client(1).trace_id);
    sidecar.envoy.assert_healthy();
}
