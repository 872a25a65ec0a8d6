//! The access log: one JSON object a request, as an operator would set it up.

use super::Envoy;
use crate::wait::{DEADLINE, wait_for};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// One request in the access log. An empty operator reads `-`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct AccessEntry {
    pub path: String,
    pub status: u16,
    pub details: String,
    pub flags: String,
    /// What our filter published about the request.
    pub weir: String,
}

fn file(directory: &Path, listener: &str) -> PathBuf {
    directory.join(format!("access-{listener}.log"))
}

pub(super) fn to_json(directory: &Path, listener: &str) -> Value {
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file(directory, listener),
            "log_format": {"json_format": {
                "path": "%REQ(:PATH)%",
                "status": "%RESPONSE_CODE%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "flags": "%RESPONSE_FLAGS%",
                "weir": "%FILTER_STATE(wasm.weir.rate_limit:PLAIN)%",
            }},
        },
    })
}

impl Envoy {
    /// The entries of a listener so far. A line that is still being written is left out.
    pub fn access_log(&self, listener: &str) -> Vec<AccessEntry> {
        let text = std::fs::read(file(self.directory(), listener)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let complete = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        complete.map(parse).collect()
    }

    /// Waits for the first entry whose path starts so.
    pub fn await_access(&self, listener: &str, path: &str) -> AccessEntry {
        wait_for(&format!("an access log entry for {path}"), DEADLINE, || {
            let entries = self.access_log(listener);
            entries.into_iter().find(|e| e.path.starts_with(path))
        })
    }
}

fn parse(line: &str) -> AccessEntry {
    let mut value: Value = serde_json::from_str(line).expect("Envoy writes JSON lines");
    for field in ["path", "details", "flags", "weir"] {
        if value[field].is_null() {
            value[field] = json!("-");
        }
    }
    serde_json::from_value(value)
        .unwrap_or_else(|e| panic!("not an entry of our access log: {e}: {line}"))
}
