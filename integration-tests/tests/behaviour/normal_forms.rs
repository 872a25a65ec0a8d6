//! What a rule compares: the forms in which clients write one thing in several ways.

use crate::common::{direct, once, shop, statuses};
use weir_integration_tests::explained::assert_fares;
use weir_integration_tests::{H2Conn, Request};

#[test]
fn a_client_cannot_dodge_a_rule_by_spelling() {
    let policy = shop(&format!(
        "{{id: r, match: {{authority: {{exact: shop.test}}, path: {{exact: /a}}, \
         headers: {{X-Plan: {{exact: free}}}}, source_addresses: [10.0.0.0/8]}}, {}}}",
        once(1)
    ));
    let envoy = direct(&policy);
    let mut client = envoy.client("in");
    let spelled = |target: &str, host: &str, header: &str, from: &str| {
        Request::get(target).host(host).header(header, "free").header("x-forwarded-for", from)
    };

    let plain = spelled("/a", "shop.test", "x-plan", "10.0.0.1");
    assert_eq!(statuses(&mut client, &plain, 2), [200, 429]);
    for dodging in [
        spelled("/a?x=1", "shop.test", "x-plan", "10.0.0.1"),
        spelled("/a?", "shop.test", "x-plan", "10.0.0.1"),
        spelled("/a", "SHOP.Test", "x-plan", "10.0.0.1"),
        spelled("/a", "shop.test:8080", "x-plan", "10.0.0.1"),
        spelled("/a", "shop.test.", "x-plan", "10.0.0.1"),
        spelled("/a", "shop.test.:443", "x-plan", "10.0.0.1"),
        spelled("/a", "shop.test", "X-PLAN", "10.0.0.1"),
        spelled("/a", "shop.test", "x-plan", "::ffff:10.0.0.1"),
    ] {
        let answer = client.send(&dodging);
        assert_eq!(answer.status, 429, "{dodging:?}");
        assert_fares(&policy, "inbound", &dodging, &answer, &["--state", "r=0"]);
    }
    envoy.assert_healthy();
}

#[test]
fn http1_and_http2_requests_share_a_bucket() {
    let envoy = direct(&shop(&format!(
        "{{id: r, match: {{authority: {{exact: shop.test}}, path: {{exact: /a}}}}, {}}}",
        once(1)
    )));
    assert_eq!(envoy.client("in").get("/a").status, 200);

    let headers: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/a?x"),
        (b":authority", b"Shop.test:80"),
    ];
    let mut connection: H2Conn = envoy.h2("in");
    assert_eq!(connection.request(&headers, None).status(), Some(429));
    envoy.assert_healthy();
}
