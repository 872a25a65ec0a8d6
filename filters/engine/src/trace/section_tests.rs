//! The section as a whole: what comes, what goes on.

use super::testkit::{Sent, Vm, section};
use crate::core::headers::HeaderMap;
use crate::sim::Process;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn start(fields: &str) -> Vm {
    Vm::start(&Process::start(), &section(fields), 1)
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

fn send(headers: &[(&str, &str)]) -> Sent {
    start("").send(headers)
}

/// W3C Trace Context Level 2, sentence by sentence: continued with the same trace id and a new
/// parent id, or restarted with a new trace.
#[test]
fn what_is_continued_and_what_is_restarted() {
    for (sentence, value, continues) in [
        ("3.2.2.1: version 00", parent("01"), true),
        ("3.2.2.1: «Version ff is forbidden»", format!("ff-{TRACE}-{SPAN}-01"), false),
        (
            "3.2.2.3: «All bytes as zero … invalid»",
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            false,
        ),
        (
            "3.2.2.4: «All bytes as zero … invalid»",
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            false,
        ),
        ("3.2.2.3: 32HEXDIGLC, lower case", parent("01").to_uppercase(), false),
        ("3.2.2.3: one digit too few", format!("00-{}-{SPAN}-01", &TRACE[1..]), false),
        ("3.2.2.3: one digit too many", format!("00-{TRACE}0-{SPAN}-01"), false),
        ("3.2.2.2: nothing after the flags in version 00", parent("01-what"), false),
        ("4: higher version, «split it by the dashes»", format!("cc-{TRACE}-{SPAN}-01"), true),
        ("4: higher version with more behind a dash", format!("cc-{TRACE}-{SPAN}-01-x"), true),
        ("4: higher version, no dash", format!("cc-{TRACE}-{SPAN}-01.x"), false),
        ("3.2.2: 2HEXDIGLC", format!(".0-{TRACE}-{SPAN}-01"), false),
        ("3.2.2: 2HEXDIGLC", format!("000-{TRACE}-{SPAN}-01"), false),
        ("3.2.2.5: flags are 2HEXDIGLC", format!("00-{TRACE}-{SPAN}-.0"), false),
        ("3.2.2.5: flags are 2HEXDIGLC", format!("00-{TRACE}-{SPAN}-1"), false),
        ("RFC 9110 5.5: white space around a value", format!(" \t{}\t ", parent("01")), true),
        ("one line with two values", format!("{0},{0}", parent("01")), false),
        ("empty", String::new(), false),
    ] {
        let sent = send(&[("traceparent", &value)]);
        let (trace, span, _) = sent.traceparent();
        assert_eq!(trace == TRACE, continues, "{sentence}: {value:?}");
        assert_ne!(span, SPAN, "{sentence}: a new parent id");
    }
}

#[test]
fn two_lines_of_traceparent_are_none() {
    let sent = send(&[("traceparent", &parent("01")), ("traceparent", &parent("01"))]);
    assert_ne!(sent.trace_id(), TRACE);
    assert!(!sent.header("traceparent").unwrap().contains(','));
}

/// 3.2.2.5.1: «The current version of this specification … only supports two flags»; 3.2.2.5.2: the
/// random flag «MUST be propagated as received».
#[test]
fn flags() {
    for (came, goes_on) in
        [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03"), ("fc", "00")]
    {
        assert_eq!(send(&[("traceparent", &parent(came))]).traceparent().2, goes_on, "{came}");
    }
    // Ours are random, and sampled unless the policy says otherwise.
    assert_eq!(send(&[]).traceparent().2, "03");
}

#[test]
fn three_calls_have_three_parents_in_one_trace() {
    let mut vm = start("");
    let spans: std::collections::BTreeSet<_> =
        (0..3).map(|_| vm.send(&[("traceparent", parent("01"))]).traceparent()).collect();
    assert_eq!(spans.len(), 3);
    assert!(spans.iter().all(|(trace, _, _)| trace == TRACE));
}

#[test]
fn tracestate_goes_along_with_its_traceparent_alone() {
    let tp = parent("01");
    for (came, goes_on) in [
        (vec![("traceparent", tp.as_str()), ("tracestate", "foo=1,bar=2")], Some("foo=1,bar=2")),
        // «If the vendor failed to parse traceparent, it MUST NOT attempt to parse tracestate».
        (vec![("tracestate", "foo=1")], None),
        (vec![("traceparent", "broken"), ("tracestate", "foo=1")], None),
        (
            vec![("traceparent", &tp), ("tracestate", "foo=1"), ("tracestate", "bar=2")],
            Some("foo=1,bar=2"),
        ),
        // A broken tracestate goes, its traceparent stays.
        (vec![("traceparent", &tp), ("tracestate", "foo =1")], None),
        (vec![("traceparent", &tp), ("tracestate", "FOO=1")], None),
        (vec![("traceparent", &tp), ("tracestate", "foo@=1,t*242+@v=1")], None),
        (vec![("traceparent", &tp), ("tracestate", "foo@=1,bar@@=2")], Some("foo@=1,bar@@=2")),
    ] {
        let sent = send(&came);
        assert_eq!(sent.header("tracestate").as_deref(), goes_on, "{came:?}");
        if came[0].1 == tp {
            assert_eq!(sent.trace_id(), TRACE, "{came:?}");
        }
    }
    let mut vm = start("");
    let sent = vm.send(&[("traceparent", tp.as_bytes()), ("tracestate", b"foo=\xff\xfe")]);
    assert_eq!((sent.trace_id().as_str(), sent.header("tracestate")), (TRACE, None));
}

#[test]
fn contexts_are_translated() {
    let inject = "W3C, B3_SINGLE, B3_MULTI, JAEGER, XRAY, DATADOG";
    let fields = format!(
        "propagation: {{extract: [W3C, B3_SINGLE, B3_MULTI, JAEGER, XRAY, DATADOG, REQUEST_ID], inject: [{inject}]}}"
    );
    let mut vm = start(&fields);
    for came in [
        vec![("traceparent", parent("01"))],
        vec![("b3", format!("{TRACE}-{SPAN}-1"))],
        vec![
            ("x-b3-traceid", TRACE.into()),
            ("x-b3-spanid", SPAN.into()),
            ("x-b3-sampled", "1".into()),
        ],
        vec![("uber-trace-id", format!("{TRACE}:{SPAN}:0:1"))],
        vec![(
            "x-amzn-trace-id",
            format!("Root=1-{}-{};Parent={SPAN};Sampled=1", &TRACE[..8], &TRACE[8..]),
        )],
        vec![
            ("x-datadog-trace-id", u64::from_str_radix(&TRACE[16..], 16).unwrap().to_string()),
            ("x-datadog-parent-id", u64::from_str_radix(SPAN, 16).unwrap().to_string()),
            ("x-datadog-sampling-priority", "1".into()),
            ("x-datadog-tags", format!("_dd.p.tid={}", &TRACE[..16])),
        ],
    ] {
        let sent = vm.send(&came);
        let (trace, span, flags) = sent.traceparent();
        assert_eq!(trace, TRACE, "{came:?}");
        assert!(["01", "03"].contains(&flags.as_str()), "{came:?}");
        assert_eq!(sent.header("b3").unwrap(), format!("{TRACE}-{span}-1"), "{came:?}");
        assert_eq!(sent.header("x-b3-traceid").unwrap(), TRACE);
        assert_eq!(sent.header("x-b3-spanid").unwrap(), span);
        assert_eq!(sent.header("x-b3-sampled").unwrap(), "1");
        assert_eq!(sent.header("uber-trace-id").unwrap(), format!("{TRACE}:{span}:0:1"));
        assert!(sent.header("x-amzn-trace-id").unwrap().contains(&TRACE[8..]));
        let id = u64::from_str_radix(&TRACE[16..], 16).unwrap().to_string();
        assert_eq!(sent.header("x-datadog-trace-id").unwrap(), id);
    }
    let sent = vm.send(&[("x-request-id", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736")]);
    assert_eq!(sent.trace_id(), TRACE);
}

/// B3: «the decision» may travel alone, and may be left open.
#[test]
fn a_bare_decision_is_honoured_in_a_new_trace() {
    assert_eq!(send(&[("b3", "0")]).traceparent().2, "02");
    assert_eq!(send(&[("b3", "1")]).traceparent().2, "03");
    let mut drops = start("sampling: {percent: 0}");
    assert_eq!(drops.send(&[("b3", "1")]).traceparent().2, "03");
    assert_eq!(drops.send(&[("b3", "d")]).traceparent().2, "03");
    assert_eq!(drops.send(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)]).traceparent().2, "00");
}

#[test]
fn modes() {
    let came = [("traceparent", parent("00")), ("tracestate", "foo=1".into()), ("b3", "0".into())];
    let sent = start("propagation: {mode: PRESERVE}").send(&came);
    assert!(sent.decision.effects.headers.is_empty(), "{:?}", sent.decision.effects);
    let sent = start("propagation: {mode: PRESERVE}").send(&[("traceparent", "broken")]);
    assert_ne!(sent.header("traceparent").unwrap(), "broken");
    for mode in ["OBSERVE", "PRESERVE"] {
        let sent = start(&format!("propagation: {{mode: {mode}, strip: [B3_SINGLE]}}")).send(&came);
        assert_eq!(sent.header("traceparent").unwrap(), parent("00"), "{mode}");
    }
    let mut vm = start("propagation: {mode: RESTART, server_timing: true}");
    let sent = vm.send(&came);
    assert_ne!(sent.trace_id(), TRACE);
    assert_eq!(sent.header("tracestate"), None);
    let traceparent = sent.header("traceparent").unwrap();
    let response = HeaderMap::from_pairs(&[(":status", "200")]);
    let effects = sent.decision.call.unwrap().on_response(&response, &mut vm.ports);
    let link = crate::core::effects::HeaderEdit::Add(
        "server-timing".into(),
        format!("trace;desc={traceparent}"),
    );
    assert_eq!(effects.headers, [link]);
}

#[test]
fn shadow_and_off_write_nothing() {
    for mode in ["SHADOW", "'OFF'"] {
        let mut vm = start(&format!("mode: {mode}, deadline: {{default: 1s}}"));
        let sent = vm.send(&[("baggage", "a=1")]);
        assert_eq!(sent.decision.effects, Default::default(), "{mode}");
        assert!(sent.decision.call.is_none());
        assert_eq!(vm.counted(&["requests_total", "started"]), u64::from(mode == "SHADOW"));
    }
}

#[test]
fn baggage_is_limited_by_whole_members() {
    let many: Vec<String> = (0..70).map(|n| format!("k{n}=v")).collect();
    let sent = send(&[("baggage", &many.join(","))]);
    assert_eq!(sent.header("baggage").unwrap(), many[..64].join(","));
    let long = format!("a=1,b={},c=3", "x".repeat(9000));
    let kept = send(&[("baggage", &long)]).header("baggage").unwrap();
    assert!(kept.split(',').all(|member| ["a=1", "c=3"].contains(&member)), "{kept}");
    // Within its limits it goes on as it came, on as many lines.
    let sent = send(&[("baggage", "a=1"), ("baggage", " b=2 ;p")]);
    assert!(
        sent.decision.effects.headers.iter().all(|edit| !format!("{edit:?}").contains("baggage"))
    );

    let mut vm = start("baggage: {allow: [a], set: [{key: user, value: {header: x-user}}]}");
    let sent = vm.send(&[("baggage", "a=1,secret=2"), ("x-user", "José \"x\"")]);
    assert_eq!(sent.header("baggage").unwrap(), "a=1,user=Jos%C3%A9%20%22x%22");
}

#[test]
fn the_edge_trusts_nobody_but_whom_it_is_told_to() {
    let yaml = "{name: t, zone: EDGE, trace_context: {trusted: [{headers: {x-partner: {exact: p}}}], \
                sampling: {percent: 0}, deadline: {max: 2s}}}";
    let mut vm = Vm::start(&Process::start(), yaml, 1);
    let came = [
        ("traceparent", parent("01")),
        ("baggage", "a=1".into()),
        ("x-weir-deadline-ms", "9000".into()),
    ];
    let sent = vm.send(&came);
    assert_eq!(sent.trace_id(), TRACE, "the trace goes on");
    assert_eq!(sent.traceparent().2, "00", "its decision does not");
    assert_eq!(sent.header("baggage"), None);
    assert_eq!(sent.header("x-weir-deadline-ms").unwrap(), "2000");
    let mut came = came.to_vec();
    came.push(("x-partner", "p".into()));
    let sent = vm.send(&came);
    assert_eq!(sent.traceparent().2, "01");
    assert_eq!(sent.header("baggage").unwrap(), "a=1");
    assert_eq!(sent.header("x-weir-deadline-ms").unwrap(), "9000");

    let mut vm = Vm::start(&Process::start(), "{name: t, zone: EDGE, trace_context: {}}", 1);
    assert_eq!(vm.send(&[("x-weir-deadline-ms", "9000")]).header("x-weir-deadline-ms"), None);
}

/// A client from outside chooses its trace id, and must not choose with it whether it is sampled.
#[test]
fn an_untrusted_trace_id_decides_nothing() {
    let yaml = "{name: t, zone: EDGE, trace_context: {sampling: {percent: 1}}}";
    let mut vm = Vm::start(&Process::start(), yaml, 1);
    let highest = format!("00-{}-{SPAN}-03", "f".repeat(32));
    let sampled = (0..2000)
        .filter(|_| {
            let sent = vm
                .send(&[("traceparent", highest.as_str()), ("tracestate", "ot=rv:ffffffffffffff")]);
            let state = sent.header("tracestate").unwrap();
            assert!(state.starts_with("ot=") && !state.contains("ffffffffffffff"), "{state}");
            sent.traceparent().2 == "03"
        })
        .count();
    assert!((5..60).contains(&sampled), "{sampled} of 2000 at 1 %");
}

#[test]
fn any_bytes_in_any_header_are_data() {
    let mut vm = start(
        "deadline: {}, propagation: {extract: [W3C, B3_SINGLE, B3_MULTI, JAEGER, XRAY, DATADOG, REQUEST_ID]}",
    );
    for byte in 0..=u8::MAX {
        for name in [
            "traceparent",
            "tracestate",
            "b3",
            "x-b3-traceid",
            "uber-trace-id",
            "x-amzn-trace-id",
            "x-datadog-trace-id",
            "x-request-id",
            "baggage",
            "x-weir-deadline-ms",
            "grpc-timeout",
        ] {
            let sent = vm.send(&[(name, vec![byte]), (name, vec![byte, b'=', byte])]);
            sent.traceparent();
        }
    }
}
