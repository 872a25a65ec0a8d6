//! The fall-back order, and what a request is made to wait for.

use super::testkit::{Asker, Engine, Fate, Style, policy};
use crate::core::ports::Nanos;
use crate::limit::testkit::Vm;
use crate::sim::Process;

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;

fn start(mesh: &str, rule: &str) -> (Process, Asker) {
    let process = Process::start();
    let asker = Asker::new(Vm::start(&process, &policy(100, mesh, rule), 1));
    (process, asker)
}

/// Answers all calls under way; what becomes of those who waited.
fn answer(asker: &mut Asker, engine: &mut Engine, now: Nanos) -> Vec<Fate> {
    let calls = asker.calls.clone();
    let heard = calls.into_iter().flat_map(|(_, token, message)| {
        let answer = engine.answer(&message, now);
        asker.hear(token, Some(&answer), now)
    });
    heard.collect()
}

/// One request every millisecond, the engine answers after one.
fn steady(process: &Process, asker: &mut Asker, engine: &mut Engine, requests: usize) -> [u64; 3] {
    let mut fates = [0; 3];
    for _ in 0..requests {
        let fate = asker.send(process.now());
        process.advance(MS);
        let woken = answer(asker, engine, process.now());
        for fate in woken.into_iter().chain((fate != Fate::Waits).then_some(fate)) {
            fates[fate as usize] += 1;
        }
    }
    fates
}

#[test]
fn a_busy_key_is_fetched_ahead_and_hardly_ever_waits() {
    for style in [Style::Bare, Style::Headers, Style::Statuses] {
        let (process, mut asker) = start("lease: {max: 1000}", "");
        let mut engine = Engine::new(style, 1_000_000, 3600 * S);
        let fates = steady(&process, &mut asker, &mut engine, 2000);
        assert_eq!(fates, [2000, 0, 0], "{style:?}");
        asker.vm.tick();
        let waited = asker.vm.ports.counter(&["mesh_requests_total", "step=.=engine"]);
        assert!(waited <= 10, "{style:?}: {waited} waited");
        assert!(engine.calls <= 30, "{style:?}: {} calls", engine.calls);
    }
}

#[test]
fn one_at_a_time_asks_for_each_request() {
    let (process, mut asker) = start("lease: {max: 1}", "");
    let mut engine = Engine::new(Style::Bare, 10, 3600 * S);
    assert_eq!((0..3).map(|_| asker.send(process.now())).collect::<Vec<_>>(), [Fate::Waits; 3]);
    assert_eq!(answer(&mut asker, &mut engine, process.now()), [Fate::Passed; 3]);
    assert_eq!((engine.calls, engine.granted), (3, 3));
}

#[test]
fn a_refusal_is_remembered_and_tried_again() {
    for style in [Style::Bare, Style::Headers, Style::Statuses] {
        let (process, mut asker) = start("lease: {max: 1000}", "");
        let mut engine = Engine::new(style, 100, S);
        // On the boundary of a window.
        process.set_time(process.now().next_multiple_of(S));
        let [passed, refused, _] = steady(&process, &mut asker, &mut engine, 900);
        assert_eq!((passed, refused), (100, 800), "{style:?}");
        let asked = engine.calls;
        assert!(asked <= 45, "{style:?}: {asked}");
        // The next window is noticed within half of the time that was spent refusing.
        steady(&process, &mut asker, &mut engine, 600);
        assert_eq!(engine.granted, 200, "{style:?}");
    }
}

#[test]
fn a_silent_engine_leaves_the_lease_then_the_safe_bucket_then_the_policy() {
    for (on_error, last) in [("ALLOW", Fate::Passed), ("DENY", Fate::Refused)] {
        let mesh = format!(
            "lease: {{max: 8}}, safe_share_percent: 20, instances: 4, on_error: {on_error}"
        );
        let (process, mut asker) = start(&mesh, "");
        let mut engine = Engine::new(Style::Bare, 100, 3600 * S);
        steady(&process, &mut asker, &mut engine, 20);
        // From now on nobody answers.
        let mut fates = Vec::new();
        let mut waited = 0;
        for _ in 0..200 {
            match asker.send(process.now()) {
                Fate::Waits => waited += 1,
                fate => fates.push(fate),
            }
            for (_, token, _) in asker.calls.clone() {
                fates.extend(asker.hear(token, None, process.now()));
            }
        }
        asker.vm.tick();
        let count = |parts: &[&str]| asker.vm.ports.counter(parts);
        assert!(waited <= 1, "{waited}");
        assert_eq!((fates.len(), fates.last()), (200, Some(&last)));
        let passed = fates.iter().filter(|fate| **fate == Fate::Passed).count() as u64;
        let leased = count(&["step=.=lease"]) + count(&["step=.=engine"]) - 20;
        // A fifth of 100, for one of four.
        let safe = if on_error == "DENY" { passed - leased } else { count(&["step=.=safe"]) };
        assert_eq!(safe, 5);
        assert_eq!(count(&["error_allowed"]), if on_error == "DENY" { 0 } else { 195 - leased });
    }
}

fn overdue(asker: &mut Asker) -> Option<u32> {
    asker.vm.worker.overdue(&mut asker.vm.ports)
}

#[test]
fn a_request_waits_no_longer_than_the_policy_says() {
    let (process, mut asker) = start("lease: {max: 64}, on_error: DENY", "");
    assert_eq!(asker.send(process.now()), Fate::Waits);
    let (_, token, _) = asker.calls[0].clone();
    process.advance(20 * MS);
    // It was refused more than it needs, too late to ask again.
    let mut engine = Engine::new(Style::Bare, 0, S);
    let answer = engine.answer(&asker.calls[0].2.clone(), process.now());
    assert_eq!(asker.hear(token, Some(&answer), process.now()), [Fate::Refused]);
    // Envoy tells nothing at all.
    process.advance(100 * MS);
    assert_eq!(asker.send(process.now()), Fate::Waits);
    assert_eq!(overdue(&mut asker), None);
    process.advance(70 * MS);
    let token = overdue(&mut asker).unwrap();
    assert_eq!(asker.hear(token, None, process.now()), [Fate::Refused]);
    // Envoy has lost the call, as it does with the context of a policy before; the engine is not silent.
    assert_eq!(asker.send(process.now()), Fate::Waits);
}

#[test]
fn a_call_with_less_time_than_the_policy_gives_says_nothing_of_the_engine() {
    let process = Process::start();
    let two = "{id: s, scope: MESH, max_tokens: 100, tokens_per_fill: 100, fill_interval: 1s}";
    let yaml = format!("{}  - {two}\n", policy(100, "on_error: DENY", ""));
    let mut asker = Asker::new(Vm::start(&process, &yaml, 1));
    let mut engine = Engine::new(Style::Bare, 1000, 3600 * S);
    assert_eq!(asker.send(process.now()), Fate::Waits);
    process.advance(12 * MS);
    // The first rule's hit is there, and the second has what is left of 20 ms.
    assert_eq!(answer(&mut asker, &mut engine, process.now()), [Fate::Waits]);
    process.advance(8 * MS);
    let token = asker.calls[0].1;
    assert_eq!(asker.hear(token, None, process.now()), [Fate::Refused]);
    assert_eq!(asker.send(process.now()), Fate::Waits);
}

#[test]
fn a_key_at_its_limit_falls_back_like_any_other() {
    let (process, mut asker) = start("lease: {max: 64}, on_error: ALLOW", "");
    let mut engine = Engine::new(Style::Bare, 1, 3600 * S);
    let [_, refused, _] = steady(&process, &mut asker, &mut engine, 200);
    assert!(refused > 0);
    // From now on calls time out.
    let (mut is_silent, mut fates) = (false, [0; 3]);
    for _ in 0..4000 {
        let fate = asker.send(process.now());
        process.advance(MS);
        let now = process.now();
        let late =
            |(made, token, _): &(Nanos, u32, Vec<u8>)| (*made + 20 * MS <= now).then_some(*token);
        let late: Vec<u32> = asker.calls.iter().filter_map(late).collect();
        if is_silent {
            fates[fate as usize] += 1;
        }
        for token in late {
            is_silent = true;
            asker.hear(token, None, now);
        }
    }
    let [passed, refused, waits] = fates;
    assert!(passed > 3000 && refused == 0 && waits == 0, "{fates:?}");
}

#[test]
fn a_dead_vm_keeps_nobody_from_fetching() {
    let (process, mut asker) = start("lease: {max: 64}", "");
    let mut engine = Engine::new(Style::Bare, 1000, 3600 * S);
    steady(&process, &mut asker, &mut engine, 50);
    // It claims the next fetch, and dies.
    while asker.calls.is_empty() {
        asker.send(process.now());
        process.advance(MS);
    }
    let mut next = Asker::new(Vm::start(&process, &policy(100, "lease: {max: 64}", ""), 2));
    process.advance(70 * MS);
    while next.calls.is_empty() {
        next.send(process.now());
        process.advance(MS);
    }
    let before = engine.granted;
    answer(&mut next, &mut engine, process.now());
    assert!(engine.granted > before + 1, "fetches ahead again");
}
