//! The section as a whole on the simulated host.

use weir_protos::{Section, decode};

use super::{Decision, Painter, Worker};
use crate::core::effects::HeaderEdit;
use crate::core::headers::HeaderMap;
use crate::sim::{Process, SimPorts};

struct Vm {
    painter: Painter,
    worker: Worker,
    ports: SimPorts,
}

struct Sent {
    came: Vec<(String, Vec<u8>)>,
    decision: Decision,
}

fn policy(head: &str, fields: &str) -> String {
    format!("{{name: t, {head}traffic_color: {{colors: [base, gray, blue], {fields}}}}}")
}

impl Vm {
    fn start(process: &Process, yaml: &str, direction: u64) -> Vm {
        let source = decode(serde_yaml_ng::Deserializer::from_str(yaml), Section::All).unwrap();
        let painter = Painter::compile(&source, "test").unwrap();
        let (mut worker, mut ports) = (Worker::default(), process.ports(direction));
        ports.set_attribute("xds.listener_direction", &direction.to_le_bytes());
        painter.prepare(&mut worker, &mut ports);
        Vm { painter, worker, ports }
    }

    fn section(fields: &str) -> Vm {
        Vm::start(&Process::start(), &policy("", fields), 1)
    }

    fn edge(fields: &str) -> Vm {
        Vm::start(&Process::start(), &policy("zone: EDGE, ", fields), 1)
    }

    fn send<V: AsRef<[u8]>>(&mut self, headers: &[(&str, V)]) -> Sent {
        let usual = [(":method", "GET"), (":path", "/"), (":authority", "shop.example")];
        let mut came: Vec<(String, Vec<u8>)> = usual
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        came.retain(|(name, _)| headers.iter().all(|(given, _)| given != name));
        came.extend(
            headers.iter().map(|(name, value)| (name.to_string(), value.as_ref().to_vec())),
        );
        let map = HeaderMap::from_pairs(&came);
        let decision = self.painter.on_request(&mut self.worker, &map, &mut self.ports);
        Sent { came, decision }
    }

    fn color(&mut self, headers: &[(&str, &str)]) -> String {
        self.send(headers).header("x-weir-color").unwrap_or_default()
    }

    fn counted(&mut self, parts: &[&str]) -> u64 {
        self.worker.tick(&mut self.ports);
        self.painter.tick(&mut self.ports);
        self.ports.counter(parts)
    }
}

impl Sent {
    fn header(&self, name: &str) -> Option<String> {
        let came = self.came.iter().filter(|(known, _)| known == name);
        let mut lines: Vec<Vec<u8>> = came.map(|(_, value)| value.clone()).collect();
        for edit in &self.decision.effects.headers {
            match edit {
                HeaderEdit::Set(known, value) if known == name => {
                    lines = vec![value.clone().into()]
                }
                HeaderEdit::Add(known, value) if known == name => lines.push(value.clone().into()),
                HeaderEdit::Remove(known) if known == name => lines.clear(),
                _ => {}
            }
        }
        (!lines.is_empty()).then(|| String::from_utf8_lossy(&lines.join(&b',')).into_owned())
    }
}

#[test]
fn precedence() {
    let rules = "rules: [{id: staff, match: {headers: {x-staff: {exact: 'yes'}}}, color: gray}, \
                 {id: all-blue, match: {path: {prefix: /blue}}, color: blue}]";
    let mut vm = Vm::section(&format!("default: base, {rules}"));
    for (headers, color) in [
        (vec![], "base"),
        (vec![("x-staff", "yes")], "gray"),
        (vec![("x-staff", "yes"), (":path", "/blue")], "gray"),
        (vec![(":path", "/blue")], "blue"),
        (vec![("x-weir-color", "blue"), ("x-staff", "yes")], "blue"),
        (vec![("x-weir-color", "pink"), ("x-staff", "yes")], "gray"),
    ] {
        assert_eq!(vm.color(&headers), color, "{headers:?}");
    }
    let mut vm = Vm::section(&format!("on_existing: OVERRIDE, {rules}"));
    assert_eq!(vm.color(&[("x-weir-color", "blue"), ("x-staff", "yes")]), "gray");
    assert_eq!(vm.color(&[("x-weir-color", "blue")]), "blue");
    let mut vm = Vm::section(&format!("on_existing: STRIP, {rules}"));
    assert_eq!(vm.color(&[("x-weir-color", "blue")]), "base");
}

#[test]
fn at_the_edge_nobody_colors_himself() {
    let mut vm =
        Vm::edge("carry: {in: [HEADER, BAGGAGE]}, trusted: [{headers: {x-partner: {exact: p}}}]");
    for headers in [
        vec![("x-weir-color", "gray")],
        vec![("baggage", "x-color=gray,a=1")],
        vec![("x-weir-color", "gray"), ("x-weir-color", "gray")],
        vec![("x-weir-color", "gray"), ("baggage", "x-color=blue,a=1")],
    ] {
        let sent = vm.send(&headers);
        assert_eq!(sent.header("x-weir-color").as_deref(), Some("base"), "{headers:?}");
        assert!(sent.header("baggage").unwrap().ends_with("x-color=base"), "{headers:?}");
    }
    let sent = vm.send(&[("x-weir-color", "gray"), ("x-partner", "p")]);
    assert_eq!(sent.header("x-weir-color").as_deref(), Some("gray"));
    assert_eq!(vm.counted(&["existing_total", "outcome=.=removed"]), 3);
}

#[test]
fn numbers_that_are_none_are_counted() {
    let mut vm = Vm::section(
        "rules: [{id: uid, match: {headers: {x-uid: {number: {ge: 1000000}}}}, color: gray}]",
    );
    for (uid, color) in [("999999", "base"), ("1000000", "gray"), ("a", "base"), ("1e7", "base")] {
        assert_eq!(vm.color(&[("x-uid", uid)]), color, "{uid}");
    }
    assert_eq!(vm.color(&[]), "base");
    assert_eq!(vm.counted(&["not_a_number_total"]), 2);
    assert_eq!(vm.counted(&["requests_total", "rule=.=uid", "outcome=.=gray"]), 1);
}

#[test]
fn a_share_is_sticky_and_a_cookie_never_a_color() {
    let share = |weight: u32| {
        format!(
            "rules: [{{id: beta, shares: [{{color: gray, weight: {weight}}}], \
             key: [{{header: x-user}}], on_missing_key: STICKY_COOKIE}}]"
        )
    };
    let mut vm = Vm::section(&share(5000));
    let colors: Vec<_> =
        (0..200).map(|user| vm.color(&[("x-user", &format!("u{user}"))])).collect();
    let again: Vec<_> = (0..200).map(|user| vm.color(&[("x-user", &format!("u{user}"))])).collect();
    assert_eq!(colors, again);
    let gray = colors.iter().filter(|color| *color == "gray").count();
    assert!((70..130).contains(&gray), "{gray}");

    let sent = vm.send::<&str>(&[]);
    let color = sent.header("x-weir-color").unwrap();
    let response = HeaderMap::from_pairs(&[(":status", "200")]);
    let effects = sent.decision.call.unwrap().on_response(&response, &mut vm.ports);
    let [HeaderEdit::Add(name, value)] = &effects.headers[..] else { panic!("{effects:?}") };
    assert_eq!(name, "set-cookie");
    let pair = value.split(';').next().unwrap().to_owned();
    assert!(!pair.contains("gray"));
    let back = vm.send(&[("cookie", pair.as_str())]);
    assert_eq!(back.header("x-weir-color"), Some(color));
    assert!(back.decision.call.is_none(), "it has its key");
    // Ramped down, it reaches everybody.
    let mut vm = Vm::section(&share(1).replace("gray", "blue"));
    assert_eq!(vm.color(&[("cookie", "weir-sticky=gray")]), "base");
    // A key that no rule asks for any more is cleared.
    let mut vm = Vm::section("default: base");
    let sent = vm.send(&[("cookie", pair.as_str())]);
    let effects = sent.decision.call.unwrap().on_response(&response, &mut vm.ports);
    assert!(format!("{effects:?}").contains("Max-Age=0"), "{effects:?}");
}

#[test]
fn lanes() {
    let lanes = "lanes: [{match: {authority: {exact: orders.example}}, colors: [base, blue]}]";
    let mut vm = Vm::section(&format!("carry: {{in: [HEADER, BAGGAGE]}}, lanes: {{{lanes}}}"));
    let sent = vm.send(&[("x-weir-color", "gray"), (":authority", "orders.example")]);
    assert_eq!(sent.header("x-weir-color").as_deref(), Some("base"));
    assert_eq!(sent.header("baggage").as_deref(), Some("x-color=gray"));
    let sent = vm.send(&[("x-weir-color", "gray")]);
    assert_eq!(sent.header("x-weir-color").as_deref(), Some("gray"));
    let mut vm = Vm::section(&format!("lanes: {{mode: STRICT, {lanes}}}"));
    let sent = vm.send(&[("x-weir-color", "gray"), (":authority", "orders.example")]);
    assert_eq!(sent.decision.effects.reply.map(|reply| reply.status), Some(503));
    let sent = vm.send(&[("x-weir-color", "blue"), (":authority", "orders.example")]);
    assert!(sent.decision.effects.reply.is_none());
}

#[test]
fn the_color_comes_back_by_an_id() {
    let process = Process::start();
    let yaml = policy(
        "restore: {keys: [{header: x-request-id}, {header: x-session, scope: SESSION}, {trace_id: true}]}, ",
        "default: base",
    );
    let (mut into, mut out) = (Vm::start(&process, &yaml, 1), Vm::start(&process, &yaml, 2));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    into.send(&[
        ("x-weir-color", "gray"),
        ("x-request-id", "r"),
        ("x-session", "s"),
        ("traceparent", trace),
    ]);
    for id in [("x-request-id", "r"), ("x-session", "s"), ("traceparent", trace)] {
        assert_eq!(out.color(&[id]), "gray", "{id:?}");
    }
    assert_eq!(out.color(&[("x-request-id", "other")]), "base");
    // Two requests of different colors with one id: neither.
    into.send(&[("x-weir-color", "blue"), ("x-request-id", "r")]);
    assert_eq!(out.color(&[("x-request-id", "r")]), "base");
}

#[test]
fn shadow_and_off_write_nothing() {
    for mode in ["SHADOW", "'OFF'"] {
        let mut vm = Vm::section(&format!("mode: {mode}, rules: [{{id: all, color: gray}}]"));
        let sent = vm.send::<&str>(&[]);
        assert_eq!(sent.decision.effects, Default::default());
        assert_eq!(vm.counted(&["rule=.=all"]), u64::from(mode == "SHADOW"));
    }
    let mut vm = Vm::section("rules: [{id: all, mode: SHADOW, color: gray}]");
    assert_eq!(vm.color(&[]), "base");
    assert_eq!(vm.counted(&["rule=.=all", "outcome=.=gray"]), 1);
}

#[test]
fn any_bytes_in_any_header_are_data() {
    let mut vm = Vm::edge(
        "carry: {in: [HEADER, BAGGAGE]}, session: {principal: {header: x-user}}, \
         rules: [{id: r, shares: [{color: gray, weight: 5000}], key: [{header: x-user}], on_missing_key: STICKY_COOKIE}]",
    );
    for byte in 0..=u8::MAX {
        for name in
            ["x-weir-color", "baggage", "cookie", "x-user", "x-trade-session-id", "traceparent"]
        {
            let sent = vm.send(&[(name, vec![byte]), (name, vec![b'a', b'=', byte])]);
            let color = sent.header("x-weir-color").unwrap();
            assert!(["base", "gray"].contains(&color.as_str()), "{name} {byte}: {color}");
        }
    }
}
