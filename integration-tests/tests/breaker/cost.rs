//! What a call through a closed breaker asks of the host, counted exactly: the finished module in an
//! interpreter.

use weir_integration_tests::host_calls::{Answer, Counts, Vm};
use weir_integration_tests::{paths, policy};

const REQUESTS: u64 = 2000;

const HEADERS: [(&str, &str); 5] = [
    (":authority", "shop.test"),
    (":path", "/orders/17"),
    (":method", "GET"),
    ("user-agent", "curl/8.0"),
    ("x-user", "user-4711"),
];

/// Host calls per request, by kind, at 20 000 requests a second and a tick every 50 ms.
fn counted(rule: &str) -> (Vec<(&'static str, f64)>, f64) {
    let mut vm = Vm::start(&paths::single("circuit_breaker"));
    let text = format!("{{name: cost, circuit_breaker: {{rules: [{{id: r, {rule}}}]}}}}");
    vm.configure("weir.circuit_breaker", &policy::to_json(&text)).unwrap();
    let properties = &mut vm.host().properties;
    properties.insert(b"xds\0listener_direction".to_vec(), 2_u64.to_le_bytes().to_vec());
    properties.insert(b"response\0code_details".to_vec(), b"via_upstream".to_vec());
    let play = |vm: &mut Vm| -> Counts {
        for n in 0..REQUESTS {
            vm.host().now += 50_000;
            assert_eq!(vm.request(&HEADERS), Answer::Passed);
            if n % 1000 == 0 {
                vm.tick();
            }
        }
        vm.counts()
    };
    let before = play(&mut vm);
    let fuel = vm.fuel();
    let after = play(&mut vm);
    println!("{} fuel a request", (vm.fuel() - fuel) / REQUESTS);
    let calls: Vec<_> = after
        .iter()
        .filter(|(kind, _)| !["callbacks", "with data"].contains(kind))
        .map(|(kind, n)| (*kind, n - before.get(kind).unwrap_or(&0)))
        .filter(|(_, n)| *n > 0)
        .map(|(kind, n)| (kind, n as f64 / REQUESTS as f64))
        .collect();
    let sum = calls.iter().map(|(_, n)| n).sum();
    (calls, sum)
}

#[test]
fn a_closed_breaker_asks_little_of_the_host() {
    for rule in ["minimum_calls: 20", "key: [{header: x-user}]", "strategy: ADAPTIVE"] {
        let (calls, sum) = counted(rule);
        println!("{rule}: {sum:.3} host calls a request: {calls:?}");
        // Two header maps, the direction, how the call ended, the clock twice; counts go to shared
        // data with the tick. ADAPTIVE draws a number besides, of which 128 come at a time.
        assert!(sum < 6.05, "{rule}: {sum} of {calls:?}");
    }
}
