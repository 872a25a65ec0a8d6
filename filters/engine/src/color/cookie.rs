//! stand-in
use crate::core::headers::HeaderMap;
use weir_protos::FieldError;
#[derive(Debug)]
pub struct CookieRules;
impl CookieRules {
    pub fn compile(_: &weir_protos::v1::StickyCookie, _: &str) -> Result<CookieRules, FieldError> {
        Ok(CookieRules)
    }
    pub fn read<'r>(&self, headers: &'r HeaderMap) -> Option<&'r [u8]> {
        headers
            .all(b"cookie")
            .find_map(|line| {
                line.split(|b| *b == b';')
                    .find_map(|part| part.trim_ascii().strip_prefix(b"weir-sticky="))
            })
            .filter(|key| {
                key.len() == 32 && key.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            })
    }
    pub fn mint(random: u128) -> String {
        format!("{random:032x}")
    }
    pub fn set(&self, key: &str) -> String {
        format!("weir-sticky={key}; Path=/; Max-Age=2592000; SameSite=Lax; Secure; HttpOnly")
    }
    pub fn clear(&self) -> String {
        "weir-sticky=; Path=/; Max-Age=0; SameSite=Lax; Secure; HttpOnly".into()
    }
}
