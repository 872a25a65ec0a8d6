//! An image of a module: its blobs and its manifest, the same bytes for the same module on any machine.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The three forms that Istio's agent takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// An OCI image whose last layer holds `plugin.wasm`
    Oci,
    /// The same as Docker's schema 2, for registries that know nothing else
    Docker,
    /// An artifact of two layers, the first of which is the module as it is
    Artifact,
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const MODULE_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";

/// Bytes, and what they are called by.
pub struct Blob {
    pub digest: String,
    pub bytes: Vec<u8>,
}

impl Blob {
    fn of(bytes: Vec<u8>) -> Blob {
        Blob { digest: format!("sha256:{}", sha256(&bytes)), bytes }
    }

    pub fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

pub struct Image {
    pub blobs: Vec<Blob>,
    pub manifest: Blob,
    pub media_type: &'static str,
}

/// A file that is a module; others are refused before anything is written or sent.
pub fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let module = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if !module.starts_with(b"\0asm") {
        bail!(
            "{} is no wasm module; `cargo xtask build` makes them in target/weir",
            file.display()
        );
    }
    Ok(module)
}

impl Image {
    pub fn of(module: Vec<u8>, kind: Kind) -> anyhow::Result<Image> {
        match kind {
            Kind::Oci => rootfs(
                &module,
                OCI_MANIFEST,
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ),
            Kind::Docker => rootfs(
                &module,
                DOCKER_MANIFEST,
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ),
            Kind::Artifact => {
                let (config, layer) = (Blob::of(b"{}".into()), Blob::of(module));
                let of_config = config.descriptor(MODULE_CONFIG);
                let layers = vec![layer.descriptor(MODULE), of_config.clone()];
                Ok(Image::whole(vec![config, layer], OCI_MANIFEST, of_config, layers))
            }
        }
    }

    fn whole(
        blobs: Vec<Blob>,
        media_type: &'static str,
        config: Value,
        layers: Vec<Value>,
    ) -> Image {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": layers,
        });
        Image { blobs, manifest: Blob::of(manifest.to_string().into_bytes()), media_type }
    }
}

/// An image of one layer.
fn rootfs(
    module: &[u8],
    media_type: &'static str,
    config_type: &str,
    layer_type: &str,
) -> anyhow::Result<Image> {
    let tar = archive(module)?;
    let diff = format!("sha256:{}", sha256(&tar));
    let layer = Blob::of(compressed(&tar)?);
    // No container runs of it, but registries look for a platform.
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    });
    let config = Blob::of(config.to_string().into_bytes());
    let (of_config, of_layer) = (config.descriptor(config_type), layer.descriptor(layer_type));
    Ok(Image::whole(vec![config, layer], media_type, of_config, vec![of_layer]))
}

/// The module as `plugin.wasm`, of nobody and of no time.
fn archive(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(module.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "plugin.wasm", module)?;
    Ok(tar.into_inner()?)
}

fn compressed(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
