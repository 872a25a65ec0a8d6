//! Set-ups that most tests share.

use weir_integration_tests::{
    Client, Cluster, Envoy, Filter, Listener, Request, Response, Route, Upstream,
};

/// A policy `shop` with these rules, in flow style: `{id: r, …}, {id: s, …}`.
pub fn shop(rules: &str) -> String {
    format!("{{name: shop, rate_limit: {{rules: [{rules}]}}}}")
}

/// A bucket of so many tokens that does not refill while a test runs.
pub fn once(tokens: u32) -> String {
    format!("max_tokens: {tokens}, fill_interval: 3600s")
}

/// A listener whose answer does not depend on any upstream. Client addresses come from
/// `x-forwarded-for`, tokens are verified, and `/named/` is a route with a name.
pub fn listener() -> Listener {
    Listener::inbound("in")
        .trust_forwarded_for(1)
        .filter(Filter::jwt_authn())
        .filter(Filter::weir())
        .route(Route::direct("/named/", 200).named("named-route"))
        .route(Route::direct("/", 200).named("other-route"))
}

/// One worker, [`listener`].
pub fn direct(policy: &str) -> Envoy {
    Envoy::builder().listener(listener()).policy(policy).start()
}

/// One worker in front of an upstream that echoes.
pub fn proxied(policy: &str) -> (Envoy, Upstream) {
    let upstream = Upstream::start("echo");
    let envoy = Envoy::builder()
        .cluster(Cluster::h1("echo", upstream.address))
        .listener(Listener::inbound("in").filter(Filter::weir()).route(Route::prefix("/", "echo")))
        .policy(policy)
        .start();
    (envoy, upstream)
}

/// The statuses of the same request sent so many times.
pub fn statuses(client: &mut Client, request: &Request, times: usize) -> Vec<u16> {
    (0..times).map(|_| client.send(request).status).collect()
}

/// Sends until the limit is met, and gives the refusal.
pub fn refusal(client: &mut Client, request: &Request) -> Response {
    let mut answers = (0..10).map(|_| client.send(request));
    answers.find(|a| a.status >= 400).expect("the limit is met within ten requests")
}

/// A number in a response header.
pub fn number(response: &Response, name: &str) -> u64 {
    let text = response.header(name);
    let text = text.unwrap_or_else(|| panic!("no {name} in {response:?}"));
    text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number"))
}
