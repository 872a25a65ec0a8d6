//! The routes that go with colors: a subset of the service for each color, chosen by the header.

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::Args;
use crate::source::Document;

/// VirtualService and DestinationRule of `--service`, by the names of their files.
pub fn manifests(
    args: &Args,
    service: &str,
    document: &Document,
) -> anyhow::Result<[(&'static str, Value); 2]> {
    let text = |snake: &str, camel: &str| {
        document.root.get(snake).or_else(|| document.root.get(camel))?.text().map(str::to_owned)
    };
    let header = text("color_header", "colorHeader").unwrap_or_else(|| "x-weir-color".into());
    let colors = colors(document);
    let Some((base, others)) = colors.split_first() else {
        bail!(
            "--service {service}: the policy has no `traffic_color`, so no route goes by a color"
        );
    };
    if let Some(color) = colors.iter().find(|color| !is_subset(color)) {
        bail!(
            "--service {service}: color {color:?} cannot be the name of a subset; letters, digits and `-` \
             between them can"
        );
    }
    let route = |color: &str| json!([{"destination": {"host": service, "subset": color}}]);
    let of_color = |color: &String| {
        json!({
            "name": color,
            "match": [{"headers": {header.as_str(): {"exact": color}}}],
            "route": route(color),
        })
    };
    // What has no color of its own, or one that is not of the policy, is the base's.
    let last = json!({"name": base, "route": route(base)});
    let routes: Vec<Value> = others.iter().map(of_color).chain([last]).collect();

    let hosts: Vec<&str> = match args.hosts.is_empty() {
        true => vec![service],
        false => args.hosts.iter().map(String::as_str).collect(),
    };
    let mut spec = Map::new();
    spec.insert("hosts".into(), json!(hosts));
    if !args.gateways.is_empty() {
        spec.insert("gateways".into(), json!(args.gateways));
    }
    spec.insert("http".into(), json!(routes));

    let subset =
        |color: &String| json!({"name": color, "labels": {args.color_label.as_str(): color}});
    let subsets: Vec<Value> = colors.iter().map(subset).collect();
    let rule = json!({"host": service, "subsets": subsets});
    Ok([
        ("virtual-service", manifest(args, "VirtualService", service, spec.into())),
        ("destination-rule", manifest(args, "DestinationRule", service, rule)),
    ])
}

/// The policy's, which is known to be good; the first is the base.
fn colors(document: &Document) -> Vec<String> {
    let root = document.root.to_json();
    let section = root.get("traffic_color").or_else(|| root.get("trafficColor"));
    let colors = section.and_then(|section| section.get("colors")).and_then(Value::as_array);
    colors.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Istio takes DNS labels (RFC 1123); a color may have `_` and a `-` at its end as well.
fn is_subset(color: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    color.bytes().all(is_inner) && !color.starts_with('-') && !color.ends_with('-')
}

fn manifest(args: &Args, kind: &str, service: &str, spec: Value) -> Value {
    let name = service.split('.').next().unwrap_or(service);
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": format!("weir-{name}"), "namespace": args.namespace},
        "spec": spec,
    })
}
