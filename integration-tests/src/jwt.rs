//! Tokens signed with HS256, and the key set that Envoy's jwt_authn filter checks them with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A test's key is no secret.
const SECRET: &[u8] = b"weir integration tests: not a secret";
pub const ISSUER: &str = "https://issuer.test";
/// Name of the payload in the filter's metadata: claims are read as `weir_jwt.<claim>`.
pub const PAYLOAD: &str = "weir_jwt";

/// A token with these claims, as the value of `authorization`.
pub fn bearer(mut claims: Value) -> String {
    claims["iss"] = json!(ISSUER);
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "typ": "JWT"}).to_string());
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signed = format!("{header}.{payload}");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    let signature = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()));
    format!("Bearer {signed}.{signature}")
}

/// The filter's configuration: tokens are checked where there is one, requests without pass.
pub fn authn_config() -> Value {
    let jwks = json!({"keys": [{
        "kty": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET),
    }]});
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"test": {
            "issuer": ISSUER,
            "local_jwks": {"inline_string": jwks.to_string()},
            "payload_in_metadata": PAYLOAD,
        }},
        "rules": [{
            "match": {"prefix": "/"},
            "requires": {"requires_any": {"requirements": [
                {"provider_name": "test"}, {"allow_missing": {}},
            ]}},
        }],
    })
}
