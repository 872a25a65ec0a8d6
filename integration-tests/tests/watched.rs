//! `weir status` and `weir top`: what they say of real Envoys is what those do.

use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use weir_cli::Verdict;
use weir_integration_tests::command::weir;
use weir_integration_tests::wait::{DEADLINE, wait_until};
use weir_integration_tests::{
    Cluster, Envoy, Filter, Listener, Load, Request, Route, Script, Scripted, paths, policy,
};

const SHOP: &str = "
name: shop
rate_limit: {rules: [{id: all, max_tokens: 3, fill_interval: 3600s}]}
";

fn envoy(policy: &str) -> Envoy {
    Envoy::builder()
        .listener(Listener::inbound("in").filter(Filter::weir()).route(Route::direct("/", 200)))
        .policy(policy)
        .start()
}

fn url(envoy: &Envoy) -> String {
    format!("http://{}", envoy.admin_address())
}

fn status(admins: &[&str]) -> (Result<Verdict, String>, String) {
    weir(["weir", "status", "--admin"].iter().chain(admins))
}

/// The same for programs.
fn document(admin: &str) -> Value {
    let (verdict, said) = weir(["weir", "status", "--format", "json", "--admin", admin]);
    assert!(verdict.is_ok(), "{verdict:?}");
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"))
}

#[test]
fn what_is_in_force_and_what_was_refused() {
    let envoy = envoy(SHOP);
    let admin = url(&envoy);
    let mut client = envoy.client("in");
    let statuses = [(); 5].map(|()| client.get("/").status);
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    envoy.await_metric("shop", "all", "limited", 2);

    let (verdict, said) = status(&[&admin]);
    assert_eq!(verdict, Ok(Verdict::Good), "{said}");
    let is_row = |line: &str| {
        line.starts_with("rate_limit  all ") && line.ends_with(" admitted 3, limited 2")
    };
    assert!(said.lines().any(is_row), "{said}");
    assert!(said.contains("  in force\n") && said.ends_with("\nwell\n"), "{said}");
    let gauge = envoy.metric_with(&["policy=.=shop", "rate_limit_policy_version"]);
    let before = document(&admin);
    let module = &before["envoys"][0]["modules"][0];
    assert_eq!((&module["policy"], &module["version"]), (&json!("shop"), &json!(gauge)));

    envoy.put_policy(&SHOP.replace("3600s", "-1s")).refused();
    await_reloads(&envoy, "refused");
    let (verdict, said) = status(&[&admin]);
    assert_eq!(verdict, Ok(Verdict::Bad), "{said}");
    assert!(said.contains("not well: weir.rate_limit: refused, the one before serves: "), "{said}");
    assert!(said.contains("policy.rate_limit.rules[0].fill_interval: \"-1s\" must be"), "{said}");
    let after = document(&admin);
    let (was, is) = (&before["envoys"][0]["filters"][0], &after["envoys"][0]["filters"][0]);
    assert_eq!((&is["state"], &is["refused"]), (&json!("refused"), &json!(1)));
    assert_eq!(is["resource_version"], was["resource_version"]);

    // The next good one heals it.
    envoy.put_policy(&SHOP.replace("tokens: 3", "tokens: 4")).accepted();
    wait_until("it is well", DEADLINE, || status(&[&admin]).0 == Ok(Verdict::Good));
    envoy.assert_healthy();
}

/// By the module's own count, a tick later.
fn await_reloads(envoy: &Envoy, result: &str) {
    let result = format!("result=.={result}");
    wait_until(&format!("{result} is counted"), DEADLINE, || {
        envoy.metric_with(&[&result, "weir_rate_limit_reloads_total"]) == 1
    });
}

#[test]
fn versions_that_differ_and_envoys_that_are_gone() {
    let (one, other) = (envoy(SHOP), envoy(SHOP));
    let urls = [url(&one), url(&other)];
    let both = [urls[0].as_str(), urls[1].as_str()];
    wait_until("both are well", DEADLINE, || status(&both).0 == Ok(Verdict::Good));

    other.put_policy(&SHOP.replace("tokens: 3", "tokens: 9")).accepted();
    wait_until("the difference shows", DEADLINE, || status(&both).0 == Ok(Verdict::Bad));
    let (_, said) = status(&both);
    assert!(said.contains("not well: rate_limit runs policy \"shop\" in versions "), "{said}");

    drop(other);
    let (verdict, said) = status(&both);
    assert_eq!(verdict, Ok(Verdict::Unable), "{said}");
    assert!(said.contains(&format!("{}  not reachable", both[1])), "{said}");
    assert!(said.contains(&format!("{}  LIVE", both[0])), "{said}");
}

#[test]
fn a_first_policy_that_was_refused() {
    let listener = Listener::inbound("in").filter(Filter::weir_without_default());
    let envoy = Envoy::builder()
        .listener(listener.route(Route::direct("/", 200)))
        .bad_first_policy("{name: shop, nmae: shop}")
        .start();
    assert_eq!(envoy.client("in").get("/").status, 500);
    let (verdict, said) = status(&[&url(&envoy)]);
    assert_eq!(verdict, Ok(Verdict::Bad), "{said}");
    assert!(said.contains("the first policy was refused") && said.contains("`name`"), "{said}");
}

#[test]
fn a_module_that_trapped() {
    let listener = Listener::inbound("in").filter(Filter::weir());
    let envoy = Envoy::builder()
        .module(paths::built("trap_limit.wasm"))
        .on_trap("FAIL_RELOAD")
        .listener(listener.route(Route::direct("/", 200)))
        .policy(SHOP)
        .start();
    let admin = url(&envoy);
    assert_eq!(envoy.client("in").get("/").status, 200);
    let _ = envoy.h1("in").send(&Request::get("/").header("x-test-trap", "1"));
    // The back-off ends with the next request.
    wait_until("the module runs again", DEADLINE, || envoy.client("in").get("/").status != 503);
    wait_until("the failure shows", DEADLINE, || status(&[&admin]).0 == Ok(Verdict::Bad));
    let (_, said) = status(&[&admin]);
    assert!(said.contains("weir.rate_limit: a module failed and was loaded again"), "{said}");
}

#[test]
fn breakers_and_what_runs_nothing() {
    let upstream = Scripted::start(Script::Status(500, vec![]));
    let breaker = "
name: shop
circuit_breaker: {rules: [{id: orders, match: {direction: ANY}, minimum_calls: 1, failure_rate_percent: 50}]}
";
    let listener = Listener::inbound("in").filter(Filter::module("circuit_breaker", breaker));
    let envoy = Envoy::builder()
        .cluster(Cluster::h1("up", upstream.address))
        .listener(listener.route(Route::prefix("/", "up")))
        .start();
    assert_eq!([(); 2].map(|()| envoy.client("in").get("/").status), [500, 503]);
    wait_until("the state is told", DEADLINE, || {
        let rules = document(&url(&envoy))["envoys"][0]["rules"].take();
        let of = |rule: &&Value| rule["filter"] == "circuit_breaker";
        rules
            .as_array()
            .into_iter()
            .flatten()
            .find(of)
            .is_some_and(|rule| rule["state"][0] == "open")
    });

    let bare =
        Envoy::builder().listener(Listener::inbound("in").route(Route::direct("/", 200))).start();
    let (verdict, said) = status(&[&url(&bare)]);
    assert_eq!(verdict, Ok(Verdict::Bad));
    assert!(said.contains("nothing of weir's runs there"), "{said}");
}

/// Names, tags and the choice of statistics as Istio's sidecars have them: no counts of discovery.
#[test]
fn names_as_istio_gives_them() {
    let builder = Envoy::builder();
    let name = "extensions.istio.io/wasmplugin/shop.weir-rate-limit";
    let folder = builder.directory().join("plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("plugin.json");
    let put = |version: &str, policy: &str| {
        let plugin = json!({
            "name": "shop.weir-rate-limit",
            "vm_config": {
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": paths::module("rate_limit")}},
            },
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": policy::to_json(policy),
            },
        });
        let wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
        let resource = json!({
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": name,
            "typed_config": {"@type": wasm, "config": plugin},
        });
        let aside = folder.with_extension("part");
        let text = json!({"version_info": version, "resources": [resource]}).to_string();
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(&aside, &file).unwrap();
    };
    put("1", SHOP);
    let tag = |name: &str| json!({"tag_name": name, "regex": format!("({name}=\\.=(.*?);\\.;)")});
    let tags = ["policy", "rule", "outcome", "result", "from", "to"].map(tag);
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let bootstrap = json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "stats_config": {
            "stats_tags": tags,
            "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "wasm"}, {"prefix": "listener_manager"}]}},
        },
        "static_resources": {"listeners": [{
            "name": "in",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "traffic_direction": "INBOUND",
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
                "@type": manager,
                "stat_prefix": "in",
                "route_config": {"virtual_hosts": [{
                    "name": "v", "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }]},
                "http_filters": [
                    {"name": name, "config_discovery": {
                        "config_source": {
                            "path_config_source": {"path": file, "watched_directory": {"path": folder}},
                            "resource_api_version": "V3",
                            "initial_fetch_timeout": "0s",
                        },
                        "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"],
                    }},
                    {"name": "router", "typed_config":
                        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
                ],
            }}]}],
        }]},
    });
    let envoy = builder.bootstrap(bootstrap).start();
    let admin = url(&envoy);
    wait_until("it is well", DEADLINE, || status(&[&admin]).0 == Ok(Verdict::Good));
    let (_, said) = status(&[&admin]);
    assert!(said.contains(&format!("{name}  1         in force")), "{said}");

    put("2", &SHOP.replace("3600s", "-1s"));
    wait_until("the refusal shows", DEADLINE, || status(&[&admin]).0 == Ok(Verdict::Bad));
    let (_, said) = status(&[&admin]);
    assert!(said.contains("fill_interval: \"-1s\" must be"), "{said}");
}

#[test]
fn top_shows_rates_and_changes() {
    let envoy = envoy(SHOP);
    let admin = url(&envoy);
    await_reloads(&envoy, "accepted");
    let load = Load::new(envoy.address("in"), Request::get("/"));
    let load = load.connections(4).rate(200).lasts(Duration::from_secs(6)).start();
    thread::scope(|scope| {
        let frame =
            scope.spawn(|| weir(["weir", "top", "--once", "--every", "3", "--admin", &admin]));
        thread::sleep(Duration::from_secs(1));
        envoy.put_policy(&SHOP.replace("tokens: 3", "tokens: 9")).accepted();
        let (verdict, said) = frame.join().unwrap();
        assert_eq!(verdict, Ok(Verdict::Good));
        let limited = said.split_once("limited ").map(|(_, rest)| rest).expect(&said);
        let rate = limited.split_once('(').and_then(|(_, rest)| rest.split_once("/s)"));
        let rate: f64 = rate.and_then(|(rate, _)| rate.parse().ok()).expect(&said);
        assert!(rate > 20.0, "of 200 a second: {said}");
        let changes = said.split_once("CHANGES\n").map(|(_, changes)| changes).expect(&said);
        assert!(changes.contains("rate_limit: policy \"shop\" is in version "), "{said}");
        assert!(changes.contains("is in force\n"), "{said}");
    });
    assert_eq!(load.join().unwrap().failed, 0);

    let (verdict, _) =
        weir(["weir", "top", "--once", "--every", "0.01", "--admin", "http://127.0.0.1:1"]);
    assert_eq!(verdict, Ok(Verdict::Unable));
}
