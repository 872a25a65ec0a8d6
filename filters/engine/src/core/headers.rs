//! A header map as the host hands it over, read in place.

use super::effects::HeaderEdit;

/// All lines of a request or response, in order, names lower-cased by Envoy. Values are bytes:
/// nothing in here assumes UTF-8.
#[derive(Clone, Debug, Default)]
pub struct HeaderMap {
    raw: Vec<u8>,
    lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: (u32, u32),
    value: (u32, u32),
}

impl HeaderMap {
    /// Reads proxy-wasm's serialized pairs: a count, the lengths of each name and value (32 bits,
    /// little-endian), then the bytes, each followed by NUL. What does not fit is left out.
    pub fn from_wire(raw: Vec<u8>) -> HeaderMap {
        let mut lines = Vec::new();
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
                #[allow(clippy::cast_possible_truncation)] // `end` is within a 32-bit memory.
                lines.push(Line { name: (at as u32, name), value: (value_at as u32, value) });
                at = end.saturating_add(1);
            }
        }
        HeaderMap { raw, lines }
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
                HeaderEdit::Set(name, value) => {
                    let value = self.append(value.as_bytes());
                    let lines = std::mem::take(&mut self.lines);
                    let mut is_set = false;
                    for mut line in lines {
                        if self.slice(line.name) == name.as_bytes() {
                            if std::mem::replace(&mut is_set, true) {
                                continue;
                            }
                            line.value = value;
                        }
                        self.lines.push(line);
                    }
                    if !is_set {
                        let name = self.append(name.as_bytes());
                        self.lines.push(Line { name, value });
                    }
                }
                HeaderEdit::Remove(name) => {
                    let mut lines = std::mem::take(&mut self.lines);
                    lines.retain(|line| self.slice(line.name) != name.as_bytes());
                    self.lines = lines;
                }
                HeaderEdit::Add(name, value) => {
                    let (name, value) =
                        (self.append(name.as_bytes()), self.append(value.as_bytes()));
                    self.lines.push(Line { name, value });
                }
            }
        }
    }

    #[allow(clippy::cast_possible_truncation)] // A module's memory ends at 32 bits.
    fn append(&mut self, bytes: &[u8]) -> (u32, u32) {
        let at = self.raw.len() as u32;
        self.raw.extend_from_slice(bytes);
        (at, bytes.len() as u32)
    }

    fn slice(&self, (at, len): (u32, u32)) -> &[u8] {
        let at = at as usize;
        self.raw.get(at..at.saturating_add(len as usize)).unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (self.slice(line.name), self.slice(line.value)))
    }

    /// The pseudo-headers: the lines whose name starts with a colon.
    pub fn pseudo(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let is_pseudo = |line: &&Line| self.raw.get(line.name.0 as usize) == Some(&b':');
        self.lines
            .iter()
            .filter(is_pseudo)
            .map(|line| (self.slice(line.name), self.slice(line.value)))
    }

    /// The values of all lines of that name, which is in lower case.
    pub fn all<'m, 'n>(&'m self, name: &'n [u8]) -> impl Iterator<Item = &'m [u8]> + use<'m, 'n> {
        self.lines
            .iter()
            .filter(move |line| line.name.1 as usize == name.len() && self.slice(line.name) == name)
            .map(|line| self.slice(line.value))
    }

    /// The first line of that name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.all(name).next()
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
        assert_eq!(map.pseudo().collect::<Vec<_>>(), [(&b":path"[..], &b"/a"[..])]);
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
