//! The section `sticky_cookie`: a random key for clients that bring none. Never a color, so that a
//! ramp-down and a guard reach everybody.

use weir_protos::FieldError;
use weir_protos::v1::StickyCookie as Source;
use weir_protos::v1::sticky_cookie::SameSite;

use crate::core::checks::duration;
use crate::core::headers::{HeaderMap, header_name};
use crate::core::ports::Nanos;

const S: Nanos = 1_000_000_000;
const DAY: Nanos = 86_400 * S;
const DEFAULT_AGE: Nanos = 30 * DAY;

/// Hexadecimal digits of a key: 128 bits.
const KEY: usize = 32;

#[derive(Debug)]
pub struct CookieRules {
    name: String,
    max_age: u64,
    /// From `; Path` on, without the age.
    attributes: String,
}

impl CookieRules {
    #[cold]
    pub fn compile(source: &Source, path: &str) -> Result<CookieRules, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        let name = if source.name.is_empty() { "weir-sticky" } else { &source.name };
        // The grammar of both is a token (RFC 6265 section 4.1.1).
        if header_name(name).is_none() {
            let remedy = "must be a cookie's name: letters, digits and `-_.` and the like";
            return Err(FieldError::value(at("name"), format_args!("{name:?}"), remedy));
        }
        let given = if source.path.is_empty() { "/" } else { &source.path };
        let is_path = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b';';
        if !given.starts_with('/') || given.len() > 256 || !given.bytes().all(is_path) {
            let remedy = "must be a path such as /, without blanks and `;`";
            return Err(FieldError::value(at("path"), format_args!("{given:?}"), remedy));
        }
        let (is_secure, http_only) =
            (source.secure.unwrap_or(true), source.http_only.unwrap_or(true));
        let same_site = match source.same_site() {
            SameSite::Lax | SameSite::Unspecified => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        if same_site == "None" && !is_secure {
            let remedy = "needs `secure`: browsers drop the cookie otherwise";
            return Err(FieldError::value(at("same_site"), "NONE", remedy));
        }
        if source.partitioned && !is_secure {
            let remedy = "needs `secure`: browsers drop the cookie otherwise";
            return Err(FieldError::value(at("partitioned"), "true", remedy));
        }
        let age = duration(source.max_age.as_ref(), 60 * S..=400 * DAY, &at("max_age"))?;
        let flags = [
            (is_secure, "; Secure"),
            (http_only, "; HttpOnly"),
            (source.partitioned, "; Partitioned"),
        ];
        let flags: String =
            flags.iter().filter(|(is_set, _)| *is_set).map(|(_, text)| *text).collect();
        Ok(CookieRules {
            name: name.to_string(),
            max_age: age.unwrap_or(DEFAULT_AGE) / S,
            attributes: format!("; Path={given}; SameSite={same_site}{flags}"),
        })
    }

    /// The key that a client brings, where it has the form of one of ours.
    pub fn read<'r>(&self, headers: &'r HeaderMap) -> Option<&'r [u8]> {
        let pairs = headers.all(b"cookie").flat_map(|line| line.split(|byte| *byte == b';'));
        pairs
            .filter_map(|pair| {
                let value = pair.trim_ascii_start().strip_prefix(self.name.as_bytes())?;
                value.strip_prefix(b"=").map(<[u8]>::trim_ascii_end)
            })
            .find(|value| {
                let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                value.len() == KEY && value.iter().all(digit)
            })
    }

    pub fn mint(random: u128) -> String {
        format!("{random:032x}")
    }

    pub fn set(&self, key: &str) -> String {
        format!("{}={key}; Max-Age={}{}", self.name, self.max_age, self.attributes)
    }

    /// RFC 6265 section 3.1: a cookie is taken back by one of the same name and path that is over.
    pub fn clear(&self) -> String {
        format!("{}=; Max-Age=0{}", self.name, self.attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(source: &Source) -> CookieRules {
        CookieRules::compile(source, "p").unwrap()
    }

    #[test]
    fn keys_of_ours_and_others() {
        let key = "0123456789abcdef0123456789abcdef";
        let found = |lines: &[&str]| {
            let pairs: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            let headers = HeaderMap::from_pairs(&pairs);
            rules(&Source::default())
                .read(&headers)
                .map(|key| String::from_utf8(key.to_vec()).unwrap())
        };
        let good = format!("weir-sticky={key}");
        assert_eq!(found(&[&good]).as_deref(), Some(key));
        assert_eq!(found(&[&format!("a=b; {good} ; c=d")]).as_deref(), Some(key));
        assert_eq!(found(&["a=b", &good]).as_deref(), Some(key));
        assert_eq!(found(&["weir-sticky=gray", &good]).as_deref(), Some(key));
        for bad in [
            "weir-sticky=gray".to_string(),
            format!("weir-sticky={}", key.to_uppercase()),
            format!("weir-sticky={key}0"),
            format!("weir-sticky=\"{key}\""),
            format!("xweir-sticky={key}"),
            format!("weir-sticky-2={key}"),
            String::new(),
        ] {
            assert_eq!(found(&[&bad]), None, "{bad}");
        }
    }

    #[test]
    fn attributes() {
        let usual = rules(&Source::default());
        assert_eq!(
            usual.set("k"),
            "weir-sticky=k; Max-Age=2592000; Path=/; SameSite=Lax; Secure; HttpOnly"
        );
        assert_eq!(
            usual.clear(),
            "weir-sticky=; Max-Age=0; Path=/; SameSite=Lax; Secure; HttpOnly"
        );
        let other = Source {
            name: "lane".into(),
            path: "/shop".into(),
            same_site: SameSite::None as i32,
            http_only: Some(false),
            partitioned: true,
            max_age: Some(weir_protos::Duration { seconds: 60, nanos: 0 }),
            ..Source::default()
        };
        assert_eq!(
            rules(&other).set("k"),
            "lane=k; Max-Age=60; Path=/shop; SameSite=None; Secure; Partitioned"
        );
        for bad in [
            Source { same_site: SameSite::None as i32, secure: Some(false), ..Source::default() },
            Source { partitioned: true, secure: Some(false), ..Source::default() },
            Source { name: "a b".into(), ..Source::default() },
            Source { path: "/;x".into(), ..Source::default() },
            Source { path: "shop".into(), ..Source::default() },
        ] {
            assert!(CookieRules::compile(&bad, "p").is_err(), "{bad:?}");
        }
    }
}
