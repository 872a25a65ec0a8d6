//! One request as rules see it: headers in their normal forms, and Envoy's attributes on demand.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::headers::HeaderMap;
use super::ports::Attributes;

/// The listener's traffic direction, as Envoy numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Unspecified,
    Inbound,
    Outbound,
}

/// A request and what was learnt of it so far. Attributes cost a host call each, so they are asked
/// for once and only when a rule needs them.
pub struct Request<'r> {
    pub headers: &'r HeaderMap,
    /// Without the query. What Envoy routes by: not decoded, not normalised by us.
    pub path: &'r [u8],
    /// Without the question mark.
    pub query: &'r [u8],
    pub method: &'r [u8],
    direction: Option<Direction>,
    source: Option<Option<IpAddr>>,
    grpc: Option<bool>,
    /// Values that were to be compared as numbers and are none.
    pub odd_numbers: u32,
}

impl<'r> Request<'r> {
    pub fn new(headers: &'r HeaderMap) -> Request<'r> {
        let target = headers.get(b":path").unwrap_or_default();
        // A fragment is no part of what Envoy routes by either.
        let end =
            target.iter().position(|byte| matches!(byte, b'#' | b'?')).unwrap_or(target.len());
        let (path, rest) = target.split_at_checked(end).unwrap_or((target, b""));
        let query = rest.strip_prefix(b"?").unwrap_or_default();
        let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
        Request {
            headers,
            path,
            query,
            method: headers.get(b":method").unwrap_or_default(),
            direction: None,
            source: None,
            grpc: None,
            odd_numbers: 0,
        }
    }

    /// Lower-cased, without port and trailing dot.
    pub fn authority(&self) -> Cow<'r, [u8]> {
        normal_authority(self.headers.get(b":authority").unwrap_or_default())
    }

    /// What Envoy takes for gRPC, since Envoy then makes the answer: `application/grpc` as it stands,
    /// or with a `+` suffix. With parameters, and as grpc-web, it is plain HTTP to Envoy.
    pub fn is_grpc(&mut self) -> bool {
        let headers = self.headers;
        *self.grpc.get_or_insert_with(|| {
            let kind = headers.get(b"content-type").unwrap_or_default();
            kind.strip_prefix(b"application/grpc")
                .is_some_and(|rest| matches!(rest, [] | [b'+', ..]))
        })
    }

    /// Service and method of a gRPC request: `/shop.v1.Orders/Get`. Servers take more for gRPC than
    /// Envoy does, parameters and upper case, and a limit on a method holds for these as well.
    pub fn grpc_method(&mut self) -> Option<(&'r [u8], &'r [u8])> {
        let kind = self.headers.get(b"content-type").unwrap_or_default();
        let (base, rest) = kind.split_at_checked(b"application/grpc".len())?;
        let is_grpc = base.eq_ignore_ascii_case(b"application/grpc")
            && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'));
        split_once(self.path.strip_prefix(b"/").filter(|_| is_grpc)?, b'/')
    }

    /// A mirror that Envoy made: it appends `-shadow` to the host, before any port.
    pub fn is_mirrored(&self) -> bool {
        self.authority().ends_with(b"-shadow")
    }

    /// Asked for each stream: listeners that get the filter from one ECDS resource share its root,
    /// whatever their directions.
    pub fn direction(&mut self, attributes: &mut impl Attributes) -> Direction {
        *self.direction.get_or_insert_with(|| {
            let value = attributes.attribute(b"xds\0listener_direction");
            match value.as_deref().and_then(|bytes| bytes.first()) {
                Some(1) => Direction::Inbound,
                Some(2) => Direction::Outbound,
                _ => Direction::Unspecified,
            }
        })
    }

    /// The client's address as Envoy decided it; none for a Unix socket.
    pub fn source_address(&mut self, attributes: &mut impl Attributes) -> Option<IpAddr> {
        *self.source.get_or_insert_with(|| {
            let value = attributes.attribute(b"source\0address")?;
            let text = std::str::from_utf8(&value).ok()?;
            let address = text.parse::<SocketAddr>().map(|socket| socket.ip());
            address.or_else(|_| text.parse::<IpAddr>()).ok().map(normal_address)
        })
    }
}

/// An IPv4-mapped IPv6 address is the IPv4 address.
pub fn normal_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// The first `prefix` bits of an address; the rest is zero.
pub fn mask(address: IpAddr, v4_prefix: u8, v6_prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let kept = u32::MAX.checked_shl(32_u32.saturating_sub(v4_prefix.into())).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & kept).into())
        }
        IpAddr::V6(v6) => {
            let kept = u128::MAX.checked_shl(128_u32.saturating_sub(v6_prefix.into())).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & kept))
        }
    }
}

/// Lower case, no port, no trailing dot. An IPv6 literal keeps its brackets.
pub fn normal_authority(authority: &[u8]) -> Cow<'_, [u8]> {
    let host = match authority.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|byte| *byte == b']') {
            // The bracket that was stripped, and the one found.
            Some(end) => authority.get(..end.saturating_add(2)).unwrap_or(authority),
            None => authority,
        },
        None => authority.split(|byte| *byte == b':').next().unwrap_or_default(),
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

pub fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((bytes.get(..place)?, bytes.get(place.checked_add(1)?..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_have_one_form() {
        for (written, normal) in [
            ("Shop.Example:8443", "shop.example"),
            ("shop.example.", "shop.example"),
            ("shop.example.:80", "shop.example"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[broken", "[broken"),
            ("", ""),
            ("10.0.0.1:1", "10.0.0.1"),
        ] {
            assert_eq!(normal_authority(written.as_bytes()), normal.as_bytes(), "{written}");
        }
    }

    #[test]
    fn targets_come_apart() {
        for (target, path, query) in [
            ("/a?b=c?d", "/a", "b=c?d"),
            ("/a", "/a", ""),
            ("", "", ""),
            ("/a#f?x", "/a", ""),
            ("*", "*", ""),
        ] {
            let headers = HeaderMap::from_pairs(&[(":path", target)]);
            let request = Request::new(&headers);
            assert_eq!(
                (request.path, request.query),
                (path.as_bytes(), query.as_bytes()),
                "{target}"
            );
        }
    }

    #[test]
    fn grpc_is_told_from_grpc_web() {
        for (kind, to_envoy, to_servers) in [
            ("application/grpc", true, true),
            ("application/grpc+proto", true, true),
            ("Application/gRPC", false, true),
            ("application/grpc;x=y", false, true),
            ("application/grpc-web", false, false),
            ("application/grpc-web+proto", false, false),
            ("application/json", false, false),
            ("", false, false),
        ] {
            let headers = HeaderMap::from_pairs(&[("content-type", kind), (":path", "/p.S/M")]);
            let mut request = Request::new(&headers);
            assert_eq!(request.is_grpc(), to_envoy, "{kind}");
            assert_eq!(request.grpc_method(), to_servers.then_some((&b"p.S"[..], &b"M"[..])));
        }
    }

    #[test]
    fn masks() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(mask(ip("10.1.2.3"), 24, 64), ip("10.1.2.0"));
        assert_eq!(mask(ip("10.1.2.3"), 32, 64), ip("10.1.2.3"));
        assert_eq!(mask(ip("2001:db8:1:2:3::4"), 32, 64), ip("2001:db8:1:2::"));
        assert_eq!(mask(ip("2001:db8::4"), 32, 128), ip("2001:db8::4"));
        assert_eq!(normal_address(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }
}
