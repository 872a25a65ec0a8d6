//! Where a value comes from: the sources that keys and matches share.

use std::borrow::Cow;
use std::net::IpAddr;

use super::ports::Attributes;
use super::request::{Request, mask, split_once};
use super::template::Template;

/// One place in a request to read a value from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Several lines are joined with a comma, as RFC 9110 section 5.3 allows.
    Header(Box<[u8]>),
    Cookie(Box<[u8]>),
    Query(Box<[u8]>),
    Path,
    /// The first n segments.
    PathSegments(usize),
    /// What the n-th variable of a template took.
    PathTemplate(Template, usize),
    Method,
    Authority,
    GrpcService,
    GrpcMethod,
    SourceAddress {
        v4_prefix: u8,
        v6_prefix: u8,
    },
    /// An Envoy attribute: path segments separated by NUL.
    Attribute(Box<[u8]>),
    Baggage(Box<[u8]>),
    Constant(Box<[u8]>),
}

impl Source {
    pub fn read<'r>(
        &'r self,
        request: &mut Request<'r>,
        attributes: &mut impl Attributes,
    ) -> Option<Cow<'r, [u8]>> {
        let headers = request.headers;
        match self {
            Source::Header(name) => joined(headers.all(name)),
            Source::Cookie(name) => {
                headers.all(b"cookie").find_map(|line| pair(line, b';', name)).map(Cow::Borrowed)
            }
            Source::Query(name) => pair(request.query, b'&', name).map(Cow::Borrowed),
            Source::Path => Some(Cow::Borrowed(request.path)),
            Source::PathSegments(count) => first_segments(request.path, *count).map(Cow::Borrowed),
            Source::PathTemplate(template, place) => {
                template.capture(request.path, *place).map(Cow::Borrowed)
            }
            Source::Method => Some(Cow::Borrowed(request.method)),
            Source::Authority => Some(request.authority()),
            Source::GrpcService => request.grpc_method().map(|(service, _)| Cow::Borrowed(service)),
            Source::GrpcMethod => request.grpc_method().map(|(_, method)| Cow::Borrowed(method)),
            Source::SourceAddress { v4_prefix, v6_prefix } => {
                let address = mask(request.source_address(attributes)?, *v4_prefix, *v6_prefix);
                Some(Cow::Owned(match address {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                }))
            }
            Source::Attribute(path) => {
                attributes.attribute(path).filter(|value| !value.is_empty()).map(Cow::Owned)
            }
            Source::Baggage(key) => {
                headers.all(b"baggage").find_map(|line| member(line, key)).map(Cow::Borrowed)
            }
            Source::Constant(value) => Some(Cow::Borrowed(value)),
        }
    }
}

fn joined<'r>(mut lines: impl Iterator<Item = &'r [u8]>) -> Option<Cow<'r, [u8]>> {
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
    let mut all = first.to_vec();
    for line in std::iter::once(second).chain(lines) {
        all.push(b',');
        all.extend_from_slice(line);
    }
    Some(Cow::Owned(all))
}

/// The value of the first `name=value` among parts that `separator` divides.
fn pair<'r>(line: &'r [u8], separator: u8, name: &[u8]) -> Option<&'r [u8]> {
    line.split(|byte| *byte == separator).find_map(|part| {
        let part = part.trim_ascii_start();
        // Almost all parts fail here, without a search for the equals sign.
        let rest = part.strip_prefix(name)?;
        match rest.split_first() {
            Some((b'=', value)) => Some(value.trim_ascii_end()),
            // `?flag` is a parameter with an empty value.
            None => Some(rest),
            _ => None,
        }
    })
}

/// A member of a W3C baggage line (section 3.3.1): `key = value ; properties`, white space around
/// each being optional.
fn member<'r>(line: &'r [u8], key: &[u8]) -> Option<&'r [u8]> {
    line.split(|byte| *byte == b',').find_map(|entry| {
        let (name, rest) = split_once(entry, b'=')?;
        let value = rest.split(|byte| *byte == b';').next().unwrap_or_default();
        (name.trim_ascii() == key).then(|| value.trim_ascii())
    })
}

/// `/a/b` of `/a/b/c` for two segments; a path with fewer has no such part.
fn first_segments(path: &[u8], count: usize) -> Option<&[u8]> {
    let mut slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    if path.first() != Some(&b'/') {
        return None;
    }
    let start = slashes.nth(count.checked_sub(1)?)?.0;
    // A segment without a byte is none: `/a/` has one segment.
    let segment = path.get(start.checked_add(1)?..)?;
    if segment.first().is_none_or(|byte| *byte == b'/') {
        return None;
    }
    match slashes.next() {
        Some((end, _)) => path.get(..end),
        None => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::super::headers::HeaderMap;
    use super::*;

    struct Nothing;
    impl Attributes for Nothing {
        fn attribute(&mut self, _: &[u8]) -> Option<Vec<u8>> {
            None
        }
    }

    fn read(source: &Source, headers: &[(&str, &str)]) -> Option<String> {
        let headers = HeaderMap::from_pairs(headers);
        let mut request = Request::new(&headers);
        source
            .read(&mut request, &mut Nothing)
            .map(|value| String::from_utf8(value.into_owned()).unwrap())
    }

    #[test]
    fn cookies_parameters_and_members() {
        let cookie = Source::Cookie((*b"id").into());
        assert_eq!(read(&cookie, &[("cookie", "xid=1; id=2 ;id=3")]).as_deref(), Some("2"));
        assert_eq!(read(&cookie, &[("cookie", "a=1"), ("cookie", "id=")]).as_deref(), Some(""));
        assert_eq!(read(&cookie, &[("cookie", "idx=1")]), None);
        let query = Source::Query((*b"q").into());
        assert_eq!(read(&query, &[(":path", "/?qq=1&q=a%20b&q=2")]).as_deref(), Some("a%20b"));
        assert_eq!(read(&query, &[(":path", "/?q")]).as_deref(), Some(""));
        assert_eq!(read(&query, &[(":path", "/q=1")]), None);
        let member = Source::Baggage((*b"user").into());
        assert_eq!(
            read(&member, &[("baggage", "a=b , user = u1 ; p=1,user=u2")]).as_deref(),
            Some("u1")
        );
        assert_eq!(read(&member, &[("baggage", "users=1")]), None);
    }

    #[test]
    fn lines_are_joined() {
        let source = Source::Header((*b"x").into());
        assert_eq!(read(&source, &[("x", "a"), ("y", "-"), ("x", "b")]).as_deref(), Some("a,b"));
        assert_eq!(read(&source, &[("x", "")]).as_deref(), Some(""));
        assert_eq!(read(&source, &[]), None);
    }

    #[test]
    fn segments() {
        for (path, count, expected) in [
            ("/a/b/c", 1, Some("/a")),
            ("/a/b/c", 2, Some("/a/b")),
            ("/a/b/c", 3, Some("/a/b/c")),
            ("/a/b/c", 4, None),
            ("/a/", 2, None),
            ("/a/", 1, Some("/a")),
            ("//a", 1, None),
            ("*", 1, None),
            ("", 1, None),
        ] {
            assert_eq!(
                read(&Source::PathSegments(count), &[(":path", path)]).as_deref(),
                expected,
                "{path} {count}"
            );
        }
    }
}
