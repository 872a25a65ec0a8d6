//! `weir rollout` on real Envoys: a good policy stays, one that does harm is taken back by itself.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weir_cli::{Cli, Verdict};
use weir_integration_tests::command::{Said, weir};
use weir_integration_tests::load::LoadReport;
use weir_integration_tests::paths::TempDir;
use weir_integration_tests::{
    Cluster, Envoy, Filter, Listener, Load, Request, Route, Script, Scripted, paths, policy,
};

/// For all five kinds of a policy; the limit tells one version from another.
fn shop(limit: u32, more: &str) -> String {
    let rule = format!("{{id: all, max_tokens: {limit}, fill_interval: 0.001s}}");
    format!("{{name: shop, rate_limit: {{rules: [{rule}]}}{more}}}")
}

const SHUT: &str =
    ", circuit_breaker: {rules: [{id: shut, match: {direction: ANY}, state: FORCED_OPEN}]}";
const ALL_GRAY: &str = ", traffic_color: {colors: [base, gray], rules: [{id: all, color: gray}]}";

/// An Envoy with the suite; what is gray goes to an upstream that takes its time.
struct Stage {
    envoy: Envoy,
    folder: TempDir,
    _upstreams: [Scripted; 2],
}

impl Stage {
    fn start(module: PathBuf) -> Stage {
        let upstreams =
            [Scripted::start(Script::Ok), Scripted::start(Script::Slow(Duration::from_millis(60)))];
        let listener = Listener::inbound("in")
            .filter(Filter::weir())
            .route(Route::prefix("/", "slow").when_header("x-weir-color", "gray"))
            .route(Route::prefix("/", "fast"));
        let envoy = Envoy::builder()
            .module(module)
            .cluster(Cluster::h1("fast", upstreams[0].address))
            .cluster(Cluster::h1("slow", upstreams[1].address))
            .listener(listener)
            .option("stats_flush_interval", json!("0.2s"))
            .policy(&shop(1000, ""))
            .start();
        Stage { envoy, folder: TempDir::new(), _upstreams: upstreams }
    }

    fn load(&self, seconds: u64) -> std::thread::JoinHandle<LoadReport> {
        let load = Load::new(self.envoy.address("in"), Request::get("/"));
        load.connections(8).rate(200).lasts(Duration::from_secs(seconds)).start()
    }

    fn rollout(&self, policy: &str, more: &[&str]) -> (Result<Verdict, String>, String) {
        let file = self.folder.join("shop.yaml");
        std::fs::write(&file, policy).unwrap();
        let ecds = self.envoy.directory().join("ecds");
        let admin = format!("http://{}", self.envoy.admin_address());
        let mut args =
            vec!["weir", "rollout", file.to_str().unwrap(), "--ecds", ecds.to_str().unwrap()];
        args.extend(["--admin", &admin]);
        args.extend(more);
        let (verdict, said) = weir(args);
        println!("{said}");
        (verdict, said)
    }

    fn discovery(&self) -> Vec<u8> {
        std::fs::read(self.envoy.directory().join("ecds/rate-limit.json")).unwrap()
    }
}

/// The policy in a discovery file.
fn policy_of(file: &[u8]) -> Value {
    let file: Value = serde_json::from_slice(file).unwrap();
    let policy = &file["resources"][0]["typed_config"]["config"]["configuration"]["value"];
    serde_json::from_str(policy.as_str().unwrap()).unwrap()
}

#[test]
fn a_good_policy_stays() {
    let stage = Stage::start(paths::single("suite"));
    let load = stage.load(4);
    let before = stage.discovery();

    let (verdict, said) = stage.rollout(&shop(900, ""), &["--dry-run"]);
    assert_eq!(verdict, Ok(Verdict::Good));
    assert!(
        said.contains("weir.rate_limit, now version") && said.contains("nothing was written"),
        "{said}"
    );
    assert_eq!(stage.discovery(), before);

    let (verdict, said) = stage.rollout(&shop(900, ""), &["--bake", "1", "--max-p99", "5000"]);
    assert_eq!(verdict, Ok(Verdict::Good), "{said}");
    assert!(said.contains("in force on 1 of 1 watched Envoys after "), "{said}");
    assert!(said.contains(", 0.00 % errors, P99 "), "{said}");
    assert!(said.contains(" is on 1 of 1 folders"), "{said}");
    let after: Value = serde_json::from_slice(&stage.discovery()).unwrap();
    let gauge = stage.envoy.metric_with(&["policy=.=shop", "weir_suite_policy_version"]);
    assert_eq!(after["version_info"], json!(gauge.to_string()));
    let report = load.join().unwrap();
    assert_eq!((report.failed, report.status(200)), (0, report.total()), "{report:?}");
    stage.envoy.assert_healthy();
}

#[test]
fn errors_over_the_bound_take_it_back() {
    let stage = Stage::start(paths::single("suite"));
    let before = stage.discovery();
    let mut seen = Vec::new();
    // The time is that of the machine as well: once more where it was a bad moment.
    for attempt in 1..=2 {
        let load = stage.load(8);
        let begun = Instant::now();
        let (verdict, said) = stage.rollout(&shop(1000, SHUT), &["--bake", "20"]);
        let took = begun.elapsed();
        assert_eq!(verdict, Ok(Verdict::Bad));
        assert!(
            said.contains("TAKEN BACK: ") && said.contains(" % errors, more than 1 %"),
            "{said}"
        );
        assert!(said.contains("the policy of before is in force on 1 Envoy after "), "{said}");
        assert!(said.contains("recovered: requests keep the bounds again, "), "{said}");
        assert_eq!(stage.discovery(), before, "byte for byte");
        let recovered =
            said.split_once("bounds again, ").and_then(|(_, rest)| rest.split_once(" s "));
        let recovered: f64 = recovered.unwrap().0.parse().unwrap();
        seen.push((attempt, recovered, took));
        println!("{seen:?}");
        let report = load.join().unwrap();
        assert_eq!(report.failed, 0);
        assert!(report.status(503) > 0, "{report:?}");
        assert_eq!(stage.envoy.client("in").get("/").status, 200);
        if recovered < 2.0 && took < Duration::from_secs(6) {
            stage.envoy.assert_healthy();
            return;
        }
    }
    panic!("it took too long to be taken back and to recover: {seen:?}");
}

#[test]
fn times_over_the_bound_take_it_back() {
    let stage = Stage::start(paths::single("suite"));
    let load = stage.load(6);
    let (verdict, said) =
        stage.rollout(&shop(1000, ALL_GRAY), &["--bake", "20", "--max-p99", "40"]);
    assert_eq!(verdict, Ok(Verdict::Bad));
    assert!(said.contains("TAKEN BACK: P99 ") && said.contains(" ms, more than 40 ms"), "{said}");
    assert!(said.contains("recovered: "), "{said}");
    let report = load.join().unwrap();
    assert_eq!((report.failed, report.status(200)), (0, report.total()));
    stage.envoy.assert_healthy();
}

/// The policy reads well, but the module that the file names is gone.
#[test]
fn a_refused_one_is_taken_back() {
    let folder = TempDir::new();
    let module = folder.join("weir.wasm");
    std::fs::copy(paths::single("suite"), &module).unwrap();
    let stage = Stage::start(module.clone());
    let before = stage.discovery();
    std::fs::remove_file(module).unwrap();
    let load = stage.load(2);
    let (verdict, said) = stage.rollout(&shop(900, ""), &["--bake", "20"]);
    assert_eq!(verdict, Ok(Verdict::Bad));
    assert!(said.contains("TAKEN BACK: refused by ") && said.contains("see Envoy's log"), "{said}");
    assert_eq!(stage.discovery(), before);
    let report = load.join().unwrap();
    assert_eq!((report.failed, report.status(200)), (0, report.total()));
}

/// Such as `| head -1`: who reads of it decides nothing.
#[test]
fn a_closed_pipe_decides_nothing() {
    struct Closing(Said);
    impl std::io::Write for Closing {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            match self.0.text().contains('\n') {
                true => Err(std::io::ErrorKind::BrokenPipe.into()),
                false => self.0.write(bytes),
            }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let stage = Stage::start(paths::single("suite"));
    let before = stage.discovery();
    let load = stage.load(3);
    let file = stage.folder.join("shop.yaml");
    std::fs::write(&file, shop(1000, SHUT)).unwrap();
    let ecds = format!(
        "{}=http://{}",
        stage.envoy.directory().join("ecds").display(),
        stage.envoy.admin_address()
    );
    let cli = Cli::read(["weir", "rollout", file.to_str().unwrap(), "--ecds", &ecds]).unwrap();
    let verdict = weir_cli::run(&cli, &mut Closing(Said::default())).unwrap();
    assert_eq!((verdict, stage.discovery()), (Verdict::Bad, before));
    assert!(load.join().unwrap().status(503) > 0);

    // A pipe that is closed at the begin lets nothing begin, and is no good end.
    let said = Said::default();
    let _ = std::io::Write::write(&mut said.clone(), b"\n");
    let error = weir_cli::run(&cli, &mut Closing(said)).unwrap_err();
    assert!(error.downcast_ref::<std::io::Error>().is_none() && error.chain().count() == 1);
}

/// Whether the policy did it or not.
#[test]
fn an_envoy_that_is_gone_takes_it_back() {
    let stage = Stage::start(paths::single("suite"));
    let other = stage.folder.join("other");
    fleet_folder(&other, 1);
    let file = stage.folder.join("shop.yaml");
    std::fs::write(&file, shop(900, "")).unwrap();
    let ecds = stage.envoy.directory().join("ecds");
    let watched = format!("{}=http://{}", ecds.display(), stage.envoy.admin_address());
    let other_folder = other.to_str().unwrap();
    let args = ["weir", "rollout", file.to_str().unwrap(), "--ecds", &watched, other_folder];
    let args = args.iter().chain(&["--patience", "1"]);
    let cli = Cli::read(args).unwrap();
    let said = Said::default();
    let mut out = said.clone();
    let running = std::thread::spawn(move || weir_cli::run(&cli, &mut out));
    said.await_text("in force on 1 of 1 watched Envoys");
    drop(stage.envoy);
    assert_eq!(running.join().unwrap().unwrap(), Verdict::Bad);
    let said = said.text();
    assert!(said.contains("does not answer any more") && said.contains("  not yet on "), "{said}");
    assert!(
        std::fs::read_to_string(other.join("rate-limit.yaml"))
            .unwrap()
            .contains("version_info: '1'")
    );
}

#[test]
fn what_cannot_begin() {
    let folder = TempDir::new();
    let file = folder.join("shop.yaml");
    std::fs::write(&file, shop(1, "")).unwrap();
    let ecds = folder.join("ecds");
    fleet_folder(&ecds, 1);
    let run = |more: &[&str]| {
        let args = ["weir", "rollout", file.to_str().unwrap(), "--ecds"];
        weir(args.iter().chain(more))
    };
    let ecds = ecds.to_str().unwrap();
    let (verdict, _) = run(&[ecds, "--admin", "http://127.0.0.1:1"]);
    assert!(verdict.unwrap_err().contains("none of the Envoys is reachable"));
    let other = folder.join("other");
    fleet_folder(&other, 1);
    let (verdict, _) = run(&[ecds, other.to_str().unwrap(), "--admin", "http://127.0.0.1:1"]);
    assert!(verdict.unwrap_err().contains("none of the Envoys is reachable"));
    let (verdict, _) = run(&[&format!("{ecds}=http://a b")]);
    assert!(verdict.unwrap_err().contains("must be http://HOST:PORT"));
    std::fs::write(&file, "{name: shop, rate_limits: {}}").unwrap();
    let (verdict, said) = run(&[ecds]);
    assert!(verdict == Ok(Verdict::Bad) && said.contains("rate_limits"), "{said}");
}

/// A folder as the others have it, whose Envoy nobody asks.
fn fleet_folder(path: &Path, limit: u32) {
    std::fs::create_dir_all(path).unwrap();
    let wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
    let file = json!({
        "version_info": "1",
        "resources": [{
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": "weir.rate_limit",
            "typed_config": {"@type": wasm, "config": {
                "name": "weir.rate_limit",
                "root_id": "weir_rate_limit",
                "vm_config": {"code": {"local": {"filename": "/etc/envoy/weir_rate_limit.wasm"}}},
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": policy::to_json(&shop(limit, "")),
                },
            }},
        }],
    });
    std::fs::write(path.join("rate-limit.yaml"), serde_yaml_ng::to_string(&file).unwrap()).unwrap();
}

/// Nobody sends requests, so nobody can say that all is well.
#[test]
fn two_envoys_on_one_folder_and_one_that_is_down() {
    let listener = || Listener::inbound("in").filter(Filter::weir()).route(Route::direct("/", 200));
    let envoys =
        [(); 2].map(|()| Envoy::builder().listener(listener()).policy(&shop(1000, "")).start());
    let folder = TempDir::new();
    let (other, file) = (folder.join("other"), folder.join("shop.yaml"));
    fleet_folder(&other, 1);
    std::fs::write(&file, shop(900, "")).unwrap();
    let ecds = envoys[0].directory().join("ecds").display().to_string();
    let [first, second] = [0, 1].map(|n| format!("http://{}", envoys[n].admin_address()));
    let args = |more: &[&str]| {
        let args = ["weir", "rollout", file.to_str().unwrap(), "--bake", "0.2", "--patience", "1"];
        let (verdict, said) = weir(args.iter().chain(more));
        println!("{said}");
        (verdict, said)
    };

    // The second reads a folder of its own: it does not follow, and says so beside the first, which does.
    let with_second = format!("{ecds}={second}");
    let down = "http://127.0.0.1:1";
    let other = other.to_str().unwrap();
    let (verdict, said) = args(&["--ecds", &with_second, other, "--admin", &first, down]);
    assert_eq!(verdict, Ok(Verdict::Bad), "{said}");
    assert!(said.contains("in force on 1 of 2 watched Envoys"), "{said}");
    assert_eq!(said.matches("  laggard: ").count(), 2, "{said}");
    assert!(said.contains(&format!("({second}): weir.rate_limit still runs version ")), "{said}");
    assert!(said.contains("so nobody knows what it reads"), "{said}");
    assert_eq!(said.matches("  too little traffic to be judged: ").count(), 2, "{said}");

    // What an Envoy says of itself comes before a pair that looks right.
    let (verdict, _) = args(&["--ecds", other, "--admin", &first]);
    assert!(verdict.unwrap_err().contains("which is in none of the folders"));
    envoys.iter().for_each(Envoy::assert_healthy);
}

/// Three of 172 folders are read by real Envoys; of one more, the Envoy reads a copy that nobody syncs; one has no
/// file.
#[test]
fn a_fleet_of_172_folders() {
    let started = || {
        let listener =
            Listener::inbound("in").filter(Filter::weir()).route(Route::direct("/", 200));
        Envoy::builder().listener(listener).policy(&shop(1000, "")).start()
    };
    let watched = [(); 4].map(|()| started());
    let admin = |envoy: &Envoy| format!("http://{}", envoy.admin_address());
    let folder = TempDir::new();
    let file = folder.join("shop.yaml");
    std::fs::write(&file, shop(700, "")).unwrap();
    let others: Vec<PathBuf> = (0..169).map(|n| folder.join(&format!("ecds-{n}"))).collect();
    others[2..].iter().for_each(|path| fleet_folder(path, 1000));
    let ecds = |envoy: &Envoy| envoy.directory().join("ecds");
    let unsynced = others[0].join("ecds");
    std::fs::create_dir_all(&unsynced).unwrap();
    std::fs::copy(ecds(&watched[3]).join("rate-limit.json"), unsynced.join("rate-limit.json"))
        .unwrap();
    std::fs::create_dir_all(&others[1]).unwrap();

    let run = || {
        let mut args: Vec<String> =
            ["weir", "rollout", file.to_str().unwrap()].map(str::to_owned).into();
        args.push("--ecds".into());
        args.extend(watched[..3].iter().map(|envoy| ecds(envoy).display().to_string()));
        args.push(format!("{}={}", unsynced.display(), admin(&watched[3])));
        args.extend(others[1..].iter().map(|path| path.display().to_string()));
        args.push("--admin".into());
        args.extend(watched[..3].iter().map(admin));
        args.extend(
            ["--steps", "1,10%,100%", "--bake", "0.2", "--patience", "1"].map(str::to_owned),
        );
        let begun = Instant::now();
        let (verdict, said) = weir(args);
        println!("{said}{:?}", begun.elapsed());
        (verdict, said, begun.elapsed())
    };
    let (verdict, said, took) = run();
    assert_eq!(verdict, Ok(Verdict::Bad), "{said}");
    assert!(said.contains("171 of 172 folders to do, in steps of [1, 18, 171]"), "{said}");
    assert!(said.contains("is on 170 of 172 folders; asked 4 Envoys"), "{said}");
    assert_eq!(said.matches("  laggard: ").count(), 2, "{said}");
    assert!(
        said.contains(&format!("({}): weir.rate_limit still runs version ", admin(&watched[3]))),
        "{said}"
    );
    assert!(said.contains("ecds-1: no resource file (.json, .yaml)"), "{said}");
    let wanted: Value = serde_json::from_str(&policy::to_json(&shop(700, ""))).unwrap();
    for path in &others[2..] {
        let text = std::fs::read_to_string(path.join("rate-limit.yaml")).unwrap();
        let file: Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(policy_of(file.to_string().as_bytes()), wanted, "{}", path.display());
    }
    for envoy in &watched[..3] {
        assert_eq!(policy_of(&std::fs::read(ecds(envoy).join("rate-limit.json")).unwrap()), wanted);
    }
    assert!(took < Duration::from_secs(43), "{took:?}");

    // Once it is synced, and the one without a file is not asked for, there is nothing left to do.
    let aside = watched[3].directory().join("synced");
    std::fs::copy(unsynced.join("rate-limit.json"), &aside).unwrap();
    std::fs::rename(aside, ecds(&watched[3]).join("rate-limit.json")).unwrap();
    fleet_folder(&others[1], 700);
    let (verdict, said, _) = run();
    assert_eq!(verdict, Ok(Verdict::Good), "{said}");
    assert!(
        said.contains("0 of 172 folders to do") && said.contains("is on 172 of 172 folders"),
        "{said}"
    );
    watched.iter().for_each(Envoy::assert_healthy);
}
