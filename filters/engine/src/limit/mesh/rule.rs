//! A rule whose limit an engine keeps.

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
    #[cold]
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
        let value = match source {
            Some(Source::SourceAddress { .. }) => address(value),
            _ => value.to_vec(),
        };
        (name, value)
    }
}

/// The standard library's text of an address would be 3 KB of a module. Of an IPv6 address all groups are
/// written, with their zeros.
fn address(octets: &[u8]) -> Vec<u8> {
    let hex = |nibble: u8| b"0123456789abcdef".get(usize::from(nibble)).copied();
    let mut text = Vec::with_capacity(39);
    for (place, octet) in octets.iter().enumerate() {
        if octets.len() == 4 {
            if place > 0 {
                text.push(b'.');
            }
            text.extend_from_slice(octet.to_string().as_bytes());
        } else {
            if place > 0 && place.is_multiple_of(2) {
                text.push(b':');
            }
            text.extend([hex(octet >> 4), hex(octet & 15)].into_iter().flatten());
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_out() {
        assert_eq!(address(&[10, 0, 0, 7]), b"10.0.0.7");
        let v6 = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa);
        assert_eq!(address(&v6.octets()), b"2001:0db8:0000:0000:0000:0000:0000:000a");
    }
}
