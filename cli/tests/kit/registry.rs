//! A real registry on a free port of this machine, with its files in a folder of the test.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Folder;
use super::tokens::Tokens;

/// Killed with the value.
pub struct Registry {
    child: Child,
    pub host: String,
    folder: Folder,
}

/// Name and password of [`Registry::with_password`].
pub const USER: [&str; 2] = ["ann", "opensesame"];
const HTPASSWD: &str = "ann:$2b$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi\n";

impl Registry {
    pub fn open() -> Registry {
        Registry::start(Folder::new(), "")
    }

    pub fn with_password() -> Registry {
        let folder = Folder::new();
        let file = folder.file("htpasswd", HTPASSWD);
        Registry::start(folder, &format!("auth: {{htpasswd: {{realm: test, path: {file}}}}}\n"))
    }

    /// Where a token is wanted, which a server of its own gives for the password.
    pub fn with_tokens() -> Registry {
        let (folder, tokens) = (Folder::new(), Tokens::serve());
        let file = folder.file("tokens.pem", &tokens.certificate);
        let realm = &tokens.realm;
        let token = format!(
            "realm: \"{realm}\", service: a registry, issuer: tokens, rootcertbundle: {file}"
        );
        Registry::start(folder, &format!("auth: {{token: {{{token}}}}}\n"))
    }

    /// With a certificate of its own; the authority that signed it is in [`Registry::authority`].
    pub fn with_tls() -> Registry {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let folder = Folder::new();
        let mut of_authority = CertificateParams::new(Vec::new()).unwrap();
        of_authority.distinguished_name.push(DnType::CommonName, "authority");
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        folder.file("authority.pem", &of_authority.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(of_authority, key);
        let own = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&own, &issuer).unwrap();
        let certificate = folder.file("own.pem", &certificate.pem());
        let key = folder.file("own.key", &own.serialize_pem());
        Registry::start(folder, &format!("  tls: {{certificate: {certificate}, key: {key}}}\n"))
    }

    pub fn authority(&self) -> String {
        self.folder.path().join("authority.pem").to_str().unwrap().to_owned()
    }

    fn start(folder: Folder, more: &str) -> Registry {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let program = root.join("target/weir/docker-registry");
        assert!(program.is_file(), "{} is missing; run: cargo xtask setup", program.display());
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let data = folder.path().join("data");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n{more}",
            data.display()
        );
        let config = folder.file("config.yml", &text);
        let mut command = Command::new(program);
        command.args(["serve", &config]).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert_eq!(child.try_wait().unwrap(), None, "the registry ended; {text}");
            assert!(begun.elapsed() < Duration::from_secs(20), "the registry opens no port");
            std::thread::sleep(Duration::from_millis(10));
        }
        Registry { child, host: address.to_string(), folder }
    }

    /// The manifest under a tag, as a descriptor of it, and a way to everything by digest.
    pub fn pull(
        &self,
        name: &str,
        tag: &str,
    ) -> (serde_json::Value, impl Fn(&str) -> Vec<u8> + use<>) {
        let base = format!("http://{}/v2/{name}", self.host);
        let agent: ureq::Agent =
            ureq::Agent::config_builder().proxy(None).http_status_as_error(true).build().into();
        let manifest = move |agent: &ureq::Agent, base: &str, of: &str| {
            let request = agent.get(format!("{base}/manifests/{of}"));
            let types = "application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json";
            request.header("accept", types).call()
        };
        let mut found = manifest(&agent, &base, tag).unwrap();
        let header = |name: &str| found.headers()[name].to_str().unwrap().to_owned();
        let (digest, media_type) = (header("docker-content-digest"), header("content-type"));
        let size = found.body_mut().read_to_vec().unwrap().len();
        let own = digest.clone();
        let get = move |digest: &str| {
            let found = match digest == own {
                true => manifest(&agent, &base, digest),
                false => agent.get(format!("{base}/blobs/{digest}")).call(),
            };
            found.unwrap().body_mut().read_to_vec().unwrap()
        };
        (serde_json::json!({"digest": digest, "mediaType": media_type, "size": size}), get)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
