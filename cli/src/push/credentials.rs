//! Who pushes: given with the command, or as `docker login` left it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub struct Credentials {
    username: String,
    password: String,
}

impl Credentials {
    pub fn from_stdin(username: &str) -> anyhow::Result<Credentials> {
        Ok(Credentials { username: username.to_owned(), password: super::line_of_stdin()? })
    }

    /// Those of a registry in docker's configuration, where there are any.
    pub fn of_docker(registry: &str) -> anyhow::Result<Option<Credentials>> {
        let Some(file) = config() else { return Ok(None) };
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(None) };
        read(&text, registry, &file)
    }

    /// As the header `authorization` says it (RFC 7617).
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }
}

fn config() -> Option<PathBuf> {
    let folder = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".docker"));
    Some(folder.or_else(home)?.join("config.json"))
}

fn read(text: &str, registry: &str, file: &Path) -> anyhow::Result<Option<Credentials>> {
    let file = file.display();
    let config: Value = serde_json::from_str(text).with_context(|| format!("{file} is no JSON"))?;
    let key = match registry {
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    };
    if let Some(auth) = config["auths"][key]["auth"].as_str() {
        let plain = STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let parts = plain.as_deref().and_then(|plain| plain.split_once(':'));
        let Some((username, password)) = parts else {
            bail!(
                "{file}: auths.{key}.auth is not Base64 of a name, `:` and a password; log in again"
            );
        };
        let (username, password) = (username.to_owned(), password.to_owned());
        return Ok(Some(Credentials { username, password }));
    }
    // Programs of the desktop that keep passwords are not called.
    let helper = config["credHelpers"].get(key).or_else(|| {
        let is_kept = config["auths"].get(key).is_some();
        config.get("credsStore").filter(|_| is_kept)
    });
    if let Some(helper) = helper.and_then(Value::as_str) {
        bail!(
            "{file}: the password for {registry} is kept by `{helper}`; give --username and --password-stdin"
        );
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_login_wrote_is_read() {
        let file = Path::new("config.json");
        let text = r#"{"auths": {
            "registry.example:5000": {"auth": "YW5uOnNlOmNyZXQ="},
            "https://index.docker.io/v1/": {"auth": "Ym9iOng="},
            "kept.example": {},
            "bad.example": {"auth": "YW5u"}
        }, "credsStore": "desktop", "credHelpers": {"cloud.example": "cloud"}}"#;
        let of = |registry: &str| read(text, registry, file);
        let names = |registry: &str| {
            let found = of(registry).unwrap().unwrap();
            (found.username, found.password)
        };
        assert_eq!(names("registry.example:5000"), ("ann".into(), "se:cret".into()));
        assert_eq!(names("docker.io").0, "bob");
        assert!(of("other.example").unwrap().is_none());
        let error = |registry: &str| format!("{:#}", of(registry).err().unwrap());
        assert!(error("kept.example").contains("is kept by `desktop`"));
        assert!(error("cloud.example").contains("is kept by `cloud`"));
        assert!(error("bad.example").contains("log in again"));
        assert!(read("{", "a.example", file).is_err());
    }

    #[test]
    fn a_name_and_a_password_are_one_header() {
        let ann = Credentials { username: "ann".into(), password: "se:cret".into() };
        assert_eq!(ann.basic(), "Basic YW5uOnNlOmNyZXQ=");
    }
}
