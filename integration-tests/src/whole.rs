//! A chain of services whose applications forward only an id, and whether the traces of their
//! clients survive it.

use crate::app::{Account, Forward, Manner, Think};
use crate::chain::Chain;
use crate::crowd::Crowd;
use crate::http::Request;
use crate::paths;
use crate::traceparent::{Traceparent, traced};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub const HOPS: usize = 4;

/// What the applications forward.
const ONLY_THE_ID: &[&str] = &["x-request-id"];

/// Four services whose applications forward only the id, and think for a while.
pub fn forgetful(policy: &str, seed: u64) -> Chain {
    let think = Think::Random { seed, most: Duration::from_millis(20) };
    let manner =
        Manner { forward: Forward::Only(ONLY_THE_ID), think, records: false, ..Manner::default() };
    Chain::builder()
        .hops(HOPS)
        .module(paths::module("trace_context"))
        .policy(policy)
        .manner(manner)
        .tap("traceparent")
        .start()
}

/// The trace as each hop got it and as each hop handed it to its application.
pub fn traces(account: &Account) -> Vec<Option<Traceparent>> {
    let read = |header: Option<String>| header.map(|text| Traceparent::read(Some(text)));
    let both = |hop: &&Account| [read(hop.tapped("traceparent")), read(hop.header("traceparent"))];
    account.trail().iter().flat_map(both).collect()
}

/// One trace at all hops, that of the client, with a span of its own at each listener.
pub fn is_whole(account: &Account, sent: &Traceparent) -> bool {
    let Some(traces) = traces(account).into_iter().collect::<Option<Vec<_>>>() else {
        return false;
    };
    let spans: BTreeSet<_> = traces.iter().map(|trace| &trace.parent_id).collect();
    traces.len() == 2 * HOPS
        && traces[0] == *sent
        && traces.iter().all(|t| t.trace_id == sent.trace_id && t.flags & 1 == 1)
        && spans.len() == traces.len()
}

/// Of so many requests, 64 at a time, those whose trace was whole. Panics when one is not answered
/// with 200.
pub fn count(chain: &Chain, requests: u64) -> u64 {
    let whole = AtomicU64::new(0);
    let request = |n: u64| match n % 4 {
        // The first proxy makes an id.
        0 => Request::get("/orders").header("traceparent", Traceparent::of_client(n).write()),
        _ => traced(n, &format!("id-{n}")),
    };
    Crowd::new(chain.entry(), requests).run(request, |n, answer, _| {
        assert_eq!(answer.status, 200, "{answer:?}");
        let is_whole = is_whole(&Account::of(&answer), &Traceparent::of_client(n));
        whole.fetch_add(u64::from(is_whole), Ordering::Relaxed);
    });
    whole.into_inner()
}
