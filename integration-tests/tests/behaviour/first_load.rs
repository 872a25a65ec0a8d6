//! A proxy that starts with a policy that cannot be used.

use crate::common::{listener, once, shop, statuses};
use weir_integration_tests::{Envoy, Filter, Listener, Request, Route};

const BAD: &str = "{name: shop, rate_limit: {rules: [{id: r, max_tokens: 0, fill_interval: 1s}]}}";

#[test]
fn with_a_default_configuration_requests_pass_until_a_good_policy_comes() {
    let envoy = Envoy::builder().workers(2).listener(listener()).bad_first_policy(BAD).start();
    let mut client = envoy.client("in");

    assert_eq!(statuses(&mut client, &Request::get("/"), 5), [200; 5]);
    let log = envoy.log();
    assert!(log.contains("policy.rate_limit.rules[0].max_tokens"), "{log}");

    envoy.put_policy(&shop(&format!("{{id: r, {}}}", once(1)))).accepted();
    assert_eq!(statuses(&mut client, &Request::get("/"), 2), [200, 429]);
    envoy.assert_healthy();
}

#[test]
fn without_one_every_request_fails_until_a_good_policy_comes() {
    let envoy = Envoy::builder()
        .listener(
            Listener::inbound("in")
                .filter(Filter::weir_without_default())
                .route(Route::direct("/", 200)),
        )
        .bad_first_policy(BAD)
        .start();
    let mut client = envoy.client("in");

    assert_eq!(client.get("/").status, 500, "what the documents warn of");
    envoy.put_policy(&shop(&format!("{{id: r, {}}}", once(1)))).accepted();
    assert_eq!(statuses(&mut client, &Request::get("/"), 2), [200, 429]);
    envoy.assert_healthy();
}
