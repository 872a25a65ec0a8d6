//! A route: what it matches, where it leads, and the options that a limiter meets.

use super::ecds::RATE_LIMIT;
use serde_json::{Value, json};

/// Routes of a listener are tried in order.
pub struct Route(Value);

impl Route {
    /// Every path that starts so, to a cluster.
    pub fn prefix(prefix: &str, cluster: &str) -> Self {
        Self(json!({
            "match": {"prefix": prefix},
            "route": {"cluster": cluster, "timeout": "15s"},
        }))
    }

    /// Answered by Envoy itself: no upstream in the way of a rate.
    pub fn direct(prefix: &str, status: u16) -> Self {
        Self(json!({
            "match": {"prefix": prefix},
            "direct_response": {"status": status, "body": {"inline_string": "direct"}},
        }))
    }

    /// CONNECT, to a cluster that gets it as a request; the listener has to allow the upgrade.
    pub fn connect(cluster: &str) -> Self {
        Self(json!({
            "match": {"connect_matcher": {}},
            "route": {"cluster": cluster, "timeout": "15s"},
        }))
    }

    pub fn named(mut self, name: &str) -> Self {
        self.0["name"] = json!(name);
        self
    }

    /// Only requests with this header value.
    pub fn when_header(mut self, name: &str, value: &str) -> Self {
        self.0["match"]["headers"] = json!([
            {"name": name, "string_match": {"exact": value}},
        ]);
        self
    }

    /// Retries as a mesh does by default, on these conditions.
    pub fn retry(mut self, on: &str, statuses: &[u16], times: u32) -> Self {
        self.0["route"]["retry_policy"] = json!({
            "retry_on": on,
            "num_retries": times,
            "retriable_status_codes": statuses,
            "retry_back_off": {"base_interval": "0.001s"},
        });
        self
    }

    /// Sends a copy of every request to another cluster; Envoy marks it with `-shadow`.
    pub fn mirror(mut self, cluster: &str) -> Self {
        self.0["route"]["request_mirror_policies"] = json!([{"cluster": cluster}]);
        self
    }

    /// Follows a 302 of the upstream inside Envoy.
    pub fn follow_redirects(mut self) -> Self {
        self.0["route"]["internal_redirect_policy"] = json!({"max_internal_redirects": 3});
        self
    }

    /// Turns our filter off on this route.
    pub fn without_filter(mut self) -> Self {
        self.0["typed_per_filter_config"] = json!({ RATE_LIMIT: {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
            "disabled": true,
        }});
        self
    }

    pub(super) fn to_json(&self) -> Value {
        self.0.clone()
    }
}
