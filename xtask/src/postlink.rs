//! The post-link pass: turns what the linker made into what Envoy loads.
//!
//! Envoy calls every callback that a module exports, and each call costs. The SDK exports all of
//! them, `no_mangle`, so the host layer gives its own few the prefix `weir.`. This pass drops every
//! other export, takes the prefix away, and with it go the code that only the dropped callbacks
//! reached and the custom sections. The SDK's trait objects would stay, since function tables keep
//! what they hold; nothing of ours calls them, so they are taken out by name. What is left is checked: a module that Envoy would refuse to
//! load, with fewer words, is refused here.

use anyhow::{Context, Result, bail};
use std::collections::HashSet;

use walrus::ir::{BinaryOp, Value};
use walrus::{
    ConstExpr, ElementItems, ExportItem, FunctionBuilder, FunctionId, ImportKind, Module,
    ModuleConfig, ValType,
};

/// The bound for one filter, before compression. Trace context, with eight formats and an exporter, is
/// the largest.
pub const SIZE_LIMIT: usize = 540 * 1000;

/// For all four in one.
pub const SUITE_SIZE_LIMIT: usize = 900 * 1000;

const PREFIX: &str = "weir.";

/// Without the first, Envoy does not know the ABI; without the second it can hand over no data.
const REQUIRED: [&str; 2] = ["proxy_abi_version_0_2_1", "proxy_on_memory_allocate"];

/// The two WASI calls that Envoy serves to a module which is not a WASI program.
const WASI: [&str; 2] = ["clock_time_get", "random_get"];

/// Rewrites a linked module, which may have so many bytes afterwards. Equal input gives equal output,
/// byte by byte.
pub fn run(linked: &[u8], most: usize) -> Result<Vec<u8>> {
    finish(read(linked)?, most)
}

/// The same module, which counts in a global `allocations` how often it takes memory: for tests.
pub fn counting(linked: &[u8]) -> Result<Vec<u8>> {
    let mut module = read(linked)?;
    let start = ConstExpr::Value(Value::I64(0));
    let count = module.globals.add_local(ValType::I64, true, false, start);
    let is_allocator =
        |name: &str| name.contains("weir_host..pool..Pool") && name.contains("5alloc17h");
    let found =
        module.funcs.iter().find(|function| function.name.as_deref().is_some_and(is_allocator));
    let Some(allocator) = found.map(|function| function.id()) else {
        bail!(
            "the module has no allocator of ours; its name is looked for in `postlink::counting`"
        );
    };
    let function = module.funcs.get_mut(allocator).kind.unwrap_local_mut();
    function
        .builder_mut()
        .func_body()
        .global_get_at(0, count)
        .const_at(1, Value::I64(1))
        .binop_at(2, BinaryOp::I64Add)
        .global_set_at(3, count);
    module.exports.add(&format!("{PREFIX}allocations"), count);
    finish(module, usize::MAX)
}

fn read(linked: &[u8]) -> Result<Module> {
    ModuleConfig::new()
        .generate_name_section(false)
        .generate_producers_section(false)
        .parse(linked)
        .context("the linker's output is not a module that can be read")
}

fn finish(mut module: Module, most: usize) -> Result<Vec<u8>> {
    trim_exports(&mut module)?;
    clear_sdk_tables(&mut module);
    let custom: Vec<_> = module.customs.iter().map(|(id, _)| id).collect();
    for id in custom {
        module.customs.delete(id);
    }
    walrus::passes::gc::run(&mut module);
    check_imports(&module)?;
    let finished = module.emit_wasm();
    if finished.len() > most {
        bail!(
            "the module has {} bytes, more than {most}. `cargo tree` shows what a new \
             dependency brought; features that pull in formatting or Unicode tables weigh most",
            finished.len()
        );
    }
    Ok(finished)
}

fn trim_exports(module: &mut Module) -> Result<()> {
    let mut dropped = Vec::new();
    let mut kept = Vec::new();
    for export in module.exports.iter_mut() {
        let is_memory = matches!(export.item, ExportItem::Memory(_)) && export.name == "memory";
        if let Some(callback) = export.name.strip_prefix(PREFIX) {
            kept.push(callback.to_owned());
            export.name = callback.to_owned();
        } else if !is_memory {
            dropped.push(export.id());
        }
    }
    for id in dropped {
        module.exports.delete(id);
    }
    if kept.is_empty() {
        bail!(
            "the module exports nothing named `{PREFIX}<callback>`, so Envoy would have nothing to \
             call. A filter's lib.rs is one weir_host::module!(..), and its package a cdylib"
        );
    }
    for name in REQUIRED {
        if !kept.iter().any(|callback| callback == name) {
            bail!("the module does not export `{PREFIX}{name}`; Envoy cannot load it");
        }
    }
    if module.exports.iter().all(|export| !matches!(export.item, ExportItem::Memory(_))) {
        bail!("the module does not export its memory; Envoy cannot hand it any data");
    }
    Ok(())
}

/// Takes the functions of the SDK's dispatcher and traits out of the function tables: 20 KB. They are
/// reached through the callbacks that were dropped and in no other way. The SDK's plain types stay.
fn clear_sdk_tables(module: &mut Module) {
    let of_sdk: HashSet<FunctionId> = module
        .funcs
        .iter()
        .filter(|function| function.name.as_deref().is_some_and(is_sdk_callback))
        .map(|function| function.id())
        .collect();
    if of_sdk.is_empty() {
        return;
    }
    let mut stub = FunctionBuilder::new(&mut module.types, &[], &[]);
    stub.func_body().unreachable();
    let stub = stub.finish(Vec::new(), &mut module.funcs);
    for element in module.elements.iter_mut() {
        if let ElementItems::Functions(functions) = &mut element.items {
            for function in functions.iter_mut().filter(|function| of_sdk.contains(function)) {
                *function = stub;
            }
        }
    }
}

fn is_sdk_callback(mangled: &str) -> bool {
    mangled.contains("proxy_wasm")
        && ["traits", "dispatcher"].iter().any(|module| mangled.contains(module))
}

/// Dead code is gone when this looks, so each import here is one that something calls.
fn check_imports(module: &Module) -> Result<()> {
    for import in module.imports.iter() {
        let is_function = matches!(import.kind, ImportKind::Function(_));
        let is_served = match import.module.as_str() {
            // `proxy_on_*` is the other direction: a callback that was declared, not defined.
            "env" => import.name.starts_with("proxy_") && !import.name.starts_with("proxy_on_"),
            "wasi_snapshot_preview1" => WASI.contains(&import.name.as_str()),
            _ => false,
        };
        if !is_function || !is_served {
            bail!(
                "the module imports `{}.{}`, which is not for a filter: it may import functions \
                 `env.proxy_*` (host calls, no callbacks) and `wasi_snapshot_preview1.{}`. Something \
                 it uses expects a browser, a file system or threads",
                import.module,
                import.name,
                WASI.join("`/`")
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(linked: &[u8]) -> Result<Vec<u8>> {
        super::run(linked, SIZE_LIMIT)
    }

    /// The least that Envoy loads, and room for what a test is about.
    fn linked(more: &str) -> Vec<u8> {
        let text = format!(
            r#"(module
                {more}
                (memory (export "memory") 1)
                (global (export "__heap_base") i32 (i32.const 1024))
                (func (export "weir.proxy_abi_version_0_2_1"))
                (func (export "weir.proxy_on_memory_allocate") (param i32) (result i32)
                    i32.const 0))"#
        );
        wat::parse_str(text).unwrap()
    }

    fn exports(wasm: &[u8]) -> Vec<String> {
        let module = Module::from_buffer(wasm).unwrap();
        let mut names: Vec<_> = module.exports.iter().map(|e| e.name.clone()).collect();
        names.sort();
        names
    }

    #[test]
    fn own_callbacks_lose_the_prefix_and_all_other_exports_go() {
        // The SDK's callback has the same name as ours will have.
        let wasm = linked(
            r#"(func (export "proxy_on_request_headers") (result i32) i32.const 1)
               (func (export "weir.proxy_on_request_headers") (result i32) i32.const 2)
               (func (export "proxy_on_log"))"#,
        );
        assert_eq!(
            exports(&run(&wasm).unwrap()),
            [
                "memory",
                "proxy_abi_version_0_2_1",
                "proxy_on_memory_allocate",
                "proxy_on_request_headers"
            ]
        );
    }

    #[test]
    fn the_sdks_trait_objects_go_and_other_tables_stay() {
        let wasm = linked(
            r#"(table 3 funcref)
               (elem (i32.const 0) $_ZN10proxy_wasm6traits7Context6on_log17h0E $ours)
               (func $_ZN10proxy_wasm6traits7Context6on_log17h0E (result i64) i64.const 77)
               (func $ours (result i64) i64.const 88)
               (func (export "weir.proxy_on_tick")
                   (drop (call_indirect (result i64) (i32.const 1))))"#,
        );
        let finished = run(&wasm).unwrap();
        let holds = |number: i64| {
            let module = Module::from_buffer(&finished).unwrap();
            module.funcs.iter_local().any(|(_, function)| {
                let block = function.block(function.entry_block());
                block.instrs.iter().any(|(instruction, _)| {
                    matches!(instruction, walrus::ir::Instr::Const(constant)
                        if matches!(constant.value, walrus::ir::Value::I64(n) if n == number))
                })
            })
        };
        assert!(holds(88) && !holds(77));
    }

    #[test]
    fn what_only_a_dropped_export_reached_is_gone() {
        let wasm = linked(
            r#"(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
               (import "foreign" "thing" (func $thing))
               (func $behind call $thing)
               (func (export "proxy_on_tick") (param i32) call $behind)
               (func (export "weir.proxy_on_log") (param i32)
                   (drop (call $log (i32.const 0) (i32.const 0) (i32.const 0))))"#,
        );
        let module = Module::from_buffer(&run(&wasm).unwrap()).unwrap();
        let imports: Vec<_> = module.imports.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(imports, ["proxy_log"]);
        assert_eq!(module.funcs.iter_local().count(), 3);
        assert_eq!(module.globals.iter().count(), 0);
    }

    #[test]
    fn custom_sections_are_gone() {
        let wasm = linked(
            r#"(@custom "target_features" "\00")
               (@producers (language "Rust" "1"))
               (func $named (export "weir.proxy_on_tick"))"#,
        );
        let holds = |wasm: &[u8], name: &str| {
            wasm.windows(name.len()).any(|window| window == name.as_bytes())
        };
        let finished = run(&wasm).unwrap();
        for name in ["target_features", "producers", "name", "named"] {
            assert!(holds(&wasm, name), "the test's module has no {name}");
            assert!(!holds(&finished, name), "{name} is still there");
        }
    }

    #[test]
    fn the_pass_is_deterministic() {
        let wasm = linked(r#"(func (export "weir.proxy_on_log") (param i32))"#);
        assert_eq!(run(&wasm).unwrap(), run(&wasm).unwrap());
    }

    #[test]
    fn a_foreign_import_is_refused_by_its_name() {
        for (module, name) in [
            ("__wbindgen_placeholder__", "__wbindgen_describe"),
            ("wasi_snapshot_preview1", "fd_write"),
            ("env", "memcpy"),
            ("env", "proxy_on_memory_allocate"),
        ] {
            let wasm = linked(&format!(
                r#"(import "{module}" "{name}" (func $foreign))
                   (func (export "weir.proxy_on_tick") (param i32) call $foreign)"#
            ));
            let error = run(&wasm).unwrap_err().to_string();
            assert!(error.contains(&format!("`{module}.{name}`")), "{error}");
        }
    }

    #[test]
    fn the_two_wasi_calls_are_served() {
        let wasm = linked(
            r#"(import "wasi_snapshot_preview1" "clock_time_get"
                   (func $clock (param i32 i64 i32) (result i32)))
               (import "wasi_snapshot_preview1" "random_get"
                   (func $random (param i32 i32) (result i32)))
               (func (export "weir.proxy_on_tick")
                   (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0)))
                   (drop (call $random (i32.const 0) (i32.const 0))))"#,
        );
        assert!(run(&wasm).is_ok());
    }

    #[test]
    fn what_envoy_could_not_load_is_refused() {
        let refusal = |text: &str| run(&wat::parse_str(text).unwrap()).unwrap_err().to_string();

        let error = refusal(r#"(module (memory (export "memory") 1) (func (export "main")))"#);
        assert!(error.contains("exports nothing named `weir.<callback>`"), "{error}");

        let error = refusal(r#"(module (func (export "weir.proxy_on_log")))"#);
        assert!(error.contains("`weir.proxy_abi_version_0_2_1`"), "{error}");

        let error = refusal(
            r#"(module (func (export "weir.proxy_abi_version_0_2_1"))
                (func (export "weir.proxy_on_memory_allocate")))"#,
        );
        assert!(error.contains("memory"), "{error}");

        assert!(run(b"\x7fELF").is_err());
    }

    #[test]
    fn a_module_over_the_bound_is_refused() {
        let bytes = "x".repeat(SIZE_LIMIT);
        let error = run(&linked(&format!(r#"(data (i32.const 0) "{bytes}")"#))).unwrap_err();
        assert!(error.to_string().contains(&format!("more than {SIZE_LIMIT}")), "{error}");
    }
}
