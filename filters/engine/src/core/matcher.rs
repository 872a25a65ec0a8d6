//! A compiled `Match`.

use std::net::IpAddr;

use weir_protos::FieldError;
use weir_protos::v1::{Match, PathMatch, ValueMatch, direction, path_match};

use super::headers::header_name;
use super::index::Anchor;
use super::policy::is_health_check;
use super::ports::Attributes;
use super::regex::Regex;
use super::request::{Direction, Request, mask, normal_address, normal_authority};
use super::source::Source;
use super::template::Template;
use super::value::{OneOf, ValueTest};

/// All conditions hold. Cheap ones come first, host calls last.
#[derive(Debug, Default)]
pub struct Matcher {
    conditions: Vec<Condition>,
}

#[derive(Debug)]
enum Condition {
    Methods(Vec<Box<[u8]>>),
    Mirrored(bool),
    Path(PathTest),
    /// Every line of the header is tested on its own.
    Header(Box<[u8]>, ValueTest),
    /// Service and method.
    Grpc(Box<[u8]>, Box<[u8]>),
    Value(Source, ValueTest),
    All(Vec<Matcher>),
    Any(Vec<Matcher>),
    Not(Box<Matcher>),
    HealthCheck,
    Direction(Direction),
    Networks(Vec<(IpAddr, u8)>),
}

#[derive(Debug)]
enum PathTest {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Template(Template),
    Regex(Regex),
}

/// What the fields of a policy outside of a match mean to it.
#[derive(Clone, Debug)]
pub struct MatchDefaults {
    pub direction: direction::Value,
    /// The header of `colors`.
    pub color_header: Box<[u8]>,
    /// Whether a match without `mirrored` passes over mirrors.
    pub exempts_mirrors: bool,
}

impl MatchDefaults {
    /// Inside `all`, `any` and `not`, and for exemptions: nothing but what is written counts.
    pub fn plain(&self) -> MatchDefaults {
        MatchDefaults {
            direction: direction::Value::Any,
            color_header: self.color_header.clone(),
            exempts_mirrors: false,
        }
    }
}

impl Matcher {
    /// An absent match means every request that the defaults let through.
    #[cold]
    pub fn compile(
        source: Option<&Match>,
        path: &str,
        defaults: &MatchDefaults,
    ) -> Result<Matcher, FieldError> {
        let empty = Match::default();
        let source = source.unwrap_or(&empty);
        let mut conditions = Vec::new();
        if !source.methods.is_empty() {
            conditions.push(Condition::Methods(methods(&source.methods, path)?));
        }
        match source.mirrored {
            Some(mirrored) => conditions.push(Condition::Mirrored(mirrored)),
            None if defaults.exempts_mirrors => conditions.push(Condition::Mirrored(false)),
            None => {}
        }
        if let Some(test) = &source.path {
            conditions.push(Condition::Path(path_test(test, &format!("{path}.path"))?));
        }
        if let Some(grpc) = &source.grpc {
            for (field, name) in [("service", &grpc.service), ("method", &grpc.method)] {
                if name.contains('/') {
                    let path = format!("{path}.grpc.{field}");
                    let remedy = "must be a name without `/`, such as shop.v1.Orders or Get";
                    return Err(FieldError::value(path, format_args!("{name:?}"), remedy));
                }
            }
            conditions.push(Condition::Grpc(
                grpc.service.as_bytes().into(),
                grpc.method.as_bytes().into(),
            ));
        }
        if let Some(test) = &source.authority {
            let path = format!("{path}.authority");
            conditions.push(Condition::Value(Source::Authority, authority_test(test, &path)?));
        }
        for (name, test) in &source.headers {
            let path = format!("{path}.headers.{name}");
            let name = checked_header(name, &path)?;
            conditions.push(Condition::Header(name, ValueTest::compile(test, &path)?));
        }
        if !source.colors.is_empty() {
            let colors = OneOf::new(source.colors.iter().map(String::as_bytes));
            conditions
                .push(Condition::Header(defaults.color_header.clone(), ValueTest::In(colors)));
        }
        let named = [
            ("cookies", &source.cookies, Source::Cookie as fn(Box<[u8]>) -> Source),
            ("query", &source.query, Source::Query),
            ("baggage", &source.baggage, Source::Baggage),
        ];
        for (field, tests, source) in named {
            for (name, test) in tests {
                let path = format!("{path}.{field}.{name}");
                let name = checked_name(name, &path)?;
                conditions.push(Condition::Value(source(name), ValueTest::compile(test, &path)?));
            }
        }
        let inner = defaults.plain();
        let many = |list: &[Match], field: &str| {
            let each = list.iter().enumerate();
            each.map(|(place, item)| {
                Matcher::compile(Some(item), &format!("{path}.{field}[{place}]"), &inner)
            })
            .collect::<Result<Vec<_>, _>>()
        };
        if !source.all.is_empty() {
            conditions.push(Condition::All(many(&source.all, "all")?));
        }
        if !source.any.is_empty() {
            conditions.push(Condition::Any(many(&source.any, "any")?));
        }
        if let Some(not) = &source.not {
            let not = Matcher::compile(Some(not), &format!("{path}.not"), &inner)?;
            conditions.push(Condition::Not(Box::new(not)));
        }
        let direction = match source.direction() {
            direction::Value::Unspecified => defaults.direction,
            given => given,
        };
        match direction {
            direction::Value::Inbound => conditions.push(Condition::Direction(Direction::Inbound)),
            direction::Value::Outbound => {
                conditions.push(Condition::Direction(Direction::Outbound))
            }
            direction::Value::Any | direction::Value::Unspecified => {}
        }
        if !source.source_addresses.is_empty() {
            conditions.push(Condition::Networks(networks(&source.source_addresses, path)?));
        }
        if let Some(test) = &source.peer_principal {
            let test = ValueTest::compile(test, &format!("{path}.peer_principal"))?;
            conditions.push(Condition::Value(peer_principal(), test));
        }
        for (name, test) in &source.jwt_claims {
            let path = format!("{path}.jwt_claims.{name}");
            conditions
                .push(Condition::Value(jwt_claim(name, &path)?, ValueTest::compile(test, &path)?));
        }
        for (name, test) in &source.properties {
            let path = format!("{path}.properties.{name}");
            conditions
                .push(Condition::Value(attribute(name, &path)?, ValueTest::compile(test, &path)?));
        }
        Ok(Matcher { conditions })
    }

    /// The exemption that a policy inside a mesh has by default.
    pub fn health_checks() -> Matcher {
        Matcher { conditions: vec![Condition::HealthCheck] }
    }

    pub fn matches<'r>(
        &'r self,
        request: &mut Request<'r>,
        attributes: &mut impl Attributes,
    ) -> bool {
        self.conditions.iter().all(|condition| condition.holds(request, attributes))
    }

    /// Places where an index can find this match: it can only hold when one of them does. `None`
    /// where there is no such place. The first set found is not always the best, so all are given.
    pub fn anchors(&self) -> Vec<Vec<Anchor>> {
        self.conditions.iter().flat_map(Condition::anchors).collect()
    }
}

impl Condition {
    fn holds<'r>(&'r self, request: &mut Request<'r>, attributes: &mut impl Attributes) -> bool {
        match self {
            Condition::Methods(methods) => methods.iter().any(|method| **method == *request.method),
            Condition::Mirrored(mirrored) => request.is_mirrored() == *mirrored,
            Condition::Path(test) => test.holds(request.path),
            Condition::Header(name, test) => {
                let mut lines = request.headers.all(name).peekable();
                let (mut holds, mut odd) = (lines.peek().is_none() && test.holds(None), 0_u32);
                for line in lines {
                    odd = odd.saturating_add(u32::from(test.is_odd(line)));
                    if test.holds(Some(line)) {
                        holds = true;
                        break;
                    }
                }
                request.odd_numbers = request.odd_numbers.saturating_add(odd);
                holds
            }
            Condition::Grpc(service, method) => request.grpc_method().is_some_and(|(s, m)| {
                (service.is_empty() || **service == *s) && (method.is_empty() || **method == *m)
            }),
            Condition::Value(source, test) => {
                let value = source.read(request, attributes);
                let is_odd = value.as_deref().is_some_and(|value| test.is_odd(value));
                request.odd_numbers = request.odd_numbers.saturating_add(is_odd.into());
                test.holds(value.as_deref())
            }
            Condition::All(all) => all.iter().all(|item| item.matches(request, attributes)),
            Condition::Any(any) => any.iter().any(|item| item.matches(request, attributes)),
            Condition::Not(not) => !not.matches(request, attributes),
            Condition::HealthCheck => is_health_check(request),
            Condition::Direction(direction) => request.direction(attributes) == *direction,
            Condition::Networks(networks) => {
                request.source_address(attributes).is_some_and(|address| {
                    networks.iter().any(|(network, prefix)| {
                        network.is_ipv4() == address.is_ipv4()
                            && mask(address, *prefix, *prefix) == *network
                    })
                })
            }
        }
    }

    fn anchors(&self) -> Vec<Vec<Anchor>> {
        let one = |anchor| vec![vec![anchor]];
        match self {
            Condition::Path(PathTest::Exact(path)) => one(Anchor::path(path)),
            Condition::Path(PathTest::Prefix(prefix)) => one(Anchor::path_prefix(prefix)),
            Condition::Path(PathTest::Template(template)) => {
                one(Anchor::path_prefix(&template.literal_prefix()))
            }
            Condition::Value(Source::Authority, test) => exact_values(test)
                .map(|values| vec![values.into_iter().map(Anchor::authority).collect()])
                .unwrap_or_default(),
            Condition::Header(name, test) => exact_values(test)
                .map(|values| {
                    vec![values.into_iter().map(|value| Anchor::header(name, value)).collect()]
                })
                .unwrap_or_default(),
            Condition::Grpc(service, method) if !service.is_empty() => {
                let path = [b"/", &**service, b"/", &**method].concat();
                if method.is_empty() {
                    one(Anchor::path_prefix(&path))
                } else {
                    one(Anchor::path(&path))
                }
            }
            Condition::All(all) => all.iter().flat_map(Matcher::anchors).collect(),
            Condition::Any(any) => {
                // Every branch has to be findable; of each, the first way to find it is taken.
                let mut ways = any.iter().map(|item| item.anchors().into_iter().next());
                let all = ways.try_fold(Vec::new(), |mut all, way| {
                    all.extend(way?);
                    Some(all)
                });
                all.map(|all| vec![all]).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

fn exact_values(test: &ValueTest) -> Option<Vec<&[u8]>> {
    match test {
        ValueTest::Exact(value) => Some(vec![value]),
        ValueTest::In(values) => Some(values.iter().collect()),
        _ => None,
    }
}

impl PathTest {
    fn holds(&self, path: &[u8]) -> bool {
        match self {
            PathTest::Exact(exact) => **exact == *path,
            PathTest::Prefix(prefix) => path.starts_with(prefix),
            PathTest::Template(template) => template.is_match(path),
            PathTest::Regex(regex) => regex.is_match(path),
        }
    }
}

#[cold]
fn path_test(test: &PathMatch, path: &str) -> Result<PathTest, FieldError> {
    let rooted = |field: &str, text: &str| {
        if text.starts_with('/') && !text.contains(['?', '#']) {
            return Ok(text.as_bytes().into());
        }
        let remedy = "must start with `/` and hold no query: paths are matched without it";
        Err(FieldError::value(format!("{path}.{field}"), format_args!("{text:?}"), remedy))
    };
    Ok(match &test.operator {
        None => {
            return Err(FieldError::at(path, "must have one of: exact, prefix, template, regex"));
        }
        Some(path_match::Operator::Exact(text)) => PathTest::Exact(rooted("exact", text)?),
        Some(path_match::Operator::Prefix(text)) => PathTest::Prefix(rooted("prefix", text)?),
        Some(path_match::Operator::Template(text)) => {
            PathTest::Template(template(text, &format!("{path}.template"))?)
        }
        Some(path_match::Operator::Regex(text)) => {
            PathTest::Regex(Regex::new(text).map_err(|remedy| {
                FieldError::value(format!("{path}.regex"), format_args!("{text:?}"), remedy)
            })?)
        }
    })
}

/// A value that could never equal a normal form is a mistake worth telling.
#[cold]
fn authority_test(test: &ValueMatch, path: &str) -> Result<ValueTest, FieldError> {
    use weir_protos::v1::value_match::Operator;
    // With a port, a trailing dot or upper case nothing can match; a part may end anywhere else.
    let whole: Vec<&String> = match &test.operator {
        Some(Operator::Exact(text)) => vec![text],
        Some(Operator::In(list)) => list.values.iter().collect(),
        _ => Vec::new(),
    };
    let part = match &test.operator {
        Some(Operator::Prefix(text) | Operator::Suffix(text) | Operator::Contains(text)) => {
            Some(text)
        }
        _ => None,
    };
    let is_odd_part = |text: &&String| {
        text.bytes().any(|byte| byte.is_ascii_uppercase())
            || (text.contains(':') && !text.contains('['))
    };
    let is_odd = |text: &&&String| *normal_authority(text.as_bytes()) != *text.as_bytes();
    if let Some(text) = whole.iter().find(is_odd).copied().or(part.filter(is_odd_part)) {
        let remedy =
            "must be in lower case, without port and trailing dot: that is how hosts are compared";
        return Err(FieldError::value(path, format_args!("{text:?}"), remedy));
    }
    ValueTest::compile(test, path)
}

#[cold]
fn methods(methods: &[String], path: &str) -> Result<Vec<Box<[u8]>>, FieldError> {
    let each = methods.iter().enumerate().map(|(place, method)| {
        let upper = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
        if method.is_empty() || !method.bytes().all(upper) {
            let remedy = "must be a method in upper case, such as GET";
            let path = format!("{path}.methods[{place}]");
            return Err(FieldError::value(path, format_args!("{method:?}"), remedy));
        }
        Ok(method.as_bytes().into())
    });
    each.collect()
}

#[cold]
fn networks(networks: &[String], path: &str) -> Result<Vec<(IpAddr, u8)>, FieldError> {
    let each = networks.iter().enumerate().map(|(place, text)| {
        network(text).ok_or_else(|| {
            let remedy = "must be an address or a network such as 10.0.0.0/8, with no bit set past the prefix";
            let path = format!("{path}.source_addresses[{place}]");
            FieldError::value(path, format_args!("{text:?}"), remedy)
        })
    });
    each.collect()
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let written = address.parse::<IpAddr>().ok()?;
    let widest = if written.is_ipv4() { 32 } else { 128 };
    let mut prefix = match prefix {
        Some(prefix) => prefix.parse::<u8>().ok().filter(|prefix| *prefix <= widest)?,
        None => widest,
    };
    let address = normal_address(written);
    if address.is_ipv4() && written.is_ipv6() {
        prefix = prefix.checked_sub(96)?;
    }
    (mask(address, prefix, prefix) == address).then_some((address, prefix))
}

// === names that keys use as well ===

#[cold]
pub fn checked_header(name: &str, path: &str) -> Result<Box<[u8]>, FieldError> {
    let remedy = "must be a header name of letters, digits and `-`; for :path and the like use the field made for it";
    let name = header_name(name)
        .ok_or_else(|| FieldError::value(path, format_args!("{name:?}"), remedy))?;
    Ok(name.into_bytes().into())
}

#[cold]
pub fn checked_name(name: &str, path: &str) -> Result<Box<[u8]>, FieldError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b",;=&\"".contains(&byte);
    if name.is_empty() || name.len() > 256 || !name.bytes().all(plain) {
        let remedy = "must be a name of 1 to 256 visible ASCII characters without `,` `;` `=` `&` and quotes";
        return Err(FieldError::value(path, format_args!("{name:?}"), remedy));
    }
    Ok(name.as_bytes().into())
}

#[cold]
pub fn template(text: &str, path: &str) -> Result<Template, FieldError> {
    Template::parse(text)
        .map_err(|remedy| FieldError::value(path, format_args!("{text:?}"), remedy))
}

pub fn peer_principal() -> Source {
    Source::Attribute((*b"connection\0uri_san_peer_certificate").into())
}

/// A claim that Envoy's jwt_authn verified and left in the request's metadata.
#[cold]
pub fn jwt_claim(name: &str, path: &str) -> Result<Source, FieldError> {
    let remedy = "must be <payload>.<claim>, where <payload> is jwt_authn's payload_in_metadata";
    let wrong = || FieldError::value(path, format_args!("{name:?}"), remedy);
    let (payload, claim) = name.split_once('.').ok_or_else(wrong)?;
    if payload.is_empty() || claim.is_empty() || name.len() > 256 || name.contains('\0') {
        return Err(wrong());
    }
    let path =
        format!("metadata\0filter_metadata\0envoy.filters.http.jwt_authn\0{payload}\0{claim}");
    Ok(Source::Attribute(path.into_bytes().into()))
}

#[cold]
pub fn attribute(name: &str, path: &str) -> Result<Source, FieldError> {
    let named = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_graphic();
        !part.is_empty() && part.bytes().all(plain)
    };
    if name.len() > 256 || !name.split('.').all(named) {
        let remedy = "must be an Envoy attribute such as xds.route_name";
        return Err(FieldError::value(path, format_args!("{name:?}"), remedy));
    }
    Ok(Source::Attribute(name.replace('.', "\0").into_bytes().into()))
}
