//! Certificates for mutual TLS between two listeners of one Envoy.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use std::path::{Path, PathBuf};

/// A certificate and its key as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A certificate authority of one test.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pub certificate: PathBuf,
}

impl Authority {
    pub fn new(directory: &Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // Names must differ: a certificate whose issuer has its own name counts as self-signed.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a self-signed certificate");
        let path = directory.join("ca.pem");
        std::fs::write(&path, certificate.pem()).expect("the test's directory is writable");
        Self {
            directory: directory.to_path_buf(),
            issuer: Issuer::new(params, key),
            certificate: path,
        }
    }

    /// A certificate whose URI SAN is the SPIFFE id.
    pub fn issue(&self, name: &str, spiffe: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        let uri = spiffe.try_into().expect("a SPIFFE id is ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let identity = Identity {
            certificate: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
        };
        std::fs::write(&identity.certificate, certificate.pem()).expect("writable");
        std::fs::write(&identity.key, key.serialize_pem()).expect("writable");
        identity
    }
}
