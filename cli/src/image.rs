//! `weir image`: a module as a container image that Istio's agent takes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Format, Verdict};

/// Writes an image of a module, as an OCI image layout, and prints the digest of its manifest.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The module, such as `weir_rate_limit.wasm`
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// The layout's folder; made where it is missing
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    #[arg(long, value_enum, default_value_t = Kind::Oci)]
    kind: Kind,
    /// What the layout calls the image
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const EXAMPLE: &str = "\
Example:
  $ weir image target/weir/weir_rate_limit.wasm --out rate-limit.oci
  sha256:3f5b1c…
  $ skopeo copy oci:rate-limit.oci:0.1.0 docker://registry.example/weir/rate-limit:0.1.0

The digest is what `weir render --digest rate-limit=…` puts into a WasmPlugin. The same module gives the same
bytes, and so the same digest, on any machine.
Exit codes: 0 done, 2 not done.";

/// The three forms that Istio's agent takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An OCI image whose last layer holds `plugin.wasm`
    Oci,
    /// The same as Docker's schema 2, for registries that know nothing else
    Docker,
    /// An artifact of two layers, the first of which is the module as it is
    Artifact,
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const MODULE_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let module =
        fs::read(&args.module).with_context(|| format!("cannot read {}", args.module.display()))?;
    if !module.starts_with(b"\0asm") {
        bail!(
            "{} is no wasm module; `cargo xtask build` makes them in target/weir",
            args.module.display()
        );
    }
    if args.tag.is_empty() || args.tag.bytes().any(|byte| !is_of_tag(byte)) {
        bail!("--tag {:?}: must be letters, digits, `.`, `_` and `-`", args.tag);
    }
    let mut layout = Layout::start(&args.out)?;
    let manifest = match args.kind {
        Kind::Oci => layout.rootfs(
            &module,
            OCI_MANIFEST,
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        )?,
        Kind::Docker => layout.rootfs(
            &module,
            DOCKER_MANIFEST,
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        )?,
        Kind::Artifact => {
            let config = layout.blob(b"{}", MODULE_CONFIG)?;
            let layers = [layout.blob(&module, MODULE)?, config.clone()];
            json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers})
        }
    };
    let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
    let digest = layout.finish(&manifest, &media_type, &args.tag)?;
    match args.format {
        Format::Text => writeln!(out, "{digest}")?,
        Format::Json => {
            let bytes = module.len();
            writeln!(out, "{}", json!({"digest": digest, "tag": args.tag, "module_bytes": bytes}))?;
        }
    }
    Ok(Verdict::Good)
}

fn is_of_tag(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// An OCI image layout (image-spec 1.1, "Image Layout Specification").
struct Layout<'a> {
    folder: &'a Path,
}

impl<'a> Layout<'a> {
    fn start(folder: &'a Path) -> anyhow::Result<Layout<'a>> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
        Ok(Layout { folder })
    }

    /// Writes bytes under their digest, and gives their descriptor.
    fn blob(&mut self, bytes: &[u8], media_type: &str) -> anyhow::Result<Value> {
        let hex = sha256(bytes);
        self.write(&format!("blobs/sha256/{hex}"), bytes)?;
        let digest = format!("sha256:{hex}");
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    /// An image of one layer.
    fn rootfs(
        &mut self,
        module: &[u8],
        manifest: &str,
        config: &str,
        layer: &str,
    ) -> anyhow::Result<Value> {
        let tar = archive(module)?;
        let diff = format!("sha256:{}", sha256(&tar));
        let layer = self.blob(&compressed(&tar)?, layer)?;
        // No container runs of it, but registries look for a platform.
        let config_text = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff]},
        });
        let config = self.blob(config_text.to_string().as_bytes(), config)?;
        Ok(json!({"schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [layer]}))
    }

    /// Writes the manifest and the index. Gives the manifest's digest.
    fn finish(mut self, manifest: &Value, media_type: &str, tag: &str) -> anyhow::Result<String> {
        let mut descriptor = self.blob(manifest.to_string().as_bytes(), media_type)?;
        let digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
        self.write("index.json", index.to_string().as_bytes())?;
        self.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(digest)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }
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
