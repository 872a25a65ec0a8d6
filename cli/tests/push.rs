//! Images pushed to a real registry, and pulled back by the rules of Istio's agent.

mod kit;

use std::io::Write as _;
use std::process::{Command, Stdio};

use kit::registry::{Registry, USER};
use kit::{Folder, agent, weir};
use serde_json::Value;
use weir_cli::Verdict;

/// What a build leaves, as large as it is.
fn module(folder: &Folder) -> (String, Vec<u8>) {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    let mut seed = 1_u32;
    while bytes.len() < 500_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend(seed.to_be_bytes());
    }
    let path = folder.path().join("weir_rate_limit.wasm");
    std::fs::write(&path, &bytes).unwrap();
    (path.to_str().unwrap().to_owned(), bytes)
}

fn pushed(args: &[&str]) -> Value {
    let (verdict, said) = weir(&[&["push", "--format", "json"], args].concat());
    assert_eq!(verdict, Verdict::Good, "{said}");
    serde_json::from_str(&said).unwrap()
}

fn refused(args: &[&str]) -> String {
    let (verdict, said) = weir(&[&["push"], args].concat());
    assert_eq!(verdict, Verdict::Unable, "{said}");
    said
}

#[test]
fn each_kind_is_pulled_back_by_the_rules_of_the_agent() {
    let (folder, registry) = (Folder::new(), Registry::open());
    let (file, bytes) = module(&folder);
    for kind in ["oci", "docker", "artifact"] {
        let to = format!("{}/weir/{kind}:0.1.0", registry.host);
        let first = pushed(&[&file, &to, "--kind", kind]);
        let digest = first["digest"].as_str().unwrap();
        let (descriptor, get) = registry.pull(&format!("weir/{kind}"), "0.1.0");
        assert_eq!(descriptor["digest"], digest, "{kind}");
        assert!(agent::pulled(&descriptor, get).unwrap() == bytes, "{kind}");
        assert_eq!(first["url"], format!("oci://{to}"));
        assert_eq!(first["module_bytes"], bytes.len());
        assert_eq!(first["warnings"], serde_json::json!([]));

        // The second time everything is there.
        let second = pushed(&[&file, &to, "--kind", kind]);
        assert_eq!((&second["digest"], &second["sent_bytes"]), (&first["digest"], &Value::from(0)));
        assert!(first["sent_bytes"].as_u64().unwrap() > 0);

        // And it is the image that `weir image` writes.
        let layout = folder.path().join(kind);
        let (_, said) = weir(&["image", &file, "--out", layout.to_str().unwrap(), "--kind", kind]);
        assert_eq!(said.trim(), digest);
    }
}

/// From a module to a pinned manifest, as the documentation has it.
#[test]
fn the_digest_goes_into_the_manifest() {
    let (folder, registry) = (Folder::new(), Registry::open());
    let (file, _) = module(&folder);
    let (verdict, digest) = weir(&["push", &file, &format!("{}/w/rate-limit:1", registry.host)]);
    assert_eq!(verdict, Verdict::Good, "{digest}");
    let policy = folder.file("policy.yaml", "name: shop\nrate_limit: {}\n");
    let image = format!("oci://{}/w/{{module}}:1", registry.host);
    let pin = format!("rate-limit={}", digest.trim());
    let (verdict, says) =
        weir(&["render", &policy, "--to", "istio", "--image", &image, "--digest", &pin]);
    assert_eq!(verdict, Verdict::Good, "{says}");
    let manifest: Value = serde_yaml_ng::from_str(&says).unwrap();
    let (descriptor, _) = registry.pull("w/rate-limit", "1");
    let sha256 = manifest["spec"]["sha256"].as_str().unwrap();
    assert_eq!(descriptor["digest"], format!("sha256:{sha256}"));
    assert_eq!(manifest["spec"]["url"], format!("oci://{}/w/rate-limit:1", registry.host));
}

#[test]
fn a_name_without_a_tag_is_warned_about() {
    let (folder, registry) = (Folder::new(), Registry::open());
    let (file, _) = module(&folder);
    for tag in ["", ":latest"] {
        let said = pushed(&[&file, &format!("{}/w{tag}", registry.host)]);
        assert!(said["warnings"][0].as_str().unwrap().contains("tag `latest`"), "{said}");
    }
    let _is_there = registry.pull("w", "latest");
}

/// The command as a program, with what is to come on its standard input and a folder for docker's file.
fn program(args: &[&str], input: &str, docker: &Folder) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("push").args(args).env("DOCKER_CONFIG", docker.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who takes no password may have ended before it is written.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let ended = child.wait_with_output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_registry_with_a_password_gets_it() {
    let (folder, registry) = (Folder::new(), Registry::with_password());
    let (file, _) = module(&folder);
    let to = format!("{}/w:1", registry.host);
    let (empty, [user, password]) = (Folder::new(), USER);

    let (code, said) = program(&[&file, &to], "", &empty);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("wants a name and a password: `docker login 127.0.0.1:"), "{said}");

    let stdin = ["--username", user, "--password-stdin"];
    let (code, said) =
        program(&[&[&file[..], &to], &stdin[..]].concat(), "not-the-password\n", &empty);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the name or the password is wrong"), "{said}");
    assert!(!said.contains("not-the-password"), "the password is not told: {said}");
    let (code, said) = program(&[&[&file[..], &to], &stdin[..]].concat(), "", &empty);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the standard input is empty"), "{said}");

    let (code, digest) =
        program(&[&[&file[..], &to], &stdin[..]].concat(), &format!("{password}\n"), &empty);
    assert_eq!(code, Some(0), "{digest}");

    // As `docker login` leaves it: Base64 of `ann:opensesame`.
    let docker = Folder::new();
    let auth = r#"{"auth": "YW5uOm9wZW5zZXNhbWU="}"#;
    docker.file("config.json", &format!(r#"{{"auths": {{"{}": {auth}}}}}"#, registry.host));
    assert_eq!(program(&[&file, &to], "", &docker), (Some(0), digest));
}

#[test]
fn a_registry_that_wants_a_token_gets_one() {
    let (folder, registry) = (Folder::new(), Registry::with_tokens());
    let (file, _) = module(&folder);
    let to = format!("{}/weir/w:1", registry.host);
    let (empty, [user, password]) = (Folder::new(), USER);
    let (code, said) = program(&[&file, &to], "", &empty);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("wants a name and a password"), "{said}");
    let args = [&file, &to, "--username", user, "--password-stdin"];
    let (code, said) = program(&args, "wrong\n", &empty);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("when it is asked for a token"), "{said}");
    let (code, said) = program(&args, password, &empty);
    assert_eq!((code, said.starts_with("sha256:")), (Some(0), true), "{said}");
}

#[test]
fn with_tls_its_authority_is_asked_for() {
    let (folder, registry) = (Folder::new(), Registry::with_tls());
    let (file, _) = module(&folder);
    let (to, ca) = (format!("{}/w:1", registry.host), registry.authority());
    let said = pushed(&[&file, &to, "--ca", &ca]);
    assert!(said["sent_bytes"].as_u64().unwrap() > 0);

    // What this machine serves is spoken to without TLS, unless an authority is given.
    let said = refused(&[&file, &to]);
    assert!(said.contains("it speaks TLS: drop --plain-http, and give --ca"), "{said}");
    let other = Registry::with_tls();
    let said = refused(&[&file, &to, "--ca", &other.authority()]);
    assert!(said.contains("give its authority with --ca"), "{said}");
    let said = refused(&[&file, &to, "--ca", &file]);
    assert!(said.contains("holds no certificate"), "{said}");
    let plain = Registry::open();
    let said = refused(&[&file, &format!("{}/w:1", plain.host), "--ca", &ca]);
    assert!(said.contains("it does not speak TLS"), "{said}");
}

#[test]
fn what_cannot_be_pushed_says_why() {
    let folder = Folder::new();
    let (file, _) = module(&folder);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = refused(&[&file, &format!("{free}/w:1")]);
    assert!(said.starts_with(&format!("cannot reach {free}: ")), "{said}");
    assert!(said.contains("does a registry listen there?"), "{said}");
    for (reference, expected) in [
        ("rate-limit:1", "has no registry before the name"),
        ("registry.example/W:1", "lower-case"),
        ("registry.example/w@sha256:00", "has a digest"),
    ] {
        let said = refused(&[&file, reference]);
        assert!(said.contains(expected), "{reference}: {said}");
    }
    let text = folder.file("policy.yaml", "name: shop\n");
    let said = refused(&[&text, "registry.example/w:1"]);
    assert!(said.contains("policy.yaml is no wasm module"), "{said}");
    let said = refused(&[&file, "registry.example/w:1", "--username", "ann"]);
    assert!(said.contains("--password-stdin"), "{said}");
    let said = refused(&[&file, "registry.example/w:1", "--plain-http", "--ca", &text]);
    assert!(said.contains("cannot be used with"), "{said}");
}
