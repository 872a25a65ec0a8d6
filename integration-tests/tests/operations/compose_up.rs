//! `docker compose up`, and the scenario through real containers.
//!
//! It needs a Docker engine, which not every machine has; where none answers, the same files are tried without
//! containers (`scenario.rs`) and held against the rules (`compose_file.rs`), and `cargo xtask test` says so at
//! its start. Where one answers, nothing is passed over: `cargo xtask setup` gets compose, and without it the
//! test fails and names the command.
//!
//! No image is pulled: the programs of the other tests, a shell for the health check, and the libraries that they
//! need, become one. Grafana is the one service without a stand-in: what it is given is checked in `prometheus.rs`.

use crate::{scenario, server, shipped};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use weir_integration_tests::paths::{self, TempDir};
use weir_integration_tests::wait::{DEADLINE, wait_until};

#[test]
fn docker_compose_up() {
    if !has_engine() {
        println!("no Docker engine answers: tried without containers by `scenario`");
        return;
    }
    let directory = TempDir::new();
    let policies = directory.join("ecds");
    shipped::copy_policies(&policies);
    let images = [
        Image::build(&directory, &paths::envoy(), "/usr/local/bin/envoy"),
        Image::build(&directory, &paths::built("prometheus"), "/bin/prometheus"),
    ];
    let compose = Compose::up(&images, &policies);

    let services = ["envoy", "orders-base", "orders-gray"];
    let containers = services.map(|service| compose.container(service));
    for container in &containers {
        wait_until("the health check passes", DEADLINE * 3, || {
            inspect(container, "{{.State.Health.Status}}") == "healthy"
        });
    }
    let front = compose.published("envoy", 10000);
    let look = compose.published("envoy", 9902);
    scenario::play(front, look, &policies);
    for container in &containers {
        the_process_is_confined(container, "envoy", "101");
        for folder in ["/", "/weir/target/weir/", "/weir/envoy-configs/envoy/"] {
            it_cannot_write(container, folder);
        }
        its_admin_interface_is_out_of_reach(container, [front.port(), look.port()]);
    }

    let prometheus = compose.container("prometheus");
    the_process_is_confined(&prometheus, "prometheus", "65534");
    ["/", "/etc/prometheus/"].iter().for_each(|folder| it_cannot_write(&prometheus, folder));
    server::await_target(compose.published("prometheus", 9090));
}

fn the_process_is_confined(container: &str, program: &str, user: &str) {
    let pid = inspect(container, "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs here");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Name:"), [program]);
    // Real, effective, saved, of the file system.
    assert_eq!(field("Uid:"), [user; 4]);
    assert_eq!(field("CapEff:"), ["0000000000000000"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
}

fn it_cannot_write(container: &str, folder: &str) {
    let in_shell = |command: &str| {
        let ran = Command::new("docker").args(["exec", container, "bash", "-c", command]).output();
        ran.expect("docker runs").status.success()
    };
    assert!(in_shell("true"), "the shell of {container} starts");
    assert!(!in_shell(&format!(": > {folder}written")), "{container} can write to {folder}");
}

fn its_admin_interface_is_out_of_reach(container: &str, published: [u16; 2]) {
    let reaches = |address: String| {
        let address: SocketAddr = address.parse().expect("an address");
        TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
    };
    let network = "{{range .NetworkSettings.Networks}}";
    let own = inspect(container, &format!("{network}{{{{.IPAddress}}}}{{{{end}}}}"));
    assert!(!reaches(format!("{own}:9901")), "the admin interface answers on {own}");
    // An address of this machine that is not the loopback's.
    let machine = inspect(container, &format!("{network}{{{{.Gateway}}}}{{{{end}}}}"));
    for port in published.into_iter().chain([9901]) {
        assert!(!reaches(format!("{machine}:{port}")), "{port} is published on {machine}");
        assert!(port == 9901 || reaches(format!("127.0.0.1:{port}")), "{port} is published");
    }
}

fn has_engine() -> bool {
    let asked =
        Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    asked.is_ok_and(|answer| answer.status.success())
}

/// An image of our own; removed with the value.
struct Image(String);

impl Image {
    /// FROM scratch, with one program and a shell.
    fn build(directory: &TempDir, program: &Path, to: &str) -> Image {
        let name = Path::new(to).file_name().and_then(|name| name.to_str()).expect("ASCII");
        let root = directory.join(name);
        let put = |from: &Path, to: &str| {
            let to = root.join(to.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("writable");
            std::fs::copy(from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        };
        let shell = PathBuf::from("/bin/bash");
        put(program, to);
        put(&shell, "/bin/bash");
        for library in libraries(program).union(&libraries(&shell)) {
            put(Path::new(library), library);
        }
        // Where Prometheus' own image has a folder of nobody's, over which the volume is mounted.
        std::fs::create_dir_all(root.join("prometheus")).expect("writable");
        let archive = directory.join(&format!("{name}.tar"));
        let nobody = ["--owner=65534", "--group=65534", "--numeric-owner"];
        run(Command::new("tar")
            .args(nobody)
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&root)
            .arg("."));
        let tag = format!("weir-test-{name}:{}", std::process::id());
        let mut import = Command::new("docker");
        import.args(["import", "--change", "ENV PATH=/usr/local/bin:/bin"]);
        import.args(["--change", &format!("ENTRYPOINT [\"{to}\"]")]).arg(&archive).arg(&tag);
        run(&mut import);
        Image(tag)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["image", "rm", "--force", &self.0]).output();
    }
}

/// The files that the dynamic linker takes for a program, itself among them.
fn libraries(program: &Path) -> BTreeSet<String> {
    let said = run(Command::new("ldd").arg(program));
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(str::to_owned).collect()
}

/// A project of compose; taken down with the value.
struct Compose {
    project: String,
    variables: [(&'static str, String); 6],
}

impl Compose {
    fn up([envoy, prometheus]: &[Image; 2], policies: &Path) -> Compose {
        let free = || "0".to_owned();
        let compose = Compose {
            project: format!("weir-test-{}", std::process::id()),
            variables: [
                ("WEIR_ENVOY_IMAGE", envoy.0.clone()),
                ("WEIR_PROMETHEUS_IMAGE", prometheus.0.clone()),
                ("WEIR_PROMETHEUS_PORT", free()),
                ("WEIR_POLICIES", policies.to_str().expect("ASCII").to_owned()),
                ("WEIR_PORT", free()),
                ("WEIR_LOOK_PORT", free()),
            ],
        };
        run(compose.command().args(["up", "--detach"]));
        run(compose.command().args(["up", "--detach", "prometheus"]));
        compose
    }

    fn command(&self) -> Command {
        let plugin = Command::new("docker").args(["compose", "version"]).output();
        let mut command = if plugin.is_ok_and(|plugin| plugin.status.success()) {
            let mut docker = Command::new("docker");
            docker.arg("compose");
            docker
        } else {
            Command::new("docker-compose")
        };
        command.args(["--project-name", &self.project, "--file"]);
        command.arg(shipped::path("docker-compose.yaml"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn container(&self, service: &str) -> String {
        run(self.command().args(["ps", "--quiet", service])).trim().to_owned()
    }

    fn published(&self, service: &str, port: u16) -> SocketAddr {
        let said = run(self.command().args(["port", service, &port.to_string()]));
        said.trim().parse().unwrap_or_else(|e| panic!("{service} {port}: {said:?}: {e}"))
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.command().args(["logs", "--tail", "40"]).output();
            eprintln!("{}", logs.map_or_else(|e| e.to_string(), |l| lossy(&l.stdout)));
        }
        let down = self.command().args(["down", "--volumes", "--timeout", "2"]).output();
        if !down.is_ok_and(|down| down.status.success()) {
            eprintln!("containers of the project {} are left over", self.project);
        }
    }
}

fn inspect(container: &str, format: &str) -> String {
    run(Command::new("docker").args(["inspect", "--format", format, container])).trim().to_owned()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| {
        panic!("{command:?}: {e}. `cargo xtask setup` gets what these tests call")
    });
    assert!(output.status.success(), "{command:?}: {}", lossy(&output.stderr));
    lossy(&output.stdout)
}
