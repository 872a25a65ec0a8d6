//! The section `session`: an id for what one user does, made at the edge.

use std::cell::Cell;

use weir_protos::FieldError;
use weir_protos::v1::Session as Given;

use crate::core::answer::checked_name;
use crate::core::effects::HeaderEdit;
use crate::core::key::value_source;
use crate::core::ports::{Attributes, Nanos};
use crate::core::request::Request;
use crate::core::source::Source;

/// Longer principals are cut: the id goes into logs and other headers.
const MAX_PRINCIPAL: usize = 64;

#[derive(Debug)]
pub struct Session {
    header: String,
    principal: Source,
    /// Of the last id: two within one tick of the clock differ all the same.
    last: Cell<Nanos>,
}

impl Session {
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
        Ok(Session { header, principal, last: Cell::new(0) })
    }

    /// The edit that gives the request an id, where it has none that counts.
    pub fn apply<'r>(
        &'r self,
        request: &mut Request<'r>,
        is_trusted: bool,
        wall: Nanos,
        attributes: &mut impl Attributes,
    ) -> Vec<HeaderEdit> {
        let headers = request.headers;
        let came = headers.get_one(self.header.as_bytes());
        if is_trusted && came.is_some_and(is_well_formed) {
            return Vec::new();
        }
        let principal = self.principal.read(request, attributes);
        let id = self.mint(principal.as_deref(), wall);
        let several = headers.all(self.header.as_bytes()).nth(1).is_some();
        let removal = several.then(|| HeaderEdit::Remove(self.header.clone()));
        removal.into_iter().chain([HeaderEdit::Set(self.header.clone(), id)]).collect()
    }

    fn mint(&self, principal: Option<&[u8]>, wall: Nanos) -> String {
        let stamp = wall.max(self.last.get().saturating_add(1));
        self.last.set(stamp);
        let principal = principal.filter(|principal| !principal.is_empty()).unwrap_or(b"anonymous");
        let plain = |byte: &u8| {
            let is_plain = byte.is_ascii_alphanumeric() || b"._@:-".contains(byte);
            char::from(if is_plain { *byte } else { b'_' })
        };
        let principal: String = principal.iter().take(MAX_PRINCIPAL).map(plain).collect();
        format!("sess-{principal}-{stamp}")
    }
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
    use std::collections::BTreeSet;
    use weir_protos::v1::{KeyPart, key_part};

    fn session() -> Session {
        let principal = Some(key_part::Source::Header("x-user".into()));
        let principal = Some(KeyPart { source: principal, ..KeyPart::default() });
        let source = Given { principal, ..Given::default() };
        Session::compile(&source, b"x-weir-color", "p").unwrap()
    }

    #[test]
    fn ids() {
        let session = session();
        assert_eq!(session.mint(Some(b"ann"), 17), "sess-ann-17");
        assert_eq!(session.mint(None, 18), "sess-anonymous-18");
        assert_eq!(session.mint(Some(b"a b\r\n\xff@x.y"), 19), "sess-a_b___@x.y-19");
        assert_eq!(session.mint(Some(&[b'x'; 500]), 20).len(), 5 + 64 + 3);
        let ids: BTreeSet<String> = (0..10_000).map(|_| session.mint(None, 21)).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| is_well_formed(id.as_bytes())));
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
}
