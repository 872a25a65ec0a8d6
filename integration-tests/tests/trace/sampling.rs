//! Sampling on a real Envoy.

use crate::rig::{Rig, SPAN, parent, seen};
use std::time::{Duration, Instant};
use weir_integration_tests::{Filter, H1Conn, Request, Response, explained};

/// The share of so many new traces that is sampled, in requests.
fn sampled(rig: &Rig, count: usize, request: &Request) -> usize {
    let mut client = rig.envoy.client("out");
    (0..count).filter(|_| is_sampled(&client.send(request))).count()
}

fn is_sampled(response: &Response) -> bool {
    u8::from_str_radix(&seen(response).2, 16).unwrap() & 1 == 1
}

#[test]
fn ten_thousand_requests_at_100_percent_are_sampled() {
    let rig = Rig::section("sampling: {percent: 100}");
    assert_eq!(sampled(&rig, 10_000, &Request::get("/")), 10_000);
}

#[test]
fn the_parents_decision_holds_and_rules_decide_on_the_rest() {
    let fields = "sampling: {percent: 0, rules: [\
         {id: forced, match: {headers: {x-force-trace: {exact: 'yes'}}}, override_parent: true, force_envoy_tracer: true}, \
         {id: gray, match: {colors: [gray]}}]}";
    let rig = Rig::section(fields);
    for (headers, expected) in [
        (vec![], false),
        (vec![("traceparent", parent("01"))], true),
        (vec![("traceparent", parent("00"))], false),
        (vec![("x-weir-color", "gray".to_string())], true),
        (vec![("x-weir-color", "gray".to_string()), ("traceparent", parent("00"))], false),
        (vec![("x-force-trace", "yes".to_string()), ("traceparent", parent("00"))], true),
    ] {
        let lines: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let response = rig.get("both", &lines);
        assert_eq!(is_sampled(&response), expected, "{headers:?}");
        let request =
            lines.iter().fold(Request::get("/"), |r, (name, value)| r.header(name, value));
        let policy = format!("{{name: shop, trace_context: {{{fields}}}}}");
        let told = explained::explain(&policy, "outbound", &request, &[]);
        let flags =
            explained::upstream(&told, "traceparent").expect("a trace goes on").split_off(53);
        let is_explained = u8::from_str_radix(&flags, 16).unwrap() & 1 == 1;
        assert_eq!(is_explained, expected, "{headers:?}, as explained");
        let (_, span, _) = seen(&response);
        assert_ne!(span, SPAN, "a changed decision has a new parent id");
        let is_forced = headers.iter().any(|(name, _)| *name == "x-force-trace");
        assert_eq!(response.echoed("x-envoy-force-trace").is_some(), is_forced, "{headers:?}");
    }
    rig.await_metric(&["sampling_total", "rule=.=forced", "outcome=.=sampled"], 2);
}

/// The three dimensions and the bands: status counts on the response side alone.
#[test]
fn a_score_puts_a_request_into_its_band() {
    let scoring = |score: f64| {
        format!(
            "sampling: {{scoring: {{weights: [\
             {{match: {{path: {{regex: '/orders/[0-9]+'}}}}, weight: {score}}}, \
             {{match: {{headers: {{x-sla: {{exact: gold}}}}}}, weight: 0.4}}]}}}}"
        )
    };
    let rig = Rig::section("");
    let order = Request::get("/orders/17");
    let count = 10_000;
    for (score, least, most) in
        [(0.3, 0, 0), (0.3001, 900, 1100), (0.8, 900, 1100), (0.8001, count, count)]
    {
        rig.envoy
            .put_policy(&format!("{{name: shop, trace_context: {{{}}}}}", scoring(score)))
            .accepted();
        let kept = sampled(&rig, count, &order);
        println!("score {score}: {kept} of {count} sampled");
        assert!((least..=most).contains(&kept), "score {score}: {kept}");
        assert_eq!(sampled(&rig, 100, &Request::get("/other")), 0);
    }
    rig.envoy
        .put_policy(&format!("{{name: shop, trace_context: {{{}}}}}", scoring(0.5)))
        .accepted();
    // 0.5 + 0.4: the sum decides.
    assert_eq!(sampled(&rig, 200, &order.header("x-sla", "gold")), 200);
}

/// The decision is the same at every hop and every percentage above.
#[test]
fn what_is_kept_at_one_percentage_is_kept_at_every_higher_one() {
    let rig = Rig::section("sampling: {parent: IGNORE, percent: 10}");
    let traces: Vec<String> = (0..500_u128)
        .map(|n| {
            format!(
                "00-{:032x}-{SPAN}-02",
                n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) | 1 << 127
            )
        })
        .collect();
    let kept = |rig: &Rig| -> Vec<bool> {
        traces.iter().map(|trace| is_sampled(&rig.get("both", &[("traceparent", trace)]))).collect()
    };
    let mut before = vec![false; traces.len()];
    for percent in [1, 10, 50, 100] {
        rig.envoy
            .put_policy(&format!("{{name: shop, trace_context: {{sampling: {{parent: IGNORE, percent: {percent}}}}}}}"))
            .accepted();
        let now = kept(&rig);
        assert!(before.iter().zip(&now).all(|(before, now)| !before || *now), "at {percent} %");
        before = now;
    }
    assert!(before.iter().all(|kept| *kept));
}

/// Over all workers together.
#[test]
fn a_floor_and_a_ceiling_hold_over_all_workers() {
    let rig = Rig::with(
        4,
        "{name: shop, trace_context: {sampling: {rules: [\
         {id: rare, match: {path: {prefix: /rare}}, percent: 0, floor_per_second: 20}, \
         {id: busy, match: {path: {prefix: /busy}}, ceiling_per_second: 50}]}}}",
        |_| vec![Filter::weir()],
        |listener| listener,
    );
    for (path, least, most) in [("/rare", 50, 75), ("/busy", 130, 170)] {
        let mut connections: Vec<H1Conn> = (0..16).map(|_| rig.envoy.h1("out")).collect();
        let (begun, mut kept, mut sent) = (Instant::now(), 0, 0);
        while begun.elapsed() < Duration::from_secs(3) {
            for connection in &mut connections {
                kept += usize::from(is_sampled(&connection.send(&Request::get(path)).unwrap()));
                sent += 1;
            }
        }
        println!("{path}: {kept} of {sent} in 3 s");
        assert!(sent > 1000, "too slow to tell: {sent}");
        assert!((least..=most).contains(&kept), "{path}: {kept} of {sent}");
    }
}

/// A client from outside chooses its trace id; it must not choose with it whether it is sampled.
#[test]
fn at_the_edge_a_client_decides_nothing() {
    let rig = Rig::start(
        "{name: shop, zone: EDGE, trace_context: {sampling: {percent: 1, rules: [\
         {id: forced, match: {headers: {x-force-trace: {present: true}}}, trusted_only: true}]}}}",
    );
    let highest = format!("00-{}-{SPAN}-03", "f".repeat(32));
    let request = Request::get("/")
        .header("traceparent", highest)
        .header("tracestate", "ot=rv:ffffffffffffff")
        .header("x-force-trace", "1");
    assert!(sampled(&rig, 1000, &request) < 60);
}
