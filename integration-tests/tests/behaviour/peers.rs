//! The peer's certificate as a key and in a match, over mutual TLS between two listeners.

use crate::common::{once, shop, statuses};
use weir_integration_tests::pki::Authority;
use weir_integration_tests::{Cluster, Envoy, Filter, Listener, Request, Route};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const SEARCH: &str = "spiffe://cluster.local/ns/shop/sa/search";

/// Two plain listeners, each the outbound side of a workload with an identity of its own, and the
/// inbound side that both call.
fn mesh(rules: &str) -> Envoy {
    let builder = Envoy::builder();
    let authority = Authority::new(builder.directory());
    let server = authority.issue("server", "spiffe://cluster.local/ns/shop/sa/orders");
    let (cart, search) = (authority.issue("cart", CART), authority.issue("search", SEARCH));
    builder
        .cluster(Cluster::listener("as-cart", "orders").tls(&authority, &cart))
        .cluster(Cluster::listener("as-search", "orders").tls(&authority, &search))
        .listener(Listener::outbound("cart").route(Route::prefix("/", "as-cart")))
        .listener(Listener::outbound("search").route(Route::prefix("/", "as-search")))
        .listener(
            Listener::inbound("orders")
                .internal()
                .mutual_tls(&authority, &server)
                .filter(Filter::weir())
                .route(Route::direct("/", 200)),
        )
        .policy(&shop(rules))
        .start()
}

#[test]
fn each_peer_has_a_bucket() {
    let envoy = mesh(&format!("{{id: r, key: [{{peer_principal: true}}], {}}}", once(1)));
    let request = Request::get("/");

    assert_eq!(statuses(&mut envoy.client("cart"), &request, 2), [200, 429]);
    assert_eq!(statuses(&mut envoy.client("search"), &request, 2), [200, 429]);
    envoy.assert_healthy();
}

#[test]
fn a_rule_can_mean_one_peer() {
    let envoy =
        mesh(&format!("{{id: r, match: {{peer_principal: {{suffix: /sa/cart}}}}, {}}}", once(1)));
    let request = Request::get("/");

    assert_eq!(statuses(&mut envoy.client("search"), &request, 3), [200, 200, 200]);
    assert_eq!(statuses(&mut envoy.client("cart"), &request, 2), [200, 429]);
    envoy.assert_healthy();
}
