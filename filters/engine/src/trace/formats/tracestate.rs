//! `tracestate`: W3C Trace Context Level 2, section 3.3, with the key grammar of 2026-06.

use super::{ascii, split_once, trim_ows};

/// "There can be a maximum of 32 list-members in a list" (section 3.3.1.1).
const MEMBERS: usize = 32;
/// What everyone carries at least (section 3.3.1.5). More than that is nobody's promise, so no
/// more than that goes on.
const CHARACTERS: usize = 512;
/// "Entries larger than 128 characters long SHOULD be removed first" (section 3.3.1.5).
const LONG: usize = 128;

/// The members of all lines, in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceState<'a> {
    members: [Member<'a>; MEMBERS],
    count: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

/// What happens to our own member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own<'a> {
    Keep,
    /// A key and its value. What the grammar does not allow is left out: it would cost everyone
    /// the whole header.
    Set(&'a str, &'a str),
    Remove(&'a str),
}

impl<'a> TraceState<'a> {
    /// Reads all lines as the one list that they are (RFC 9110 section 5.3). `None`: a member is
    /// invalid, or there are too many. Then nothing of the header is to be used; `traceparent`
    /// stays what it was.
    pub fn parse(lines: impl Iterator<Item = &'a [u8]>) -> Option<TraceState<'a>> {
        let mut state = TraceState::default();
        for part in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
            let part = trim_ows(part);
            if part.is_empty() {
                continue;
            }
            *state.members.get_mut(state.count)? = Member::parse(part)?;
            state.count = state.count.saturating_add(1);
        }
        Some(state)
    }

    /// The value of the first member of that key: the newest, where a key stands twice.
    pub fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.iter().find(|member| member.key == key).map(|member| member.value)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.count
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &Member<'a>> {
        self.members.get(..self.count).unwrap_or_default().iter()
    }

    /// One line with at most 32 members and 512 characters; only our own member may exceed that.
    pub fn write(&self, own: Own<'_>) -> String {
        let (own_key, own) = match own {
            Own::Keep => (None, None),
            Own::Remove(key) => (Some(key), None),
            Own::Set(key, value) => {
                let member = Member { key: key.as_bytes(), value: value.as_bytes() };
                (Some(key), member.is_valid().then_some(member))
            }
        };
        let others = self.iter().filter(|it| own_key.is_none_or(|key| it.key != key.as_bytes()));
        // Our key is "moved to the beginning (left) of the list" (section 3.5). What
        // finds no slot falls off the right.
        let mut slots: [Option<&Member<'_>>; MEMBERS] = [None; MEMBERS];
        for (slot, member) in slots.iter_mut().zip(own.iter().chain(others)) {
            *slot = Some(member);
        }
        // Each member counts a comma, and the last has none.
        let most = CHARACTERS.saturating_add(1);
        let mut size = slots.iter().flatten().map(|it| it.size()).fold(0, usize::saturating_add);
        let ours = usize::from(own.is_some());
        // Long ones first, then any, always the rightmost: the oldest.
        for longer_than in [LONG, 0] {
            for slot in slots.iter_mut().skip(ours).rev() {
                if size > most
                    && let Some(gone) = slot.take_if(|it| it.len() > longer_than)
                {
                    size = size.saturating_sub(gone.size());
                }
            }
        }
        let mut line = String::with_capacity(size);
        for member in slots.iter().flatten() {
            if !line.is_empty() {
                line.push(',');
            }
            line.push_str(ascii(member.key));
            line.push('=');
            line.push_str(ascii(member.value));
        }
        line
    }
}

impl<'a> Member<'a> {
    fn parse(part: &'a [u8]) -> Option<Member<'a>> {
        let (key, value) = split_once(part, b'=')?;
        Some(Member { key, value }).filter(Member::is_valid)
    }

    fn is_valid(&self) -> bool {
        let letter_or_digit = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
        let key_char = |byte: &u8| letter_or_digit(byte) || b"_-*/@".contains(byte);
        let value_char = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b',' && *byte != b'=';
        self.key.len() <= 256
            && self.key.first().is_some_and(letter_or_digit)
            && self.key.iter().all(key_char)
            && self.value.len() <= 256
            && self.value.last().is_some_and(|byte| *byte != b' ')
            && self.value.iter().all(value_char)
    }

    fn len(&self) -> usize {
        self.key.len().saturating_add(1).saturating_add(self.value.len())
    }

    /// With a comma.
    fn size(&self) -> usize {
        self.len().saturating_add(1)
    }
}

#[cfg(test)]
#[path = "tracestate_tests.rs"]
mod tests;
