//! A route that turns the filter off.

use crate::common::{once, shop, statuses};
use weir_integration_tests::{Envoy, Filter, Listener, Request, Route};

#[test]
fn a_route_can_turn_the_filter_off() {
    let envoy = Envoy::builder()
        .listener(
            Listener::inbound("in")
                .filter(Filter::weir())
                .route(Route::direct("/open", 200).without_filter())
                .route(Route::direct("/", 200)),
        )
        .policy(&shop(&format!("{{id: r, {}}}", once(1))))
        .start();
    let mut client = envoy.client("in");

    assert_eq!(statuses(&mut client, &Request::get("/open"), 3), [200; 3]);
    assert_eq!(statuses(&mut client, &Request::get("/"), 2), [200, 429]);
    assert_eq!(statuses(&mut client, &Request::get("/open"), 3), [200; 3]);
    envoy.await_metric("shop", "r", "admitted", 1);
    envoy.assert_healthy();
}
