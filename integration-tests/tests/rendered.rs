//! What `weir render --to envoy` writes, in a real Envoy: every module takes its configuration, and they
//! work together.

use serde_json::Value;
use weir_cli::{Cli, Verdict};
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Request, Route, Upstream, paths};

const POLICY: &str = "
name: shop
trace_context: { response: { trace_id_header: x-trace-id } }
traffic_color:
  colors: [base, gray]
  rules: [{ id: staff, match: { headers: { x-staff: { exact: 'yes' } } }, color: gray }]
rate_limit:
  rules: [{ id: gray-alone, match: { colors: [gray] }, max_tokens: 1, fill_interval: 3600s }]
circuit_breaker:
  rules: [{ id: shut, match: { direction: ANY, path: { prefix: /shut } }, state: FORCED_OPEN }]
";

#[test]
fn rendered_resources_run() {
    let upstream = Upstream::start("echo");
    let builder = Envoy::builder();
    let policy = builder.directory().join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let folder = paths::module("rate_limit").parent().unwrap().to_owned();
    let args: [std::ffi::OsString; 7] = [
        "weir".into(),
        "render".into(),
        policy.into_os_string(),
        "--to".into(),
        "envoy".into(),
        "--modules".into(),
        folder.into_os_string(),
    ];
    let mut out = Vec::new();
    assert_eq!(weir_cli::run(&Cli::read(args).unwrap(), &mut out).unwrap(), Verdict::Good);
    let file: Value = serde_yaml_ng::from_slice(&out).unwrap();

    let resources = file["resources"].as_array().unwrap();
    assert_eq!(resources.len(), 4);
    let mut listener = Listener::inbound("in").route(Route::prefix("/", "echo"));
    for resource in resources {
        let name = resource["name"].as_str().unwrap();
        listener = listener.filter(Filter::inline(name, resource["typed_config"].clone()));
    }
    let envoy = builder.cluster(Cluster::h1("echo", upstream.address)).listener(listener).start();
    let mut client = envoy.client("in");
    let staff = Request::get("/").header("x-staff", "yes");
    let first = client.send(&staff);
    assert_eq!(first.echoed("x-weir-color").as_deref(), Some("gray"));
    assert_eq!(first.header("x-trace-id").map(|id| id.len()), Some(32));
    let second = client.send(&staff);
    assert_eq!((second.status, second.header("x-weir-rule").as_deref()), (429, Some("gray-alone")));
    assert_eq!(client.send(&Request::get("/")).status, 200);
    assert_eq!(client.send(&Request::get("/shut")).status, 503);
    envoy.assert_healthy();
}
