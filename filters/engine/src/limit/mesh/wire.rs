//! `envoy.service.ratelimit.v3`, as far as it is spoken here. Written by hand: a few fields of a few
//! messages, and all of an answer is whatever somebody sends.

use crate::core::ports::Nanos;

pub const SERVICE: &str = "envoy.service.ratelimit.v3.RateLimitService";
pub const METHOD: &str = "ShouldRateLimit";

/// A part of a descriptor.
pub type Entry = (String, Vec<u8>);

/// What an engine says of its window's end. One that speaks in whole seconds has rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    pub least: Nanos,
    pub most: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub is_over: bool,
    /// Hits left in the window.
    pub remaining: Option<u32>,
    /// The hits of a refused request are counted as spent all the same.
    pub counts_refused: bool,
    pub reset: Option<Reset>,
}

const SECOND: Nanos = 1_000_000_000;

/// A window that ends later than in a day is asked about again.
const LATEST: u64 = 86_400;

/// `RateLimitRequest`: one descriptor, so many hits.
pub fn request(domain: &str, entries: &[Entry], hits: u32) -> Vec<u8> {
    let mut descriptor = Vec::new();
    for (key, value) in entries {
        let mut entry = Vec::new();
        field(1, key.as_bytes(), &mut entry);
        field(2, &text(value), &mut entry);
        field(1, &entry, &mut descriptor);
    }
    let mut message = Vec::new();
    field(1, domain.as_bytes(), &mut message);
    field(2, &descriptor, &mut message);
    varint(3 << 3, &mut message);
    varint(hits.into(), &mut message);
    message
}

/// Protobuf's strings are UTF-8; other bytes of a value are written `%XX`.
fn text(value: &[u8]) -> Vec<u8> {
    if std::str::from_utf8(value).is_ok() {
        return value.to_vec();
    }
    let digit = |nibble: u8| b"0123456789ABCDEF".get(usize::from(nibble)).copied().unwrap_or(b'0');
    let written = value.iter().flat_map(|byte| match byte {
        0..0x80 => vec![*byte],
        _ => vec![b'%', digit(byte >> 4), digit(byte & 15)],
    });
    written.collect()
}

#[inline(never)]
pub(super) fn field(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[inline(never)]
#[allow(clippy::cast_possible_truncation)] // Seven bits at a time.
pub(super) fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// `RateLimitResponse`. `None` for what is none, or gives no answer.
pub fn answer(message: &[u8]) -> Option<Answer> {
    let (mut code, mut status, mut statuses) = (0, None, 0_usize);
    let mut told = Headers::default();
    each(message, &mut |number, value| {
        match (number, value) {
            (1, Value::Number(given)) => code = given,
            (2, Value::Bytes(bytes)) => {
                statuses = statuses.saturating_add(1);
                status = Some(Status::read(bytes)?);
            }
            (5, Value::Bytes(bytes)) => told.read(bytes)?,
            _ => {}
        }
        Some(())
    })?;
    // One descriptor was sent: one status, or none at all.
    if statuses > 1 {
        return None;
    }
    let is_over = match code {
        1 => false,
        2 => true,
        _ => return None,
    };
    let counts_refused = status.is_some();
    let Some(status) = status else {
        return Some(Answer {
            is_over,
            remaining: told.remaining,
            counts_refused,
            reset: told.reset,
        });
    };
    let remaining = status.is_limited.then_some(status.remaining);
    Some(Answer { is_over, remaining, counts_refused, reset: status.reset.or(told.reset) })
}

/// `DescriptorStatus`.
#[derive(Default)]
struct Status {
    /// Without a limit there is nothing left of it either: a descriptor that the engine has no rule for.
    is_limited: bool,
    remaining: u32,
    reset: Option<Reset>,
}

impl Status {
    fn read(message: &[u8]) -> Option<Status> {
        let mut status = Status::default();
        each(message, &mut |number, value| {
            match (number, value) {
                (2, Value::Bytes(_)) => status.is_limited = true,
                (3, Value::Number(left)) => {
                    status.is_limited = true;
                    status.remaining = u32::try_from(left).unwrap_or(u32::MAX);
                }
                (4, Value::Bytes(duration)) => status.reset = Status::duration(duration)?,
                _ => {}
            }
            Some(())
        })?;
        Some(status)
    }

    /// A time to come; what is negative tells nothing.
    fn duration(message: &[u8]) -> Option<Option<Reset>> {
        let (mut seconds, mut nanos) = (0, 0);
        each(message, &mut |number, value| {
            match (number, value) {
                (1, Value::Number(given)) => seconds = given,
                (2, Value::Number(given)) => nanos = given,
                _ => {}
            }
            Some(())
        })?;
        let is_time = i64::try_from(seconds).is_ok() && nanos < SECOND;
        let time = seconds.min(LATEST).saturating_mul(SECOND).saturating_add(nanos);
        let rounded = if nanos == 0 { SECOND } else { 0 };
        let reset = Reset { least: time.saturating_sub(rounded), most: time };
        Some((is_time && time > 0).then_some(reset))
    }
}

/// `X-RateLimit-Remaining` and `-Reset` (draft-polli-ratelimit-headers-03), and the names without `X-`.
#[derive(Default)]
struct Headers {
    remaining: Option<u32>,
    reset: Option<Reset>,
}

impl Headers {
    /// One `HeaderValue`.
    fn read(&mut self, message: &[u8]) -> Option<()> {
        let (mut name, mut text): (&[u8], &[u8]) = (b"", b"");
        each(message, &mut |number, value| {
            match (number, value) {
                (1, Value::Bytes(bytes)) => name = bytes,
                (2 | 3, Value::Bytes(bytes)) if !bytes.is_empty() => text = bytes,
                _ => {}
            }
            Some(())
        })?;
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix(b"x-").unwrap_or(&name);
        let digits = std::str::from_utf8(text).ok().map(str::trim);
        let number = digits.and_then(|digits| digits.parse::<u64>().ok());
        match (name, number) {
            (b"ratelimit-remaining", Some(left)) => {
                self.remaining = Some(u32::try_from(left).unwrap_or(u32::MAX));
            }
            (b"ratelimit-reset", Some(seconds)) => {
                // Rounded up by some and down by others.
                let time = seconds.min(LATEST).saturating_mul(SECOND);
                let (least, most) = (time.saturating_sub(SECOND), time.saturating_add(SECOND));
                self.reset = Some(Reset { least, most });
            }
            _ => {}
        }
        Some(())
    }
}

pub(super) enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
    Other,
}

/// Shows each field of a message; `None` where it is none, or `show` says so.
#[inline(never)] // A third of this file's code otherwise.
pub(super) fn each<'m>(
    mut message: &'m [u8],
    show: &mut dyn FnMut(u64, Value<'m>) -> Option<()>,
) -> Option<()> {
    while !message.is_empty() {
        let tag = number(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Number(number(&mut message)?),
            1 => skip(8, &mut message).map(|_| Value::Other)?,
            2 => {
                let length = number(&mut message)?;
                Value::Bytes(skip(usize::try_from(length).ok()?, &mut message)?)
            }
            5 => skip(4, &mut message).map(|_| Value::Other)?,
            _ => return None,
        };
        show(tag >> 3, value)?;
    }
    Some(())
}

fn skip<'m>(length: usize, message: &mut &'m [u8]) -> Option<&'m [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

#[inline(never)]
fn number(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
