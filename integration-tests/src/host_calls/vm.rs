//! A finished module in the interpreter, called the way Envoy calls it.

use super::host::{
    ALLOCATIONS, CALLBACKS, Counts, Host, NOT_FOUND, OK, UNIMPLEMENTED, deserialize, serialize,
};
use std::path::Path;
use wasmi::{Caller, Config, Engine, Extern, Func, Instance, Linker, Memory, Module, Store, Val};

/// The root context's id.
const ROOT: i32 = 1;
const PAUSE: i32 = 1;
/// More than any run needs; what is left tells what was used.
const FUEL: u64 = u64::MAX / 2;
/// The status of an upstream's answer.
const UPSTREAM: [(&str, &str); 3] =
    [(":status", "200"), ("content-type", "text/plain"), ("server", "envoy")];

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

    /// Gives it a policy in JSON. `Err` with what it logged when it refuses.
    pub fn configure(&mut self, policy: &str) -> Result<(), String> {
        let size = policy.len() as i32;
        let host = self.host();
        host.configuration = policy.as_bytes().to_vec();
        host.properties.insert(b"plugin_name".to_vec(), b"weir.rate_limit".to_vec());
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

    /// Steps of the interpreter so far: its own measure, close to instructions.
    pub fn steps(&self) -> u64 {
        FUEL - self.store.get_fuel().expect("fuel is on")
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

fn number(value: &Val) -> u64 {
    match value {
        Val::I32(n) => u64::from(*n as u32),
        Val::I64(n) => *n as u64,
        other => panic!("no host call takes {other:?}"),
    }
}

/// Answers a host call and counts it.
fn serve(name: &str, caller: &mut Caller<'_, Host>, arguments: &[u64]) -> u32 {
    let argument = |n: usize| arguments.get(n).copied().unwrap_or(0);
    let mut guest = Guest { caller };
    match name {
        "proxy_log" => {
            guest.host().count("log");
            let line = String::from_utf8_lossy(&guest.bytes(argument(1), argument(2))).into_owned();
            guest.host().log.push(line);
            OK
        }
        "proxy_set_tick_period_milliseconds" => OK,
        "proxy_get_buffer_bytes" => {
            let text = guest.host().configuration.clone();
            guest.place(&text, argument(3), argument(4))
        }
        "proxy_get_header_map_pairs" => {
            guest.host().count("header map");
            let text = serialize(guest.host().pairs(argument(0)));
            guest.place(&text, argument(1), argument(2))
        }
        "proxy_replace_header_map_value" => {
            guest.host().count("set header");
            let name = guest.bytes(argument(1), argument(2));
            let value = guest.bytes(argument(3), argument(4));
            let pairs = guest.host().pairs(argument(0));
            pairs.retain(|(n, _)| *n != name);
            pairs.push((name, value));
            OK
        }
        "proxy_get_property" => {
            let path = guest.bytes(argument(0), argument(1));
            match guest.host().properties.get(&path).cloned() {
                Some(value) => {
                    guest.host().count("get property");
                    guest.place(&value, argument(2), argument(3))
                }
                None => {
                    guest.host().count("get property, absent");
                    NOT_FOUND
                }
            }
        }
        "proxy_set_property" => {
            guest.host().count("set property");
            OK
        }
        "proxy_get_shared_data" => {
            let key = guest.bytes(argument(0), argument(1));
            match guest.host().shared.get(&key).cloned() {
                Some((value, cas)) => {
                    guest.host().count("get shared data");
                    guest.write(argument(4), &cas.to_le_bytes());
                    guest.place(&value, argument(2), argument(3))
                }
                None => {
                    guest.host().count("get shared data, absent");
                    NOT_FOUND
                }
            }
        }
        "proxy_set_shared_data" => {
            guest.host().count("set shared data");
            let key = guest.bytes(argument(0), argument(1));
            let value = guest.bytes(argument(2), argument(3));
            guest.host().set_shared(key, value, argument(4) as u32)
        }
        "proxy_define_metric" => {
            guest.host().count("define metric");
            let name = String::from_utf8_lossy(&guest.bytes(argument(1), argument(2))).into_owned();
            let id = guest.host().metrics.len() as u32;
            guest.host().metrics.push((name, 0));
            guest.write(argument(3), &id.to_le_bytes());
            OK
        }
        "proxy_increment_metric" | "proxy_record_metric" => {
            guest.host().count("metric");
            let is_gauge = name == "proxy_record_metric";
            let Some((_, value)) = guest.host().metrics.get_mut(argument(0) as usize) else {
                return NOT_FOUND;
            };
            *value = if is_gauge { 0 } else { *value } + argument(1) as i64;
            OK
        }
        "proxy_send_local_response" => {
            guest.host().count("local reply");
            let headers = deserialize(&guest.bytes(argument(5), argument(6)));
            let host = guest.host();
            host.local_reply = Some(argument(0) as u32);
            host.response = headers;
            OK
        }
        "proxy_call_foreign_function" => {
            guest.host().count("foreign function");
            OK
        }
        "clock_time_get" | "proxy_get_current_time_nanoseconds" => {
            guest.host().count("clock");
            let now = guest.host().now.to_le_bytes();
            let to = if name == "clock_time_get" { argument(2) } else { argument(0) };
            guest.write(to, &now);
            OK
        }
        "random_get" => {
            guest.host().count("random");
            let bytes = guest.host().random_bytes(argument(1) as usize);
            guest.write(argument(0), &bytes);
            OK
        }
        // A module that comes to need more is to be counted for it.
        _ => {
            guest.host().count("other");
            UNIMPLEMENTED
        }
    }
}

/// The module's memory, during a call of its.
struct Guest<'a, 'c> {
    caller: &'a mut Caller<'c, Host>,
}

impl Guest<'_, '_> {
    fn host(&mut self) -> &mut Host {
        self.caller.data_mut()
    }

    fn memory(&self) -> Memory {
        let memory = self.caller.get_export("memory").and_then(Extern::into_memory);
        memory.expect("a module exports its memory")
    }

    fn bytes(&self, at: u64, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; size as usize];
        self.memory().read(&*self.caller, at as usize, &mut bytes).expect("within its memory");
        bytes
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.memory().write(&mut *self.caller, at as usize, bytes).expect("within its memory");
    }

    /// Hands bytes over in memory that the module gives: what makes such a call dear.
    fn place(&mut self, bytes: &[u8], data: u64, size: u64) -> u32 {
        self.host().count(ALLOCATIONS);
        let size_of = bytes.len() as u32;
        let allocate = ["proxy_on_memory_allocate", "malloc"]
            .into_iter()
            .find_map(|name| self.caller.get_export(name).and_then(Extern::into_func));
        let allocate = allocate.expect("a module exports an allocator");
        let mut at = [Val::I32(0)];
        allocate
            .call(&mut *self.caller, &[Val::I32(size_of as i32)], &mut at)
            .expect("its allocator does not trap");
        let at = number(&at[0]);
        self.write(at, bytes);
        self.write(data, &(at as u32).to_le_bytes());
        self.write(size, &size_of.to_le_bytes());
        OK
    }
}
