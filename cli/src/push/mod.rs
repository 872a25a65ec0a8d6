//! `weir push`: a module as an image, straight to a registry.

mod credentials;
mod reference;
mod registry;

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use self::credentials::Credentials;
use self::reference::Reference;
use self::registry::Registry;
use crate::image::{self, Image, Kind};
use crate::{Format, Verdict};

/// Pushes an image of a module to a registry, and prints the digest of its manifest.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The module, such as `weir_rate_limit.wasm`
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Where to: a registry, a name and a tag
    #[arg(value_name = "REFERENCE", value_parser = Reference::read)]
    reference: Reference,
    #[arg(long, value_enum, default_value_t = Kind::Oci)]
    kind: Kind,
    /// HTTP without TLS. What this machine itself serves is spoken to so without being told
    #[arg(long, conflicts_with = "ca")]
    plain_http: bool,
    /// The authorities to trust, as PEM, in place of the machine's: for a registry with a certificate of its own
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// In place of what `docker login` wrote to ~/.docker/config.json
    #[arg(long, requires = "password_stdin")]
    username: Option<String>,
    /// Takes the password from the standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const EXAMPLE: &str = "\
Example:
  $ weir push target/weir/weir_rate_limit.wasm registry.example/weir/rate-limit:0.1.0
  sha256:3f5b1c…
  $ weir render shop.yaml --to istio --image 'oci://registry.example/weir/{module}:0.1.0' \\
      --digest rate-limit=sha256:3f5b1c…

What the registry has already is not sent again, and the same module gives the same digest each time.
Exit codes: 0 pushed, 2 not pushed.";

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let module = image::read(&args.module)?;
    let bytes = module.len();
    let reference = &args.reference;
    let warning = match reference.tag.as_str() {
        "latest" => Some(
            "tag `latest` is pulled anew at each edit of a plugin, and what it is changes; name a version",
        ),
        _ => None,
    };
    let credentials = match &args.username {
        Some(username) => Some(Credentials::from_stdin(username)?),
        None => Credentials::of_docker(&reference.registry)?,
    };
    let image = Image::of(module, args.kind)?;
    let is_plain = args.plain_http || (reference.is_loopback() && args.ca.is_none());
    let mut registry = Registry::connect(reference, is_plain, args.ca.as_deref(), credentials)?;
    let mut sent = 0;
    for blob in &image.blobs {
        if !registry.has(blob)? {
            registry.send(blob)?;
            sent += blob.bytes.len();
        }
    }
    registry.put_manifest(&image)?;
    let digest = &image.manifest.digest;
    match args.format {
        Format::Text => {
            if let Some(warning) = warning {
                eprintln!("weir: warning: {warning}");
            }
            writeln!(out, "{digest}")?;
        }
        Format::Json => {
            let said = json!({
                "digest": digest,
                "url": format!("oci://{reference}"),
                "module_bytes": bytes,
                "sent_bytes": sent,
                "warnings": warning.into_iter().collect::<Vec<_>>(),
            });
            writeln!(out, "{said}")?;
        }
    }
    Ok(Verdict::Good)
}

/// Reads the standard input to its first line end.
fn line_of_stdin() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let line = line.trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        bail!("--password-stdin: the standard input is empty; pipe the password in");
    }
    Ok(line.to_owned())
}
