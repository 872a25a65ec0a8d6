use super::*;

const POLICY: &str = r#"{"name":"shop","rate_limit":{}}"#;

/// A folder of its own for each test.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Temp {
        let folder = format!("weir-folder-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Temp(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn read(&self) -> anyhow::Result<Folder> {
        let sections = crate::source::read(POLICY).0[0].sections();
        Folder::read(&self.0, &Content { policy: POLICY, number: 7, sections })
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn file(config: Value) -> String {
    let wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
    json!({"version_info": "1", "resources": [{
        "name": "weir.rate_limit", "typed_config": {"@type": wasm, "config": config},
    }]})
    .to_string()
}

#[test]
fn files_of_other_forms_are_no_panic() {
    let temp = Temp::new("forms");
    for text in ["[]", "7", "text", "null", "", r#"{"resources": 7}"#, r#"{"resources": [7, []]}"#]
    {
        temp.write("a.json", text);
        let error = temp.read().err().unwrap().to_string();
        assert!(error.contains("no resource file"), "{text}: {error}");
    }
    for config in [json!("text"), json!([]), Value::Null] {
        temp.write("a.json", &file(config.clone()));
        let error = temp.read().err().unwrap().to_string();
        assert!(error.contains("must be that of a Wasm filter"), "{config}: {error}");
    }
    // What held the policy may have been anything.
    temp.write("a.json", &file(json!({"configuration": "text"})));
    assert!(!temp.read().unwrap().is_same());
    temp.write("a.json", &file(json!({"configuration": {"value": POLICY}})));
    assert!(temp.read().unwrap().is_same());
}

fn good() -> String {
    file(json!({"configuration": {"value": "{}"}}))
}

fn texts(paths: &[&Path]) -> Vec<String> {
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn a_folder_is_put_as_a_whole_or_not_at_all() {
    let temp = Temp::new("whole");
    let [first, second] = ["a.json", "b.json"].map(|name| temp.write(name, &good()));
    let folder = temp.read().unwrap();
    // The second was edited by somebody else.
    fs::write(&second, "edited").unwrap();
    let unput = folder.put().err().unwrap();
    assert!(unput.why.contains("b.json was changed meanwhile") && !unput.is_torn, "{}", unput.why);
    assert_eq!(texts(&[&first, &second]), [good(), "edited".into()]);
    assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 2, "nothing lies beside them");
}

#[test]
fn one_that_cannot_be_taken_back_keeps_no_other_from_it() {
    let temp = Temp::new("back");
    let paths = ["a.json", "b.json", "c.json"].map(|name| temp.write(name, &good()));
    let folder = temp.read().unwrap();
    assert!(folder.put().is_ok());
    assert!(texts(&[&paths[0]])[0].contains("rate_limit"));
    fs::remove_file(&paths[0]).unwrap();
    fs::write(&paths[1], "edited").unwrap();
    let error = folder.take_back().unwrap_err().to_string();
    assert!(
        error.contains("cannot read") && error.contains("b.json was changed meanwhile"),
        "{error}"
    );
    assert_eq!(texts(&[&paths[1], &paths[2]]), ["edited".into(), good()]);
}

#[test]
fn owner_and_mode_stay() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let temp = Temp::new("mode");
    let path = temp.write("a.json", &good());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root gives files away; for others it is their own then.
    let _ = std::os::unix::fs::chown(&path, Some(1234), Some(1234));
    let of = || fs::metadata(&path).map(|of| (of.mode(), of.uid(), of.gid())).unwrap();
    let before = of();
    let folder = temp.read().unwrap();
    assert!(folder.put().is_ok());
    assert_eq!(of(), before);
    folder.take_back().unwrap();
    assert_eq!((of(), texts(&[&path])), (before, vec![good()]));
}

#[test]
fn a_symbolic_link_is_refused() {
    let temp = Temp::new("link");
    let real = temp.write("real.txt", &good());
    std::os::unix::fs::symlink(&real, temp.0.join("a.json")).unwrap();
    let error = temp.read().err().unwrap().to_string();
    assert!(error.contains("a.json is a symbolic link"), "{error}");
}
