//! The section `session`: an id for what one user does, made at the edge.

use weir_protos::FieldError;
use weir_protos::v1::Session as Given;

use crate::core::answer::checked_name;
use crate::core::bytes::Reader;
use crate::core::effects::HeaderEdit;
use crate::core::headers::HeaderMap;
use crate::core::key::value_source;
use crate::core::ports::{BLIND, Nanos, Ports, Rng, SetError, SharedStore};
use crate::core::request::Request;
use crate::core::source::Source;

/// Longer principals are cut: the id goes into logs and other headers.
const MAX_PRINCIPAL: usize = 64;

#[derive(Debug)]
pub struct Session {
    header: String,
    principal: Source,
}

/// The stamps that one worker gives: no two workers of a process give the same, and no worker gives one
/// twice. Clocks tick in microseconds; the digits below tell workers apart.
#[derive(Debug, Default)]
pub struct Stamps {
    /// Among the workers of the process.
    place: Option<u64>,
    /// The last microsecond.
    last: u64,
}

/// The number of workers so far, from a random start: other proxies should begin elsewhere.
const PLACES: &[u8] = b"weir/1/stamps";

/// Past this many tries the place is drawn by lot.
const TRIES: u32 = 8;

impl Stamps {
    /// Takes a place, where that is still to be done. Not while a policy is tried out: there are more
    /// edits than workers.
    pub fn prepare(&mut self, ports: &mut (impl SharedStore + Rng)) {
        if self.place.is_some() {
            return;
        }
        let random = ports.random();
        let mut place = random;
        for _ in 0..TRIES {
            let found = ports.get(PLACES);
            let (bytes, cas) = found.unwrap_or((Vec::new(), BLIND));
            let next = Reader(&bytes).u64().unwrap_or(random).wrapping_add(1);
            match ports.set(PLACES, &next.to_le_bytes(), cas) {
                Ok(()) => {
                    place = next;
                    break;
                }
                Err(SetError::Mismatch) => {}
                Err(SetError::Failed) => break,
            }
        }
        self.place = Some(place % 1000);
    }

    fn next(&mut self, wall: Nanos) -> Nanos {
        self.last = (wall / 1000).max(self.last.saturating_add(1));
        self.last.saturating_mul(1000).saturating_add(self.place.unwrap_or_default())
    }
}

impl Session {
    #[cold]
    pub fn compile(source: &Given, color_header: &[u8], path: &str) -> Result<Session, FieldError> {
        let header = match source.header.as_str() {
            "" => "x-trade-session-id".to_string(),
            name => checked_name(name, &format!("{path}.header"))?,
        };
        let path = format!("{path}.principal");
        let principal = source.principal.as_ref().ok_or_else(|| {
            FieldError::at(&path, "is missing; say whose session it is, e.g. a verified claim")
        })?;
        let principal = value_source(principal, color_header, &path)?;
        Ok(Session { header, principal })
    }

    pub fn header(&self) -> &str {
        &self.header
    }

    /// A new id, where the request has none that counts.
    pub fn begin<'r>(
        &'r self,
        request: &mut Request<'r>,
        is_trusted: bool,
        stamps: &mut Stamps,
        wall: Nanos,
        ports: &mut impl Ports,
    ) -> Option<String> {
        let headers = request.headers;
        let came = headers.get_one(self.header.as_bytes());
        if is_trusted && came.is_some_and(is_well_formed) {
            return None;
        }
        stamps.prepare(ports);
        let principal = self.principal.read(request, ports);
        Some(mint(principal.as_deref(), stamps.next(wall)))
    }

    /// The edits that hand a new id on.
    pub fn write(&self, id: &str, headers: &HeaderMap, edits: &mut Vec<HeaderEdit>) {
        if headers.all(self.header.as_bytes()).nth(1).is_some() {
            edits.push(HeaderEdit::Remove(self.header.clone()));
        }
        edits.push(HeaderEdit::Set(self.header.clone(), id.to_string()));
    }
}

fn mint(principal: Option<&[u8]>, stamp: Nanos) -> String {
    let principal = principal.filter(|principal| !principal.is_empty()).unwrap_or(b"anonymous");
    let plain = |byte: &u8| {
        let is_plain = byte.is_ascii_alphanumeric() || b"._@:-".contains(byte);
        char::from(if is_plain { *byte } else { b'_' })
    };
    let principal: String = principal.iter().take(MAX_PRINCIPAL).map(plain).collect();
    format!("sess-{principal}-{stamp}")
}

/// `sess-<principal>-<nanoseconds>`.
pub fn is_well_formed(id: &[u8]) -> bool {
    let Some(rest) = id.strip_prefix(b"sess-").filter(|rest| rest.len() <= MAX_PRINCIPAL + 21)
    else {
        return false;
    };
    let mut parts = rest.rsplitn(2, |byte| *byte == b'-');
    let (stamp, principal) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._@:-".contains(byte);
    let is_stamp = (1..=20).contains(&stamp.len()) && stamp.iter().all(u8::is_ascii_digit);
    is_stamp && !principal.is_empty() && principal.iter().all(|byte| *byte == b'_' || plain(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Process;
    use std::collections::BTreeSet;

    #[test]
    fn ids() {
        assert_eq!(mint(Some(b"ann"), 17), "sess-ann-17");
        assert_eq!(mint(None, 18), "sess-anonymous-18");
        assert_eq!(mint(Some(b"a b\r\n\xff@x.y"), 19), "sess-a_b___@x.y-19");
        assert_eq!(mint(Some(&[b'x'; 500]), 20).len(), 5 + 64 + 3);
        for good in ["sess-a-1", "sess-a_b-c@x.y-20", "sess-x-18446744073709551615"] {
            assert!(is_well_formed(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "sess-",
            "sess-a",
            "sess--1",
            "sess-a-",
            "sess-a-1x",
            "Sess-a-1",
            "sess-a b-1",
            "sess-a-111111111111111111111",
        ] {
            assert!(!is_well_formed(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn no_two_stamps_are_alike() {
        const NOW: Nanos = 1_700_000_000_000_000_000;
        let process = Process::start();
        let mut stamps = BTreeSet::new();
        for worker in 0..50 {
            let mut ports = process.ports(worker);
            let mut own = Stamps::default();
            own.prepare(&mut ports);
            own.prepare(&mut ports);
            // All at one moment, and then at one a little earlier.
            let moments = [NOW, NOW, NOW + 400, NOW + 1000, NOW - 5000, NOW + 999_999];
            stamps.extend(moments.map(|moment| own.next(moment)));
        }
        assert_eq!(stamps.len(), 300);
        let (first, last) = (stamps.first().unwrap(), stamps.last().unwrap());
        assert!(*first >= NOW && *last < NOW + 1_000_000, "{first} {last}");
    }
}
