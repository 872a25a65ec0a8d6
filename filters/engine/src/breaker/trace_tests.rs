//! The published trace of a breaker, replayed exactly.

use serde_json::Value;

use super::Decision;
use super::testkit::{Ending, Vm, one_rule};
use crate::sim::Process;

const MS: u64 = 1_000_000;

fn policy(config: &Value) -> String {
    let seconds = |field: &str| config[field].as_u64().unwrap() as f64 / 1000.0;
    one_rule(&format!(
        "window: {{time: {{duration: {}s, buckets: {}}}}}\nminimum_calls: {}\n\
         failure_rate_percent: {}\nopen_duration: {}s\nbackoff_multiplier: {}\n\
         half_open_probes: {}\nhalf_open_success_percent: {}",
        seconds("window_ms"),
        config["buckets"],
        config["minimum_calls"],
        config["failure_rate_percent"],
        seconds("open_ms"),
        config["multiplier"],
        config["probes"],
        config["half_open_success_percent"],
    ))
}

#[test]
fn the_trace_replays_exactly() {
    let trace: Value = serde_json::from_str(include_str!(
        "../../../../integration-tests/vectors/breaker-trace.json"
    ))
    .unwrap();
    let process = Process::start();
    let start = process.now();
    let mut vm = Vm::start(&process, &policy(&trace["config"]), 1);
    // Asked for before anything failed, answered late.
    let mut late = Some(vm.get());
    let mut probes: Vec<Option<Decision>> = Vec::new();
    for event in trace["events"].as_array().unwrap() {
        process.set_time(start + event["t"].as_u64().unwrap() * MS);
        let before = vm.cell();
        let probe = |probes: &mut Vec<Option<Decision>>| {
            probes[event["probe"].as_u64().unwrap() as usize - 1].take().unwrap()
        };
        match event["call"].as_str().unwrap() {
            "ok" => assert!(vm.call(Ending::OK), "{event}"),
            "fail" => assert!(vm.call(Ending::FAILED), "{event}"),
            "late_ok" => {
                assert_eq!(event["generation"], 0);
                vm.end(late.take().unwrap(), Ending::OK);
                assert_eq!(vm.cell(), before, "{event}");
            }
            "attempt" => {
                let decision = vm.get();
                assert_eq!(Some(decision.passes()), event["admit"].as_bool(), "{event}");
                if let Some(wait) = event["retry_after_s"].as_u64() {
                    assert_eq!(decision.header("retry-after"), Some(wait.to_string().as_str()));
                }
                if decision.passes() {
                    if event["probe"] == 1 {
                        probes.clear();
                    }
                    probes.push(Some(decision));
                    assert_eq!(event["probe"], probes.len());
                }
            }
            "probe_ok" => vm.end(probe(&mut probes), Ending::OK),
            "probe_fail" => vm.end(probe(&mut probes), Ending::FAILED),
            other => panic!("{other}"),
        }
        vm.tick();
        let cell = vm.cell();
        let name = ["CLOSED", "OPEN", "HALF_OPEN"][cell.state as usize];
        assert_eq!(event["state"], name, "{event}");
        if let Some(open) = event["open_ms"].as_u64() {
            assert_eq!(cell.until - process.now(), open * MS, "{event}");
        }
        if event["why"].as_str().is_some_and(|why| why.contains("window empty")) {
            assert!(cell.window.is_empty() && cell.generation == before.generation + 1, "{event}");
        }
    }
}
