//! What the parts of a key are called.

use weir_engine::core::key::KeyLook;
use weir_protos::v1::KeyPart;
use weir_protos::v1::key_part::Source;

/// As a person would say it, such as `header x-user`.
pub fn name(part: &KeyPart) -> String {
    match &part.source {
        Some(Source::Header(name)) => format!("header {name}"),
        Some(Source::Cookie(name)) => format!("cookie {name}"),
        Some(Source::Query(name)) => format!("query {name}"),
        Some(Source::Path(_)) => "path".into(),
        Some(Source::Method(_)) => "method".into(),
        Some(Source::Authority(_)) => "authority".into(),
        Some(Source::GrpcService(_)) => "gRPC service".into(),
        Some(Source::GrpcMethod(_)) => "gRPC method".into(),
        Some(Source::SourceAddress(_)) => "source address".into(),
        Some(Source::PeerPrincipal(_)) => "peer principal".into(),
        Some(Source::JwtClaim(name)) => format!("claim {name}"),
        Some(Source::Baggage(name)) => format!("baggage {name}"),
        Some(Source::Color(_)) => "color".into(),
        Some(Source::Property(name)) => format!("property {name}"),
        Some(Source::Constant(_)) => "constant".into(),
        None => "nothing".into(),
    }
}

/// The value of a part: an address in its own form.
pub fn value(part: &KeyPart, value: &[u8]) -> String {
    if let Some(Source::SourceAddress(_)) = &part.source {
        if let Ok(v4) = <[u8; 4]>::try_from(value) {
            return std::net::Ipv4Addr::from(v4).to_string();
        }
        if let Ok(v6) = <[u8; 16]>::try_from(value) {
            return std::net::Ipv6Addr::from(v6).to_string();
        }
    }
    text(value)
}

/// Bytes that are no text are shown in an escaped form, so that different ones look different.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.escape_ascii().to_string(), str::to_string)
}

/// Names and values of a key; `Err` names the part that is missing.
pub fn read(parts: &[KeyPart], look: &KeyLook) -> Result<Vec<(String, String)>, (String, bool)> {
    match look {
        KeyLook::Whole => Ok(Vec::new()),
        KeyLook::Found(values) => {
            let each = parts.iter().zip(values);
            Ok(each.map(|(part, found)| (name(part), value(part, found))).collect())
        }
        KeyLook::Missing { part, rejects } => {
            Err((parts.get(*part).map(name).unwrap_or_default(), *rejects))
        }
    }
}
