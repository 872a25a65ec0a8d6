//! `weir render`: the manifests, to the byte, and that they say what the policy says.

mod kit;

use kit::{Folder, golden, weir};
use serde_json::Value;
use weir_cli::Verdict;

const DIGEST: &str = "3f5b1c7a9d3f5b1c7a9d3f5b1c7a9d3f5b1c7a9d3f5b1c7a9d3f5b1c7a9d3f5b";

#[test]
fn manifests_are_the_same_to_the_byte() {
    golden("rendered.txt", |case| {
        let folder = Folder::new();
        let file = folder.file("policy.yaml", &case.text);
        let words: Vec<&str> =
            case.text.lines().next().unwrap().trim_start_matches("# ").split(' ').collect();
        let (verdict, says) = weir(&[&["render", &file], &words[..]].concat());
        assert_eq!(verdict, Verdict::Good, "{}: {says}", case.name);
        says
    });
}

fn examples() -> Vec<std::path::PathBuf> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy-configs/policies");
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Each module finds in its plugin what it finds in the whole policy.
#[test]
fn a_plugin_says_to_its_module_what_the_policy_says() {
    use weir_protos::{Section, decode_json};
    let mut count = 0;
    for path in examples() {
        let whole: Value =
            serde_yaml_ng::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let whole = whole.to_string();
        for (to, config) in
            [("istio", "/spec/pluginConfig"), ("traffic-extension", "/spec/wasm/pluginConfig")]
        {
            let (verdict, says) =
                weir(&["render", path.to_str().unwrap(), "--to", to, "--unpinned"]);
            assert_eq!(verdict, Verdict::Good, "{}: {says}", path.display());
            for document in says.split("---\n") {
                let manifest: Value = serde_yaml_ng::from_str(document).unwrap();
                let config = manifest.pointer(config).unwrap().to_string();
                let section = match manifest["metadata"]["name"].as_str().unwrap() {
                    "weir-trace-context" => Section::TraceContext,
                    "weir-traffic-color" => Section::TrafficColor,
                    "weir-rate-limit" => Section::RateLimit,
                    "weir-circuit-breaker" => Section::CircuitBreaker,
                    other => panic!("{other}"),
                };
                let read = |text: &str| decode_json(text.as_bytes(), section).unwrap();
                assert_eq!(read(&config), read(&whole), "{}", path.display());
                count += 1;
            }
        }
    }
    assert!(count >= 30, "{count}");
}

#[test]
fn what_is_rendered_passes_the_check() {
    let folder = Folder::new();
    let digests: Vec<String> = ["trace-context", "traffic-color", "rate-limit", "circuit-breaker"]
        .map(|module| format!("--digest={module}={DIGEST}"))
        .into();
    for path in examples() {
        for to in ["istio", "traffic-extension"] {
            let mut args = vec!["render", path.to_str().unwrap(), "--to", to];
            args.extend(digests.iter().map(String::as_str));
            let (verdict, says) = weir(&args);
            assert_eq!(verdict, Verdict::Good, "{says}");
            let file = folder.file("rendered.yaml", &says);
            let (verdict, says) = weir(&["validate", "--strict", &file]);
            assert_eq!(verdict, Verdict::Good, "{}: {says}", path.display());
        }
    }
}

/// A base has the manifests of `--to istio`, a file each.
#[test]
fn a_kustomize_base_names_its_files() {
    let folder = Folder::new();
    let policy = folder.file("policy.yaml", "name: shop\ntrace_context: {}\nrate_limit: {}\n");
    let base = folder.path().join("base");
    let args = ["render", &policy, "--unpinned", "--selector", "app=orders", "--to"];
    let to_base = ["kustomize", "--out", base.to_str().unwrap()];
    let (verdict, says) = weir(&[&args[..], &to_base].concat());
    assert_eq!(verdict, Verdict::Good, "{says}");
    let kustomization = std::fs::read_to_string(base.join("kustomization.yaml")).unwrap();
    let kustomization: Value = serde_yaml_ng::from_str(&kustomization).unwrap();
    assert_eq!(kustomization["kind"], "Kustomization");
    let files: Vec<&str> =
        kustomization["resources"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(files, ["trace-context.yaml", "rate-limit.yaml"]);
    let each = files.iter().map(|file| std::fs::read_to_string(base.join(file)).unwrap());
    let (_, manifests) = weir(&[&args[..], &["istio"]].concat());
    assert_eq!(each.collect::<Vec<_>>().join("---\n"), manifests);
    assert_eq!(says.lines().count(), 3);
    assert_eq!(weir(&[&args[..], &["kustomize"]].concat()).0, Verdict::Unable, "without --out");
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = Folder::new();
    let good = folder.file("good.yaml", "name: shop\nrate_limit: {}\n");
    let empty = folder.file("empty.yaml", "name: shop\n");
    let bad = folder.file("bad.yaml", "nmae: shop\n");
    let color = folder.file("color.yaml", "name: shop\ntraffic_color: {colors: [base, gray_2]}\n");
    assert_eq!(weir(&["render", &bad, "--to", "istio"]).0, Verdict::Bad);
    let (short, upper) =
        (format!("rate-limit={}", &DIGEST[1..]), format!("rate-limit={}", DIGEST.to_uppercase()));
    let stranger = format!("rate-limits={DIGEST}");
    for (file, args, expected) in [
        (&good, vec![], "--digest rate-limit=… is missing"),
        (&good, vec!["--digest", &short], "64 hexadecimal digits"),
        (&good, vec!["--digest", &upper], "64 hexadecimal digits"),
        (&good, vec!["--digest", &stranger], "must be a module"),
        (
            &good,
            vec!["--unpinned", "--image", "registry:5000/weir/{module}"],
            "must begin with oci://",
        ),
        (&good, vec!["--unpinned", "--selector", "app"], "must be a label"),
        (&good, vec!["--unpinned", "--selector", "app=*"], "without `*`"),
        (&good, vec!["--unpinned", "--target", "Pod/a"], "must be Gateway"),
        (
            &good,
            vec!["--unpinned", "--target", "Service/a", "--selector", "a=b"],
            "cannot be used with",
        ),
        (&good, vec!["--unpinned", "--service", "orders.shop"], "has no `traffic_color`"),
        (&color, vec!["--unpinned", "--service", "orders.shop"], "cannot be the name of a subset"),
        (&color, vec!["--unpinned", "--service", "orders:80"], "must be the name of a host"),
        (&color, vec!["--unpinned", "--gateway", "public"], "--service"),
        (&empty, vec!["--unpinned"], "has no section"),
    ] {
        let (verdict, says) = weir(&[vec!["render", file, "--to", "istio"], args.clone()].concat());
        assert_eq!(verdict, Verdict::Unable, "{args:?}: {says}");
        assert!(says.contains(expected), "{args:?}: {says}");
    }
}
