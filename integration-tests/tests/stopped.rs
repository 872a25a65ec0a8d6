//! `weir rollout` that is stopped by a signal: in a process of its own, since the signal is the process's.

use serde_json::json;
use std::process::Command;
use std::thread;
use weir_cli::{Cli, Verdict};
use weir_integration_tests::command::Said;
use weir_integration_tests::paths::TempDir;
use weir_integration_tests::{Envoy, Filter, Listener, Route};

#[test]
fn a_rollout_that_is_stopped_brings_back_what_it_wrote() {
    let policy = |limit: u32| json!({"name": "shop", "rate_limit": {"rules": [{"id": "all", "max_tokens": limit, "fill_interval": "1s"}]}});
    let listener = Listener::inbound("in").filter(Filter::weir()).route(Route::direct("/", 200));
    let envoy = Envoy::builder().listener(listener).policy(&policy(1).to_string()).start();
    let ecds = envoy.directory().join("ecds");
    let discovery = ecds.join("rate-limit.json");
    let before = std::fs::read(&discovery).unwrap();
    let folder = TempDir::new();
    let other = folder.join("ecds");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::copy(&discovery, other.join("rate-limit.json")).unwrap();
    let file = folder.join("shop.json");
    std::fs::write(&file, policy(2).to_string()).unwrap();

    let admin = format!("http://{}", envoy.admin_address());
    let [file, ecds, other_ecds] =
        [&file, &ecds, &other].map(|path| path.to_str().unwrap().to_owned());
    let args =
        ["weir", "rollout", &file, "--ecds", &ecds, &other_ecds, "--admin", &admin, "--steps", "1"];
    let cli = Cli::read(args).unwrap();
    let said = Said::default();
    let mut out = said.clone();
    let running = thread::spawn(move || weir_cli::run(&cli, &mut out));
    said.await_text("in force on 1 of 1 watched Envoys");
    assert_ne!(std::fs::read(&discovery).unwrap(), before);

    let own = std::process::id().to_string();
    assert!(Command::new("kill").args(["-TERM", &own]).status().unwrap().success());
    assert_eq!(running.join().unwrap().unwrap(), Verdict::Bad);
    let said = said.text();
    assert!(said.contains("TAKEN BACK: stopped before the end"), "{said}");
    assert!(said.contains("the files of before are in 1 folder again"), "{said}");
    assert_eq!(std::fs::read(&discovery).unwrap(), before);
    assert_eq!(std::fs::read(other.join("rate-limit.json")).unwrap(), before);
    envoy.assert_healthy();
}
