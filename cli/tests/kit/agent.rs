//! What Istio's agent makes of an image.

use std::io::Read as _;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// A docker manifest's last layer has to be a docker layer, another's an OCI layer; both hold `plugin.wasm`. Else
/// there are exactly two layers, one of which is the module. `get` gives bytes by their digest.
pub fn pulled(descriptor: &Value, get: impl Fn(&str) -> Vec<u8>) -> Result<Vec<u8>, String> {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = get(digest);
        assert_eq!(digest_of(&bytes), digest);
        assert_eq!(bytes.len() as u64, descriptor["size"].as_u64().unwrap());
        bytes
    };
    let manifest: Value = serde_json::from_slice(&blob(descriptor)).unwrap();
    assert_eq!(manifest["mediaType"], descriptor["mediaType"]);
    blob(&manifest["config"]);
    let layers = manifest["layers"].as_array().unwrap();
    let is_docker = manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json";
    let wanted = match is_docker {
        true => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        false => "application/vnd.oci.image.layer.v1.tar+gzip",
    };
    let last = layers.last().unwrap();
    if last["mediaType"] == wanted {
        let layer = blob(last);
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&*layer).take(1 << 24));
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap().file_name().is_some_and(|name| name == "plugin.wasm") {
                let mut module = Vec::new();
                entry.read_to_end(&mut module).unwrap();
                return Ok(module);
            }
        }
        return Err("no plugin.wasm in the last layer".to_owned());
    }
    if layers.len() != 2 {
        return Err(format!("number of layers must be 2 but got {}", layers.len()));
    }
    let module = "application/vnd.module.wasm.content.layer.v1+wasm";
    let found = layers.iter().find(|layer| layer["mediaType"] == module);
    found.map(blob).ok_or_else(|| "no layer is a module".to_owned())
}

pub fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
