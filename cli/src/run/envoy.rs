//! The Envoy of `weir run`: its files, its process, and how it is told of another policy.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::Args;
use crate::live::Admin;
use crate::url::Url;

const TYPE: &str = "type.googleapis.com/envoy";

/// Longer than V8 takes to compile the module on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of an edit.
pub enum Live {
    After(Duration),
    Refused(String),
}

/// A running Envoy; it ends with the value.
pub struct Envoy {
    process: Child,
    folder: PathBuf,
    admin: Admin,
    module: PathBuf,
}

/// One that nobody else can have made, or can look into.
fn own_folder() -> std::io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut number = 0;
    loop {
        let name = format!("weir-run-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 1000 => {
                number += 1;
            }
            made => return made.map(|()| folder),
        }
    }
}

impl Envoy {
    pub fn start(args: &Args, module: &Path, policy: &str) -> anyhow::Result<Envoy> {
        let program = program(args.envoy.as_deref())?;
        for address in [args.listen, args.admin] {
            std::net::TcpListener::bind(address)
                .with_context(|| format!("{address} cannot be listened on; choose another"))?;
        }
        let folder = own_folder().context("cannot make a folder for Envoy")?;
        fs::create_dir(folder.join("ecds"))?;
        let text = bootstrap(args, &folder).to_string();
        let bootstrap = folder.join("bootstrap.json");
        fs::write(&bootstrap, text)?;
        let log = File::create(folder.join("envoy.log"))?;
        let mut command = Command::new(&program);
        command.arg("--config-path").arg(&bootstrap).args([
            "--disable-hot-restart",
            "--log-level",
            "warn",
        ]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The first policy has to be there before Envoy looks for it.
        write(&folder, module, policy)?;
        let process =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let admin = Admin::new(Url { host: args.admin.ip().to_string(), port: args.admin.port() });
        let module = module.to_owned();
        let mut envoy = Envoy { process, folder, admin, module };
        let begun = Instant::now();
        while envoy.reloads() != Some([1, 0]) || envoy.page("/ready").is_none() {
            if let Some(end) = envoy.ended() {
                bail!("Envoy did not start ({end}):\n{}", envoy.last_words());
            }
            if begun.elapsed() > PATIENCE {
                bail!("Envoy takes no policy:\n{}", envoy.last_words());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(envoy)
    }

    pub fn put(&mut self, policy: &str) -> anyhow::Result<Live> {
        let before = self.reloads().unwrap_or_default();
        let begun = Instant::now();
        write(&self.folder, &self.module, policy)?;
        while begun.elapsed() < PATIENCE {
            match self.reloads() {
                Some([taken, _]) if taken > before[0] => return Ok(Live::After(begun.elapsed())),
                Some([_, refused]) if refused > before[1] => {
                    return Ok(Live::Refused(self.last_words()));
                }
                _ => thread::sleep(Duration::from_millis(2)),
            }
        }
        bail!("Envoy does not take the policy up:\n{}", self.last_words())
    }

    /// How many policies were taken and how many refused, as far as Envoy tells.
    fn reloads(&self) -> Option<[u64; 2]> {
        let stats = self.page("/stats?filter=extension_config_discovery.http_filter.weir")?;
        let count = |name: &str| -> Option<u64> {
            let line = stats.lines().find_map(|line| line.split_once(name))?;
            line.1.trim().parse().ok()
        };
        let refused: u64 = count("config_fail:")?.saturating_add(count("update_rejected:")?);
        Some([count("config_reload:")?, refused])
    }

    fn page(&self, target: &str) -> Option<String> {
        self.admin.page(target).ok()
    }

    /// The end of the process, where it has ended.
    pub fn ended(&mut self) -> Option<String> {
        self.process.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("envoy.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Written aside and renamed: Envoy never reads half a file.
fn write(folder: &Path, module: &Path, policy: &str) -> anyhow::Result<()> {
    let resource = json!({
        "resources": [{
            "@type": format!("{TYPE}.config.core.v3.TypedExtensionConfig"),
            "name": "weir",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.http.wasm.v3.Wasm"),
                "config": {
                    "name": "weir",
                    "root_id": "weir",
                    "vm_config": {
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": {"local": {"filename": module}},
                    },
                    "failure_policy": "FAIL_RELOAD",
                    "configuration": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue",
                        "value": policy,
                    },
                },
            },
        }],
    });
    let part = folder.join("weir.part");
    fs::write(&part, resource.to_string())?;
    fs::rename(&part, folder.join("ecds/weir.json"))?;
    Ok(())
}

fn bootstrap(args: &Args, folder: &Path) -> Value {
    let address = |at: SocketAddr| json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let ecds = folder.join("ecds");
    let tag = |name: &str| json!({"tag_name": name, "regex": format!("({name}=\\.=(.*?);\\.;)")});
    let tags = ["policy", "rule", "outcome", "result", "step", "from", "to"].map(tag);
    let Url { host, port } = &args.upstream;
    json!({
        "node": {"id": "weir", "cluster": "weir"},
        "admin": {"address": address(args.admin)},
        "stats_config": {
            "stats_tags": tags,
        },
        "static_resources": {
            "listeners": [{
                "name": "weir",
                "address": address(args.listen),
                "traffic_direction": "INBOUND",
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "weir",
                        "use_remote_address": true,
                        "route_config": {"virtual_hosts": [{
                            "name": "upstream",
                            "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
                        }]},
                        "http_filters": [
                            {
                                "name": "weir",
                                "config_discovery": {
                                    "config_source": {
                                        "path_config_source": {
                                            "path": ecds.join("weir.json"),
                                            "watched_directory": {"path": ecds},
                                        },
                                        "resource_api_version": "V3",
                                    },
                                    "type_urls": [format!("{TYPE}.extensions.filters.http.wasm.v3.Wasm")],
                                },
                            },
                            {
                                "name": "envoy.filters.http.router",
                                "typed_config": {
                                    "@type": format!("{TYPE}.extensions.filters.http.router.v3.Router"),
                                },
                            },
                        ],
                    },
                }]}],
            }],
            "clusters": [{
                "name": "upstream",
                "type": "STRICT_DNS",
                "connect_timeout": "2s",
                "load_assignment": {
                    "cluster_name": "upstream",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                        "socket_address": {"address": host, "port_value": port},
                    }}}]}],
                },
            }],
        },
    })
}

fn program(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if let Some(named) = std::env::var_os("ENVOY") {
        return Ok(named.into());
    }
    let ours = PathBuf::from("target/weir/envoy");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("envoy"));
    let found = std::iter::once(ours).chain(on_path).find(|program| program.is_file());
    found.context("there is no Envoy; `cargo xtask setup` gets one, --envoy says where it is")
}
