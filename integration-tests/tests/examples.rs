//! The policies in `envoy-configs/policies/` are ones that Envoy takes, and do what their comments
//! say.

use weir_engine::color::hash::bucket;
use weir_integration_tests::clock::from_now;
use weir_integration_tests::http::grpc;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{
    Cluster, Collector, Envoy, Filter, Listener, Request, Route, Script, Scripted, Upstream, paths,
    wait_until,
};

const TRIED_HERE: [&str; 15] = [
    "ab-groups",
    "blue-green",
    "breaker",
    "canary",
    "edge",
    "gray-city",
    "gray-staff",
    "grpc",
    "per-user",
    "plans",
    "service",
    "shadow-first",
    "trace",
    "trace-edge",
    "weekend-ramp",
];
/// `cargo xtask demo` is its test.
const THE_DEMO: &str = "demo";

/// `tests/operations/sharing.rs` tries it, with the set-up that it is part of.
const WITH_AN_ENGINE: &str = "mesh";

fn text(name: &str) -> String {
    let path = paths::root().join(format!("envoy-configs/policies/{name}.yaml"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An Envoy with the example; the client's address is what `x-forwarded-for` says.
fn start(name: &str) -> Envoy {
    let listener = Listener::inbound("in")
        .trust_forwarded_for(1)
        .filter(Filter::weir())
        .route(Route::direct("/", 200));
    Envoy::builder().listener(listener).policy(&text(name)).start()
}

fn statuses(envoy: &Envoy, request: &Request, times: usize) -> Vec<u16> {
    let mut client = envoy.client("in");
    (0..times).map(|_| client.send(request).status).collect()
}

#[test]
fn every_example_is_tried() {
    let folder = paths::root().join("envoy-configs/policies");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("the examples are part of the repository")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.retain(|name| name != THE_DEMO && name != WITH_AN_ENGINE);
    names.sort();
    assert_eq!(names, TRIED_HERE);
}

#[test]
fn demo() {
    let envoy = start(THE_DEMO);
    assert_eq!(statuses(&envoy, &Request::get("/shop"), 2), [200; 2]);
    envoy.assert_healthy();
}

#[test]
fn plans_differ_by_customer() {
    let envoy = start("plans");
    let admitted = |customer: &str| {
        let request = Request::get("/api/x").header("x-customer", customer);
        statuses(&envoy, &request, 50).into_iter().filter(|status| *status == 200).count()
    };
    // Some tokens come back meanwhile.
    for (customer, least, most) in
        [("carl", 10, 12), ("acme", 50, 50), ("trial-7", 3, 4), ("billing", 50, 50)]
    {
        let count = admitted(customer);
        assert!((least..=most).contains(&count), "{customer}: {count}");
    }
    assert_eq!(statuses(&envoy, &Request::get("/api/x"), 1), [400]);
    envoy.assert_healthy();
}

#[test]
fn plans_charge_what_an_answer_took() {
    let upstream = Upstream::start("service");
    let envoy = Envoy::builder()
        .cluster(Cluster::h1("service", upstream.address))
        .listener(
            Listener::inbound("in").filter(Filter::weir()).route(Route::prefix("/", "service")),
        )
        .policy(&text("plans"))
        .start();
    let dear = Request::get("/api/compute")
        .header("x-customer", "acme")
        .header("x-test-answer-header", "x-compute-units=1000000");
    let mut client = envoy.client("in");
    assert_eq!(client.send(&dear).status, 200);
    let refused = client.send(&dear);
    assert_eq!(refused.header("x-weir-rule").as_deref(), Some("compute"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(wait >= 55, "a minute's worth is owed: {wait}");
    let report = client.send(&Request::get("/api/reports").header("x-customer", "globex"));
    let policy = report.header("ratelimit-policy");
    assert!(policy.is_some_and(|policy| policy.contains("\"reports\";q=1000;w=86400")));
    let export = || {
        let mut connection = envoy.h1("in");
        let slow = "GET /api/exports HTTP/1.1\r\nhost: a\r\nx-customer: globex\r\n\
                    x-test-delay-ms: 2000\r\n\r\n";
        connection.write(slow.as_bytes()).expect("Envoy reads");
        connection
    };
    let (_first, _second) = (export(), export());
    wait_until("both are on their way", DEADLINE, || upstream.count("/api/exports") == 2);
    let third = client.send(&Request::get("/api/exports").header("x-customer", "globex"));
    assert_eq!(third.header("x-weir-reason").as_deref(), Some("too_many_in_flight"));
    envoy.assert_healthy();
}

#[test]
fn breaker_answers_for_the_method_that_fails() {
    let upstream = Scripted::start(Script::Status(500, vec![]));
    let listener =
        Listener::outbound("out").filter(Filter::weir()).route(Route::prefix("/", "orders"));
    let envoy = Envoy::builder()
        .module(paths::module("circuit_breaker"))
        .cluster(Cluster::h1("orders", upstream.address))
        .listener(listener)
        .policy(&text("breaker"))
        .start();
    let mut client = envoy.client("out");
    for _ in 0..20 {
        assert_eq!(client.get("/orders/1").status, 500);
    }
    let answer = client.get("/orders/1");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-weir-degraded").as_deref(), Some("orders"));
    assert_eq!(client.send(&Request::new("POST", "/orders")).status, 500);
    assert_eq!(client.get("/carts").status, 500);
    envoy.assert_healthy();
}

#[test]
fn trace_translates_restores_and_exports() {
    let (echo, collector) = (Upstream::start("echo"), Collector::start());
    let listener =
        |listener: Listener| listener.filter(Filter::weir()).route(Route::prefix("/", "echo"));
    let envoy = Envoy::builder()
        .module(paths::module("trace_context"))
        .cluster(Cluster::h1("echo", echo.address))
        .cluster(Cluster::h2("otel-collector", collector.grpc))
        .listener(listener(Listener::inbound("in")))
        .listener(listener(Listener::outbound("out")))
        .policy(&text("trace"))
        .start();
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let came = Request::get("/").header("b3", format!("{trace}-{span}-1"));
    let into = envoy.client("in").send(&came);
    assert_eq!(into.header("x-trace-id").as_deref(), Some(trace));
    assert_eq!(into.echoed("b3"), None);
    assert_eq!(into.echoed("x-weir-deadline-ms").as_deref(), Some("3000"));
    // The application forwards the id alone.
    let id = into.echoed("x-request-id").expect("an id was minted");
    let out = envoy.client("out").send(&Request::get("/").header("x-request-id", id));
    assert_eq!(
        out.echoed("traceparent").map(|value| value[3..35].to_owned()).as_deref(),
        Some(trace)
    );
    weir_integration_tests::wait_until("two spans", weir_integration_tests::wait::DEADLINE, || {
        collector.spans().iter().filter(|span| span.trace_id() == trace).count() == 2
    });
    envoy.assert_healthy();
}

#[test]
fn trace_edge_takes_the_trace_and_not_the_wishes() {
    let echo = Upstream::start("echo");
    let listener = Listener::new("in")
        .trust_forwarded_for(1)
        .filter(Filter::weir())
        .route(Route::prefix("/", "echo"));
    let envoy = Envoy::builder()
        .module(paths::module("trace_context"))
        .cluster(Cluster::h1("echo", echo.address))
        .listener(listener)
        .policy(&text("trace-edge"))
        .start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = |address: &str| {
        let request = Request::get("/")
            .header("x-forwarded-for", address)
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
            .header("baggage", "page=home,tenant=other")
            .header("x-weir-deadline-ms", "60000");
        envoy.client("in").send(&request)
    };
    let stranger = ask("198.51.100.7");
    assert_eq!(stranger.header("x-trace-id").as_deref(), Some(trace));
    assert_eq!(stranger.echoed("baggage").as_deref(), Some("page=home"));
    assert_eq!(stranger.echoed("x-weir-deadline-ms").as_deref(), Some("10000"));
    let partner = ask("192.0.2.7");
    assert!(partner.echoed("traceparent").unwrap().ends_with("-01"), "its decision holds");
    assert_eq!(partner.echoed("x-weir-deadline-ms").as_deref(), Some("60000"));
    envoy.assert_healthy();
}

#[test]
fn service_has_a_smaller_limit_for_reports() {
    let envoy = start("service");
    let report = Request::new("POST", "/reports/sales");
    assert_eq!(statuses(&envoy, &report, 6), [200, 200, 200, 200, 200, 503]);
    let refused = envoy.client("in").send(&report);
    assert_eq!(refused.header("x-weir-rule").as_deref(), Some("reports"));
    assert_eq!(refused.header("x-limited-by").as_deref(), Some("reports"));
    assert_eq!(statuses(&envoy, &Request::get("/orders"), 5), [200; 5]);
    envoy.assert_healthy();
}

#[test]
fn per_user_quota_is_told_on_every_response() {
    let envoy = start("per-user");
    let mut client = envoy.client("in");
    let first = client.send(&Request::get("/api/x").header("x-user-id", "ann"));
    let policy = first.header("ratelimit-policy");
    assert_eq!(policy.as_deref(), Some("\"user-quota\";q=100;w=60"));
    let limit = first.header("ratelimit").expect("on every response");
    assert!(limit.starts_with("\"user-quota\";r=99;"), "{limit}");
    // Without the header: one bucket for all, another than ann's.
    let nobody = client.get("/api/x").header("ratelimit").expect("on every response");
    assert!(nobody.starts_with("\"user-quota\";r=99;"), "{nobody}");
    envoy.assert_healthy();
}

#[test]
fn edge_limits_logins_by_address() {
    let envoy = start("edge");
    let login = |address| Request::new("POST", "/login").header("x-forwarded-for", address);
    assert_eq!(statuses(&envoy, &login("192.0.2.1"), 6), [200, 200, 200, 200, 200, 429]);
    assert_eq!(statuses(&envoy, &login("192.0.2.2"), 1), [200]);
    // The same subscriber from another address of its network.
    assert_eq!(statuses(&envoy, &login("2001:db8::1"), 5), [200; 5]);
    assert_eq!(statuses(&envoy, &login("2001:db8::2"), 1), [429]);
    envoy.assert_healthy();
}

#[test]
fn grpc_methods_have_limits() {
    let upstream = Upstream::start("inventory");
    let listener =
        Listener::inbound("in").filter(Filter::weir()).route(Route::prefix("/", "inventory"));
    let envoy = Envoy::builder()
        .listener(listener)
        .cluster(Cluster::h2("inventory", upstream.address))
        .policy(&text("grpc"))
        .start();
    let mut connection = envoy.h2("in");
    let mut search = || grpc::call(&mut connection, "/shop.v1.Inventory/Search", &[]);
    // The bucket refills while it is spent.
    let refused = (0..50).map(|_| search()).find(|reply| reply.status != Some(0));
    let refused = refused.expect("50 calls at once are more than 10 and 5 a second");
    assert_eq!((refused.status, refused.trailers_only), (Some(8), true));
    assert_eq!(refused.header("x-weir-rule").as_deref(), Some("search"));
    assert!(refused.header("grpc-retry-pushback-ms").is_some());
    let other = grpc::call(&mut connection, "/shop.v1.Inventory/Reserve", &[]);
    assert_eq!(other.status, Some(0));
    envoy.assert_healthy();
}

#[test]
fn shadow_refuses_nobody_and_counts() {
    let envoy = start("shadow-first");
    let request = Request::get("/checkout").header("x-user-id", "ann");
    assert_eq!(statuses(&envoy, &request, 30), [200; 30]);
    weir_integration_tests::wait_until(
        "requests past the limit are counted",
        weir_integration_tests::wait::DEADLINE,
        || envoy.metric("checkout", "per-user", "shadow_limited") > 0,
    );
    envoy.assert_healthy();
}

/// Envoy with an example of coloring before an upstream in a version for each of these colors.
struct Colored {
    envoy: Envoy,
    _versions: Vec<Upstream>,
}

impl Colored {
    fn start(policy: &str, colors: &[&str]) -> Self {
        let versions: Vec<_> = colors.iter().map(|color| Upstream::start(color)).collect();
        let mut listener = Listener::inbound("in").trust_forwarded_for(1).filter(Filter::weir());
        let mut builder = Envoy::builder().module(paths::module("traffic_color")).policy(policy);
        for version in &versions {
            builder = builder.cluster(Cluster::h1(&version.name, version.address));
            let route = Route::prefix("/", &version.name);
            listener = listener.route(route.when_header("x-weir-color", &version.name));
        }
        Self { envoy: builder.listener(listener).start(), _versions: versions }
    }

    /// The version that answers.
    fn version(&self, request: &Request) -> String {
        let answer = self.envoy.client("in").send(request);
        let seen = answer.json();
        seen["upstream"].as_str().expect("an upstream").to_owned()
    }
}

fn by(headers: &[(&str, &str)]) -> Request {
    let request = Request::get("/checkout");
    headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

#[test]
fn gray_staff_believes_the_header_from_the_office_alone() {
    let shop = Colored::start(&text("gray-staff"), &["base", "gray"]);
    let office = ("x-forwarded-for", "192.0.2.7");
    assert_eq!(shop.version(&by(&[("x-staff", "yes"), office])), "gray");
    assert_eq!(shop.version(&by(&[office])), "base");
    let home = ("x-forwarded-for", "198.51.100.7");
    assert_eq!(shop.version(&by(&[("x-staff", "yes"), home])), "base");
    assert_eq!(shop.version(&by(&[("x-weir-color", "gray"), home])), "base");
    let answer = shop.envoy.client("in").send(&by(&[("x-staff", "yes"), office]));
    assert_eq!(answer.header("x-color").as_deref(), Some("gray"));
    shop.envoy.assert_healthy();
}

#[test]
fn gray_city_has_one_citys_older_users_and_all_new_ones() {
    let shop = Colored::start(&text("gray-city"), &["base", "gray"]);
    for (headers, version) in [
        (vec![("x-geo", "beijing"), ("x-age", "26")], "gray"),
        (vec![("x-geo", "beijing"), ("x-age", "25")], "base"),
        (vec![("x-geo", "beijing")], "base"),
        (vec![("x-geo", "paris"), ("x-age", "26")], "base"),
        (vec![("x-uid", "999999")], "base"),
        (vec![("x-uid", "1000000")], "gray"),
        (vec![("x-uid", "none")], "base"),
    ] {
        assert_eq!(shop.version(&by(&headers)), version, "{headers:?}");
    }
    shop.envoy.assert_healthy();
}

#[test]
fn canary_has_five_percent_and_gives_keys() {
    let shop = Colored::start(&text("canary"), &["base", "canary"]);
    let user = |n: &u32| format!("user-{n}");
    let is_canary = |n: &u32| bucket("checkout-canary", user(n).as_bytes()) < 500;
    let chosen: Vec<_> = (0..1000).filter(is_canary).collect();
    assert!((30..70).contains(&chosen.len()), "{}", chosen.len());
    for n in chosen.iter().take(10).copied().chain((0..20).filter(|n| !is_canary(n))) {
        let version = if is_canary(&n) { "canary" } else { "base" };
        assert_eq!(shop.version(&by(&[("x-user-id", &user(&n))])), version, "{n}");
    }
    let answer = shop.envoy.client("in").send(&by(&[]));
    let cookie = answer.header("set-cookie").expect("a key for those who are not logged in");
    assert!(cookie.starts_with("shop-key=") && cookie.contains("Max-Age=604800"), "{cookie}");
    assert!(answer.header("x-color").is_some() && answer.header("vary").is_some(), "{answer:?}");
    // Another path is not for the canary, and gets no key.
    let other = shop.envoy.client("in").get("/");
    assert_eq!(other.header("set-cookie"), None);
    shop.envoy.assert_healthy();
}

#[test]
fn weekend_ramp_follows_the_clock() {
    let ramp = |start: i64, to: i64, end: i64| {
        text("weekend-ramp")
            .replace("2026-11-28T00:00:00+08:00", &from_now(start))
            .replace("2026-11-29T20:00:00+08:00", &from_now(to))
            .replace("2026-11-30T02:00:00+08:00", &from_now(end))
    };
    let shop = Colored::start(&text("weekend-ramp"), &["base", "weekend"]);
    let share = |policy: &str| {
        shop.envoy.put_policy(policy).accepted();
        let mut client = shop.envoy.client("in");
        let mut is_weekend = |n: &u32| {
            let seen = client.send(&by(&[("x-user-id", &n.to_string())])).json();
            seen["upstream"] == "weekend"
        };
        (0..400).filter(|n| is_weekend(n)).count()
    };
    assert_eq!(share(&ramp(3600, 7200, 9000)), 0, "before Saturday");
    let half = share(&ramp(-36_000, 36_000, 90_000));
    assert!((160..240).contains(&half), "half way: {half} of 400");
    assert_eq!(share(&ramp(-7200, -3600, 3600)), 400, "on Sunday evening");
    assert_eq!(share(&ramp(-9000, -7200, -60)), 0, "on Monday");
    shop.envoy.assert_healthy();
}

#[test]
fn blue_green_changes_with_one_edit() {
    let shop = Colored::start(&text("blue-green"), &["blue", "green"]);
    let (plain, preview) = (by(&[]), by(&[("x-preview", "green")]));
    assert_eq!((shop.version(&plain), shop.version(&preview)), ("blue".into(), "green".into()));
    // Search has no green yet; what it calls sees that the request is green all the same.
    let search = preview.clone().host("search.shop.svc");
    let answer = shop.envoy.client("in").send(&search);
    assert_eq!(answer.json()["upstream"], "blue");
    let baggage = answer.echoed("baggage").expect("what it remembers");
    assert_eq!(baggage, "x-color=green");
    // As its call comes to the next hop.
    let next = by(&[("x-weir-color", "blue"), ("baggage", &baggage)]);
    assert_eq!(shop.version(&next), "green");
    let green = text("blue-green").replace("default: blue", "default: green");
    shop.envoy.put_policy(&green).accepted();
    assert_eq!(shop.version(&plain), "green");
    assert_eq!(shop.version(&by(&[("x-preview", "blue")])), "blue");
    shop.envoy.assert_healthy();
}

#[test]
fn ab_groups_have_limits_and_breakers_of_their_own() {
    let policy = text("ab-groups");
    let upstream = Scripted::start(Script::Ok);
    let listener = ["traffic_color", "rate_limit", "circuit_breaker"]
        .iter()
        .fold(Listener::new("in"), |listener, name| listener.filter(Filter::module(name, &policy)))
        .route(Route::prefix("/", "shop"));
    let envoy =
        Envoy::builder().cluster(Cluster::h1("shop", upstream.address)).listener(listener).start();
    let is_a = |user: &u32| bucket("ab", user.to_string().as_bytes()) < 7000;
    let user_a = (0..).find(is_a).expect("seven of ten").to_string();
    let user_b = (0..).find(|user| !is_a(user)).expect("three of ten").to_string();
    let (a, b) = (by(&[("x-user-id", &user_a)]), by(&[("x-user-id", &user_b)]));
    let mut client = envoy.client("in");
    let refused = (0..1000).map(|_| client.send(&a)).find(|answer| answer.status != 200);
    assert_eq!(refused.expect("more than 100 at once").status, 429);
    let degraded = (0..1000)
        .map(|_| client.send(&b))
        .find(|answer| answer.header("x-weir-degraded").is_some());
    assert_eq!(degraded.expect("more than 150 at once").text(), "[]");
    // Both have answered well so far; now all that A sends fails.
    upstream.play(Script::Status(500, vec![]));
    wait_until("the breaker of A opens", DEADLINE, || {
        client.send(&a).header("x-weir-reason").as_deref() == Some("circuit_open")
    });
    upstream.play(Script::Ok);
    let answer = client.send(&b);
    assert_eq!(answer.status, 200, "the breaker of B is closed");
    envoy.assert_healthy();
}
