//! Deadlines on the simulated host: what is passed on never says more than what is left.

use proptest::prelude::*;

use super::testkit::{Sent, Vm, section};
use crate::core::ports::Nanos;
use crate::sim::Process;

const MS: Nanos = 1_000_000;

fn start(fields: &str) -> Vm {
    Vm::start(&Process::start(), &section(&format!("deadline: {{{fields}}}")), 1).facing(2)
}

fn left(sent: &Sent) -> Option<u64> {
    sent.header("x-weir-deadline-ms").map(|text| text.parse().unwrap())
}

/// The request reached Envoy so long ago.
fn waited(vm: &mut Vm, nanos: i64) {
    use crate::core::ports::Clock;
    let began = vm.ports.wall().wrapping_add_signed(-nanos);
    vm.ports.set_attribute("request.time", &began.to_le_bytes());
}

#[test]
fn the_chain_of_the_requirement() {
    let mut vm = start("hop_margin: 0.1s");
    for (came, goes_on) in [("1000", 900), ("900", 800)] {
        waited(&mut vm, 200_000);
        assert_eq!(left(&vm.send(&[("x-weir-deadline-ms", came)])), Some(goes_on));
    }
    waited(&mut vm, 30 * MS as i64);
    assert_eq!(left(&vm.send(&[("x-weir-deadline-ms", "1000")])), Some(870));
}

#[test]
fn no_margin_on_the_way_in() {
    let mut vm = start("hop_margin: 0.1s").facing(1);
    assert_eq!(left(&vm.send(&[("x-weir-deadline-ms", "1000")])), Some(1000));
}

#[test]
fn a_wall_clock_that_steps_changes_nothing() {
    let mut vm = start("");
    for step in [-3_600_000 * MS as i64, 3_600_000 * MS as i64] {
        waited(&mut vm, step);
        assert_eq!(left(&vm.send(&[("x-weir-deadline-ms", "1000")])), Some(1000), "{step}");
    }
}

#[test]
fn what_makes_no_sense_is_absent_and_removed() {
    let mut vm = start("");
    for value in ["", "0", "-1", "1.5", "1s", "0x10", " ", "99999999999999999999", "١", "+5"] {
        let sent = vm.send(&[("x-weir-deadline-ms", value)]);
        assert_eq!(left(&sent), None, "{value:?}");
        assert!(sent.decision.effects.reply.is_none());
    }
    let sent = vm.send(&[("x-weir-deadline-ms", "5000"), ("x-weir-deadline-ms", "6000")]);
    assert_eq!(left(&sent), None, "two lines");
    assert_eq!(vm.counted(&["deadlines_total", "outcome=.=broken"]), 11);
}

/// Envoy's header could lengthen a route's timeout, and 0 would remove it.
#[test]
fn envoys_timeout_is_only_ever_shortened() {
    let mut vm = start("route_timeout: 2s");
    let timeout = |sent: &Sent| sent.header("x-envoy-upstream-rq-timeout-ms");
    for (came, there, expected) in [
        ("1000", None, Some("1000")),
        ("2000", None, None),
        ("9000", None, None),
        ("1000", Some("500"), Some("500")),
        ("1000", Some("1500"), Some("1000")),
        ("1000", Some("0"), Some("1000")),
        ("1000", Some("garbage"), Some("1000")),
    ] {
        let mut headers = vec![("x-weir-deadline-ms", came)];
        headers.extend(there.map(|there| ("x-envoy-upstream-rq-timeout-ms", there)));
        assert_eq!(timeout(&vm.send(&headers)).as_deref(), expected, "{came} {there:?}");
    }
}

#[test]
fn streams_have_none() {
    let mut vm = start("default: 1s");
    for headers in [
        vec![("upgrade", "websocket")],
        vec![(":method", "CONNECT")],
        vec![("accept", "text/event-stream")],
        vec![("content-type", "application/grpc")],
        vec![("content-type", "application/grpc"), ("grpc-timeout", "0m")],
    ] {
        let sent = vm.send(&headers);
        assert_eq!(
            (left(&sent), sent.header("x-envoy-upstream-rq-timeout-ms")),
            (None, None),
            "{headers:?}"
        );
        // What came goes on, less what is gone.
        waited(&mut vm, 10 * MS as i64);
        let mut with = headers.clone();
        with.push(("x-weir-deadline-ms", "500"));
        assert_eq!(left(&vm.send(&with)), Some(490), "{headers:?}");
    }
    let sent = vm.send(&[("content-type", "application/grpc"), ("grpc-timeout", "700m")]);
    assert_eq!(sent.header("grpc-timeout").as_deref(), Some("690000u"));
}

proptest! {
    #[test]
    fn nothing_grows(came in 1_u64..100_000, waited_ms in 0_i64..59_000, margin in 0_u64..1000, cap in 1_u64..100_000) {
        let yaml = format!(
            "{{name: t, zone: EDGE, trace_context: {{deadline: {{hop_margin: {}s, max: {}s}}}}}}",
            margin as f64 / 1000.0, cap as f64 / 1000.0
        );
        let mut vm = Vm::start(&Process::start(), &yaml, 1).facing(2);
        waited(&mut vm, waited_ms * MS as i64);
        let sent = vm.send(&[("x-weir-deadline-ms", came.to_string())]);
        let rest = came.min(cap).saturating_sub(waited_ms as u64).saturating_sub(margin);
        if rest == 0 {
            let reply = sent.decision.effects.reply.as_ref().unwrap();
            prop_assert_eq!(reply.status, 504);
        } else {
            prop_assert_eq!(left(&sent), Some(rest));
        }
    }
}
