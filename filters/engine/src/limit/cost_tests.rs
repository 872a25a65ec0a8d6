use proptest::prelude::*;

use super::*;
use crate::core::ports::Nanos;
use crate::limit::Decision;
use crate::limit::testkit::{Vm, one_rule};
use crate::sim::Process;

const S: Nanos = 1_000_000_000;

fn start(rule: &str) -> (Process, Vm) {
    let process = Process::start();
    let vm = Vm::start(&process, &one_rule(rule), 1);
    (process, vm)
}

impl Vm {
    fn costing(&mut self, cost: &str) -> Decision {
        self.send(&[(":path", "/"), ("x-user", "ann"), ("x-cost", cost)])
    }

    /// The response of a request that passed.
    fn answer(&mut self, decision: Decision, headers: &[(&str, &str)]) {
        let plan = decision.response.expect("the response tells the cost");
        let mut plan = plan;
        assert!(plan.reads_response());
        plan.respond(&mut self.worker, &HeaderMap::from_pairs(headers), &mut self.ports);
    }

    fn admitted(&mut self, requests: usize) -> usize {
        (0..requests).filter(|_| self.get("/").passes()).count()
    }
}

#[test]
fn a_constant() {
    let (process, mut vm) = start("max_tokens: 10\nfill_interval: 1s\ncost: {constant: 4}");
    assert_eq!(vm.admitted(5), 2);
    // Two are left of the four that are needed.
    let refused = vm.get("/");
    assert_eq!(refused.header("ratelimit"), Some("\"r\";r=0;t=2"));
    process.advance(2 * S - 1);
    assert!(!vm.get("/").passes());
    process.advance(1);
    assert!(vm.get("/").passes());
}

#[test]
fn a_request_header() {
    let (_, mut vm) =
        start("max_tokens: 100\nfill_interval: 3600s\ncost: {constant: 2, request_header: X-Cost}");
    assert!(vm.costing("90").passes());
    assert!(!vm.costing("11").passes());
    assert!(vm.costing("10").passes() && !vm.costing("1").passes());
    assert_eq!(vm.counted(&["bad_costs_total"]), 0);
}

#[test]
fn odd_headers_cost_the_constant_and_are_counted() {
    let rule = "max_tokens: 10\nfill_interval: 3600s\ncost: {constant: 5, request_header: x-cost}";
    for odd in ["", "0", "00", "-1", "1.5", "five", "1 ", " 1", "+1", "0x1", "1,1"] {
        let (_, mut vm) = start(rule);
        assert!(vm.costing(odd).passes() && vm.costing(odd).passes(), "{odd:?}");
        assert!(!vm.costing(odd).passes(), "{odd:?}");
        assert_eq!(vm.counted(&["rule=.=r;", "bad_costs_total"]), 3, "{odd:?}");
    }
    // Two lines are nobody's word; none is no fault.
    let (_, mut vm) = start(rule);
    assert!(vm.send(&[(":path", "/"), ("x-cost", "1"), ("x-cost", "1")]).passes());
    assert_eq!((vm.admitted(9), vm.counted(&["bad_costs_total"])), (1, 1));
}

#[test]
fn what_never_fits_is_refused_and_takes_nothing() {
    let (process, mut vm) =
        start("max_tokens: 10\nfill_interval: 1s\ncost: {request_header: x-cost}");
    for huge in ["11", "99999999999", "18446744073709551616", &"9".repeat(300)] {
        assert!(!vm.costing(huge).passes(), "{huge}");
        process.advance(100 * S);
    }
    assert!(vm.costing("10").passes());
}

#[test]
fn a_response_header_is_charged_afterwards() {
    let (process, mut vm) = start(
        "max_tokens: 10\nfill_interval: 1s\ncost: {response_header: X-Cost, apply: ON_RESPONSE, max_debt: 5}",
    );
    // One is taken at once, three more by the response.
    let first = vm.get("/");
    vm.answer(first, &[("x-cost", "4")]);
    assert_eq!(vm.admitted(20), 6);
    process.advance(100 * S);
    // A hundred: the bucket owes five, and the first token is there six seconds later.
    let dear = vm.get("/");
    vm.answer(dear, &[("x-cost", "100")]);
    assert_eq!(vm.get("/").header("ratelimit"), Some("\"r\";r=0;t=6"));
    process.advance(6 * S - 1);
    assert!(!vm.get("/").passes());
    process.advance(1);
    // Free: the token comes back.
    let free = vm.get("/");
    assert!(!vm.get("/").passes());
    vm.answer(free, &[("x-cost", "0")]);
    assert!(vm.get("/").passes());
}

#[test]
fn without_a_word_of_the_response_what_was_taken_is_the_cost() {
    let (_, mut vm) =
        start("max_tokens: 10\nfill_interval: 3600s\ncost: {constant: 2, response_header: x-cost}");
    for answer in [&[][..], &[("x-cost", "much")], &[("x-cost", "1"), ("x-cost", "9")]] {
        let decision = vm.get("/");
        vm.answer(decision, answer);
    }
    // And one that never gets a response.
    drop(vm.get("/"));
    assert_eq!(vm.admitted(9), 1);
    assert_eq!(vm.counted(&["bad_costs_total"]), 2);
}

#[test]
fn an_estimate_on_the_request_is_corrected_by_the_response() {
    let (_, mut vm) = start(
        "max_tokens: 100\nfill_interval: 3600s\nkey: [{header: x-user}]\n\
         cost: {request_header: x-cost, response_header: x-used}",
    );
    let more = vm.costing("50");
    vm.answer(more, &[("x-used", "70")]);
    let less = vm.costing("30");
    assert!(!vm.costing("1").passes());
    vm.answer(less, &[("x-used", "10")]);
    assert!(!vm.costing("21").passes() && vm.costing("20").passes());
}

/// A charge belongs to the bucket, whatever the policy is by then.
#[test]
fn a_charge_after_an_edit() {
    let rule = |max: u32| {
        one_rule(&format!(
            "max_tokens: {max}\nfill_interval: 3600s\nkey: [{{header: x-user}}]\ncost: {{response_header: x-cost}}"
        ))
    };
    let process = Process::start();
    let mut vm = Vm::start(&process, &rule(50), 1);
    let decision = vm.user("ann");
    vm.reload(&rule(30), 2);
    vm.answer(decision, &[("x-cost", "29")]);
    assert_eq!((0..9).filter(|_| vm.user("ann").passes()).count(), 1);
}

#[test]
fn a_charge_that_finds_no_room_waits_for_the_tick() {
    let (process, mut vm) = start(
        "max_tokens: 10\nfill_interval: 3600s\nkey: [{header: x-user}]\ncost: {response_header: x-cost}",
    );
    let decision = vm.user("ann");
    process.store.contend(true);
    vm.answer(decision, &[("x-cost", "8")]);
    process.store.contend(false);
    vm.tick();
    vm.tick();
    assert_eq!((0..9).filter(|_| vm.user("ann").passes()).count(), 2);
}

#[test]
fn a_workers_own_buckets() {
    let (_, mut vm) = start(
        "max_tokens: 40\nfill_interval: 3600s\nscope: WORKER\nworkers: 4\ncost: {response_header: x-cost}",
    );
    let decision = vm.get("/");
    vm.answer(decision, &[("x-cost", "8")]);
    assert_eq!(vm.admitted(9), 2);
    // A cost above the share passes where it fits into the bucket.
    let (_, mut vm) = start(
        "max_tokens: 40\nfill_interval: 3600s\nscope: WORKER\nworkers: 40\ncost: {constant: 7}",
    );
    assert_eq!(vm.admitted(9), 1);
}

#[test]
fn refusals_give_the_whole_cost_back() {
    let policy = "name: t
rate_limit:
  rules:
  - {id: wide, max_tokens: 100, fill_interval: 3600s, cost: {request_header: x-cost}}
  - {id: narrow, max_tokens: 1, fill_interval: 3600s, match: {path: {exact: /n}}}
";
    let mut vm = Vm::start(&Process::start(), policy, 1);
    let mut send = |path, cost| vm.send(&[(":path", path), ("x-cost", cost)]).passes();
    assert!(send("/n", "10") && !send("/n", "90") && !send("/n", "50"));
    assert!(send("/", "90") && !send("/", "1"));
}

proptest! {
    /// Several workers, leases, costs by both headers: over the whole run no more is admitted than
    /// the bucket and what came back, and what is charged is missing afterwards.
    #[test]
    fn never_more_than_the_limit(
        max in 1_u64..300, per_second in 1_u64..500,
        steps in proptest::collection::vec((0_u64..80_000_000, 0_usize..3, 1_u64..40, 0_u64..60, any::<bool>()), 1..150),
    ) {
        let policy = one_rule(&format!(
            "max_tokens: {max}\ntokens_per_fill: {per_second}\nfill_interval: 1s\n\
             cost: {{request_header: x-cost, response_header: x-used, max_debt: 30}}"
        ));
        let process = Process::start();
        let mut vms: Vec<Vm> = (1..=3).map(|n| Vm::start(&process, &policy, n)).collect();
        let (start, mut spent) = (process.now(), 0);
        let per_token = S.div_ceil(per_second);
        for (wait, worker, cost, used, ticks) in steps {
            process.advance(wait);
            let vm = &mut vms[worker];
            let decision = vm.costing(&cost.to_string());
            if decision.passes() {
                let refilled = (process.now() - start) / per_token;
                prop_assert!(spent + cost <= max + refilled, "{spent} + {cost} of {max} + {refilled}");
                // Charges that the bound of the debt cut off are not owed: count what is sure.
                spent += cost.min(used);
                vm.answer(decision, &[("x-used", &used.to_string())]);
            }
            if ticks {
                vm.tick();
            }
        }
    }

    #[test]
    fn any_bytes_are_a_cost_or_odd(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
        let map = HeaderMap::from_pairs(&[(&b"x-cost"[..], &bytes[..])]);
        match said(&map, b"x-cost") {
            Said::Cost(cost) => prop_assert!(cost <= MAX_TOKENS),
            Said::Odd => {}
            Said::Nothing => prop_assert!(false),
        }
    }
}

/// Envoy ends the first stream without a response, and runs the chain again for where it leads.
#[test]
fn what_a_redirected_response_cost_is_charged_once() {
    let policy = "name: t
rate_limit:
  rules:
  - id: r
    match: {path: {prefix: /a}}
    max_tokens: 10
    fill_interval: 3600s
    cost: {response_header: x-used}
";
    for landing in ["/a/landing", "/elsewhere"] {
        let process = Process::start();
        let mut vm = Vm::start(&process, policy, 1);
        let first = vm.get("/a").response.unwrap();
        let mark = vm.limiter.mark().as_bytes().to_vec();
        vm.ports.attributes.insert(mark.clone(), first.carried());
        let redirected = [(":path", landing), ("x-envoy-original-url", "http://shop/a")];
        // Twice, as a redirect may lead to another.
        let second = vm.send(&redirected);
        assert!(second.passes() && !second.effects.is_charged);
        let third = vm.send(&redirected);
        vm.answer(third, &[("x-used", "8")]);
        vm.ports.attributes.remove(&mark);
        // Eight are used, not nine or sixteen.
        assert_eq!((0..9).filter(|_| vm.get("/a").passes()).count(), 2, "{landing}");
    }
}

proptest! {
    /// Whatever stands in the attribute.
    #[test]
    fn any_mark_is_read(mark in proptest::collection::vec(any::<u8>(), 0..80)) {
        let (_, mut vm) = start("max_tokens: 10\nfill_interval: 3600s\ncost: {response_header: x-used}");
        vm.ports.attributes.insert(vm.limiter.mark().as_bytes().to_vec(), mark);
        let decision = vm.send(&[(":path", "/"), ("x-envoy-original-url", "http://shop/a")]);
        prop_assert!(decision.passes());
    }
}
