//! HTTP filters of a listener.

use super::ecds::{self, RATE_LIMIT};
use crate::{jwt, paths};
use serde_json::{Value, json};
use std::path::Path;

/// One entry of a listener's filter chain.
pub enum Filter {
    /// Our filter, its policy from a file over ECDS.
    Weir { default_config: bool },
    /// Any other, with its configuration in place.
    Inline { name: String, config: Value },
}

impl Filter {
    /// The rate limiter. Until a policy was accepted, requests pass.
    pub fn weir() -> Self {
        Self::Weir { default_config: true }
    }

    /// The rate limiter as Istio sets it up: nothing to fall back to.
    pub fn weir_without_default() -> Self {
        Self::Weir { default_config: false }
    }

    /// The finished module of a filter, such as `traffic_color`, with its policy in place: for chains
    /// of several of ours.
    pub fn module(name: &str, policy: &str) -> Self {
        Self::inline(
            &format!("weir.{name}"),
            json!({
                "@type": ecds::WASM_TYPE,
                "config": {
                    "name": format!("weir.{name}"),
                    "root_id": format!("weir_{name}"),
                    "vm_config": {
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": {"local": {"filename": paths::module(name)}},
                    },
                    "configuration": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue",
                        "value": crate::policy::to_json(policy),
                    },
                },
            }),
        )
    }

    /// Whether this one does the other's work as well.
    pub(super) fn stands_in_for(&self, other: &Filter) -> bool {
        let policy = |filter: &Filter| match filter {
            Self::Inline { name, config } if name.starts_with("weir.") => {
                Some(config["config"]["configuration"].clone())
            }
            _ => None,
        };
        paths::is_suite() && policy(self).is_some() && policy(self) == policy(other)
    }

    pub fn inline(name: &str, config: Value) -> Self {
        Self::Inline { name: name.to_owned(), config }
    }

    /// Verifies tokens of [`jwt::bearer`].
    pub fn jwt_authn() -> Self {
        Self::inline("envoy.filters.http.jwt_authn", jwt::authn_config())
    }

    pub fn lua(code: &str) -> Self {
        Self::inline(
            "envoy.filters.http.lua",
            json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": code},
            }),
        )
    }

    pub(super) fn to_json(&self, directory: &Path, module: &Path) -> Value {
        let default_config = match self {
            Self::Inline { name, config } => return json!({"name": name, "typed_config": config}),
            Self::Weir { default_config } => *default_config,
        };
        let mut discovery = json!({
            "config_source": {
                "path_config_source": {
                    "path": ecds::path(directory),
                    "watched_directory": {"path": ecds::directory(directory)},
                },
                "resource_api_version": "V3",
                "initial_fetch_timeout": "0s",
            },
            "type_urls": [ecds::WASM_TYPE],
        });
        if default_config {
            let policy = crate::policy::to_json(crate::policy::PASS_THROUGH);
            discovery["default_config"] = ecds::plugin(module, &policy, ecds::FAIL_CLOSED);
        }
        json!({"name": RATE_LIMIT, "config_discovery": discovery})
    }
}
