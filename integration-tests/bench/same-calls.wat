;; Asks of the host what weir_suite.wasm asks for a request under steady.yaml, and does nothing with it: what
;; no work inside the module can save.
(module
  (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value"
    (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 4)
  ;; Where the host writes a place, a size and a time.
  (global $place i32 (i32.const 0))
  (global $size i32 (i32.const 8))
  (global $time i32 (i32.const 16))
  (data (i32.const 32) "traceparent")
  (data (i32.const 64) "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-01")
  (data (i32.const 128) "response\00code_details")
  (func (export "proxy_abi_version_0_2_1"))
  ;; One place for every answer: a page and more, none of which is used again.
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 1024)
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) i32.const 1)
  (func (export "proxy_on_configure") (param i32 i32) (result i32) i32.const 1)
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $pairs (i32.const 0) (global.get $place) (global.get $size)))
    (drop (call $clock (i32.const 1) (i64.const 0) (global.get $time)))
    (drop (call $replace (i32.const 0) (i32.const 32) (i32.const 11) (i32.const 64) (i32.const 55)))
    i32.const 0)
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (drop (call $pairs (i32.const 2) (global.get $place) (global.get $size)))
    i32.const 0)
  (func (export "proxy_on_log") (param i32)
    (drop (call $property (i32.const 128) (i32.const 21) (global.get $place) (global.get $size)))
    (drop (call $clock (i32.const 1) (i64.const 0) (global.get $time)))))
