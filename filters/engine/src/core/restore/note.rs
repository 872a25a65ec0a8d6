//! What filters of one hop tell each other of a request: which of its ids are of the hop's making, and
//! what is still to be recorded under ids that it does not have yet. It stands in Envoy's filter state,
//! where no client can write.

use super::record::Record;
use crate::core::bytes::Reader;
use crate::core::key::Fingerprint;
use crate::core::ports::Attributes;

/// Where it stands.
pub const NOTE: &str = "weir.note";

const VERSION: u8 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Ids that the hop made.
    pub ids: Vec<Fingerprint>,
    /// What is to be recorded under a key's id once there is one, or another, by the key's source.
    pub open: Vec<(Vec<u8>, Record)>,
    /// The baggage member that holds the color, where a filter of this hop wrote it.
    pub member: Option<String>,
}

impl Note {
    /// What earlier filters left. Anything else that stands there says nothing.
    pub fn left(attributes: &mut impl Attributes) -> Note {
        let bytes = attributes.attribute(NOTE.as_bytes());
        bytes.and_then(|bytes| Note::read(&bytes)).unwrap_or_default()
    }

    /// What is to be recorded under a key's id, with what was left for it before.
    pub fn leave(&mut self, source: &[u8], record: Record) {
        match self.open.iter_mut().find(|(known, _)| known == source) {
            Some((_, earlier)) => earlier.merge(record),
            None => self.open.push((source.to_vec(), record)),
        }
    }

    pub fn open_for(&self, source: &[u8]) -> Option<&Record> {
        self.open.iter().find(|(known, _)| known == source).map(|(_, record)| record)
    }

    /// Whether it tells another filter anything: inside the mesh all ids are believed.
    pub fn matters(&self, is_edge: bool) -> bool {
        !self.open.is_empty() || (is_edge && *self != Note::default())
    }

    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put(&mut out, self.member.as_deref().unwrap_or_default().as_bytes());
        let ids = self.ids.iter().flat_map(|id| id.to_le_bytes());
        put(&mut out, &ids.collect::<Vec<_>>());
        for (source, record) in &self.open {
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            put(&mut out, source);
            put(&mut out, &bytes);
        }
        out
    }

    pub fn read(bytes: &[u8]) -> Option<Note> {
        let mut reader = Reader(bytes);
        if reader.u8()? != VERSION {
            return None;
        }
        let member = String::from_utf8(part(&mut reader)?.to_vec()).ok()?;
        let ids = part(&mut reader)?;
        let mut note = Note {
            ids: ids.as_chunks().0.iter().map(|id| Fingerprint::from_le_bytes(*id)).collect(),
            open: Vec::new(),
            member: Some(member).filter(|member| !member.is_empty()),
        };
        while !reader.0.is_empty() {
            let source = part(&mut reader)?.to_vec();
            note.open.push((source, Record::read(part(&mut reader)?)?));
        }
        Some(note)
    }
}

/// Parts are shorter than 64 KiB: names that a policy gives, and records. A longer one is left empty.
fn put(out: &mut Vec<u8>, part: &[u8]) {
    let (size, part) = match u16::try_from(part.len()) {
        Ok(size) => (size, part),
        Err(_) => (0, [].as_slice()),
    };
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(part);
}

fn part<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let size = reader.u16()?;
    reader.take(size.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::tests::records;
    use super::*;

    fn notes() -> impl Strategy<Value = Note> {
        let open = proptest::collection::vec((any::<Vec<u8>>(), records()), 0..3);
        let member = proptest::option::of("[a-z-]{1,20}");
        let ids = proptest::collection::vec(any::<u64>(), 0..6);
        (ids, open, member).prop_map(|(ids, open, member)| Note { ids, open, member })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(note in notes()) {
            prop_assert_eq!(Note::read(&note.write()), Some(note));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            bytes[0] = VERSION;
            if let Some(note) = Note::read(&bytes) {
                prop_assert_eq!(Note::read(&note.write()), Some(note));
            }
        }
    }
}
