//! What a WasmPlugin or TrafficExtension around a policy says.

use weir_protos::v1::Policy;

use crate::yaml::Node;

use super::Lint;

pub fn look(policy: &Policy, manifest: &Node, lint: &mut Lint<'_>) {
    let Some(spec) = manifest.get("spec") else { return };
    let spec = spec.get("wasm").unwrap_or(spec);
    let refuses = !policy.rate_limit.is_empty() || !policy.circuit_breaker.is_empty();
    if let Some(strategy) = spec.get("failStrategy")
        && strategy.text() == Some("FAIL_OPEN")
        && refuses
    {
        let remedy = "failStrategy FAIL_OPEN lets everything through when the module fails, and a limit \
                      is there for such times; use FAIL_RELOAD";
        lint.warn_at("fail-open", strategy, remedy);
    }
    let Some(url) = spec.get("url") else { return };
    let text = url.text().unwrap_or_default();
    if !text.starts_with("oci://") {
        return;
    }
    let image = text.rsplit('/').next().unwrap_or_default();
    let has_digest = image.contains("@sha256:");
    let tag = image.split('@').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag);
    if !has_digest && matches!(tag, None | Some("latest")) {
        let remedy =
            "the image has no exact tag: a restart may bring another module; name a version";
        lint.warn_at("latest", url, remedy);
    }
    if !has_digest && spec.get("sha256").is_none() {
        let remedy = "the image is not pinned: add `sha256` with the digest of its manifest";
        lint.warn_at("no-sha256", url, remedy);
    }
}
