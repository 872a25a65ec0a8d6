//! stand-in
use crate::core::effects::HeaderEdit;
use crate::core::ports::{Nanos, Ports};
use crate::core::request::Request;
use weir_protos::FieldError;
pub struct Session(crate::core::source::Source);
impl Session {
    pub fn compile(
        s: &weir_protos::v1::Session,
        c: &[u8],
        path: &str,
    ) -> Result<Session, FieldError> {
        let part = s.principal.clone().unwrap_or_default();
        Ok(Session(crate::core::key::value_source(&part, c, &format!("{path}.principal"))?))
    }
    pub fn apply<'r>(
        &'r self,
        request: &mut Request<'r>,
        is_trusted: bool,
        wall: Nanos,
        ports: &mut impl Ports,
    ) -> Option<HeaderEdit> {
        if is_trusted && request.headers.get_one(b"x-trade-session-id").is_some() {
            return None;
        }
        let principal = self.0.read(request, ports);
        let text: String = principal
            .as_deref()
            .unwrap_or(b"anonymous")
            .iter()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(*b) } else { '_' })
            .take(64)
            .collect();
        Some(HeaderEdit::Set("x-trade-session-id".into(), format!("sess-{text}-{wall}")))
    }
}
