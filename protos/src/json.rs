//! proto3-JSON to messages: a walk over the document that writes the protobuf wire form, guided by
//! a table, and one generated decoder behind it. It works on any serde format, so that the same
//! reader serves JSON in the module and YAML in the terminal. Every error names the field.

use std::fmt;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::FieldError;
use crate::scalar::{Scalar, encode_duration};
use crate::sections::Section;
use crate::table::{ENUMS, Field, Kind, MESSAGES, Message, Shape};
use crate::v1::Policy;

/// Deeper documents are refused: matches nest, and the stack of a module is small.
const MAX_DEPTH: usize = 32;

/// Reads a policy from JSON text. Nothing at all is the empty policy, as Istio sends it for a
/// WasmPlugin without `pluginConfig`.
pub fn decode_json(text: &[u8], section: Section) -> Result<Policy, FieldError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Policy::default());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let policy = decode(&mut deserializer, section)?;
    deserializer.end().map_err(|err| FieldError::at("policy", format!("is not JSON: {err}")))?;
    Ok(policy)
}

/// Reads a policy from any self-describing serde format, e.g. YAML.
pub fn decode<'de, D: Deserializer<'de>>(
    deserializer: D,
    section: Section,
) -> Result<Policy, FieldError> {
    let root = MESSAGES.first().ok_or_else(|| FieldError::at("policy", "has no schema"))?;
    let mut walk = Walk { path: "policy".into(), refused: None, section, depth: 0 };
    let mut wire = Vec::with_capacity(1024);
    let seed = MessageSeed { message: root, walk: &mut walk, out: &mut wire };
    if let Err(err) = seed.deserialize(deserializer) {
        return Err(walk
            .refused
            .unwrap_or_else(|| FieldError::at("policy", format!("cannot be read: {err}"))));
    }
    Policy::decode(wire.as_slice())
        .map_err(|err| FieldError::at("policy", format!("does not decode: {err}")))
}

struct Walk {
    path: String,
    refused: Option<FieldError>,
    section: Section,
    depth: usize,
}

impl Walk {
    /// Keeps the first error: serde's own error type cannot carry it.
    fn refuse<E: Error>(&mut self, error: FieldError) -> E {
        let text = E::custom(&error);
        self.refused.get_or_insert(error);
        text
    }

    /// Runs `inner` with `segment` added to the path.
    fn within<T>(&mut self, segment: fmt::Arguments<'_>, inner: impl FnOnce(&mut Walk) -> T) -> T {
        let length = self.path.len();
        // Writing to a String cannot fail.
        let _ = fmt::Write::write_fmt(&mut self.path, segment);
        let result = inner(self);
        if self.refused.is_none() {
            self.path.truncate(length);
        }
        result
    }
}

struct MessageSeed<'a> {
    message: &'static Message,
    walk: &'a mut Walk,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.message.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let MessageSeed { message, walk, out } = self;
        if walk.depth >= MAX_DEPTH {
            let path = walk.path.clone();
            return Err(walk.refuse(FieldError::at(path, "is nested more than 32 levels deep")));
        }
        walk.depth += 1;
        let mut seen: Vec<&'static Field> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let found =
                message.fields.iter().find(|field| field.name == name || field.json == name);
            let Some(field) = found else {
                let path = format!("{}.{name}", walk.path);
                return Err(walk.refuse(FieldError::at(path, unknown(&name, message))));
            };
            let path = format!("{}.{}", walk.path, field.name);
            if seen.iter().any(|earlier| earlier.number == field.number) {
                return Err(walk.refuse(FieldError::at(path, "is given twice; keep one")));
            }
            let rival = seen.iter().find(|earlier| field.oneof > 0 && earlier.oneof == field.oneof);
            if let Some(rival) = rival {
                let remedy = format!("excludes `{}`; keep one of the two", rival.name);
                return Err(walk.refuse(FieldError::at(path, remedy)));
            }
            seen.push(field);
            if walk.depth == 1 && walk.section.skips(field.name, field.number) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            walk.within(format_args!(".{}", field.name), |walk| {
                map.next_value_seed(ValueSeed {
                    number: field.number,
                    kind: field.kind,
                    shape: field.shape,
                    walk,
                    out: &mut *out,
                })
            })?;
        }
        walk.depth -= 1;
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

fn unknown(name: &str, message: &Message) -> String {
    let near = message
        .fields
        .iter()
        .map(|field| (distance(name, field.name), field.name))
        .min()
        .filter(|(far, known)| *far <= 1 + known.len() / 4);
    match near {
        Some((_, known)) => format!("unknown field; did you mean `{known}`?"),
        None => {
            let known: Vec<&str> = message.fields.iter().map(|field| field.name).collect();
            format!("unknown field; {} has: {}", message.name, known.join(", "))
        }
    }
}

/// Edits between two names, a swap of neighbours counting as one.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last = '\0';
    for (i, x) in a.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at =
                |row: &[usize], place: usize| row.get(place).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (at(&row, j) + usize::from(x != *y)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = j > 0 && i > 0 && b.get(j - 1) == Some(&x) && last == *y;
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
        last = x;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

struct ValueSeed<'a> {
    number: u32,
    kind: Kind,
    shape: Shape,
    walk: &'a mut Walk,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// What a field takes, for the error text.
fn wanted(shape: Shape, kind: Kind) -> String {
    match (shape, kind) {
        (Shape::Repeated, _) => "must be a list".into(),
        (Shape::Map, _) => "must be an object of names and values".into(),
        (Shape::Single, Kind::Bool) => "must be true or false".into(),
        (Shape::Single, Kind::Uint32 | Kind::Uint64) => "must be a whole number".into(),
        (Shape::Single, Kind::Double) => "must be a number".into(),
        (Shape::Single, Kind::String) => "must be text; put it in quotes".into(),
        (Shape::Single, Kind::Duration) => r#"must be a duration such as "1.5s""#.into(),
        (Shape::Single, Kind::Message(_)) => "must be an object".into(),
        (Shape::Single, Kind::Enum(place)) => {
            let values = ENUMS.get(place).copied().unwrap_or_default();
            let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
            format!("must be one of {}", names.join(", "))
        }
    }
}

/// Writes one scalar field in wire form; the error says what would be right.
fn encode_scalar(
    number: u32,
    kind: Kind,
    scalar: Scalar<'_>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let varint = |value: u64, out: &mut Vec<u8>| {
        encode_key(number, WireType::Varint, out);
        encode_varint(value, out);
    };
    match (kind, scalar) {
        (Kind::Bool, scalar) => varint(u64::from(scalar.bool()?), out),
        (Kind::Uint32, scalar) => varint(scalar.unsigned(u64::from(u32::MAX))?, out),
        (Kind::Uint64, scalar) => varint(scalar.unsigned(u64::MAX)?, out),
        (Kind::Double, scalar) => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.extend_from_slice(&scalar.double()?.to_le_bytes());
        }
        (Kind::Duration, scalar) => {
            let mut body = Vec::new();
            encode_duration(scalar.duration()?, &mut body);
            encode_bytes(number, &body, out);
        }
        (Kind::String, Scalar::Text(text)) => encode_bytes(number, text.as_bytes(), out),
        (Kind::Enum(place), Scalar::Text(text)) => {
            let values = ENUMS.get(place).copied().unwrap_or_default();
            let found = values.iter().find(|(name, _)| *name == text);
            let (_, chosen) = found.ok_or_else(|| wanted(Shape::Single, kind))?;
            varint(u64::try_from(*chosen).unwrap_or(0), out);
        }
        _ => return Err(wanted(Shape::Single, kind)),
    }
    Ok(())
}

fn encode_bytes(number: u32, body: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(body.len() as u64, out);
    out.extend_from_slice(body);
}

impl ValueSeed<'_> {
    fn scalar<E: Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        let ValueSeed { number, kind, shape, walk, out } = self;
        let result = match shape {
            Shape::Single => encode_scalar(number, kind, scalar, out),
            shape => Err(wanted(shape, kind)),
        };
        result.map_err(|remedy| {
            let path = walk.path.clone();
            walk.refuse(FieldError::value(path, scalar, remedy))
        })
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&wanted(self.shape, self.kind))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(Scalar::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(Scalar::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(u64::try_from(value).map_or(Scalar::Negative(value), Scalar::Unsigned))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(Scalar::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(Scalar::Text(value))
    }

    /// `null` is the default of every field in proto3-JSON.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let ValueSeed { number, kind, shape, walk, out } = self;
        if shape != Shape::Repeated {
            let path = walk.path.clone();
            return Err(walk.refuse(FieldError::at(path, wanted(shape, kind))));
        }
        for place in 0_usize.. {
            let before = out.len();
            let item = walk.within(format_args!("[{place}]"), |walk| {
                let shape = Shape::Single;
                seq.next_element_seed(ValueSeed { number, kind, shape, walk, out: &mut *out })
            })?;
            if item.is_none() {
                break;
            }
            if out.len() == before {
                let path = format!("{}[{place}]", walk.path);
                return Err(walk.refuse(FieldError::at(path, wanted(Shape::Single, kind))));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let ValueSeed { number, kind, shape, walk, out } = self;
        match (shape, kind) {
            (Shape::Single, Kind::Message(place)) => {
                let Some(message) = MESSAGES.get(place) else {
                    return Ok(());
                };
                let mut body = Vec::new();
                MessageSeed { message, walk, out: &mut body }.visit_map(map)?;
                encode_bytes(number, &body, out);
                Ok(())
            }
            (Shape::Map, kind) => {
                // A map field is a repeated entry of key (1) and value (2).
                let mut seen: Vec<String> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let mut entry = Vec::new();
                    encode_bytes(1, name.as_bytes(), &mut entry);
                    walk.within(format_args!(".{name}"), |walk| {
                        if seen.contains(&name) {
                            let path = walk.path.clone();
                            return Err(
                                walk.refuse(FieldError::at(path, "is given twice; keep one"))
                            );
                        }
                        let before = entry.len();
                        let (number, shape) = (2, Shape::Single);
                        map.next_value_seed(ValueSeed {
                            number,
                            kind,
                            shape,
                            walk,
                            out: &mut entry,
                        })?;
                        if entry.len() == before {
                            let path = walk.path.clone();
                            return Err(
                                walk.refuse(FieldError::at(path, wanted(Shape::Single, kind)))
                            );
                        }
                        Ok(())
                    })?;
                    seen.push(name);
                    encode_bytes(number, &entry, out);
                }
                Ok(())
            }
            (shape, kind) => {
                let path = walk.path.clone();
                Err(walk.refuse(FieldError::at(path, wanted(shape, kind))))
            }
        }
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
