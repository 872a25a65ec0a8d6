//! The same request by `weir explain`, to be held against what a real Envoy did with it.

use crate::http::Request;
use crate::{jwt, paths::TempDir};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use weir_cli::{Cli, Verdict};

/// What the command says of a request under a policy, as JSON. `more` are further arguments. What
/// Envoy makes of a request before our filter sees it is made of it here: the client's address from
/// `x-forwarded-for`, and a verified token's claims.
pub fn explain(policy: &str, direction: &str, request: &Request, more: &[&str]) -> Value {
    let folder = TempDir::new();
    let file = folder.join("policy.yaml");
    std::fs::write(&file, policy).expect("writable");
    let line = [&request.method[..], b" ", &request.target].concat();
    let mut args: Vec<OsString> =
        ["weir", "explain", "--format", "json", "--direction", direction].map(Into::into).into();
    args.extend([file.into_os_string(), "--request".into(), OsString::from_vec(line)]);
    for (name, value) in &request.headers {
        args.extend(["-H".into(), OsString::from_vec([name, &b": "[..], value].concat())]);
    }
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value);
        match name.to_ascii_lowercase().as_slice() {
            b"x-forwarded-for" => {
                let last = value.rsplit(',').next().unwrap_or_default().trim().to_owned();
                args.extend(["--source".into(), last.into()]);
            }
            b"authorization" => args.extend(claims(&value)),
            _ => {}
        }
    }
    args.extend(more.iter().map(Into::into));
    let mut out = Vec::new();
    let cli = Cli::read(args.clone()).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    let verdict = weir_cli::run(&cli, &mut out).unwrap_or_else(|e| panic!("{args:?}: {e:#}"));
    let text = String::from_utf8_lossy(&out);
    assert_eq!(verdict, Verdict::Good, "{policy}\n{text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// As attributes, which is how Envoy's jwt_authn hands them on.
fn claims(bearer: &str) -> Vec<OsString> {
    let payload = bearer.split('.').nth(1).expect("a token");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("a payload");
    let payload: Value = serde_json::from_slice(&payload).expect("claims");
    let filter = "envoy%2Efilters%2Ehttp%2Ejwt_authn";
    let each = payload.as_object().into_iter().flatten().filter_map(|(claim, value)| {
        let path = format!("metadata.filter_metadata.{filter}.{}.{claim}", jwt::PAYLOAD);
        Some(["--attribute".into(), format!("{path}={}", value.as_str()?).into()])
    });
    each.flatten().collect()
}

/// A header of what would go on to the upstream, lines joined with a comma.
pub fn upstream(explained: &Value, name: &str) -> Option<String> {
    header(&explained["upstream"], name)
}

/// A header of what the client would get.
pub fn answer(explained: &Value, name: &str) -> Option<String> {
    header(&explained["answer"]["headers"], name)
}

fn header(pairs: &Value, name: &str) -> Option<String> {
    let pairs = pairs.as_array()?.iter();
    let named = pairs.filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str());
    let lines: Vec<_> = named.collect();
    (!lines.is_empty()).then(|| lines.join(","))
}
