//! A server of tokens, to which a registry sends those who want to push (distribution, "Token Authentication
//! Specification"). It gives one to whoever brings the password.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::registry::USER;

pub struct Tokens {
    /// Where tokens are had.
    pub realm: String,
    /// The certificate of the key that signs them.
    pub certificate: String,
}

impl Tokens {
    /// Serves for as long as the test runs.
    pub fn serve() -> Tokens {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "tokens");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let signer = EcdsaKeyPair::from_pkcs8(algorithm, &key.serialize_der(), &random).unwrap();
        let header =
            json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(certificate.der())]});
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &header, &signer, &random);
            }
        });
        Tokens { realm, certificate: certificate.pem() }
    }
}

fn answer(stream: TcpStream, header: &Value, signer: &EcdsaKeyPair, random: &SystemRandom) {
    let lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let basic = STANDARD.encode(USER.join(":"));
    let is_known = head.iter().any(|line| line.ends_with(&basic));
    let scope =
        head.first().and_then(|line| line.split_once("scope=repository:")?.1.split(':').next());
    let is_asked =
        head.first().is_some_and(|line| line.contains("pull,push&service=a%20registry "));
    let (status, body) = match (scope, is_known && is_asked) {
        (Some(name), true) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let claims = json!({
                "iss": "tokens", "sub": USER[0], "aud": "a registry", "jti": "1",
                "iat": now, "nbf": now - 60, "exp": now + 60,
                "access": [{"type": "repository", "name": name, "actions": ["pull", "push"]}],
            });
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(header), part(&claims));
            let signature = signer.sign(random, signed.as_bytes()).unwrap();
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
            ("200 OK", json!({"token": token}).to_string())
        }
        _ => ("401 Unauthorized", json!({"errors": [{"message": "who are you?"}]}).to_string()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
}
