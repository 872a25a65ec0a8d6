//! `weir render`: a policy as what Istio or Envoy loads.

mod routes;
mod targets;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::proxy::{MODULES, Module};
use crate::source::{Document, File};
use crate::yaml::{self, snake};
use crate::{Format, Verdict, source};

/// Writes manifests of a policy: one plugin for each section that stands in it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// A policy, or a manifest with one
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[arg(long, value_enum)]
    to: Target,
    /// Where the images lie; {module} becomes rate-limit and the like. Not for --to envoy
    #[arg(long, value_name = "URL", default_value = concat!("oci://registry.example/weir/{module}:", env!("CARGO_PKG_VERSION")), value_parser = image)]
    image: String,
    /// The digest of the manifest of a module's image: what makes sure that it is that module
    #[arg(long = "digest", value_name = "MODULE=SHA256", value_parser = digest)]
    digests: Vec<(String, String)>,
    /// Writes plugins without a digest as well
    #[arg(long)]
    unpinned: bool,
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// Workloads with this label
    #[arg(long = "selector", value_name = "LABEL=VALUE", value_parser = label, conflicts_with = "target")]
    selectors: Vec<(String, String)>,
    /// A Gateway or Service of the namespace, such as Gateway/ingress: for waypoints and Gateway API
    #[arg(long, value_name = "KIND/NAME", value_parser = target)]
    target: Option<(String, String)>,
    /// A service whose versions the colors are: its VirtualService and DestinationRule as well
    #[arg(long, value_name = "HOST", value_parser = host)]
    service: Option<String>,
    /// The label of the service's pods that says their color
    #[arg(long, value_name = "LABEL", default_value = "color", requires = "service")]
    color_label: String,
    /// Hosts that the routes are for, in place of the service's own name
    #[arg(long = "host", value_name = "HOST", value_parser = host, requires = "service")]
    hosts: Vec<String>,
    /// Gateways that take the routes, such as istio-ingress/public; without, sidecars do
    #[arg(long = "gateway", value_name = "GATEWAY", requires = "service")]
    gateways: Vec<String>,
    /// With --to kustomize: TrafficExtension in place of WasmPlugin
    #[arg(long)]
    traffic_extension: bool,
    /// Where the files of --to kustomize go; made where it is missing
    #[arg(long, value_name = "FOLDER", required_if_eq("to", "kustomize"))]
    out: Option<PathBuf>,
    /// Where Envoy finds the modules, with --to envoy
    #[arg(long, value_name = "FOLDER", default_value = "/etc/envoy/weir")]
    modules: String,
}

const EXAMPLE: &str = "\
Example:
  $ weir render shop.yaml --to istio --selector app=orders \\
      --image 'oci://registry.example/weir/{module}:0.1.0' --digest rate-limit=3f5b1c…
  $ weir render gray.yaml --to kustomize --out base --unpinned --service orders.shop.svc.cluster.local

Order in the chain: traffic-color, trace-context, rate-limit (phase AUTHZ), circuit-breaker (nearest the
router). Each plugin gets what all sections share and its own section. The same input gives the same bytes.
Exit codes: 0 done, 1 the policy has errors, 2 a file cannot be read or an argument is wrong.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// WasmPlugin, for all supported versions of Istio
    Istio,
    /// TrafficExtension, for Istio 1.32 and later
    TrafficExtension,
    /// A resource file for Envoy's extension discovery (ECDS)
    Envoy,
    /// A kustomize base of WasmPlugins, as files in the folder of --out
    Kustomize,
}

/// etcd takes no larger objects.
const MAX_SIZE: usize = 1024 * 1024;

pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let file = File::read(&args.file)?;
    let Some(document) = source::one(&file, Format::Text, out)? else { return Ok(Verdict::Bad) };
    let modules: Vec<Module> =
        MODULES.into_iter().filter(|module| document.sections().has(*module)).collect();
    if modules.is_empty() {
        bail!("{}: the policy has no section, so there is no plugin to write", file.name);
    }
    let mut plugins = Vec::new();
    for module in modules {
        let name = targets::name(module);
        let digest =
            args.digests.iter().find(|(known, _)| known == name).map(|(_, hex)| hex.clone());
        if digest.is_none() && !args.unpinned && args.to != Target::Envoy {
            bail!("--digest {name}=… is missing; --unpinned writes the plugin without");
        }
        plugins.push(targets::Plugin { module, config: config(&document, module), digest });
    }
    if args.traffic_extension && args.to != Target::Kustomize {
        bail!("--traffic-extension is for --to kustomize; --to traffic-extension prints them");
    }
    if args.to == Target::Envoy {
        if args.service.is_some() {
            bail!(
                "--service writes routes of Istio; with --to envoy the routes are the bootstrap's"
            );
        }
        let text = yaml::write(&targets::discovery(args, &plugins));
        out.write_all(text.as_bytes()).context("cannot write")?;
        return Ok(Verdict::Good);
    }
    let mut manifests: Vec<(&str, Value)> = Vec::new();
    for plugin in &plugins {
        let is_extension = args.to == Target::TrafficExtension || args.traffic_extension;
        let manifest = match is_extension {
            true => targets::traffic_extension(args, plugin),
            false => targets::wasm_plugin(args, plugin),
        };
        manifests.push((targets::name(plugin.module), manifest));
    }
    if let Some(service) = &args.service {
        manifests.extend(routes::manifests(args, service, &document)?);
    }
    for (name, manifest) in &manifests {
        let size = documents([manifest].into_iter()).len();
        if size > MAX_SIZE {
            bail!("{name} takes {} KiB; Kubernetes stores at most 1024 of one object", size / 1024);
        }
    }
    let text = documents(manifests.iter().map(|(_, manifest)| manifest));
    match &args.out {
        Some(folder) if args.to == Target::Kustomize => base(folder, manifests, out)?,
        _ => out.write_all(text.as_bytes()).context("cannot write")?,
    }
    Ok(Verdict::Good)
}

/// A file for each manifest, and the one that names them; says what it has written.
fn base(folder: &Path, manifests: Vec<(&str, Value)>, out: &mut impl Write) -> anyhow::Result<()> {
    let mut files: Vec<(String, Value)> =
        manifests.into_iter().map(|(name, value)| (format!("{name}.yaml"), value)).collect();
    let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    files.push(("kustomization.yaml".into(), targets::kustomization(&names)));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, value) in files {
        let path = folder.join(name);
        std::fs::write(&path, yaml::write(&value))
            .with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

fn documents<'a>(all: impl Iterator<Item = &'a Value>) -> String {
    all.map(yaml::write).collect::<Vec<_>>().join("---\n")
}

/// What a module reads of a policy, in the order of the file.
fn config(document: &Document, module: Module) -> Value {
    let reads_restore = matches!(module, Module::Trace | Module::Color);
    let Value::Object(all) = document.root.to_json() else { return Value::Object(Map::new()) };
    let own = all.into_iter().filter(|(name, _)| {
        let name = snake(name);
        let other = MODULES.iter().any(|other| *other != module && other.section() == name);
        !other && (name != "restore" || reads_restore)
    });
    Value::Object(own.collect())
}

fn image(text: &str) -> Result<String, String> {
    if text.starts_with("oci://") && text.contains("{module}") {
        return Ok(text.into());
    }
    Err("must begin with oci:// (Istio misreads a port without it) and have {module} in it".into())
}

fn digest(text: &str) -> Result<(String, String), String> {
    let wrong =
        || "must be a module and 64 hexadecimal digits, such as rate-limit=3f5b…".to_string();
    let (module, hex) = text.split_once('=').ok_or_else(wrong)?;
    let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_known = MODULES.iter().any(|known| targets::name(*known) == module);
    if !is_known || hex.len() != 64 || !hex.bytes().all(is_hex) {
        return Err(wrong());
    }
    Ok((module.into(), hex.into()))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("must be a label and its value, such as app=orders")?;
    if name.is_empty() || value.is_empty() || text.contains('*') {
        return Err("must be a label and its value, without `*`".into());
    }
    Ok((name.into(), value.into()))
}

fn host(text: &str) -> Result<String, String> {
    let is_host =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_host) {
        true => Ok(text.into()),
        false => Err("must be the name of a host, such as orders.shop.svc.cluster.local".into()),
    }
}

fn target(text: &str) -> Result<(String, String), String> {
    let wrong = "must be Gateway, GatewayClass, Service or ServiceEntry and a name, such as Gateway/ingress";
    let (kind, name) = text.split_once('/').ok_or(wrong)?;
    if targets::group(kind).is_none() || name.is_empty() {
        return Err(wrong.into());
    }
    Ok((kind.into(), name.into()))
}
