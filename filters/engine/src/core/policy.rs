//! The parts of a policy that no single filter owns.

use weir_protos::FieldError;
use weir_protos::v1::{Match, Policy, direction, mode, telemetry::LogLevel, zone};

use super::headers::header_name;
use super::matcher::{MatchDefaults, Matcher};
use super::ports::Attributes;
use super::request::Request;

/// Where state lives and what metrics are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `weir/1/<plugin>/<policy>`: 1 is the version of the state's format.
    pub state_prefix: String,
    pub policy: String,
}

/// What all filters read of a policy.
#[derive(Debug)]
pub struct Common {
    pub identity: Identity,
    pub mode: mode::Value,
    pub is_edge: bool,
    pub color_header: Box<[u8]>,
    pub log_level: LogLevel,
    pub max_series: u32,
    exempt: Vec<Matcher>,
}

/// What kubelet and scrapers ask for. Exempt by default inside a mesh only: at the edge anybody
/// can send these.
const HEALTH_PATHS: [&[u8]; 4] = [b"/healthz", b"/readyz", b"/livez", b"/metrics"];

/// As Prometheus and its tools can carry; see `Telemetry.max_series`.
const DEFAULT_MAX_SERIES: u32 = 2000;

impl Common {
    /// `plugin` is the name under which Envoy runs the filter, `<namespace>.<name>` in Istio.
    #[cold]
    pub fn compile(policy: &Policy, plugin: &str) -> Result<Common, FieldError> {
        let name = if policy.name.is_empty() { "default" } else { &policy.name };
        identifier(name, "policy.name")?;
        let color_header = match policy.color_header.as_str() {
            "" => "x-weir-color".to_string(),
            given => header_name(given).ok_or_else(|| {
                let remedy = "must be a header name, such as x-weir-color";
                FieldError::value("policy.color_header", format_args!("{given:?}"), remedy)
            })?,
        };
        let telemetry = policy.telemetry.unwrap_or_default();
        let max_series = telemetry.max_series.unwrap_or(DEFAULT_MAX_SERIES);
        if !(1..=100_000).contains(&max_series) {
            let path = "policy.telemetry.max_series";
            return Err(FieldError::value(path, max_series, "must be from 1 to 100000"));
        }
        let log_level = match telemetry.log_level() {
            LogLevel::Unspecified => LogLevel::Warn,
            level => level,
        };
        let is_edge = policy.zone() == zone::Value::Edge;
        let mut common = Common {
            identity: Identity {
                state_prefix: format!("weir/1/{}/{name}", stable_plugin(plugin)),
                policy: name.to_string(),
            },
            mode: policy.mode(),
            is_edge,
            color_header: color_header.into_bytes().into(),
            log_level,
            max_series,
            exempt: Vec::new(),
        };
        let defaults = common.match_defaults(direction::Value::Any).plain();
        if policy.exempt.len() > 64 {
            let remedy = "entries: must have at most 64, since each is tested on every request";
            return Err(FieldError::value("policy.exempt", policy.exempt.len(), remedy));
        }
        for (place, exempt) in policy.exempt.iter().enumerate() {
            let path = format!("policy.exempt[{place}]");
            if *exempt == Match::default() {
                let remedy = "must name something: an empty match would exempt every request (use mode: OFF)";
                return Err(FieldError::at(path, remedy));
            }
            common.exempt.push(Matcher::compile(Some(exempt), &path, &defaults)?);
        }
        if !is_edge && policy.exempt.is_empty() && !policy.no_default_exemptions {
            common.exempt = vec![Matcher::health_checks()];
        }
        Ok(common)
    }

    /// How matches of a section read what they leave out; `direction` is the section's default
    /// inside a mesh.
    pub fn match_defaults(&self, direction: direction::Value) -> MatchDefaults {
        MatchDefaults {
            direction: if self.is_edge { direction::Value::Any } else { direction },
            color_header: self.color_header.clone(),
            // At the edge any client can name such a host.
            exempts_mirrors: !self.is_edge,
        }
    }

    pub fn is_exempt<'r>(
        &'r self,
        request: &mut Request<'r>,
        attributes: &mut impl Attributes,
    ) -> bool {
        self.exempt.iter().any(|exempt| exempt.matches(request, attributes))
    }
}

/// Whether a request is a health check: GET or HEAD on a well-known path, or kubelet's own probe.
/// Kubelet comes straight to the pod; what a gateway passed on carries `x-forwarded-for`, and its
/// agent is whatever a client wrote.
pub(super) fn is_health_check(request: &Request<'_>) -> bool {
    let headers = request.headers;
    let is_probe = || {
        let agent = headers.get(b"user-agent").unwrap_or_default();
        agent.starts_with(b"kube-probe/") && headers.get(b"x-forwarded-for").is_none()
    };
    matches!(request.method, b"GET" | b"HEAD")
        && (HEALTH_PATHS.contains(&request.path) || is_probe())
}

/// The mode of a rule inside a section inside a policy: any OFF is off, any SHADOW is shadow.
pub fn effective_mode(modes: &[mode::Value]) -> mode::Value {
    for strongest in [mode::Value::Off, mode::Value::Shadow] {
        if modes.contains(&strongest) {
            return strongest;
        }
    }
    mode::Value::Enforce
}

/// A name that goes into metric labels, header values and keys of shared state as it stands.
#[cold]
pub fn identifier(name: &str, path: &str) -> Result<(), FieldError> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let remedy = "must be 1 to 64 of a-z, 0-9, - and _";
        return Err(FieldError::value(path, format_args!("{name:?}"), remedy));
    }
    Ok(())
}

/// Istio 1.32 names the same plugin differently from 1.31; state has to outlive that.
pub fn stable_plugin(plugin: &str) -> String {
    let plugin = plugin.strip_suffix("~istio-translated-wasmplugin").unwrap_or(plugin);
    plugin.chars().filter(|c| !c.is_control() && *c != '/').take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mode::Value::{Enforce, Off, Shadow, Unspecified};

    #[test]
    fn the_weaker_mode_wins() {
        assert_eq!(effective_mode(&[Unspecified, Enforce]), Enforce);
        assert_eq!(effective_mode(&[Shadow, Enforce]), Shadow);
        assert_eq!(effective_mode(&[Shadow, Off]), Off);
    }

    #[test]
    fn state_outlives_an_upgrade_of_istio() {
        let policy = Policy { name: "shop".into(), ..Policy::default() };
        let old = Common::compile(&policy, "default.limits").unwrap();
        let new = Common::compile(&policy, "default.limits~istio-translated-wasmplugin").unwrap();
        assert_eq!(old.identity, new.identity);
        assert_eq!(old.identity.state_prefix, "weir/1/default.limits/shop");
    }
}
