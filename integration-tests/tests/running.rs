//! `weir run`: a policy in a real Envoy, edited while it serves.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use weir_cli::{Cli, Verdict};
use weir_integration_tests::command::{Said, weir};
use weir_integration_tests::paths::TempDir;
use weir_integration_tests::wait::{DEADLINE, wait_until};
use weir_integration_tests::{Client, Upstream, paths};

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn policy(limit: u32) -> String {
    format!(
        "name: shop\nrate_limit:\n  rules:\n  - {{ id: all, max_tokens: {limit}, fill_interval: 3600s }}\n"
    )
}

fn arguments(file: &str, upstream: &str, more: &[&str]) -> Vec<String> {
    let (envoy, module) = (paths::envoy(), paths::single("suite"));
    let tools = [envoy.to_str().unwrap(), module.to_str().unwrap()];
    let mut all = vec!["weir", "run", file, "--upstream", upstream, "--envoy", tools[0]];
    if !more.contains(&"--module") {
        all.extend(["--module", tools[1]]);
    }
    all.extend(more);
    all.into_iter().map(str::to_owned).collect()
}

#[test]
fn edits_of_the_file_are_live() {
    let upstream = Upstream::start("shop");
    let folder = TempDir::new();
    let file = folder.join("shop.yaml");
    std::fs::write(&file, policy(2)).unwrap();
    let (listen, admin) = (free(), free());
    let upstream_url = format!("http://{}", upstream.address);
    let (listen_text, admin_text) = (listen.to_string(), admin.to_string());
    let more = ["--listen", &listen_text, "--admin", &admin_text, "--for", "8"];
    let args = arguments(file.to_str().unwrap(), &upstream_url, &more);
    let said = Said::default();
    let mut out = said.clone();
    let running = thread::spawn(move || weir_cli::run(&Cli::read(args).unwrap(), &mut out));

    said.await_text("Ctrl-C ends");
    let mut client = Client::new(listen);
    let statuses = |client: &mut Client, n: usize| -> Vec<u16> {
        (0..n).map(|_| client.get("/orders").status).collect()
    };
    assert_eq!(statuses(&mut client, 3), [200, 200, 429]);

    std::fs::write(&file, policy(4)).unwrap();
    said.await_text("live after ");
    assert_eq!(statuses(&mut client, 3), [200, 200, 429], "two of four are used");

    std::fs::write(&file, policy(9).replace("3600s", "-1s")).unwrap();
    said.await_text("the policy before stays in force");
    assert!(said.text().contains("policy.rate_limit.rules[0].fill_interval"), "{}", said.text());
    assert_eq!(statuses(&mut client, 1), [429]);

    std::fs::write(&file, policy(5)).unwrap();
    wait_until("it is live again", DEADLINE, || said.text().matches("live after ").count() == 2);
    assert_eq!(statuses(&mut client, 2), [200, 429]);
    assert_eq!(running.join().unwrap().unwrap(), Verdict::Good);
    assert!(said.text().ends_with("ended\n"), "{}", said.text());
    assert!(TcpListener::bind(admin).is_ok(), "Envoy has ended too");
}

#[test]
fn what_is_missing_is_named() {
    let folder = TempDir::new();
    let file = folder.join("shop.yaml");
    std::fs::write(&file, policy(2)).unwrap();
    let file = file.to_str().unwrap();
    let upstream = "http://127.0.0.1:9";
    let (verdict, _) = weir(arguments(file, upstream, &["--module", "/none/suite.wasm"]));
    assert!(verdict.unwrap_err().contains("cargo xtask build"));
    let (verdict, _) = weir(arguments(file, "ftp://a", &[]));
    assert!(verdict.unwrap_err().contains("must be http://HOST:PORT"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let (verdict, _) = weir(arguments(file, upstream, &["--listen", &taken]));
    assert!(verdict.unwrap_err().contains("cannot be listened on"));
    std::fs::write(file, "name: shop\nrate_limits: {}\n").unwrap();
    let (verdict, said) = weir(arguments(file, upstream, &[]));
    assert_eq!(verdict, Ok(Verdict::Bad));
    assert!(said.contains("rate_limits"), "{said}");
}
