//! An engine of each kind, and an Envoy that asks it.

use weir_integration_tests::{
    Cluster, Envoy, Filter, Keeps, Listener, Redis, Request, Rls, Route, Upstream,
};

/// Runs `test` over each kind of engine, with this limit in each hour.
pub fn each_engine(limit: u32, test: impl Fn(Keeps, &Rls)) {
    let redis = Redis::start();
    for keeps in [Keeps::Limitador, Keeps::LimitadorWithHeaders, Keeps::Ratelimit(redis.address)] {
        println!("{keeps:?}");
        let rls = Rls::start(keeps, limit, 3600);
        test(keeps, &rls);
    }
}

pub fn start(workers: u32, rls: &Rls, upstream: &Upstream, policy: &str) -> Envoy {
    let listener = Listener::inbound("in").filter(Filter::weir()).route(Route::prefix("/", "echo"));
    Envoy::builder()
        .workers(workers)
        .listener(listener)
        .cluster(Cluster::h1("echo", upstream.address))
        .cluster(Cluster::h2("engine", rls.address))
        .policy(policy)
        .start()
}

/// One rule by `x-user`, with these fields of `mesh` and of the rule.
pub fn shop(mesh: &str, rule: &str) -> String {
    format!(
        "{{name: shop, rate_limit: {{mesh: {{cluster: engine, domain: shop, {mesh}}}, rules: [\
         {{id: r, scope: MESH, key: [{{header: x-user}}], max_tokens: 1000, tokens_per_fill: 1000, \
         fill_interval: 1s, {rule}}}]}}}}"
    )
}

pub fn of(user: &str) -> Request {
    Request::get("/").header("x-user", user)
}

/// How many requests of a rule were decided at this step.
pub fn step(envoy: &Envoy, step: &str) -> u64 {
    envoy.metric_with(&[&format!("step=.={step};"), "weir_rate_limit_mesh_requests_total"])
}

/// Calls with this result.
pub fn calls(envoy: &Envoy, result: &str) -> u64 {
    envoy.metric_with(&[&format!("result=.={result};"), "weir_rate_limit_mesh_calls_total"])
}
