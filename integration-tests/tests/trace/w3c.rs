//! W3C Trace Context Level 2 through a real Envoy: each sentence with its case, with the filter on
//! the way out alone, and on both sides.

use crate::rig::{Rig, SPAN, TRACE, parent, seen};
use std::collections::BTreeSet;
use weir_integration_tests::{Account, Calls, Chain, Manner, Request, explained, paths};

/// What has to become of a request.
enum Then {
    /// The same trace, under a new parent id.
    Continues,
    /// A new trace.
    Restarts,
}
use Then::{Continues, Restarts};

type Lines = Vec<(&'static str, String)>;

fn one(value: String) -> Lines {
    vec![("traceparent", value)]
}

/// Section, sentence or what it means, the lines, and what follows.
fn traceparents() -> Vec<(&'static str, Lines, Then)> {
    let with = |version: &str, trace: &str, span: &str, flags: &str| {
        one(format!("{version}-{trace}-{span}-{flags}"))
    };
    vec![
        ("2.2: no traceparent: «creates a new traceparent»", vec![], Restarts),
        ("3.2.2.2: a valid one", one(parent("01")), Continues),
        (
            "3.2: two header lines",
            vec![("traceparent", parent("01")), ("traceparent", parent("01"))],
            Restarts,
        ),
        ("3.2: two values on one line", one(format!("{0},{0}", parent("01"))), Restarts),
        ("3.2.1: «The header name … traceparent»", vec![("trace-parent", parent("01"))], Restarts),
        ("3.2.1: another name", vec![("trace.parent", parent("01"))], Restarts),
        ("3.2.1: «case insensitive»", vec![("TraceParent", parent("01"))], Continues),
        ("3.2.2.2: version 00 ends with the flags", one(parent("01.")), Restarts),
        (
            "3.2.2.2: version 00 ends with the flags",
            one(parent("01-what-the-future-will-be-like")),
            Restarts,
        ),
        ("4.1: a higher version", with("cc", TRACE, SPAN, "01"), Continues),
        (
            "4.1: a higher version, more behind a dash",
            with("cc", TRACE, SPAN, "01-what"),
            Continues,
        ),
        ("4.1: a higher version, no dash", with("cc", TRACE, SPAN, "01.what"), Restarts),
        ("3.2.2.1: «Version ff is invalid»", with("ff", TRACE, SPAN, "01"), Restarts),
        ("3.2.2.1: version: two digits", with(".0", TRACE, SPAN, "01"), Restarts),
        ("3.2.2.1: version: two digits", with("0.", TRACE, SPAN, "01"), Restarts),
        ("3.2.2.1: version: two digits", with("000", TRACE, SPAN, "01"), Restarts),
        ("3.2.2.1: version: two digits", with("0000", TRACE, SPAN, "01"), Restarts),
        ("3.2.2.1: version: two digits", with("0", TRACE, SPAN, "01"), Restarts),
        ("3.2.2.3: trace-id of zeros", with("00", &"0".repeat(32), SPAN, "01"), Restarts),
        ("3.2.2.3: trace-id: HEXDIGLC", with("00", &TRACE.replace('f', "."), SPAN, "01"), Restarts),
        ("3.2.2.3: trace-id too long", with("00", &format!("{TRACE}0"), SPAN, "01"), Restarts),
        ("3.2.2.3: trace-id too short", with("00", &TRACE[1..], SPAN, "01"), Restarts),
        ("3.2.2.4: parent-id of zeros", with("00", TRACE, &"0".repeat(16), "01"), Restarts),
        (
            "3.2.2.4: parent-id: HEXDIGLC",
            with("00", TRACE, &SPAN.replace('f', "."), "01"),
            Restarts,
        ),
        ("3.2.2.4: parent-id too long", with("00", TRACE, &format!("{SPAN}0"), "01"), Restarts),
        ("3.2.2.4: parent-id too short", with("00", TRACE, &SPAN[1..], "01"), Restarts),
        ("3.2.2.5: flags: HEXDIGLC", with("00", TRACE, SPAN, ".0"), Restarts),
        ("3.2.2.5: flags: HEXDIGLC", with("00", TRACE, SPAN, "0."), Restarts),
        ("3.2.2.5: flags too long", with("00", TRACE, SPAN, "001"), Restarts),
        ("3.2.2.5: flags too short", with("00", TRACE, SPAN, "1"), Restarts),
        (
            "3.2.2: lower case alone: trace-id",
            with("00", &TRACE.to_uppercase(), SPAN, "01"),
            Restarts,
        ),
        (
            "3.2.2: lower case alone: parent-id",
            with("00", TRACE, &SPAN.to_uppercase(), "01"),
            Restarts,
        ),
        ("3.2.2: lower case alone: flags", with("00", TRACE, SPAN, "0A"), Restarts),
        ("RFC 9110 5.5: blanks around the value", one(format!("  {}  ", parent("01"))), Continues),
        ("RFC 9110 5.5: tabs around the value", one(format!("\t{}\t", parent("01"))), Continues),
        ("RFC 9110 5.5: both", one(format!(" \t {} \t ", parent("01"))), Continues),
        ("empty", one(String::new()), Restarts),
    ]
}

#[test]
fn every_sentence_on_traceparent() {
    let rig = Rig::section("");
    for listener in ["out", "both", "grpc"] {
        for (sentence, lines, then) in traceparents() {
            let (trace, span) = ids(&rig, listener, &lines);
            match then {
                Continues => assert_eq!(trace, TRACE, "{listener}: {sentence}: {lines:?}"),
                Restarts => assert_ne!(trace, TRACE, "{listener}: {sentence}: {lines:?}"),
            }
            assert_ne!(span, SPAN, "{listener}: {sentence}: {lines:?}");
            // And as `weir explain` tells it.
            let told = told(&lines, "traceparent").expect("a traceparent goes on");
            let continues = told.get(3..35) == Some(TRACE);
            assert_eq!(continues, matches!(then, Continues), "{sentence}: explained: {told}");
        }
    }
    rig.envoy.assert_healthy();
}

/// A header that goes on through `out`, by `weir explain`.
fn told(lines: &Lines, name: &str) -> Option<String> {
    let request = lines.iter().fold(Request::get("/"), |r, (name, value)| r.header(name, value));
    let policy = "{name: shop, trace_context: {}}";
    explained::upstream(&explained::explain(policy, "outbound", &request, &[]), name)
}

/// The upstream's view of a request with these lines.
fn ids(rig: &Rig, listener: &str, lines: &Lines) -> (String, String) {
    if listener == "grpc" {
        let mut connection = rig.envoy.h2("grpc");
        let names: Vec<_> = lines.iter().map(|(name, _)| name.to_lowercase()).collect();
        let extra: Vec<_> = names
            .iter()
            .zip(lines)
            .map(|(name, (_, value))| (name.as_str(), value.as_str()))
            .collect();
        let reply =
            weir_integration_tests::http::grpc::call(&mut connection, "/shop.Orders/Get", &extra);
        assert_eq!(reply.status, Some(0), "{lines:?}");
        let seen = rig.echo.seen().pop().unwrap();
        let value = seen.header("traceparent").expect("a traceparent").to_owned();
        assert_eq!(value.len(), 55, "{value}");
        return (value[3..35].to_owned(), value[36..52].to_owned());
    }
    let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (trace, span, _) = seen(&rig.get(listener, &lines));
    (trace, span)
}

#[test]
fn flags() {
    let rig = Rig::section("");
    for listener in ["out", "both"] {
        for (sentence, came, goes_on) in [
            ("3.2.2.5.1: sampled stays", "01", "01"),
            ("3.2.2.5.1: not sampled stays", "00", "00"),
            ("3.2.2.5.2: the random flag «MUST» be passed on", "03", "03"),
            ("3.2.2.5.2: and must not be set by others", "02", "02"),
            ("3.2.2.5.3: «MUST set those to zero»", "ff", "03"),
            ("3.2.2.5.3: «MUST set those to zero»", "fc", "00"),
        ] {
            let response = rig.get(listener, &[("traceparent", &parent(came))]);
            assert_eq!(seen(&response).2, goes_on, "{listener}: {sentence}");
            let told = told(&one(parent(came)), "traceparent").expect("a traceparent goes on");
            assert_eq!(told.get(53..), Some(goes_on), "{sentence}, as explained");
        }
        // A trace of ours is random, and sampled unless the policy says otherwise.
        assert_eq!(seen(&rig.get(listener, &[])).2, "03", "{listener}");
    }
}

#[test]
fn three_callbacks_of_one_request_carry_three_parent_ids() {
    let rig = Rig::section("");
    for listener in ["out", "both"] {
        for (headers, one_trace) in [(vec![("traceparent", parent("01"))], true), (vec![], false)] {
            let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let ids: Vec<_> = (0..3).map(|_| seen(&rig.get(listener, &headers))).collect();
            let spans: BTreeSet<_> = ids.iter().map(|(_, span, _)| span).collect();
            let traces: BTreeSet<_> = ids.iter().map(|(trace, _, _)| trace).collect();
            assert_eq!(spans.len(), 3);
            assert_eq!(traces.len(), if one_trace { 1 } else { 3 });
        }
    }
}

/// The same by an application behind a sidecar, which forwards what it got on three calls at once.
#[test]
fn three_calls_of_an_application_carry_three_parent_ids() {
    let manner = Manner { calls: Calls::AtOnce(3), ..Manner::default() };
    let chain = Chain::builder()
        .hops(2)
        .module(paths::module("trace_context"))
        .policy("{name: shop, trace_context: {}}")
        .manner(manner)
        .start();
    for came in [Some(parent("01")), None] {
        let request =
            came.iter().fold(Request::get("/"), |r, value| r.header("traceparent", value));
        let account = Account::of(&chain.client().send(&request));
        let own = account.header("traceparent").unwrap().to_owned();
        let called: Vec<_> =
            account.next.iter().filter_map(|called| called.account.as_ref()).collect();
        let seen: BTreeSet<_> =
            called.iter().map(|call| call.header("traceparent").unwrap()).collect();
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen.iter().all(|value| value[3..35] == own[3..35]), "{own}: {seen:?}");
        assert!(seen.iter().all(|value| value[36..52] != own[36..52]));
        assert_eq!(came.is_some(), own[3..35] == *TRACE);
    }
    chain.assert_healthy();
}

/// `tracestate` lines beside a valid `traceparent`, and what goes on; `None`: nothing.
fn tracestates() -> Vec<(&'static str, Vec<String>, Option<String>)> {
    let lines = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect::<Vec<_>>();
    let as_it_is = |sentence, line: &str| (sentence, lines(&[line]), Some(line.to_owned()));
    let discarded = |sentence, line: &str| (sentence, lines(&[line]), None);
    let members =
        |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@";
    let value: String =
        (0x20..=0x7e_u8).map(char::from).filter(|c| *c != ',' && *c != '=').collect();
    vec![
        as_it_is("3.3.1: one member", "foo=1"),
        as_it_is("3.3.1: several", "foo=1,bar=2,baz=3"),
        (
            "3.3.1.1: lines are joined in order",
            lines(&["foo=1,bar=2", "rojo=1", "congo=t61"]),
            Some("foo=1,bar=2,rojo=1,congo=t61".into()),
        ),
        (
            "3.3.1.1: an empty line among them",
            lines(&["foo=1", "", "bar=2"]),
            Some("foo=1,,bar=2".into()),
        ),
        (
            "3.3.1.3: duplicate keys are no reason to fail",
            lines(&["foo=1,foo=1"]),
            Some("foo=1,foo=1".into()),
        ),
        as_it_is("3.3.1.3.1: all characters of keys", &format!("{key}=1")),
        as_it_is("3.3.1.3.1: `@` anywhere but first", "foo@=1,foo@@bar=1,t*242@v=1"),
        discarded("3.3.1.3.1: `@` first", "@foo=1"),
        discarded("3.3.1.3.1: no upper case", "FOO=1"),
        discarded("3.3.1.3.1: no dot", "foo.bar=1"),
        discarded("3.3.1.3.1: no blank", "foo =1"),
        discarded("3.3.1.3.2: no equals sign in a value", "foo=bar=baz"),
        discarded("3.3.1.3: a key and an equals sign", "foo"),
        as_it_is("3.3.1.3.1: key of 256", &format!("{}=1", "k".repeat(256))),
        discarded("3.3.1.3.1: key of 257", &format!("{}=1", "k".repeat(257))),
        as_it_is("3.3.1.3.2: value of 256", &format!("k={}", "v".repeat(256))),
        discarded("3.3.1.3.2: value of 257", &format!("k={}", "v".repeat(257))),
        as_it_is("3.3.1.3.2: all characters of values", &format!("foo={}", value.trim_end())),
        as_it_is("3.3.1.1: 32 members", &members(32)),
        discarded("3.3.1.1: «There can be a maximum of 32 list-members»", &members(33)),
    ]
}

#[test]
fn every_sentence_on_tracestate() {
    let rig = Rig::section("");
    for listener in ["out", "both"] {
        for (sentence, lines, goes_on) in tracestates() {
            let mut request = Request::get("/").header("traceparent", parent("01"));
            for line in &lines {
                request = request.header("tracestate", line);
            }
            let response = rig.envoy.client(listener).send(&request);
            assert_eq!(seen(&response).0, TRACE, "{listener}: {sentence}: the traceparent stays");
            assert_eq!(response.echoed("tracestate"), goes_on, "{listener}: {sentence}: {lines:?}");
            let mut sent = one(parent("01"));
            sent.extend(lines.iter().map(|line| ("tracestate", line.clone())));
            assert_eq!(told(&sent, "tracestate"), goes_on, "{sentence}: {lines:?}, as explained");
        }
        // 3.3.1.4: without a valid traceparent there is none.
        for headers in [
            vec![("tracestate", "foo=1")],
            vec![("traceparent", "broken"), ("tracestate", "foo=1")],
        ] {
            assert_eq!(rig.get(listener, &headers).echoed("tracestate"), None, "{headers:?}");
        }
        // Bytes above ASCII are no member of anybody's.
        let bytes = Request::get("/")
            .header("traceparent", parent("01"))
            .header("tracestate", b"foo=\xff\xfe");
        let response = rig.envoy.client(listener).send(&bytes);
        assert_eq!((seen(&response).0.as_str(), response.echoed("tracestate")), (TRACE, None));
    }
    rig.envoy.assert_healthy();
}

/// Our own member, which a sampling decision writes.
#[test]
fn our_member_moves_left_and_the_others_keep_their_order() {
    let rig = Rig::section("sampling: {parent: IGNORE, percent: 50}");
    let sent = |state: &str| {
        // Above the threshold of 50 %: the last 56 bits of the trace id decide.
        let trace = format!("00-{}ff{}-{SPAN}-03", "1".repeat(18), "f".repeat(12));
        let response = rig.get("out", &[("traceparent", &trace), ("tracestate", state)]);
        assert_eq!(seen(&response).2, "03");
        response.echoed("tracestate").unwrap()
    };
    assert_eq!(sent("foo=1,ot=th:0,bar=2"), "ot=th:8,foo=1,bar=2");
    let many: Vec<String> = (0..32).map(|n| format!("k{n}=v")).collect();
    assert_eq!(
        sent(&many.join(",")),
        format!("ot=th:8,{}", many[..31].join(",")),
        "the 33rd falls off"
    );
    // 3.3.1.5: «Entries larger than 128 characters long SHOULD be removed first», then from the right.
    let long = format!("long={}", "x".repeat(200));
    let short: Vec<String> = (0..20).map(|n| format!("k{n:02}={}", "v".repeat(16))).collect();
    let all = [&[long][..], &short].concat().join(",");
    let kept = sent(&all);
    assert!(kept.len() <= 512 && kept == format!("ot=th:8,{}", short.join(",")), "{kept}");
    let shorts: Vec<String> = (0..31).map(|n| format!("k{n:02}={}", "v".repeat(20))).collect();
    let kept = sent(&shorts.join(","));
    let count = kept.split(',').count() - 1;
    assert!(kept.len() <= 512 && kept.len() > 512 - 26, "{kept}");
    assert_eq!(kept, format!("ot=th:8,{}", shorts[..count].join(",")), "from the right");
    // `rv` is never touched, and a trace that is dropped keeps no threshold.
    let low = format!("00-{}-{SPAN}-03", "1".repeat(32));
    let response =
        rig.get("out", &[("traceparent", &low), ("tracestate", "ot=th:4;rv:10000000000000,foo=1")]);
    assert_eq!(response.echoed("tracestate").unwrap(), "ot=rv:10000000000000,foo=1");
    assert_eq!(seen(&response).2, "02");
}

/// 4.3: «If the value of traceparent wasn't changed … tracestate MUST NOT be modified as well».
#[test]
fn what_is_preserved_is_preserved_to_the_byte() {
    let rig = Rig::section("propagation: {mode: PRESERVE}");
    let state = "foo=1 , ,bar=2,,";
    let response = rig.get("both", &[("traceparent", &parent("00")), ("tracestate", state)]);
    assert_eq!(response.echoed("traceparent").unwrap(), parent("00"));
    assert_eq!(response.echoed("tracestate").unwrap(), state.trim_end());
    assert_ne!(seen(&rig.get("out", &[("traceparent", "broken")])).0, TRACE);
}

#[test]
fn a_restart_clears_the_state_and_may_tell_the_caller() {
    let rig = Rig::section("propagation: {mode: RESTART, server_timing: true}");
    let headers = [("traceparent", parent("01")), ("tracestate", "foo=1".into())];
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let response = rig.get("out", &headers);
    assert_ne!(seen(&response).0, TRACE);
    assert_eq!(response.echoed("tracestate"), None);
    let traceparent = response.echoed("traceparent").unwrap();
    assert_eq!(response.header("server-timing").unwrap(), format!("trace;desc={traceparent}"));
}
