//! A header map as the host hands it over, read in place.

use super::effects::HeaderEdit;

/// All lines of a request or response, in order, names lower-cased by Envoy. Values are bytes:
/// nothing in here assumes UTF-8.
#[derive(Clone, Debug, Default)]
pub struct HeaderMap {
    raw: Vec<u8>,
    lines: Vec<Line>,
    /// A bit for each tag of a line that is there, or was: most names that are asked for are not there.
    tags: u64,
}

type Place = (u32, u32);

#[derive(Clone, Copy, Debug)]
struct Line {
    /// Of the name: lines are told apart by it before any bytes are compared.
    tag: u32,
    name: Place,
    value: Place,
}

impl HeaderMap {
    /// Reads proxy-wasm's serialized pairs: a count, the lengths of each name and value (32 bits,
    /// little-endian), then the bytes, each followed by NUL. What does not fit is left out.
    pub fn from_wire(raw: Vec<u8>) -> HeaderMap {
        let mut lines = Vec::new();
        let mut tags = 0;
        let count = word(&raw, 0).unwrap_or(0) as usize;
        let room = raw.len() / 8;
        if count <= room {
            lines.reserve_exact(count);
            let mut at = count.saturating_mul(8).saturating_add(4);
            for line in 0..count {
                let sizes = line.saturating_mul(8).saturating_add(4);
                let (Some(name), Some(value)) =
                    (word(&raw, sizes), word(&raw, sizes.saturating_add(4)))
                else {
                    break;
                };
                let value_at = at.saturating_add(name as usize).saturating_add(1);
                let end = value_at.saturating_add(value as usize);
                if end > raw.len() {
                    break;
                }
                let tag = tag(raw.get(at..value_at.saturating_sub(1)).unwrap_or_default());
                tags |= bit(tag);
                #[allow(clippy::cast_possible_truncation)] // `end` is within a 32-bit memory.
                lines.push(Line { tag, name: (at as u32, name), value: (value_at as u32, value) });
                at = end.saturating_add(1);
            }
        }
        HeaderMap { raw, lines, tags }
    }

    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> HeaderMap {
        let mut wire = Vec::new();
        #[allow(clippy::cast_possible_truncation)]
        let mut put = |size: usize| wire.extend_from_slice(&(size as u32).to_le_bytes());
        put(pairs.len());
        for (name, value) in pairs {
            put(name.as_ref().len());
            put(value.as_ref().len());
        }
        for (name, value) in pairs {
            for part in [name.as_ref(), value.as_ref()] {
                wire.extend_from_slice(part);
                wire.push(0);
            }
        }
        HeaderMap::from_wire(wire)
    }

    /// The bytes that it was read from, and those of edits.
    pub fn into_wire(self) -> Vec<u8> {
        self.raw
    }

    /// Carries edits out as the host does, for who comes next.
    pub fn edit(&mut self, edits: &[HeaderEdit]) {
        for edit in edits {
            match edit {
                HeaderEdit::Set(name, value) => match self.find(name.as_bytes()) {
                    Some(first) => {
                        let value = self.append(value.as_bytes());
                        if let Some(line) = self.lines.get_mut(first) {
                            line.value = value;
                        }
                        self.remove(name.as_bytes(), first.saturating_add(1));
                    }
                    None => self.add(name.as_bytes(), value.as_bytes()),
                },
                HeaderEdit::Remove(name) => self.remove(name.as_bytes(), 0),
                HeaderEdit::Add(name, value) => self.add(name.as_bytes(), value.as_bytes()),
            }
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        let tag = tag(name);
        self.tags |= bit(tag);
        let (name, value) = (self.append(name), self.append(value));
        self.lines.push(Line { tag, name, value });
    }

    /// All lines of that name from this one on.
    fn remove(&mut self, name: &[u8], from: usize) {
        let tag = tag(name);
        let HeaderMap { raw, lines, .. } = self;
        let mut place = 0_usize;
        lines.retain(|line| {
            place = place.saturating_add(1);
            place <= from || line.tag != tag || slice(raw, line.name) != name
        });
    }

    /// The first line of that name.
    #[inline(never)]
    fn find(&self, name: &[u8]) -> Option<usize> {
        let tag = tag(name);
        if self.tags & bit(tag) == 0 {
            return None;
        }
        self.lines.iter().position(|line| line.tag == tag && is_same(self.slice(line.name), name))
    }

    #[allow(clippy::cast_possible_truncation)] // A module's memory ends at 32 bits.
    fn append(&mut self, bytes: &[u8]) -> (u32, u32) {
        let at = self.raw.len() as u32;
        self.raw.extend_from_slice(bytes);
        (at, bytes.len() as u32)
    }

    fn slice(&self, place: Place) -> &[u8] {
        slice(&self.raw, place)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.slice(line.name), self.slice(line.value)))
    }

    /// The values of all lines of that name, which is in lower case.
    pub fn all<'m, 'n>(&'m self, name: &'n [u8]) -> impl Iterator<Item = &'m [u8]> + use<'m, 'n> {
        let tag = tag(name);
        let lines = if self.tags & bit(tag) == 0 { &[] } else { self.lines.as_slice() };
        lines
            .iter()
            .filter(move |line| line.tag == tag && is_same(self.slice(line.name), name))
            .map(|line| self.slice(line.value))
    }

    /// The first line of that name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let line = self.lines.get(self.find(name)?)?;
        Some(self.slice(line.value))
    }

    /// The only line of that name: of two nobody knows which one counts.
    pub fn get_one(&self, name: &[u8]) -> Option<&[u8]> {
        let mut lines = self.all(name);
        lines.next().filter(|_| lines.next().is_none())
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Whether two names of one tag are equal. They are short, and the compiler's own way goes byte by byte
/// through a call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b))
        && a_rest.len() == b_rest.len()
        && a_rest.iter().zip(b_rest).all(|(a, b)| a == b)
}

fn slice(raw: &[u8], (at, len): Place) -> &[u8] {
    let at = at as usize;
    raw.get(at..at.saturating_add(len as usize)).unwrap_or_default()
}

/// Tells most names apart: the length and three of the bytes.
#[inline(never)]
fn tag(name: &[u8]) -> u32 {
    let byte = |byte: Option<&u8>| byte.copied().unwrap_or_default();
    let middle = name.get(name.len() / 2);
    #[allow(clippy::cast_possible_truncation)] // A tag is not the name.
    u32::from_le_bytes([name.len() as u8, byte(name.first()), byte(middle), byte(name.last())])
}

#[inline]
fn bit(tag: u32) -> u64 {
    1 << (tag.wrapping_mul(0x9e37_79b1) >> 26)
}

fn word(raw: &[u8], at: usize) -> Option<u32> {
    let bytes = raw.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// Whether bytes may be written into a header: Envoy does not check what a filter writes, so a
/// line break in here would split the response.
pub fn is_safe_value(value: &[u8]) -> bool {
    value.iter().all(|byte| (*byte >= 0x20 || *byte == b'\t') && *byte != 0x7f)
}

/// A lower-cased header name that is a token (RFC 9110 section 5.6.2) and no pseudo-header.
pub fn header_name(name: &str) -> Option<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.len() <= 256 && name.bytes().all(token))
        .then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_keep_their_order_and_bytes() {
        let map = HeaderMap::from_pairs(&[
            (":path", &b"/a"[..]),
            ("x", b"\xff\x00"),
            ("x", b""),
            ("y", b"z"),
        ]);
        assert_eq!(map.get(b":path"), Some(&b"/a"[..]));
        assert_eq!(map.all(b"x").collect::<Vec<_>>(), [&b"\xff\x00"[..], b""]);
        assert_eq!(map.get(b"none"), None);
        assert_eq!(map.len(), 4);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_map(raw in proptest::collection::vec(any::<u8>(), 0..200), count in 0_u32..9) {
            let mut wire = count.to_le_bytes().to_vec();
            wire.extend(raw);
            let map = HeaderMap::from_wire(wire);
            prop_assert_eq!(map.iter().count(), map.len());
            prop_assert!(map.len() <= count as usize);
        }

        /// As a list of lines would have it.
        #[test]
        fn edits_are_carried_out(
            pairs in proptest::collection::vec(("[a-c]", "[x-z]{0,2}"), 0..9),
            edits in proptest::collection::vec((0..3, "[a-c]", "[x-z]{0,2}"), 0..9),
        ) {
            let mut map = HeaderMap::from_pairs(&pairs);
            let mut lines = pairs;
            for (kind, name, value) in edits {
                match kind {
                    0 => {
                        map.edit(&[HeaderEdit::Add(name.clone(), value.clone())]);
                        lines.push((name, value));
                    }
                    1 => {
                        map.edit(&[HeaderEdit::Remove(name.clone())]);
                        lines.retain(|(other, _)| *other != name);
                    }
                    _ => {
                        map.edit(&[HeaderEdit::Set(name.clone(), value.clone())]);
                        let first = lines.iter().position(|(other, _)| *other == name);
                        let at = first.unwrap_or(lines.len());
                        lines.retain(|(other, _)| *other != name);
                        lines.insert(at, (name, value));
                    }
                }
            }
            let out: Vec<_> = map.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            let lines: Vec<_> = lines.into_iter().map(|(n, v)| (n.into_bytes(), v.into_bytes())).collect();
            prop_assert_eq!(out, lines);
        }

        #[test]
        fn what_goes_in_comes_out(pairs in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..9), proptest::collection::vec(any::<u8>(), 0..9)), 0..9)) {
            let map = HeaderMap::from_pairs(&pairs);
            let out: Vec<_> = map.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(out, pairs);
        }
    }
}
