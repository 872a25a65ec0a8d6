//! Where something listens, as people write it.

use std::fmt;

/// Plain HTTP, a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub host: String,
    pub port: u16,
}

impl Url {
    pub fn read(text: &str) -> Result<Url, String> {
        let wrong = || "must be http://HOST:PORT".to_owned();
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
        // The colons within brackets are the address's own.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (rest, "80"),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().map_err(|_| wrong())?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        let is_good = !host.is_empty() && host.bytes().all(is_host);
        is_good.then(|| Url { host: host.to_owned(), port }).ok_or_else(wrong)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}", self.host, self.port),
            false => write!(f, "http://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://shop.test/", "http://shop.test:80"),
            ("http://[::1]:81", "http://[::1]:81"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            assert_eq!(Url::read(text).unwrap().to_string(), shown);
        }
        for text in ["", "127.0.0.1:80", "https://a:1", "http://a:b", "http://a b:1", "http://:80"]
        {
            assert!(Url::read(text).is_err(), "{text}");
        }
    }
}
