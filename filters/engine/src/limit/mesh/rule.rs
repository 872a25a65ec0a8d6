//! A rule whose limit an engine keeps.

use std::net::IpAddr;
use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::key_part::Source as Part;
use weir_protos::v1::{KeyPart, RateLimitRule};

use super::settings::Settings;
use super::wire::Entry;
use crate::core::source::Source;
use crate::limit::gcra::Rate;

#[derive(Debug)]
pub struct MeshRule {
    pub settings: Rc<Settings>,
    /// The start of the keys of its leases.
    pub place: Rc<[u8]>,
    /// The limit, as the policy knows it.
    pub rate: Rate,
    /// What the process falls back to.
    pub safe: Option<Rate>,
    /// Of the entries of a descriptor, in the order of the key's parts.
    names: Vec<String>,
}

impl MeshRule {
    pub fn compile(
        source: &RateLimitRule,
        engine: Option<&Rc<Settings>>,
        rate: Rate,
        state: &str,
        path: &str,
    ) -> Result<MeshRule, FieldError> {
        let Some(settings) = engine else {
            let remedy = "needs policy.rate_limit.mesh, which names the engine; add it";
            return Err(FieldError::value(format!("{path}.scope"), "MESH", remedy));
        };
        let has_rates = source.overrides.iter().any(|it| !it.unlimited);
        let charges = source.cost.as_ref().is_some_and(|cost| !cost.response_header.is_empty());
        for (field, is_set, remedy) in [
            ("calendar", source.calendar != 0, "the engine has windows of its own; remove it"),
            ("max_concurrent", source.max_concurrent.is_some(), "give it a rule of its own"),
            ("priority", source.priority.is_some(), "remove it"),
            ("overrides", has_rates, "give the engine these limits; `unlimited: true` may stay"),
            ("cost.response_header", charges, "hits cannot be taken afterwards; remove it"),
        ] {
            if is_set {
                let remedy = format!("does not go with `scope: MESH`: {remedy}");
                return Err(FieldError::at(format!("{path}.{field}"), remedy));
            }
        }
        Ok(MeshRule {
            settings: Rc::clone(settings),
            place: format!("{state}mesh/").into_bytes().into(),
            rate,
            safe: settings.safe(rate),
            names: source.key.iter().map(name).collect(),
        })
    }

    /// The entry of a part of the key.
    pub fn entry(&self, part: usize, source: Option<&Source>, value: &[u8]) -> Entry {
        let name = self.names.get(part).cloned().unwrap_or_default();
        let address = match source {
            Some(Source::SourceAddress { .. }) => address(value),
            _ => None,
        };
        (name, address.map_or_else(|| value.to_vec(), |address| address.to_string().into_bytes()))
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// As Envoy's own rate-limit actions call it, where they have one.
fn name(part: &KeyPart) -> String {
    let name = match &part.source {
        Some(
            Part::Header(name)
            | Part::Cookie(name)
            | Part::Query(name)
            | Part::JwtClaim(name)
            | Part::Baggage(name)
            | Part::Property(name),
        ) => name,
        Some(Part::Path(_)) => "path",
        Some(Part::Method(_)) => "method",
        Some(Part::Authority(_)) => "authority",
        Some(Part::GrpcService(_)) => "grpc_service",
        Some(Part::GrpcMethod(_)) => "grpc_method",
        Some(Part::SourceAddress(_)) => "remote_address",
        Some(Part::PeerPrincipal(_)) => "peer_principal",
        Some(Part::Color(_)) => "color",
        Some(Part::Constant(_)) | None => "generic_key",
    };
    name.to_string()
}
