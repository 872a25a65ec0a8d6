//! Keys: what of a request tells one bucket, breaker or cohort from another.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;
use weir_protos::FieldError;
use weir_protos::v1::key_part::{OnMissing, Source as Part};
use weir_protos::v1::{KeyPart, path_key};

use super::matcher::{
    attribute, checked_header, checked_name, jwt_claim, peer_principal, template,
};
use super::ports::Attributes;
use super::request::Request;
use super::source::Source;

/// More parts than this are a mistake, and each costs a look at the request.
pub const MAX_PARTS: usize = 16;

/// The secret under which keys are hashed: a client that knows the code still cannot choose which
/// slot its key falls into, nor find two keys with one fingerprint.
pub type Secret = [u8; 16];

/// A key of a request, hashed. Equal keys have equal fingerprints; different ones collide by chance
/// alone, once in 2^64 pairs.
pub type Fingerprint = u64;

/// The scope of keys that belong to one name, e.g. a rule's place in shared data.
pub fn scope(name: &[u8]) -> Fingerprint {
    let mut hasher = SipHasher13::new();
    hasher.write(name);
    hasher.finish()
}

#[derive(Debug, Default)]
pub struct Key {
    parts: Vec<(Source, OnMissing)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOutcome {
    Found(Fingerprint),
    /// A part is missing, and then the rule does not apply.
    Skip,
    /// A part is missing, and then the rule refuses.
    Reject,
}

/// A key as a person reads it.
#[cfg(any(test, feature = "sim"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLook {
    /// The rule has no key: all requests share one.
    Whole,
    /// The value of each part.
    Found(Vec<Vec<u8>>),
    /// This part is missing, and then the rule refuses, or does not apply.
    Missing { part: usize, rejects: bool },
}

impl Key {
    #[cold]
    pub fn compile(parts: &[KeyPart], color_header: &[u8], path: &str) -> Result<Key, FieldError> {
        if parts.len() > MAX_PARTS {
            return Err(FieldError::value(path, parts.len(), "parts: must have at most 16"));
        }
        let each = parts.iter().enumerate().map(|(place, part)| {
            let path = format!("{path}[{place}]");
            Ok((compile_part(part, color_header, &path)?, part.on_missing()))
        });
        Ok(Key { parts: each.collect::<Result<_, _>>()? })
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Where a part comes from.
    pub fn part(&self, place: usize) -> Option<&Source> {
        self.parts.get(place).map(|(source, _)| source)
    }

    /// What the parts say, before anything is hashed.
    #[cfg(any(test, feature = "sim"))]
    pub fn look<'r>(
        &'r self,
        request: &mut Request<'r>,
        attributes: &mut impl Attributes,
    ) -> KeyLook {
        if self.parts.is_empty() {
            return KeyLook::Whole;
        }
        let mut values = Vec::with_capacity(self.parts.len());
        for (part, (source, on_missing)) in self.parts.iter().enumerate() {
            match (source.read(request, attributes), on_missing) {
                (Some(value), _) => values.push(value.into_owned()),
                (None, OnMissing::Empty) => values.push(Vec::new()),
                (None, OnMissing::Reject) => return KeyLook::Missing { part, rejects: true },
                (None, _) => return KeyLook::Missing { part, rejects: false },
            }
        }
        KeyLook::Found(values)
    }

    /// Keys of different `scope`s differ. Each part goes in with its length, so that ("a", "bc")
    /// and ("ab", "c") differ as well.
    pub fn of<'r>(
        &'r self,
        request: &mut Request<'r>,
        attributes: &mut impl Attributes,
        secret: &Secret,
        scope: Fingerprint,
    ) -> KeyOutcome {
        self.of_shown(request, attributes, secret, scope, &mut |_, _| {})
    }

    /// The same, showing each part's value by its place; a missing one is empty.
    pub fn of_shown<'r>(
        &'r self,
        request: &mut Request<'r>,
        attributes: &mut impl Attributes,
        secret: &Secret,
        scope: Fingerprint,
        show: &mut dyn FnMut(usize, &[u8]),
    ) -> KeyOutcome {
        if self.parts.is_empty() {
            // No client has a say in it.
            return KeyOutcome::Found(scope);
        }
        let mut hasher = SipHasher13::new_with_key(secret);
        hasher.write_u64(scope);
        for (place, (source, on_missing)) in self.parts.iter().enumerate() {
            match (source.read(request, attributes), on_missing) {
                (Some(value), _) => {
                    hasher.write_u64(value.len() as u64);
                    hasher.write(&value);
                    show(place, &value);
                }
                // As if the part were there and empty.
                (None, OnMissing::Empty) => {
                    hasher.write_u64(0);
                    show(place, b"");
                }
                (None, OnMissing::Reject) => return KeyOutcome::Reject,
                (None, OnMissing::SkipRule | OnMissing::Unspecified) => return KeyOutcome::Skip,
            }
        }
        KeyOutcome::Found(hasher.finish())
    }
}

/// The key of shared data of one set of a rule's table.
pub fn set_key(rule: &[u8], set: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(rule.len().saturating_add(8));
    key.extend_from_slice(rule);
    for shift in [28, 24, 20, 16, 12, 8, 4, 0] {
        let digit = b"0123456789abcdef".get((set >> shift) as usize & 15).copied();
        key.extend(digit);
    }
    key
}

/// Where a key stands between 0 and 9999, for `enforced_percent`. The low bits of a fingerprint
/// choose its set, so others are used here.
pub fn sticky_share(fingerprint: Fingerprint) -> u32 {
    u32::try_from((fingerprint >> 16) % 10_000).unwrap_or(0)
}

/// A value of the request that is not part of a key; without it there is none.
#[cold]
pub fn value_source(part: &KeyPart, color_header: &[u8], path: &str) -> Result<Source, FieldError> {
    if part.on_missing() != OnMissing::Unspecified {
        let path = format!("{path}.on_missing");
        return Err(FieldError::at(
            path,
            "has no meaning here: a request without the value goes without; remove it",
        ));
    }
    compile_part(part, color_header, path)
}

#[cold]
fn compile_part(part: &KeyPart, color_header: &[u8], path: &str) -> Result<Source, FieldError> {
    let Some(source) = &part.source else {
        let remedy = "must have one of: header, cookie, query, path, method, authority, grpc_service, \
                      grpc_method, source_address, peer_principal, jwt_claim, baggage, color, property, constant";
        return Err(FieldError::at(path, remedy));
    };
    let on = |field: &str, on: bool, source: Source| {
        if on {
            return Ok(source);
        }
        Err(FieldError::value(
            format!("{path}.{field}"),
            "false",
            "must be true, or leave the part out",
        ))
    };
    match source {
        Part::Header(name) => Ok(Source::Header(checked_header(name, &format!("{path}.header"))?)),
        Part::Cookie(name) => Ok(Source::Cookie(checked_name(name, &format!("{path}.cookie"))?)),
        Part::Query(name) => Ok(Source::Query(checked_name(name, &format!("{path}.query"))?)),
        Part::Baggage(name) => Ok(Source::Baggage(checked_name(name, &format!("{path}.baggage"))?)),
        Part::JwtClaim(name) => jwt_claim(name, &format!("{path}.jwt_claim")),
        Part::Property(name) => attribute(name, &format!("{path}.property")),
        Part::Method(is) => on("method", *is, Source::Method),
        Part::Authority(is) => on("authority", *is, Source::Authority),
        Part::GrpcService(is) => on("grpc_service", *is, Source::GrpcService),
        Part::GrpcMethod(is) => on("grpc_method", *is, Source::GrpcMethod),
        Part::PeerPrincipal(is) => on("peer_principal", *is, peer_principal()),
        Part::Color(is) => on("color", *is, Source::Header(color_header.into())),
        Part::Constant(text) => Ok(Source::Constant(text.as_bytes().into())),
        Part::SourceAddress(masks) => {
            let bits = |field: &str, given: Option<u32>, default: u8, widest: u8| {
                let bits = given.map_or(Some(default), |bits| u8::try_from(bits).ok());
                bits.filter(|bits| (1..=widest).contains(bits)).ok_or_else(|| {
                    let path = format!("{path}.source_address.{field}");
                    FieldError::value(
                        path,
                        given.unwrap_or(0),
                        format!("must be from 1 to {widest}"),
                    )
                })
            };
            Ok(Source::SourceAddress {
                v4_prefix: bits("v4_prefix", masks.v4_prefix, 32, 32)?,
                v6_prefix: bits("v6_prefix", masks.v6_prefix, 64, 128)?,
            })
        }
        Part::Path(key) => match &key.part {
            None => Err(FieldError::at(
                format!("{path}.path"),
                "must have one of: whole, segments, template",
            )),
            Some(path_key::Part::Whole(is)) => on("path.whole", *is, Source::Path),
            Some(path_key::Part::Segments(count)) => {
                if !(1..=16).contains(count) {
                    let path = format!("{path}.path.segments");
                    return Err(FieldError::value(path, count, "must be from 1 to 16"));
                }
                Ok(Source::PathSegments(*count as usize))
            }
            Some(path_key::Part::Template(segment)) => {
                let path = format!("{path}.path.template");
                let parsed = template(&segment.template, &format!("{path}.template"))?;
                let place = parsed.place(&segment.name).ok_or_else(|| {
                    let remedy = format!("must be a variable of {:?}", segment.template);
                    FieldError::value(
                        format!("{path}.name"),
                        format_args!("{:?}", segment.name),
                        remedy,
                    )
                })?;
                Ok(Source::PathTemplate(parsed, place))
            }
        },
    }
}
