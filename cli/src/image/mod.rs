//! `weir image`: a module as a container image that Istio's agent takes.

mod made;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;

pub use made::{Blob, Image, Kind, read};

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
  `weir push` does both at once.

The digest is what `weir render --digest rate-limit=…` puts into a WasmPlugin. The same module gives the same
bytes, and so the same digest, on any machine.
Exit codes: 0 done, 2 not done.";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let module = read(&args.module)?;
    if !is_tag(&args.tag) {
        bail!("--tag {:?}: must be letters, digits, `.`, `_` and `-`", args.tag);
    }
    let bytes = module.len();
    let image = Image::of(module, args.kind)?;
    layout(&args.out, &image, &args.tag)?;
    let digest = &image.manifest.digest;
    match args.format {
        Format::Text => writeln!(out, "{digest}")?,
        Format::Json => {
            writeln!(out, "{}", json!({"digest": digest, "tag": args.tag, "module_bytes": bytes}))?;
        }
    }
    Ok(Verdict::Good)
}

pub fn is_tag(text: &str) -> bool {
    let is_of_tag = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(is_of_tag)
}

/// Writes an OCI image layout (image-spec 1.1, "Image Layout Specification").
fn layout(folder: &Path, image: &Image, tag: &str) -> anyhow::Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
    for blob in image.blobs.iter().chain([&image.manifest]) {
        let hex = blob.digest.trim_start_matches("sha256:");
        write(folder, &format!("blobs/sha256/{hex}"), &blob.bytes)?;
    }
    let mut descriptor = image.manifest.descriptor(image.media_type);
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
    write(folder, "index.json", index.to_string().as_bytes())?;
    write(folder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
