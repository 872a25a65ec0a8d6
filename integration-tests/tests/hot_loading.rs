//! Policies and modules that are replaced while requests come: none fails, and none passes without the filter. What
//! cannot be loaded changes nothing, and says so in the words of `docs/operations.md`.

use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use weir_integration_tests::envoy::RATE_LIMIT;
use weir_integration_tests::wait::{DEADLINE, wait_until};
use weir_integration_tests::{
    Envoy, Filter, Listener, Load, Request, Route, paths, policy, variant,
};

/// Every answer tells the limit that it was held against.
fn shop(limit: u32) -> String {
    format!(
        "{{name: shop, rate_limit: {{rules: [{{id: all, max_tokens: {limit}, fill_interval: 0.001s, \
         at_limit: {{quota_headers: ALWAYS}}}}]}}}}"
    )
}

#[test]
fn edits_and_new_modules_under_load() {
    // Until a policy is there, and wherever none were, requests would pass without the header.
    let listener = Listener::inbound("in").filter(Filter::weir()).route(Route::direct("/", 200));
    let envoy = Envoy::builder()
        .workers(2)
        .module(paths::single("suite"))
        .listener(listener)
        .policy(&shop(1000))
        .start();
    let is_done = Arc::new(AtomicBool::new(false));
    let without = Arc::new(AtomicU64::new(0));
    let (answers, failed) = std::thread::scope(|scope| {
        let address = envoy.address("in");
        let (done, bare) = (is_done.clone(), without.clone());
        let clients = scope.spawn(move || {
            let (mut answers, mut failed) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let bare = bare.clone();
                let load = Load::new(address, Request::get("/")).connections(8).rate(800);
                let report = load
                    .lasts(Duration::from_secs(1))
                    .look(move |_, answer| {
                        let is_ours = answer
                            .header("ratelimit-policy")
                            .is_some_and(|line| line.contains("\"all\""));
                        bare.fetch_add(u64::from(!is_ours), Ordering::Relaxed);
                    })
                    .run();
                answers += report.status(200);
                failed += report.total() - report.status(200);
            }
            (answers, failed)
        });
        for n in 1..=20 {
            envoy.put_policy(&shop(1000 + n)).accepted();
        }
        for n in 1..=20 {
            let module = variant::of(&paths::single("suite"), n, envoy.directory());
            envoy.put_module(&module, &shop(2000 + n)).accepted();
        }
        is_done.store(true, Ordering::Relaxed);
        clients.join().unwrap()
    });
    println!("{answers} answers");
    assert_eq!((failed, without.load(Ordering::Relaxed)), (0, 0), "of {answers}");
    assert!(answers > 500, "{answers}");
    let last = envoy.client("in").get("/").header("ratelimit-policy").unwrap();
    assert!(last.contains("q=2020"), "{last}");
    let draining = envoy.counter("listener_manager.total_listeners_draining");
    let modified = envoy.counter("listener_manager.listener_modified");
    assert_eq!((draining, modified), (0, 0));
    envoy.assert_healthy();
}

/// The rows of the table on failures: what goes wrong, and what Envoy's log and its counters say of it.
fn documented() -> Vec<(String, String, String)> {
    let page = std::fs::read_to_string(paths::root().join("docs/operations.md")).unwrap();
    let table = page.split_once("\n### What cannot be loaded\n").expect("the section").1;
    let table = table.split("\n#").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let cells = rows.map(|row| {
        let cells: Vec<_> =
            row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        let code = |cell: &str| cell.split('`').nth(1).unwrap_or_default().to_owned();
        (cells[0].clone(), code(&cells[1]), code(&cells[2]))
    });
    cells.collect()
}

fn put_file(envoy: &Envoy, text: &str) {
    let aside = envoy.directory().join("discovery.part");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(aside, envoy.directory().join("ecds/rate-limit.json")).unwrap();
}

fn discovery(module: &Path, policy: &str) -> String {
    let plugin = json!({
        "name": RATE_LIMIT,
        "vm_config": {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": module}}},
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": policy::to_json(policy),
        },
    });
    let resource = json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": RATE_LIMIT,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": plugin,
        },
    });
    json!({"version_info": "x", "resources": [resource]}).to_string()
}

#[test]
fn what_cannot_be_loaded_changes_nothing_and_says_why() {
    let listener = Listener::inbound("in")
        .filter(Filter::weir_without_default())
        .route(Route::direct("/", 200));
    let envoy = Envoy::builder().listener(listener).policy(&shop(1000)).start();
    let module = paths::module("rate_limit");
    let corrupt = envoy.directory().join("corrupt.wasm");
    std::fs::write(&corrupt, &std::fs::read(&module).unwrap()[..100_000]).unwrap();
    let other_type = discovery(&module, &shop(1)).replace(
        "envoy.extensions.filters.http.wasm.v3.Wasm",
        "envoy.extensions.filters.http.rbac.v3.RBAC",
    );
    let other_type = other_type.replace("\"config\"", "\"rules\"");
    let cases = [
        ("a policy with an error", discovery(&module, &shop(1000).replace("0.001s", "-1s"))),
        ("a module that is cut off", discovery(&corrupt, &shop(1))),
        ("a module that is not there", discovery(&envoy.directory().join("none.wasm"), &shop(1))),
        ("a discovery file that is no YAML or JSON", "{\"resources\": [".to_owned()),
        ("a discovery file without a resource", "{\"resources\": []}".to_owned()),
        ("a filter of another type", other_type),
    ];
    let documented = documented();
    let mut client = envoy.client("in");
    for (case, file) in &cases {
        let (_, text, counter) = documented
            .iter()
            .find(|(name, ..)| name == case)
            .unwrap_or_else(|| panic!("no row for {case}"));
        let counter = format!("extension_config_discovery.http_filter.{RATE_LIMIT}.{counter}");
        let (before, start) = (envoy.counter(&counter), envoy.log().len());
        put_file(&envoy, file);
        wait_until(&format!("{counter} counts {case}"), DEADLINE, || {
            envoy.counter(&counter) > before
        });
        let log = envoy.log().split_off(start);
        assert!(log.contains(text.as_str()), "{case}: no {text:?} in\n{log}");
        let answer = client.get("/");
        let header = answer.header("ratelimit-policy");
        assert!(header.is_some_and(|line| line.contains("q=1000")), "{case}: {answer:?}");
        assert_eq!(envoy.admin("/ready").text().trim(), "LIVE", "{case}");
    }
    // One row more, below.
    assert_eq!(documented.len(), cases.len() + 1);
    put_file(&envoy, &discovery(&module, &shop(1001)));
    wait_until("the next good one serves", DEADLINE, || {
        client.get("/").header("ratelimit-policy").is_some_and(|line| line.contains("q=1001"))
    });
    envoy.assert_healthy();
}

#[test]
fn a_first_policy_with_an_error_has_nothing_to_fall_back_to() {
    let documented = documented();
    let (_, text, counter) = documented
        .iter()
        .find(|(name, ..)| name.starts_with("the very first policy"))
        .expect("a row");
    let listener = Listener::inbound("in")
        .filter(Filter::weir_without_default())
        .route(Route::direct("/", 200));
    let envoy = Envoy::builder()
        .listener(listener)
        .bad_first_policy(&shop(1000).replace("0.001s", "-1s"))
        .start();
    assert!(envoy.log_contains(text), "{}", envoy.log());
    let counter = format!("extension_config_discovery.http_filter.{RATE_LIMIT}.{counter}");
    assert_eq!(envoy.counter(&counter), 1);
    assert_eq!(envoy.client("in").get("/").status, 500);
    assert_eq!(envoy.admin("/ready").text().trim(), "LIVE");
    envoy.put_policy(&shop(1000)).accepted();
    assert_eq!(envoy.client("in").get("/").status, 200);
}

/// What earlier versions took, the modules of today take.
#[test]
fn earlier_policies_load() {
    let listener = Listener::inbound("in").filter(Filter::weir()).route(Route::direct("/", 200));
    let envoy = Envoy::builder().module(paths::single("suite")).listener(listener).start();
    let folders = std::fs::read_dir(paths::root().join("cli/tests/earlier")).unwrap();
    let mut count = 0;
    for folder in folders {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            if let Err(log) = envoy.put_policy(&text).verdict() {
                panic!("{}: {log}", path.display());
            }
            count += 1;
        }
    }
    assert!(count >= 18, "{count}");
    envoy.assert_healthy();
}
