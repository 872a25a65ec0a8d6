use proptest::prelude::*;

use super::*;
use crate::limit::testkit::{Vm, compile, one_rule};
use crate::sim::Process;

const S: Nanos = 1_000_000_000;
const BASE: &str = "max_tokens: 5\ntokens_per_fill: 5\nfill_interval: 60s\nkey: [{header: x-user}]";

fn start(overrides: &str) -> (Process, Vm) {
    let process = Process::start();
    let policy = one_rule(&format!("{BASE}\noverrides: [{overrides}]"));
    let vm = Vm::start(&process, &policy, 1);
    (process, vm)
}

fn passed(vm: &mut Vm, user: &str, requests: usize) -> usize {
    (0..requests).filter(|_| vm.user(user).passes()).count()
}

#[test]
fn named_keys_have_buckets_of_their_own() {
    let (process, mut vm) = start(
        "{exact: [ann, bob], max_tokens: 20, tokens_per_fill: 20}, {prefix: bot-, max_tokens: 2}, \
         {prefix: bot-good-, unlimited: true}, {exact: ['']  , max_tokens: 1}",
    );
    process.advance(100 * S);
    for (user, limit) in [
        ("ann", 20),
        ("bob", 20),
        ("ann ", 5),
        ("bot-a", 2),
        ("bot-b", 2),
        ("bot-", 2),
        ("bot", 5),
        ("bot-good-x", 100),
        ("", 1),
        ("carl", 5),
    ] {
        assert_eq!(passed(&mut vm, user, 100), limit, "{user:?}");
    }
    // Ann's comes back at 20 a minute, Carl's at 5.
    process.advance(30 * S);
    assert_eq!((passed(&mut vm, "ann", 100), passed(&mut vm, "carl", 100)), (10, 2));
    assert_eq!(
        vm.counted(&["outcome=.=admitted;"]),
        20 + 20 + 5 + 2 + 2 + 2 + 5 + 100 + 1 + 5 + 12
    );
}

#[test]
fn a_refusal_names_the_keys_own_quota() {
    let (_, mut vm) =
        start("{exact: [ann], max_tokens: 2, tokens_per_fill: 1, fill_interval: 30s}");
    passed(&mut vm, "ann", 2);
    let refused = vm.user("ann");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"r\";q=2;w=60"));
    assert_eq!(refused.header("ratelimit"), Some("\"r\";r=0;t=30"));
}

#[test]
fn an_edit_of_overrides_keeps_what_was_used() {
    let policy = |overrides: &str| one_rule(&format!("{BASE}\noverrides: [{overrides}]"));
    let (_, mut vm) = start("{exact: [zoe], max_tokens: 9}");
    assert_eq!(passed(&mut vm, "ann", 3), 3);
    // Three of ten used.
    vm.reload(&policy("{exact: [ann], max_tokens: 10, tokens_per_fill: 10}"), 2);
    assert_eq!(passed(&mut vm, "ann", 4), 4);
    // Seven of nine, at another place of the list and as a prefix.
    vm.reload(&policy("{exact: [zoe], max_tokens: 9}, {prefix: an, max_tokens: 9}"), 3);
    assert_eq!(passed(&mut vm, "ann", 20), 2);
    // Nine of the rule's five.
    vm.reload(&one_rule(BASE), 4);
    assert_eq!(passed(&mut vm, "ann", 20), 0);
    assert_eq!(passed(&mut vm, "bob", 20), 5);
    // An allow list touches no bucket.
    vm.reload(&policy("{exact: [ann], unlimited: true}"), 5);
    assert_eq!(passed(&mut vm, "ann", 20), 20);
    vm.reload(&one_rule(BASE), 6);
    assert_eq!(passed(&mut vm, "ann", 20), 0);
}

#[test]
fn an_allow_list_ends_the_search_where_the_rule_does() {
    let policy = "name: t
rate_limit:
  rules:
  - {id: a, key: [{header: x-user}], max_tokens: 1, fill_interval: 60s, on_match: STOP,
     overrides: [{exact: [vip], unlimited: true}]}
  - {id: b, max_tokens: 1, fill_interval: 3600s}
";
    let process = Process::start();
    let mut vm = Vm::start(&process, policy, 1);
    assert_eq!(passed(&mut vm, "vip", 9), 9);
    let other = policy.replace("on_match: STOP,", "");
    let mut vm = Vm::start(&Process::start(), &other, 1);
    assert_eq!(passed(&mut vm, "vip", 9), 1);
    assert_eq!(vm.counted(&["rule=.=a;", "outcome=.=admitted;"]), 1);
}

#[test]
fn another_part_of_the_key() {
    let policy = one_rule(
        "max_tokens: 1\nfill_interval: 60s\nkey: [{path: {whole: true}}, {source_address: {v4_prefix: 24}}]\n\
         override_part: 1\noverrides: [{exact: [10.0.7.0, '::ffff:10.0.8.0'], max_tokens: 3}]",
    );
    let process = Process::start();
    let mut vm = Vm::start(&process, &policy, 1);
    for (address, limit) in [("10.0.7.9:80", 3), ("10.0.8.1:80", 3), ("10.0.9.1:80", 1)] {
        vm.ports.set_attribute("source.address", address.as_bytes());
        for path in ["/a", "/b"] {
            assert_eq!((0..9).filter(|_| vm.get(path).passes()).count(), limit, "{address} {path}");
        }
    }
}

#[test]
fn shares_of_workers_are_shares_of_overrides_too() {
    let policy =
        format!("{BASE}\nscope: WORKER\nworkers: 4\noverrides: [{{exact: [ann], max_tokens: 40}}]");
    let mut vm = Vm::start(&Process::start(), &one_rule(&policy), 1);
    assert_eq!((passed(&mut vm, "ann", 99), passed(&mut vm, "bob", 99)), (10, 1));
}

#[test]
fn ten_thousand_are_found_and_one_more_is_refused() {
    let list = |count: usize| {
        let one = |n: usize| format!("{{exact: [user-{n}], max_tokens: {}}}", n % 7 + 6);
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    let policy = |count| one_rule(&format!("{BASE}\noverrides: [{}]", list(count)));
    let mut vm = Vm::start(&Process::start(), &policy(10_000), 1);
    for n in [0, 1, 4999, 9999] {
        assert_eq!(passed(&mut vm, &format!("user-{n}"), 50), n % 7 + 6);
    }
    assert_eq!(passed(&mut vm, "user-10000", 50), 5);
    let error = compile(&policy(10_001), 1).err().unwrap().to_string();
    assert!(error.contains("policy.rate_limit.rules[0].overrides: 10001"), "{error}");
}

fn overrides(texts: &[String]) -> Overrides {
    let prefixes = texts.iter().zip(1..).map(|(text, max)| {
        let terms = Terms::Rate(Rate { per_token: 1, max });
        (text.as_bytes().into(), terms, String::new())
    });
    Overrides { part: 0, exact: HashMap::new(), prefixes: nest(prefixes.collect()).unwrap() }
}

proptest! {
    /// The search finds what a look at every prefix finds.
    #[test]
    fn the_longest_prefix_wins(
        texts in proptest::collection::hash_set("[ab]{1,6}", 1..20), value in "[abc]{0,8}",
    ) {
        let texts: Vec<String> = texts.into_iter().collect();
        let naive = texts.iter().zip(1..).filter(|(text, _)| value.starts_with(text.as_str()));
        let naive = naive.max_by_key(|(text, _)| text.len()).map(|(_, max)| max);
        let found = overrides(&texts).find(value.as_bytes()).map(|terms| match terms {
            Terms::Rate(rate) => rate.max,
            Terms::Unlimited => 0,
        });
        prop_assert_eq!(found, naive);
    }

    /// Three workers with leases: each key keeps to its own rate.
    #[test]
    fn each_key_keeps_to_its_own_rate(
        own in 1_u64..400, base in 1_u64..400, per_second in 1_u64..2000,
        events in proptest::collection::vec((0_u64..60_000_000, 0_usize..3, any::<bool>(), 1_usize..30, any::<bool>()), 1..120),
    ) {
        let policy = one_rule(&format!(
            "max_tokens: {base}\ntokens_per_fill: 50\nfill_interval: 1s\nkey: [{{header: x-user}}]\nmax_keys: 1\n\
             overrides: [{{prefix: an, max_tokens: {own}, tokens_per_fill: {per_second}}}]"
        ));
        let rates = [Rate::new(base, 50, S), Rate::new(own, per_second, S)];
        let process = Process::start();
        let mut vms: Vec<Vm> = (1..=3).map(|n| Vm::start(&process, &policy, n)).collect();
        let mut admitted = [Vec::new(), Vec::new()];
        for (wait, worker, is_ann, count, ticks) in events {
            process.advance(wait);
            for _ in 0..count {
                if vms[worker].user(if is_ann { "ann" } else { "bob" }).passes() {
                    admitted[usize::from(is_ann)].push(process.now());
                }
            }
            if ticks {
                vms[worker].tick();
            }
        }
        for (rate, times) in rates.into_iter().zip(admitted) {
            for (from, start) in times.iter().enumerate() {
                for (count, end) in (1_u64..).zip(&times[from..]) {
                    let allowed = rate.max + (end - start) / rate.per_token;
                    prop_assert!(count <= allowed, "{} of {}", count, allowed);
                }
            }
        }
    }

    /// Whatever edits give and take overrides: a key never has more than the most that it ever had.
    #[test]
    fn edits_give_nothing_away(steps in proptest::collection::vec((0_u64..30, 0_usize..8), 1..40)) {
        let (process, mut vm) = start("{exact: [zoe], max_tokens: 9}");
        // Long after the policy came into force; what comes back in so little time is no token.
        process.advance(3000 * S);
        let (mut used, mut reloads) = (0, 0);
        for (max, requests) in steps {
            let (overrides, limit) = match max {
                0 => (String::new(), 5),
                max => (format!("\noverrides: [{{exact: [ann], max_tokens: {max}}}]"), max),
            };
            reloads += 1;
            process.advance(1000);
            vm.reload(&one_rule(&format!("{BASE}{overrides}")), reloads);
            for _ in 0..requests {
                let passes = vm.user("ann").passes();
                prop_assert_eq!(passes, used < limit, "{} of {}", used, limit);
                used += u64::from(passes);
            }
        }
    }
}
