//! The name of an image: `registry/name:tag`, as far as one can be pushed to.

use std::fmt;
use std::net::IpAddr;

use crate::image;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The host, with its port where that is not the scheme's.
    pub registry: String,
    pub name: String,
    pub tag: String,
}

impl Reference {
    pub fn read(text: &str) -> Result<Reference, String> {
        let bare = text.strip_prefix("oci://").unwrap_or(text);
        if bare.contains("://") {
            return Err("must be a registry, a name and a tag, such as registry.example/weir/rate-limit:0.1.0".into());
        }
        if bare.contains('@') {
            return Err("has a digest, which is what pushing finds out; give a tag".into());
        }
        let Some((registry, rest)) = bare.split_once('/') else {
            return Err(
                "has no registry before the name, such as registry.example/rate-limit:0.1.0".into(),
            );
        };
        let is_host = registry.contains(['.', ':']) || registry == "localhost";
        let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if !is_host || !registry.bytes().all(is_of_host) {
            return Err(format!(
                "{registry:?} is no registry; name its host, such as registry.example"
            ));
        }
        let (name, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
        if !name.split('/').all(is_part) {
            return Err(format!(
                "{name:?}: a name has lower-case letters, digits, and `.`, `_`, `-` between them"
            ));
        }
        if !image::is_tag(tag) {
            return Err(format!("tag {tag:?}: must be letters, digits, `.`, `_` and `-`"));
        }
        Ok(Reference { registry: registry.into(), name: name.into(), tag: tag.into() })
    }

    /// Where its interface is reached. Docker Hub's is not under its name.
    pub fn host(&self) -> &str {
        match self.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        }
    }

    /// Whether this machine serves it itself.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.registry)
    }
}

/// Of a host, with or without a port.
pub fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.name, self.tag)
    }
}

/// A component of a name (distribution-spec 1.1, "Pulling manifests").
fn is_part(part: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [part.bytes().next(), part.bytes().next_back()];
    ends.into_iter().all(|end| end.is_some_and(is_plain))
        && part.bytes().all(|byte| is_plain(byte) || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for (text, registry, name, tag) in [
            (
                "registry.example/weir/rate-limit:0.1.0",
                "registry.example",
                "weir/rate-limit",
                "0.1.0",
            ),
            ("oci://localhost:5000/w:v1", "localhost:5000", "w", "v1"),
            ("127.0.0.1:25000/a/b/c", "127.0.0.1:25000", "a/b/c", "latest"),
            ("[::1]:5000/w:1", "[::1]:5000", "w", "1"),
        ] {
            let wanted =
                Reference { registry: registry.into(), name: name.into(), tag: tag.into() };
            assert_eq!(Reference::read(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_pushed_to_is_refused() {
        for (text, expected) in [
            ("rate-limit:1", "has no registry"),
            ("weir/rate-limit:1", "is no registry"),
            ("https://registry.example/w:1", "must be a registry"),
            ("registry.example/w@sha256:00", "has a digest"),
            ("registry.example/Weir:1", "lower-case"),
            ("registry.example//w:1", "lower-case"),
            ("registry.example/w:", "tag \"\""),
            ("registry.example/w:a b", "tag \"a b\""),
            ("user:pass@registry.example/w:1", "has a digest"),
        ] {
            let error = Reference::read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry.example", "10.0.0.1:5000", "localhost.example", "127.0.0.1.example"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
