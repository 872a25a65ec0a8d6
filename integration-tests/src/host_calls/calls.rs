//! Each host call: read from the module's memory, answered by the host's state, counted.

use super::host::{ALLOCATIONS, Host, NOT_FOUND, OK, UNIMPLEMENTED, deserialize, serialize};
use wasmi::{Caller, Extern, Memory, Val};

pub(super) fn number(value: &Val) -> u64 {
    match value {
        Val::I32(n) => u64::from(*n as u32),
        Val::I64(n) => *n as u64,
        other => panic!("no host call takes {other:?}"),
    }
}

/// Answers a host call and counts it.
pub(super) fn serve(name: &str, caller: &mut Caller<'_, Host>, arguments: &[u64]) -> u32 {
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
        "proxy_add_header_map_value" => {
            guest.host().count("add header");
            let name = guest.bytes(argument(1), argument(2));
            let value = guest.bytes(argument(3), argument(4));
            guest.host().pairs(argument(0)).push((name, value));
            OK
        }
        "proxy_remove_header_map_value" => {
            guest.host().count("remove header");
            let name = guest.bytes(argument(1), argument(2));
            guest.host().pairs(argument(0)).retain(|(n, _)| *n != name);
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
