//! Requests that no section looks at.

use crate::common::{direct, once, proxied, statuses};
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::{Envoy, Request};

/// A policy with these options; the only bucket is empty after the first request.
struct Drained {
    envoy: Envoy,
    policy: String,
}

fn drained(options: &str) -> Drained {
    let policy =
        format!("{{name: shop, {options}, rate_limit: {{rules: [{{id: r, {}}}]}}}}", once(1));
    let envoy = direct(&policy);
    assert_eq!(statuses(&mut envoy.client("in"), &Request::get("/"), 2), [200, 429]);
    Drained { envoy, policy }
}

impl Drained {
    /// As `weir explain` tells it too.
    fn status(&self, request: &Request) -> u16 {
        let answer = self.envoy.client("in").send(request);
        assert_fares(&self.policy, "inbound", request, &answer, &["--state", "r=0"]);
        answer.status
    }
}

fn probes() -> Vec<Request> {
    let mut probes = Vec::new();
    for path in ["/healthz", "/readyz", "/livez", "/metrics", "/metrics?all"] {
        probes.push(Request::get(path));
        probes.push(Request::new("HEAD", path));
    }
    probes
}

/// Kubelet comes straight to the pod. A gateway adds `x-forwarded-for` to what it passes on, so a
/// client behind one gains nothing by calling itself kubelet.
#[test]
fn kubelets_own_probe_passes_and_a_passed_on_one_does_not() {
    let policy = format!("{{name: shop, rate_limit: {{rules: [{{id: r, {}}}]}}}}", once(1));
    let (envoy, _upstream) = proxied(&policy);
    let mut client = envoy.client("in");
    assert_eq!(statuses(&mut client, &Request::get("/"), 2), [200, 429]);

    let probe = || Request::get("/any").header("user-agent", "kube-probe/1.31");
    assert_eq!(client.send(&probe()).status, 200);
    assert_eq!(client.send(&probe().header("x-forwarded-for", "203.0.113.7")).status, 429);
    let other = Request::get("/any").header("user-agent", "curl kube-probe/1.31");
    assert_eq!(client.send(&other).status, 429);
    envoy.assert_healthy();
}

#[test]
fn health_checks_of_a_mesh_pass() {
    let drained = drained("zone: MESH");

    for probe in probes() {
        assert_eq!(drained.status(&probe), 200, "{probe:?}");
    }
    drained.envoy.await_metric("shop", "none", "exempt", probes().len() as u64);
    for other in
        [Request::new("POST", "/healthz"), Request::get("/healthz/"), Request::get("/healthzz")]
    {
        assert_eq!(drained.status(&other), 429, "{other:?}");
    }
    drained.envoy.assert_healthy();
}

#[test]
fn at_the_edge_nothing_is_exempt_by_default() {
    let drained = drained("zone: EDGE");
    for probe in probes() {
        assert_eq!(drained.status(&probe), 429, "{probe:?}");
    }
    drained.envoy.assert_healthy();
}

#[test]
fn the_defaults_can_be_turned_off() {
    let drained = drained("no_default_exemptions: true");
    assert_eq!(drained.status(&Request::get("/healthz")), 429);
    drained.envoy.assert_healthy();
}

#[test]
fn a_list_of_ones_own_replaces_the_defaults() {
    let drained =
        drained("exempt: [{path: {prefix: /open}}, {headers: {x-trusted: {exact: 'yes'}}}]");

    assert_eq!(drained.status(&Request::get("/open/a")), 200);
    assert_eq!(drained.status(&Request::get("/").header("x-trusted", "yes")), 200);
    assert_eq!(drained.status(&Request::get("/healthz")), 429);
    drained.envoy.assert_healthy();
}
