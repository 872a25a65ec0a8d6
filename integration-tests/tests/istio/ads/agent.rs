//! What Istio's agent, which stands between istiod and Envoy, makes of a configuration: the module is pulled and named
//! by its file; when that fails, a filter of the same name takes the plugin's place, and istiod hears nothing of it.

use prost::Message;
use std::collections::BTreeMap;
use std::path::PathBuf;
use weir_integration_tests::xds::messages::{
    AsyncDataSource, DataSource, FailurePolicy, RBAC, Rbac, TypedExtensionConfig, WASM, Wasm, any,
};

/// What a pull gives, by the image's URL: the digest of the manifest, and the module.
#[derive(Default)]
pub struct Images(BTreeMap<String, (String, PathBuf)>);

impl Images {
    pub fn with(mut self, url: &str, digest: &str, module: PathBuf) -> Images {
        self.0.insert(url.to_owned(), (digest.to_owned(), module));
        self
    }

    /// Nothing under that name, or something else than what is pinned: not pulled.
    fn pull(&self, url: &str, pinned: &str) -> Option<&PathBuf> {
        let (digest, module) = self.0.get(url)?;
        (pinned.is_empty() || pinned == digest).then_some(module)
    }

    pub fn rewrite(&self, config: TypedExtensionConfig) -> TypedExtensionConfig {
        let given = config.typed_config.as_ref().expect("istiod sends a configuration");
        let mut wasm = Wasm::decode(given.value.as_slice()).expect("it is a wasm filter's");
        let plugin = wasm.config.as_mut().expect("with a plugin");
        let vm = plugin.vm_config.as_mut().expect("with a VM");
        let code = vm.code.take().expect("with code").remote.expect("that is pulled");
        let url = code.http_uri.expect("from a URL").uri;
        let Some(module) = self.pull(&url, &code.sha256) else {
            let is_open = plugin.failure_policy() == FailurePolicy::FailOpen;
            let stand_in = match is_open {
                true => Rbac { rules: None, rules_stat_prefix: "wasm-default-allow".to_owned() },
                // FAIL_RELOAD as well.
                false => {
                    Rbac { rules: Some(()), rules_stat_prefix: "wasm-default-deny".to_owned() }
                }
            };
            return TypedExtensionConfig { typed_config: Some(any(RBAC, &stand_in)), ..config };
        };
        let filename = module.to_str().expect("a path in UTF-8").to_owned();
        vm.code = Some(AsyncDataSource { local: Some(DataSource { filename }), remote: None });
        if let Some(variables) = &mut vm.environment_variables {
            variables.key_values.retain(|name, _| !name.starts_with("ISTIO_META_"));
            if variables.key_values.is_empty() && variables.host_env_keys.is_empty() {
                vm.environment_variables = None;
            }
        }
        TypedExtensionConfig { typed_config: Some(any(WASM, &wasm)), ..config }
    }
}
