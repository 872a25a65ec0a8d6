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
