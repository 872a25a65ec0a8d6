//! A filter over discovery: the policy that Envoy tried last, and the one in force.

use serde_json::Value;
use weir_engine::core::reloads::version;

use crate::proxy::MODULES;
use crate::source;
use crate::yaml::snake;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// As the filter entry and Istio call it.
    pub name: String,
    /// The version of the discovery response that is in force, as Envoy tells it.
    pub in_force: Option<String>,
    /// The same of the one that came last, taken or not.
    pub tried: Option<String>,
    /// What came last.
    pub policy: Option<String>,
    pub module: Option<String>,
    /// The filter that stands in for ours, where Istio's agent could not pull an image.
    pub stand_in: Option<String>,
    pub accepted: u64,
    pub rejected: u64,
    /// Discovery files that could not be read.
    pub failed: u64,
    /// Istio's sidecars show no statistics of discovery unless they are asked to.
    is_counted: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Nothing has come yet.
    Waiting,
    InForce,
    /// What came last was refused, and the one before serves; why, as far as this command finds out.
    Refused(String),
    /// Nothing came before that, so only a `default_config` serves.
    FirstRefused(String),
    StandIn(String),
}

impl Resource {
    /// Nothing is known of it yet.
    pub fn named(name: &str) -> Resource {
        Resource { name: name.to_owned(), ..Resource::default() }
    }

    /// From an entry of Envoy's dump of the configuration; `None` where it is no filter of ours.
    pub fn read(entry: &Value) -> Option<Resource> {
        let extension = &entry["ecds_filter"];
        if !is_ours(extension) {
            return None;
        }
        let text =
            |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let config = &extension["typed_config"];
        let plugin = &config["config"];
        let other = Some(text(&config["rules_stat_prefix"]).unwrap_or("another filter".to_owned()));
        Some(Resource {
            tried: text(&entry["version_info"]),
            stand_in: other.filter(|_| !is_wasm(config)),
            policy: text(&plugin["configuration"]["value"]),
            module: text(&plugin["vm_config"]["code"]["local"]["filename"]),
            ..Resource::named(extension["name"].as_str()?)
        })
    }

    pub fn count(&mut self, what: &str, value: &Value) {
        let number = value.as_u64().unwrap_or(0);
        self.is_counted = true;
        match what {
            "version_text" => {
                self.in_force = value.as_str().filter(|t| !t.is_empty()).map(str::to_owned)
            }
            "update_success" => self.accepted = number,
            "update_rejected" => self.rejected = number,
            "update_failure" => self.failed = number,
            _ => {}
        }
    }

    /// The number under which modules report the policy that came last.
    pub fn number(&self) -> Option<u32> {
        self.policy.as_ref().map(|policy| version(policy.as_bytes()))
    }

    /// `reported` are the numbers that the modules of this Envoy say.
    pub fn standing(&self, reported: &[u32]) -> Standing {
        if let Some(filter) = &self.stand_in {
            return Standing::StandIn(filter.clone());
        }
        let is_reported = self.number().is_none_or(|number| reported.contains(&number));
        if self.is_counted && self.accepted == 0 {
            return match self.rejected {
                0 => Standing::Waiting,
                _ => Standing::FirstRefused(self.why()),
            };
        }
        // Under versions that tell nothing, or are not told, the number that modules report does.
        let is_refused = match self.is_counted {
            true => self.tried != self.in_force || (self.rejected > 0 && !is_reported),
            false => !is_reported,
        };
        if is_refused { Standing::Refused(self.why()) } else { Standing::InForce }
    }

    /// Envoy keeps no reason but in its log, so the policy is read once more.
    fn why(&self) -> String {
        let findings = self.policy.as_deref().map(|policy| source::read(policy).1);
        match findings.unwrap_or_default().first() {
            Some(finding) => finding.text(),
            None => {
                "the policy reads well here, so see Envoy's log: the module, or an older one".into()
            }
        }
    }
}

/// Whether a resource of discovery is a filter of ours, by a name or by its policy.
pub fn is_ours(extension: &Value) -> bool {
    let config = &extension["typed_config"];
    let plugin = &config["config"];
    let module = &plugin["vm_config"]["code"]["local"]["filename"];
    let names = [&extension["name"], &plugin["root_id"], module];
    let is_named = names.iter().filter_map(|name| name.as_str()).any(is_named);
    let has_section = || plugin["configuration"]["value"].as_str().is_some_and(has_section);
    is_named || (is_wasm(config) && has_section())
}

/// Whether `weir` is a word of it, as of `weir.rate_limit` and `/etc/envoy/weir_suite.wasm`, not of `weird`.
pub fn is_named(name: &str) -> bool {
    name.split(|c: char| ".-_/".contains(c)).any(|word| word == "weir")
}

/// Whether it is a module of ours, and no filter of another kind with such a name.
pub fn is_module(extension: &Value) -> bool {
    is_wasm(&extension["typed_config"]) && is_ours(extension)
}

fn is_wasm(config: &Value) -> bool {
    config["@type"].as_str().is_some_and(|kind| kind.ends_with(".wasm.v3.Wasm"))
}

fn has_section(policy: &str) -> bool {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let names = policy.as_object().into_iter().flat_map(|fields| fields.keys());
    names.map(|name| snake(name)).any(|name| MODULES.iter().any(|m| m.section() == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn weir_is_a_word_of_our_names() {
        for name in
            ["weir", "weir.rate_limit", "shop-weir", "/etc/weir/suite.wasm", "a/weir_suite.wasm"]
        {
            assert!(is_named(name), "{name}");
        }
        for name in ["", "weird", "weird.router", "sweir", "/opt/weirdness/a.wasm"] {
            assert!(!is_named(name), "{name}");
        }
    }

    #[test]
    fn a_module_is_a_wasm_filter() {
        let of = |kind: &str| json!({"name": "weir.rate_limit", "typed_config": {"@type": kind}});
        let router = of("type.googleapis.com/envoy.extensions.filters.http.router.v3.Router");
        assert!(is_ours(&router) && !is_module(&router));
        assert!(is_module(&of("type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm")));
    }
}
