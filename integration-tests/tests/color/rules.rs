//! Who gets which color: truth tables through a real Envoy.

use crate::rig::{Rig, color_of, with};
use serde_json::json;
use weir_integration_tests::http::grpc;
use weir_integration_tests::wait::DEADLINE;
use weir_integration_tests::{Request, jwt, wait_until};

fn table(rig: &Rig, rows: &[(&[(&str, &str)], &str)]) {
    for (headers, color) in rows {
        assert_eq!(rig.color(headers), *color, "{headers:?}");
        assert_eq!(rig.explained(headers), *color, "{headers:?}, as explained");
    }
}

#[test]
fn a_user_number_from_a_million_on() {
    let rig = Rig::section(
        "rules: [{id: uid, match: {headers: {x-uid: {number: {ge: 1000000}}}}, color: gray}]",
    );
    table(
        &rig,
        &[
            (&[("x-uid", "999999")], "base"),
            (&[("x-uid", "1000000")], "gray"),
            (&[("x-uid", "1000000.5")], "gray"),
            (&[("x-uid", "ten million")], "base"),
            (&[("x-uid", "1e7")], "base"),
            (&[("x-uid", "")], "base"),
            (&[], "base"),
        ],
    );
    rig.await_metric(&["not_a_number_total"], 3);
    rig.await_metric(&["requests_total", "rule=.=uid", "outcome=.=gray"], 2);
}

#[test]
fn one_city_and_an_age_above_25() {
    let rule = |age: u32| {
        format!(
            "rules: [{{id: city, match: {{headers: {{x-geo: {{exact: beijing}}, \
             x-age: {{number: {{gt: {age}}}}}}}}}, color: gray}}]"
        )
    };
    let rig = Rig::section(&rule(25));
    table(
        &rig,
        &[
            (&[("x-geo", "beijing"), ("x-age", "26")], "gray"),
            (&[("x-geo", "beijing"), ("x-age", "25")], "base"),
            (&[("x-geo", "beijing"), ("x-age", "old")], "base"),
            (&[("x-geo", "beijing")], "base"),
            (&[("x-geo", "Beijing"), ("x-age", "26")], "base"),
            (&[("x-geo", "paris"), ("x-age", "26")], "base"),
            (&[("x-age", "26")], "base"),
        ],
    );
    // The text of the rule is edited live.
    rig.edit("", &rule(30));
    table(
        &rig,
        &[
            (&[("x-geo", "beijing"), ("x-age", "30")], "base"),
            (&[("x-geo", "beijing"), ("x-age", "31")], "gray"),
        ],
    );
}

#[test]
fn every_source_and_operator() {
    let rules = "rules: [\
        {id: staff, match: {headers: {x-staff: {in: {values: [a, b]}}}}, color: gray}, \
        {id: cookie, match: {cookies: {beta: {prefix: 'on'}}}, color: gray}, \
        {id: query, match: {query: {v: {suffix: '-next'}}}, color: gray}, \
        {id: template, match: {path: {template: '/users/{id}/new'}}, color: gray}, \
        {id: regex, match: {path: {regex: '/v[2-9]/.*'}}, color: gray}, \
        {id: put, match: {methods: [PUT], path: {prefix: /items}}, color: blue}, \
        {id: net, match: {source_addresses: [10.1.0.0/16]}, color: gray}, \
        {id: host, match: {authority: {exact: beta.test}}, color: blue}, \
        {id: bag, match: {baggage: {tenant: {contains: lab}}}, color: gray}, \
        {id: claim, match: {jwt_claims: {weir_jwt.plan: {exact: beta}}}, color: gray}, \
        {id: tree, match: {all: [{headers: {x-a: {present: true}}}, {any: [{headers: {x-b: {exact: '1'}}}, \
         {headers: {x-c: {exact: '1'}}}]}], not: {headers: {x-d: {present: true}}}}, color: gray}]";
    let rig = Rig::section(rules);
    table(
        &rig,
        &[
            (&[("x-staff", "b")], "gray"),
            (&[("x-staff", "c")], "base"),
            (&[("cookie", "a=b; beta=on-7")], "gray"),
            (&[("cookie", "a=b; beta=off")], "base"),
            (&[(":path", "/?v=x-next")], "gray"),
            (&[(":path", "/?v=next")], "base"),
            (&[(":path", "/users/7/new")], "gray"),
            (&[(":path", "/users/7/8/new")], "base"),
            (&[(":path", "/v2/a")], "gray"),
            (&[(":path", "/v1/a")], "base"),
            (&[(":path", "/items/1"), (":method", "PUT")], "blue"),
            (&[(":path", "/items/1")], "base"),
            (&[("x-forwarded-for", "10.1.2.3")], "gray"),
            (&[("x-forwarded-for", "10.2.2.3")], "base"),
            (&[(":authority", "Beta.test:80")], "blue"),
            (&[("baggage", "tenant=a-lab-b;p=1")], "gray"),
            (&[("baggage", "tenants=a-lab-b")], "base"),
            (&[("x-a", ""), ("x-c", "1")], "gray"),
            (&[("x-a", ""), ("x-c", "2")], "base"),
            (&[("x-a", ""), ("x-b", "1"), ("x-d", "")], "base"),
        ],
    );
    let token =
        |plan: &str| Request::get("/").header("authorization", jwt::bearer(json!({"plan": plan})));
    assert_eq!(color_of(&rig.send("in", &token("beta"))), "gray");
    assert_eq!(color_of(&rig.send("in", &token("free"))), "base");
    // Two rules mean it: the first decides.
    assert_eq!(rig.color(&[("x-staff", "a"), (":authority", "beta.test")]), "gray");
    rig.envoy.assert_healthy();
}

#[test]
fn the_access_log_and_the_response_say_so() {
    let rig = Rig::section(
        "rules: [{id: staff, match: {headers: {x-staff: {present: true}}}, color: gray}], \
         response: {echo_header: x-color, vary: true}",
    );
    let response = rig.send("in", &with(&[("x-staff", "1"), (":path", "/said")]));
    assert_eq!(response.header("x-color").as_deref(), Some("gray"));
    assert_eq!(response.header("vary").as_deref(), Some("x-staff"));
    assert!(rig.await_access("/said").ends_with("color=gray rule=staff"));
    let response = rig.send("in", &with(&[(":path", "/other")]));
    assert_eq!(response.header("x-color").as_deref(), Some("base"));
}

#[test]
fn order_default_and_modes() {
    let rule = |id: &str, more: &str| {
        format!("{{id: {id}, match: {{headers: {{x-{id}: {{present: true}}}}}}, {more}}}")
    };
    let rules = |first: &str, second: &str| format!("default: blue, rules: [{first}, {second}]");
    let (a, b) = (rule("a", "color: gray"), rule("b", "color: base"));
    let rig = Rig::section(&rules(&a, &b));
    let both = [("x-a", ""), ("x-b", "")];
    table(&rig, &[(&[], "blue"), (&both[..1], "gray"), (&both[1..], "base"), (&both, "gray")]);
    rig.edit("", &rules(&b, &a));
    table(&rig, &[(&both, "base")]);
    // SHADOW counts what it would give, OFF does not even that.
    let shadow = rule("a", "mode: SHADOW, color: gray");
    let off = rule("b", "mode: 'OFF', color: base");
    let by_rule = |id: &str| rig.metric(&["requests_total", &format!("rule=.={id};")]);
    wait_until("what was enforced is counted", DEADLINE, || (by_rule("a"), by_rule("b")) == (2, 2));
    rig.edit("", &rules(&shadow, &off));
    table(&rig, &[(&both, "blue"), (&both, "blue")]);
    wait_until("the shadow is counted", DEADLINE, || by_rule("a") == 4);
    assert_eq!(by_rule("b"), 2);
    rig.envoy.assert_healthy();
}

#[test]
fn grpc_calls_by_service_and_method() {
    let rig = Rig::section(
        "rules: [{id: get, match: {grpc: {service: shop.Orders, method: Get}}, color: gray}, \
         {id: orders, match: {grpc: {service: shop.Orders}}, color: blue}]",
    );
    let mut connection = rig.h2();
    for (path, version) in
        [("/shop.Orders/Get", "gray"), ("/shop.Orders/List", "blue"), ("/shop.Carts/Get", "base")]
    {
        assert_eq!(grpc::call(&mut connection, path, &[]).status, Some(0));
        assert_eq!(rig.versions[version].count(path), 1, "{path}");
    }
    // What is no gRPC call is none, whatever its path.
    assert_eq!(rig.color(&[(":path", "/shop.Orders/Get")]), "base");
    rig.envoy.assert_healthy();
}

/// Bounds from both sides, equality, and what is no number.
#[test]
fn numbers() {
    let rule = |id: &str, number: &str, color: &str| {
        format!(
            "{{id: {id}, match: {{headers: {{x-n: {{number: {{{number}}}}}}}}}, color: {color}}}"
        )
    };
    let rules = [
        rule("range", "ge: 10, lt: 20", "gray"),
        rule("one", "eq: 30", "blue"),
        rule("low", "le: -1.5", "gray"),
    ];
    let rig = Rig::section(&format!("rules: [{}]", rules.join(", ")));
    for (number, color) in [
        ("10", "gray"),
        ("19.999", "gray"),
        ("20", "base"),
        ("9", "base"),
        ("30", "blue"),
        ("30.0", "blue"),
        ("30.5", "base"),
        ("-1.5", "gray"),
        ("-1", "base"),
        ("NaN", "base"),
        ("inf", "base"),
        ("0x10", "base"),
        ("10 20", "base"),
        ("\u{661}\u{662}", "base"),
    ] {
        table(&rig, &[(&[("x-n", number)], color)]);
    }
    rig.envoy.assert_healthy();
}
