//! Images of a module, pulled back by the rules of Istio's agent.

mod kit;

use std::fs;
use std::path::Path;

use kit::{Folder, agent, weir};
use serde_json::Value;
use weir_cli::Verdict;

const MODULE: &[u8] = b"\0asm\x01\0\0\0 and whatever a module holds";

fn made(folder: &Folder, kind: &str, name: &str) -> (String, std::path::PathBuf) {
    let module = folder.path().join("weir_rate_limit.wasm");
    fs::write(&module, MODULE).unwrap();
    let out = folder.path().join(name);
    let (module, layout) = (module.to_str().unwrap(), out.to_str().unwrap());
    let (verdict, said) = weir(&["image", module, "--out", layout, "--kind", kind]);
    assert_eq!(verdict, Verdict::Good, "{said}");
    (said.trim().to_owned(), out)
}

/// What the agent makes of the image in a layout.
fn pulled(layout: &Path, digest: &str) -> Result<Vec<u8>, String> {
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], digest);
    agent::pulled(&index["manifests"][0], |digest| {
        let hex = digest.strip_prefix("sha256:").unwrap();
        fs::read(layout.join("blobs/sha256").join(hex)).unwrap()
    })
}

#[test]
fn the_agent_takes_each_kind() {
    for kind in ["oci", "docker", "artifact"] {
        let folder = Folder::new();
        let (digest, layout) = made(&folder, kind, "image");
        assert_eq!(pulled(&layout, &digest).as_deref(), Ok(MODULE), "{kind}");
        let version: Value =
            serde_json::from_slice(&fs::read(layout.join("oci-layout")).unwrap()).unwrap();
        assert_eq!(version["imageLayoutVersion"], "1.0.0");
    }
}

/// On any machine and at any time. A figure that changes here changes for everybody who has pinned one.
#[test]
fn the_same_module_gives_the_same_digest() {
    for (kind, expected) in [("oci", OCI), ("docker", DOCKER), ("artifact", ARTIFACT)] {
        let folder = Folder::new();
        let (first, _) = made(&folder, kind, "first");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let (second, _) = made(&folder, kind, "second");
        assert_eq!((first.as_str(), second.as_str()), (expected, expected), "{kind}");
    }
}

const OCI: &str = "sha256:4274274212bb76357cfedf8957f8f5d07a6b4c1e5b614a17a8a5c3f0bbabbc45";
const DOCKER: &str = "sha256:e3de60fc852a62a16e647fbd889ac1d82a56308829031e7b49446aa1dc30e70a";
const ARTIFACT: &str = "sha256:e3615a627133830d10ac4b118fbf5315dfdc3b263b6f9444ad4fe942ff362b4a";

#[test]
fn what_is_no_module_is_refused() {
    let folder = Folder::new();
    let out = folder.path().join("image");
    let out = out.to_str().unwrap();
    let text = folder.file("policy.yaml", "name: shop\n");
    let (verdict, said) = weir(&["image", &text, "--out", out]);
    assert_eq!(verdict, Verdict::Unable);
    assert!(said.contains("policy.yaml is no wasm module; `cargo xtask build`"), "{said}");
    let missing = folder.path().join("none.wasm");
    let (verdict, said) = weir(&["image", missing.to_str().unwrap(), "--out", out]);
    assert_eq!((verdict, said.starts_with("cannot read ")), (Verdict::Unable, true), "{said}");
    let module = folder.path().join("m.wasm");
    fs::write(&module, MODULE).unwrap();
    let (verdict, said) = weir(&["image", module.to_str().unwrap(), "--out", out, "--tag", "a b"]);
    assert_eq!(verdict, Verdict::Unable);
    assert!(said.contains("--tag \"a b\": must be"), "{said}");
    assert!(!folder.path().join("image/index.json").exists());
}
