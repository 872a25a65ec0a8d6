//! A finished module in the interpreter, called the way Envoy calls it.

use super::calls::{number, serve};
use super::host::{CALLBACKS, Counts, Host};
use std::path::Path;
use wasmi::{Config, Engine, Func, Instance, Linker, Module, Store, Val};

/// The root context's id.
const ROOT: i32 = 1;
const PAUSE: i32 = 1;
/// More than any run needs; what is left tells what was used.
const FUEL: u64 = u64::MAX / 2;
/// An upstream's answer: its status, and what it says it cost.
const UPSTREAM: [(&str, &str); 3] =
    [(":status", "200"), ("content-type", "text/plain"), ("x-used", "2")];

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Passed,
    Replied(u32),
}

pub struct Vm {
    store: Store<Host>,
    instance: Instance,
    next_context: i32,
}

impl Vm {
    /// Loads a module and starts it, without a policy yet.
    pub fn start(module: &Path) -> Self {
        let wasm = std::fs::read(module)
            .unwrap_or_else(|e| panic!("{}: {e}; run: cargo xtask build", module.display()));
        let mut config = Config::default();
        config.consume_fuel(true);
        let engine = Engine::new(&config);
        let module = Module::new(&engine, &wasm)
            .unwrap_or_else(|e| panic!("{} is no module: {e}", module.display()));
        let host = Host { random: 0x9e37_79b9_7f4a_7c15, now: 1_000_000_000, ..Host::default() };
        let mut store = Store::new(&engine, host);
        store.set_fuel(FUEL).expect("fuel is on");
        let mut linker = Linker::new(&engine);
        for import in module.imports() {
            let Some(kind) = import.ty().func() else { continue };
            let name = import.name().to_owned();
            let function =
                Func::new(&mut store, kind.clone(), move |mut caller, arguments, results| {
                    let arguments: Vec<u64> = arguments.iter().map(number).collect();
                    let status = serve(&name, &mut caller, &arguments);
                    if let Some(result) = results.first_mut() {
                        *result = Val::I32(status as i32);
                    }
                    Ok(())
                });
            linker.define(import.module(), import.name(), function).expect("defined once");
        }
        let instance = linker.instantiate_and_start(&mut store, &module).expect("it links");
        let mut vm = Self { store, instance, next_context: ROOT + 1 };
        vm.call("_initialize", &[]);
        vm.call("proxy_on_context_create", &[ROOT, 0]);
        vm.call("proxy_on_vm_start", &[ROOT, 0]);
        vm
    }

    /// Gives it a policy in JSON, under the plugin's name. `Err` with what it logged when it refuses.
    pub fn configure(&mut self, plugin: &str, policy: &str) -> Result<(), String> {
        let size = policy.len() as i32;
        let host = self.host();
        host.configuration = policy.as_bytes().to_vec();
        host.properties.insert(b"plugin_name".to_vec(), plugin.as_bytes().to_vec());
        match self.call("proxy_on_configure", &[ROOT, size]) {
            Some(0) => Err(self.host().log.join("\n")),
            _ => Ok(()),
        }
    }

    pub fn host(&mut self) -> &mut Host {
        self.store.data_mut()
    }

    /// One request, from its headers to the log, without a body.
    pub fn request(&mut self, headers: &[(&str, &str)]) -> Answer {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect()
        };
        let context = self.next_context;
        self.next_context += 1;
        let host = self.host();
        host.request = owned(headers);
        host.response = owned(&UPSTREAM);
        host.local_reply = None;
        let (count, lines) = (headers.len() as i32, UPSTREAM.len() as i32);
        self.call("proxy_on_context_create", &[context, ROOT]);
        let action = self.call("proxy_on_request_headers", &[context, count, 1]);
        let reply = self.host().local_reply;
        assert_eq!(action == Some(PAUSE), reply.is_some(), "a paused request has its reply");
        // A local reply passes the response callbacks of the filter that sent it as well.
        self.call("proxy_on_response_headers", &[context, lines, 0]);
        self.call("proxy_on_response_body", &[context, 6, 1]);
        for last in ["proxy_on_log", "proxy_on_done", "proxy_on_delete"] {
            self.call(last, &[context]);
        }
        reply.map_or(Answer::Passed, Answer::Replied)
    }

    pub fn tick(&mut self) {
        self.call("proxy_on_tick", &[ROOT]);
    }

    pub fn counts(&self) -> Counts {
        self.store.data().counts.clone()
    }

    /// What was used so far: the interpreter's own measure of work.
    pub fn fuel(&self) -> u64 {
        FUEL - self.store.get_fuel().expect("fuel is on")
    }

    /// How often the module has taken memory, if it is one that counts.
    pub fn allocations(&self) -> Option<u64> {
        let count = self.instance.get_global(&self.store, "allocations")?;
        count.get(&self.store).i64().and_then(|count| u64::try_from(count).ok())
    }

    /// Calls an export; one that the module does not have is not called, as Envoy does it.
    fn call(&mut self, name: &str, arguments: &[i32]) -> Option<i32> {
        let function = self.instance.get_func(&self.store, name)?;
        self.host().count(CALLBACKS);
        let arguments: Vec<_> = arguments.iter().copied().map(Val::I32).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        function
            .call(&mut self.store, &arguments, &mut results)
            .unwrap_or_else(|e| panic!("the module trapped in {name}: {e}"));
        results.first().and_then(Val::i32)
    }
}
