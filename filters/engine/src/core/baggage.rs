//! `baggage`: W3C Baggage, section 3. Members are carried as they came; nothing is decoded.

use std::borrow::Cow;

use super::request::split_once;
use super::text::{ascii, trim_ows};

/// "0*179": 180 members is what the grammar allows (section 3.3.1), and three times what anybody
/// must carry. What comes after that is not read.
const MEMBERS: usize = 180;
/// Eight times what anybody must carry, and about the most that Envoy takes in as headers.
const BYTES: usize = 64 * 1024;

/// The valid members of all lines, in order.
#[derive(Clone, Debug, Default)]
pub struct Baggage<'a> {
    members: Vec<Member<'a>>,
    invalid: usize,
    is_changed: bool,
}

/// One member: key, value and properties, as they stand on the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    raw: Cow<'a, [u8]>,
    key: usize,
}

impl<'a> Baggage<'a> {
    /// Reads all lines as one list (section 3.1). One that is no member "MAY" be removed (section
    /// 3.4) and is: the next reader may refuse the whole header for it.
    pub fn parse(lines: impl Iterator<Item = &'a [u8]>) -> Baggage<'a> {
        let mut baggage = Baggage::default();
        let mut room = BYTES;
        for part in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
            let left = room.checked_sub(part.len().saturating_add(1));
            let part = trim_ows(part);
            // An empty one is what joining lines leaves behind (RFC 9110 section 5.6.1.2).
            let (Some(left), true) = (left, baggage.members.len() < MEMBERS) else {
                baggage.is_changed |= left.is_none() || !part.is_empty();
                break;
            };
            room = left;
            match Member::parse(part) {
                Some(member) => baggage.members.push(member),
                None if part.is_empty() => {}
                None => baggage.invalid = baggage.invalid.saturating_add(1),
            }
        }
        baggage.is_changed |= baggage.invalid > 0;
        baggage
    }

    /// Keeps the members whose key is wanted.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&[u8]) -> bool) {
        let before = self.members.len();
        self.members.retain(|member| is_wanted(member.key()));
        self.is_changed |= self.members.len() != before;
    }

    /// Keeps the first members that fit, as `write` will join them. "MUST NOT
    /// propagate any partial list-members" (section 3.3.2). One that is too big alone does not push out those behind it.
    pub fn limit(&mut self, max_members: usize, max_bytes: usize) {
        let before = self.members.len();
        let (mut count, mut bytes) = (0_usize, 0_usize);
        self.members.retain(|member| {
            let comma = usize::from(count > 0);
            let with = bytes.saturating_add(comma).saturating_add(member.raw.len());
            let fits = count < max_members && with <= max_bytes;
            if fits {
                (count, bytes) = (count.saturating_add(1), with);
            }
            fits
        });
        self.is_changed |= self.members.len() != before;
    }

    /// Puts one member at the end, in place of all that have its key. The value is percent-encoded
    /// where it has to be (section 3.3.1.3), and `=` as well: it may stand in a value, but readers that
    /// split a member at each of them lose what follows. A key that is no token is not set: it has no
    /// encoding.
    pub fn set(&mut self, key: &str, value: &[u8]) {
        const HEX: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
        if !is_token(key.as_bytes()) {
            return;
        }
        let mut raw =
            String::with_capacity(key.len().saturating_add(value.len()).saturating_add(1));
        raw.push_str(key);
        raw.push('=');
        for byte in value {
            if is_baggage_octet(*byte) && !matches!(byte, b'%' | b'=') {
                raw.push(char::from(*byte));
            } else {
                raw.push('%');
                raw.extend(HEX.get(usize::from(byte >> 4)));
                raw.extend(HEX.get(usize::from(byte & 0xf)));
            }
        }
        self.members.retain(|member| member.key() != key.as_bytes());
        self.members.push(Member { raw: Cow::Owned(raw.into_bytes()), key: key.len() });
        self.is_changed = true;
    }

    /// Whether anything but white space differs from what came in: if not, the lines can go on
    /// untouched.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many were dropped because they are no members.
    pub fn invalid(&self) -> usize {
        self.invalid
    }

    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member<'a>> {
        self.members.iter()
    }

    /// One line.
    pub fn write(&self) -> String {
        let mut line = String::new();
        for member in &self.members {
            if !line.is_empty() {
                line.push(',');
            }
            line.push_str(ascii(&member.raw));
        }
        line
    }
}

impl<'a> Member<'a> {
    fn parse(part: &'a [u8]) -> Option<Member<'a>> {
        let mut fields = part.split(|byte| *byte == b';');
        let (key, value) = split_once(fields.next()?, b'=')?;
        let (key, value) = (trim_ows(key), trim_ows(value));
        let is_property = |property: &[u8]| match split_once(property, b'=') {
            Some((key, value)) => is_token(trim_ows(key)) && is_value(trim_ows(value)),
            None => is_token(trim_ows(property)),
        };
        // `part` has no white space in front, so the key is its start.
        (is_token(key) && is_value(value) && fields.all(is_property))
            .then_some(Member { raw: Cow::Borrowed(part), key: key.len() })
    }

    pub fn key(&self) -> &[u8] {
        self.raw.get(..self.key).unwrap_or_default()
    }

    /// As it stands on the line, still percent-encoded, without properties.
    pub fn value(&self) -> &[u8] {
        let after = split_once(&self.raw, b'=').map_or(&b""[..], |(_, after)| after);
        trim_ows(after.split(|byte| *byte == b';').next().unwrap_or_default())
    }

    /// The whole member, with its properties.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}

fn is_value(text: &[u8]) -> bool {
    text.iter().all(|byte| is_baggage_octet(*byte))
}

/// "excluding CTLs, whitespace, DQUOTE, comma, semicolon, and backslash" (section 3.3.1).
fn is_baggage_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
#[path = "baggage_tests.rs"]
mod tests;
