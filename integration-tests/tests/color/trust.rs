//! Attempts of clients to color themselves, each of which comes to nothing.

use crate::rig::{COLORS, Rig, color_of, policy, with};
use weir_integration_tests::{Request, Response, explained};

const POLICY: &str = "carry: {in: [HEADER, BAGGAGE]}, \
    trusted: [{source_addresses: [10.9.0.0/16]}, {jwt_claims: {weir_jwt.role: {exact: partner}}}], \
    rules: [{id: beta, shares: [{color: gray, weight: 1}], key: [{header: x-user}], on_missing_key: STICKY_COOKIE}, \
            {id: staff, match: {jwt_claims: {weir_jwt.role: {exact: staff}}}, color: gray}]";

/// What is tried, and how.
fn attacks() -> Vec<(&'static str, Request)> {
    let get = || Request::get("/");
    let one = |name: &str, value: &[u8]| Request::get("/").header(name, value);
    let many = |name: &str, value: &str, count: usize| {
        (0..count).fold(get(), |request, _| request.header(name, value))
    };
    let colors = (0..100).fold(get(), |request, n| request.header("x-weir-color", format!("c{n}")));
    let unsigned = "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoic3RhZmYifQ.";
    let gray_key = "weir-sticky=gray";
    vec![
        ("a color in the header", one("x-weir-color", b"gray")),
        ("in upper case", one("x-weir-color", b"GRAY")),
        ("under another spelling of the name", one("X-Weir-Color", b"gray")),
        ("with blanks", one("x-weir-color", b"  gray  ")),
        ("with a comma", one("x-weir-color", b"gray,base")),
        ("the same twice", many("x-weir-color", "gray", 2)),
        ("a hundred times", many("x-weir-color", "gray", 90)),
        ("base first, then gray", one("x-weir-color", b"base").header("x-weir-color", "gray")),
        ("a hundred colors", colors.clone()),
        ("no color of ours", one("x-weir-color", b"admin")),
        ("an empty one", one("x-weir-color", b"")),
        ("in baggage", one("baggage", b"x-color=gray")),
        ("in baggage among others", one("baggage", b"a=1,x-color=gray;p=1,b=2")),
        ("in baggage on two lines", one("baggage", b"a=1").header("baggage", "x-color=gray")),
        ("in baggage twice", one("baggage", b"x-color=base,x-color=gray")),
        ("in baggage, percent-encoded", one("baggage", b"x-color=%67ray")),
        ("in baggage, its key encoded", one("baggage", b"x%2Dcolor=gray")),
        ("in baggage behind 200 members", {
            let members: Vec<String> = (0..200).map(|n| format!("k{n}=v")).collect();
            one("baggage", format!("{},x-color=gray", members.join(",")).as_bytes())
        }),
        ("in both, alike", one("x-weir-color", b"gray").header("baggage", "x-color=gray")),
        ("in both, each its own", one("x-weir-color", b"gray").header("baggage", "x-color=blue")),
        ("a look-alike letter", one("x-weir-color", "gr\u{0430}y".as_bytes())),
        ("a full-width one", one("x-weir-color", "\u{ff47}ray".as_bytes())),
        ("broken UTF-8", one("x-weir-color", b"gray\xff")),
        ("8 KB of it", one("x-weir-color", "gray".repeat(2048).as_bytes())),
        (
            "50 KB of baggage",
            one("baggage", format!("x-color={}", "gray".repeat(12_000)).as_bytes()),
        ),
        ("a cookie that says it", one("cookie", gray_key.as_bytes())),
        ("8 KB of cookie", one("cookie", format!("weir-sticky={}", "0".repeat(8192)).as_bytes())),
        ("a hundred cookies", many("cookie", gray_key, 80)),
        ("a token without a signature", one("authorization", unsigned.as_bytes())),
        (
            "a trusted address in the header",
            one("x-weir-color", b"gray").header("x-forwarded-for", "10.9.0.1, 198.51.100.7"),
        ),
        (
            "another proxy's word for it",
            one("x-weir-color", b"gray")
                .header("x-real-ip", "10.9.0.1")
                .header("forwarded", "for=10.9.0.1"),
        ),
        (
            "a direct color for Envoy's routes",
            one("x-envoy-original-path", b"/gray").header("x-weir-color", "gray"),
        ),
        ("an underscore in the name", one("x_weir_color", b"gray")),
        ("in baggage under an upper-case name", one("Baggage", b"x-color=gray")),
        ("in baggage with an upper-case key", one("baggage", b"X-Color=gray")),
        ("in baggage with blanks around", one("baggage", b" x-color = gray ")),
        ("in baggage with a property", one("baggage", b"x-color=gray;x-color=gray")),
        ("in baggage as a property of another", one("baggage", b"a=1;x-color=gray")),
        ("in tracestate", one("tracestate", b"x-color=gray,weir=color:gray")),
        ("our cookie with a color for a key", one("cookie", b"weir-sticky=base; weir-sticky=gray")),
        (
            "a key in another's form",
            one("cookie", format!("weir-sticky={}", "F".repeat(32)).as_bytes()),
        ),
        (
            "a trusted address that the proxy did not see",
            one("x-weir-color", b"gray").header("x-envoy-external-address", "10.9.0.1"),
        ),
        (
            "a certificate in a header",
            one("x-weir-color", b"gray")
                .header("x-forwarded-client-cert", "By=spiffe://a;URI=spiffe://mesh/edge"),
        ),
        ("8 KB of baggage in front of it", {
            one("baggage", format!("a={},x-color=gray", "v".repeat(8192)).as_bytes())
        }),
        ("as a query", Request::get("/?x-weir-color=gray&x-color=gray")),
        (
            "another host's form",
            Request::get("/").host("gray.shop.test").header("x-weir-color", "gray"),
        ),
        (
            "a session that is somebody's",
            one("x-trade-session-id", b"sess-ann-1").header("x-weir-color", "gray"),
        ),
    ]
}

/// 401 and 431 are Envoy's own words; whatever reached a version reached the base.
fn comes_to_nothing(case: &str, response: &Response) {
    if response.status == 200 {
        let seen = response.json();
        assert_eq!(seen["upstream"], "base", "{case}: {seen}");
        assert_eq!(response.echoed("x-weir-color").as_deref(), Some("base"), "{case}");
        let baggage = response.echoed("baggage").unwrap_or_default();
        assert!(baggage.ends_with("x-color=base"), "{case}: {baggage}");
        // A property is no member, and keys are not decoded: `x%2Dcolor` is a key of its own.
        let key = |member: &&str| member.split(['=', ';']).next().map(str::trim) == Some("x-color");
        let ours: Vec<&str> = baggage.split(',').filter(key).collect();
        assert_eq!(ours, ["x-color=base"], "{case}: {baggage}");
    } else {
        assert!([400, 401, 431].contains(&response.status), "{case}: {}", response.status);
    }
}

#[test]
fn at_the_edge_nobody_colors_himself() {
    let rig = Rig::edge(POLICY);
    let attacks = attacks();
    assert!(attacks.len() >= 30);
    for (case, request) in &attacks {
        let Ok(response) = rig.envoy.h1("in").send(request) else { panic!("{case}: no answer") };
        comes_to_nothing(case, &response);
        // What Envoy itself refuses, no filter has seen.
        if response.status == 200 {
            let told = explained::explain(&policy("zone: EDGE, ", POLICY), "inbound", request, &[]);
            for header in ["x-weir-color", "baggage"] {
                let told = explained::upstream(&told, header);
                assert_eq!(told, response.echoed(header), "{case}: {header}, as explained");
            }
        }
    }
    let [_, gray, blue] = rig.reached();
    assert_eq!((gray, blue), (0, 0));
    rig.envoy.assert_healthy();
}

/// The same lines over HTTP/2, where no text form stands between the bytes and the codec.
#[test]
fn nor_over_http2() {
    let rig = Rig::edge(POLICY);
    for (case, request) in attacks() {
        let mut lines: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (b":method".into(), b"GET".into()),
            (b":scheme".into(), b"http".into()),
            (b":path".into(), b"/".into()),
            (b":authority".into(), b"shop.test".into()),
        ];
        let rest = request.headers.iter().filter(|(name, _)| name != b"host");
        lines.extend(
            rest.map(|(name, value)| (name.to_ascii_lowercase(), value.trim_ascii().to_vec())),
        );
        let lines: Vec<(&[u8], &[u8])> = lines.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        let reply = rig.envoy.h2("in").request(&lines, None);
        let status = reply.status();
        // None: the codec has cut the stream or the connection.
        assert!(status.is_some() || reply.reset.is_some() || reply.gone.is_some(), "{case}");
        let response =
            Response { status: status.unwrap_or(400), headers: Vec::new(), body: reply.data };
        comes_to_nothing(case, &response);
    }
    let [_, gray, blue] = rig.reached();
    assert_eq!((gray, blue), (0, 0));
    rig.envoy.assert_healthy();
}

/// Raw bytes that a client library would not send.
#[test]
fn nor_with_bytes_that_split() {
    let rig = Rig::edge(POLICY);
    for value in ["gray\r\nx-weir-color: gray", "gray\nx: y", "gray\0", "gray\u{1}"] {
        let mut connection = rig.envoy.h1("in");
        let _ = connection.write(
            &Request::get("/").header("x-user", value).header("x-weir-color", value).to_h1(),
        );
        if let Ok(response) = connection.read(false) {
            comes_to_nothing(value, &response);
        }
    }
    assert_eq!(rig.reached()[1], 0);
    rig.envoy.assert_healthy();
}

#[test]
fn whom_the_policy_trusts_is_believed() {
    let rig = Rig::edge(POLICY);
    let gray = [("x-weir-color", "gray"), ("x-forwarded-for", "10.9.0.1")];
    assert_eq!(rig.color(&gray), "gray");
    let token = weir_integration_tests::jwt::bearer(serde_json::json!({"role": "partner"}));
    assert_eq!(rig.color(&[("x-weir-color", "blue"), ("authorization", &token)]), "blue");
    assert_eq!(rig.color(&[("x-weir-color", "pink"), ("x-forwarded-for", "10.9.0.1")]), "base");
    rig.await_metric(&["existing_total", "outcome=.=trusted"], 2);
    // STRIP believes nobody, OVERRIDE only where no rule speaks.
    rig.edit("zone: EDGE, ", &format!("on_existing: STRIP, {POLICY}"));
    assert_eq!(rig.color(&gray), "base");
    let staff = POLICY.replace(
        "jwt_claims: {weir_jwt.role: {exact: staff}}",
        "headers: {x-staff: {present: true}}",
    );
    rig.edit("zone: EDGE, ", &format!("on_existing: OVERRIDE, {staff}"));
    assert_eq!(
        rig.color(&[("x-weir-color", "blue"), ("x-staff", ""), ("x-forwarded-for", "10.9.0.1")]),
        "gray"
    );
    assert_eq!(rig.color(&[("x-weir-color", "blue"), ("x-forwarded-for", "10.9.0.1")]), "blue");
}

/// Inside the mesh everybody is believed, but no color outside the closed set.
#[test]
fn inside_the_mesh_the_set_is_closed_all_the_same() {
    let rig = Rig::start(1, &policy("", "carry: {in: [HEADER, BAGGAGE], winner: BAGGAGE}"));
    for (headers, color) in [
        (vec![("x-weir-color", "gray")], "gray"),
        (vec![("x-weir-color", "gray"), ("baggage", "x-color=blue")], "blue"),
        (vec![("x-weir-color", "pink")], "base"),
        (vec![("x-weir-color", "pink"), ("baggage", "x-color=gray")], "gray"),
        (vec![("x-weir-color", "gray"), ("x-weir-color", "gray")], "base"),
    ] {
        assert_eq!(rig.color(&headers), color, "{headers:?}");
    }
    let metrics = rig.envoy.weir_metrics();
    assert!(metrics.keys().all(|name| !name.contains("pink")), "no client names a metric");
}

/// What the proxy remembers under an id is for the application behind it: a stranger who names the id of
/// another's request, on the way in, gets nothing of it, and what he says does not reach the other.
#[test]
fn an_id_of_another_brings_no_color() {
    let head =
        "restore: {keys: [{header: x-request-id}, {header: x-trade-session-id, scope: SESSION}]}, ";
    let fields = "trusted: [{source_addresses: [10.9.0.0/16]}]";
    let rig = Rig::start(1, &policy(&format!("zone: EDGE, {head}"), fields));
    let ids = [("x-request-id", "r-1"), ("x-trade-session-id", "sess-ann-1")];
    for (name, id) in ids {
        let trusted = [("x-weir-color", "gray"), ("x-forwarded-for", "10.9.0.1"), (name, id)];
        assert_eq!(rig.color(&trusted), "gray");
        assert_eq!(rig.color(&[(name, id)]), "base", "{name} of another");
        assert_eq!(rig.color(&[(name, id), ("x-weir-color", "gray")]), "base", "{name} of another");
        // The application's own call still goes where the trusted request went.
        let out = rig.send("out", &with(&[(name, id)]));
        assert_eq!(color_of(&out), "gray", "what a stranger sent under {name} counts for nothing");
    }
    rig.envoy.assert_healthy();
}

/// `on_existing` for a stranger at the edge: no mode makes his color count.
#[test]
fn no_mode_believes_a_stranger() {
    let rig = Rig::edge("on_existing: TRUST");
    for mode in ["TRUST", "OVERRIDE", "STRIP"] {
        rig.edit("zone: EDGE, ", &format!("carry: {{in: [HEADER, BAGGAGE]}}, on_existing: {mode}"));
        for headers in [
            vec![("x-weir-color", "gray")],
            vec![("baggage", "x-color=gray")],
            vec![("x-weir-color", "x")],
        ] {
            assert_eq!(rig.color(&headers), "base", "{mode}: {headers:?}");
        }
    }
    rig.edit("zone: EDGE, ", "mode: SHADOW");
    assert_eq!(rig.send("in", &with(&[])).echoed("x-weir-color"), None, "shadow writes nothing");
    rig.envoy.assert_healthy();
}

/// The other way round: an id that the proxy itself made is known again.
#[test]
fn an_id_of_the_proxys_own_brings_the_color() {
    let head = "zone: EDGE, restore: {keys: [{header: x-request-id}], mint: true}, ";
    let rules = "rules: [{id: staff, match: {headers: {x-staff: {present: true}}}, color: gray}]";
    let rig = Rig::start(1, &policy(head, rules));
    let into = rig.send("in", &with(&[("x-staff", "")]));
    assert_eq!(color_of(&into), "gray");
    let id = into.echoed("x-request-id").expect("an id was made");
    assert_eq!(color_of(&rig.send("out", &with(&[("x-request-id", &id)]))), "gray");
    assert_eq!(color_of(&rig.send("out", &with(&[("x-request-id", "another")]))), "base");
    rig.envoy.assert_healthy();
}

/// The same lines inside the mesh, where everybody is believed: a color of the closed set or none, and
/// nobody's request is lost for them.
#[test]
fn inside_the_mesh_hostile_lines_break_nothing() {
    let rig = Rig::start(1, &policy("", POLICY));
    for (case, request) in attacks() {
        let Ok(response) = rig.envoy.h1("in").send(&request) else { panic!("{case}: no answer") };
        if response.status == 200 {
            // Panics where the version is another than the color.
            let color = color_of(&response);
            assert!(COLORS.contains(&color.as_str()), "{case}: {color}");
        } else {
            assert!([400, 401, 431].contains(&response.status), "{case}: {}", response.status);
        }
    }
    let metrics = rig.envoy.weir_metrics();
    assert!(metrics.keys().all(|name| !name.contains("admin")), "no client names a metric");
    rig.envoy.assert_healthy();
}
