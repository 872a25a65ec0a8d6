//! A registry's interface (OCI distribution-spec 1.1), as far as a push needs it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use ureq::http::{HeaderMap, Request, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http::Response};

use super::credentials::Credentials;
use super::reference::{Reference, is_loopback};
use crate::image::{Blob, Image};

pub struct Registry {
    agent: Agent,
    /// Scheme and host.
    base: String,
    reference: Reference,
    /// What `authorization` says, once the registry asked for it.
    authorization: Option<String>,
}

impl Registry {
    /// Finds out whether it answers, and what it wants to know of who pushes.
    pub fn connect(
        reference: &Reference,
        is_plain: bool,
        ca: Option<&Path>,
        credentials: Option<Credentials>,
    ) -> anyhow::Result<Registry> {
        let scheme = if is_plain { "http" } else { "https" };
        let mut registry = Registry {
            agent: agent(ca, reference.is_loopback())?,
            base: format!("{scheme}://{}", reference.host()),
            reference: reference.clone(),
            authorization: None,
        };
        let url = format!("{}/v2/", registry.base);
        let answer = registry.call("GET", &url, &[], "")?;
        match answer.status().as_u16() {
            200 => {}
            401 => {
                let challenge = challenge(answer.headers());
                registry.authorization = Some(registry.authorize(&challenge, credentials)?);
            }
            _ => return Err(registry.refused("is asked for its version", answer)),
        }
        Ok(registry)
    }

    /// "Checking if content exists in the registry"
    pub fn has(&mut self, blob: &Blob) -> anyhow::Result<bool> {
        let url = self.url(&format!("blobs/{}", blob.digest));
        let answer = self.call("HEAD", &url, &[], "")?;
        match answer.status().as_u16() {
            404 => Ok(false),
            // A redirection leads to where it lies.
            200 | 307 => Ok(true),
            _ => Err(self.refused("is asked for a layer", answer)),
        }
    }

    /// "Pushing a blob monolithically": POST, then PUT.
    pub fn send(&mut self, blob: &Blob) -> anyhow::Result<()> {
        let url = self.url("blobs/uploads/");
        let answer = self.call("POST", &url, &[], "")?;
        let place = answer.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
        let place = match (answer.status().as_u16(), place) {
            (202, Some(place)) if place.starts_with('/') => format!("{}{place}", self.base),
            (202, Some(place)) => place.to_owned(),
            _ => return Err(self.refused("is to take a layer", answer)),
        };
        let mark = if place.contains('?') { '&' } else { '?' };
        let url = format!("{place}{mark}digest={}", blob.digest);
        let answer = self.call("PUT", &url, &blob.bytes, "application/octet-stream")?;
        match answer.status().as_u16() {
            201 => Ok(()),
            _ => Err(self.refused("takes a layer", answer)),
        }
    }

    /// "Pushing manifests". The digest that it computed has to be ours.
    pub fn put_manifest(&mut self, image: &Image) -> anyhow::Result<()> {
        let url = self.url(&format!("manifests/{}", self.reference.tag));
        let answer = self.call("PUT", &url, &image.manifest.bytes, image.media_type)?;
        if answer.status().as_u16() != 201 {
            return Err(self.refused("takes the manifest", answer));
        }
        let digest = answer.headers().get("docker-content-digest");
        let digest = digest.and_then(|digest| digest.to_str().ok());
        let ours = image.manifest.digest.as_str();
        match digest {
            Some(digest) if digest != ours => {
                bail!(
                    "{} stored {digest}, not {ours}: it changed the manifest",
                    self.reference.registry
                )
            }
            _ => Ok(()),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.reference.name)
    }

    fn call(
        &self,
        method: &str,
        url: &str,
        body: &[u8],
        media_type: &str,
    ) -> anyhow::Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(url);
        if !media_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        // Where a layer is sent to may be another host, whom the password is not for.
        if let Some(authorization) = self.authorization.as_ref().filter(|_| self.is_own(url)) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let answer = match (method, body) {
            ("GET" | "HEAD", _) => self.agent.run(request.body(())?),
            (_, body) => self.agent.run(request.body(body)?),
        };
        answer.map_err(|error| self.unreachable(url, error))
    }

    fn is_own(&self, url: &str) -> bool {
        let parts = |url: &str| {
            let uri: Uri = url.parse().ok()?;
            Some((uri.scheme()?.clone(), uri.authority()?.clone()))
        };
        parts(url).is_some() && parts(url) == parts(&self.base)
    }

    /// What answers the challenge (RFC 9110 11.6.1): the password itself, or a token for it.
    fn authorize(
        &self,
        challenge: &str,
        credentials: Option<Credentials>,
    ) -> anyhow::Result<String> {
        let registry = &self.reference.registry;
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            let known = credentials.with_context(|| no_credentials(registry))?;
            return Ok(known.basic());
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            bail!("{registry} wants `{scheme}` as authentication; Basic and Bearer are known here");
        }
        let realm =
            parameter(parameters, "realm").context("the registry names no realm for tokens")?;
        // With a name before the host, it is not the host that it looks like.
        let authority = realm.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
        let host = authority
            .filter(|authority| !authority.as_str().contains('@'))
            .map(|authority| authority.host().to_owned())
            .with_context(|| format!("{registry} names {realm:?} for tokens, which is no URL"))?;
        if !realm.starts_with("https://") && !is_loopback(&host) {
            bail!("{registry} wants the password sent to {realm}, without TLS; that is not done");
        }
        let mark = if realm.contains('?') { '&' } else { '?' };
        let mut url = format!("{realm}{mark}scope=repository:{}:pull,push", self.reference.name);
        if let Some(service) = parameter(parameters, "service") {
            url.push_str(&format!("&service={}", encoded(&service)));
        }
        let mut request = Request::builder().uri(&url);
        if let Some(credentials) = &credentials {
            request = request.header(header::AUTHORIZATION, credentials.basic());
        }
        let answer = self.agent.run(request.body(())?);
        let mut answer = answer.map_err(|error| self.unreachable(&realm, error))?;
        match answer.status().as_u16() {
            200 => {}
            401 | 403 if credentials.is_none() => bail!(no_credentials(registry)),
            _ => return Err(self.refused("is asked for a token", answer)),
        }
        let text = answer.body_mut().read_to_string().context("cannot read the token")?;
        let said: Value = serde_json::from_str(&text).context("the token is no JSON")?;
        let token = said.get("token").or_else(|| said.get("access_token")).and_then(Value::as_str);
        Ok(format!("Bearer {}", token.context("the answer has no token")?))
    }

    /// An answer that ends the push, with what the registry said about it.
    fn refused(&self, when: &str, mut answer: Response<Body>) -> anyhow::Error {
        let status = answer.status();
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = said.pointer("/errors/0/message").and_then(Value::as_str).unwrap_or(text.trim());
        let Reference { registry, name, .. } = &self.reference;
        let remedy = match status.as_u16() {
            400 if said.contains("HTTPS server") => {
                "; it speaks TLS: drop --plain-http, and give --ca where its certificate is its own"
            }
            401 => "; the name or the password is wrong",
            403 => "; this user may not push there",
            404 => "; does a registry answer there?",
            _ => "",
        };
        let said: String = said.chars().take(200).collect();
        anyhow!("{registry}: {status} when it {when} for {name}: {said}{remedy}")
    }

    fn unreachable(&self, url: &str, error: ureq::Error) -> anyhow::Error {
        let said = error.to_string();
        let is_certificate = said.contains("invalid peer certificate");
        let remedy = match &error {
            _ if said.contains("UnknownIssuer") || said.contains("BadSignature") => {
                "; where its certificate is its own, give its authority with --ca"
            }
            _ if is_certificate => "",
            _ if url.starts_with("https://") && said.contains("InvalidContentType") => {
                "; it does not speak TLS: --plain-http goes without"
            }
            ureq::Error::HostNotFound => "; is the name right?",
            ureq::Error::Io(_) | ureq::Error::ConnectionFailed => "; does a registry listen there?",
            _ => "",
        };
        anyhow!("cannot reach {}: {said}{remedy}", self.reference.registry)
    }
}

fn no_credentials(registry: &str) -> String {
    format!(
        "{registry} wants a name and a password: `docker login {registry}`, or --username and --password-stdin"
    )
}

fn agent(ca: Option<&Path>, is_loopback: bool) -> anyhow::Result<Agent> {
    let roots = match ca {
        None => RootCerts::PlatformVerifier,
        Some(file) => {
            let pem =
                std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let found = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                bail!("{} holds no certificate; it must be PEM", file.display());
            }
            RootCerts::new_with_certs(&found)
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls =
        TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build();
    let mut config = Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(60)));
    if is_loopback {
        // No proxy leads to this machine.
        config = config.proxy(None);
    }
    Ok(config.build().into())
}

/// The first scheme of `www-authenticate`.
fn challenge(headers: &HeaderMap) -> String {
    let found = headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    found.unwrap_or_default().to_owned()
}

/// The quoted value of a parameter, such as `realm="…"`.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let start = format!("{name}=\"");
    let (_, rest) = parameters.split_once(&start)?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match is_plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_challenge_are_read() {
        let text =
            "realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"a:b\"";
        assert_eq!(parameter(text, "realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(parameter(text, "service").as_deref(), Some("registry.example"));
        assert_eq!(parameter(text, "error"), None);
        assert_eq!(encoded("a b/c"), "a%20b%2Fc");
    }

    #[test]
    fn the_password_is_for_the_registry_alone() {
        let reference = Reference::read("registry.example:5000/w:1").unwrap();
        let registry = Registry {
            agent: agent(None, true).unwrap(),
            base: "https://registry.example:5000".into(),
            reference,
            authorization: None,
        };
        assert!(registry.is_own("https://registry.example:5000/v2/w/blobs/uploads/1"));
        for other in [
            "http://registry.example:5000/v2/",
            "https://registry.example/v2/",
            "https://registry.example:5000@other.example/",
            "https://other.example/",
        ] {
            assert!(!registry.is_own(other), "{other}");
        }
    }
}
