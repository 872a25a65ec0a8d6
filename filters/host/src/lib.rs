//! The only crate of weir that knows proxy-wasm. It maps the host's calls to the engine's ports and
//! carries out what the engine decides.
//!
//! A module is one type that implements [`Filter`], and [`module!`]. The SDK's types are used, its
//! dispatcher and its host calls are not: the dispatcher costs a quarter of a request's time, and
//! both panic on what a client can send or a host can answer. The callbacks are exported as
//! `weir.proxy_on_…`; the step after linking gives them their real names and drops the SDK's.

pub mod abi;
mod filter;
mod logger;
mod memory;
mod pool;
mod ports;
mod roots;
mod vm;

pub use filter::Filter;
pub use memory::allocate;
pub use pool::Pool;
pub use ports::HostPorts;
pub use vm::Vm;

/// Defines the callbacks of a module around a [`Filter`].
///
/// `calls` adds the callbacks for what becomes of calls to other clusters; nothing else calls these.
#[macro_export]
macro_rules! module {
    ($filter:ty, calls) => {
        $crate::module!($filter);

        #[unsafe(export_name = "weir.proxy_on_http_call_response")]
        pub extern "C" fn on_http_call_response(_: u32, token: u32, _: u32, _: u32, _: u32) {
            let message = $crate::abi::is_call_ok().then_some(&[][..]);
            with_vm((), |vm| vm.on_call(token, message));
        }

        #[unsafe(export_name = "weir.proxy_on_grpc_close")]
        pub extern "C" fn on_grpc_close(_: u32, token: u32, _: u32) {
            // Before a message, so without an answer, whatever the status.
            with_vm((), |vm| vm.on_call(token, None));
        }

        #[unsafe(export_name = "weir.proxy_on_grpc_receive")]
        pub extern "C" fn on_grpc_receive(_: u32, token: u32, size: usize) {
            // The one message of a unary call: Envoy reports no close after it.
            let message = $crate::abi::grpc_message(size);
            with_vm((), |vm| vm.on_call(token, Some(&message)));
        }
    };
    ($filter:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[global_allocator]
        static POOL: $crate::Pool = $crate::Pool::new();

        // One thread runs a VM. A callback that finds the VM in use would be a host that calls back
        // into itself, which it does for memory alone; it is answered without the VM.
        thread_local! {
            static VM: ::std::cell::RefCell<$crate::Vm<$filter>> = ::std::cell::RefCell::default();
        }

        fn with_vm<T>(fallback: T, run: impl FnOnce(&mut $crate::Vm<$filter>) -> T) -> T {
            VM.with(|vm| match vm.try_borrow_mut() {
                Ok(mut vm) => run(&mut vm),
                Err(_) => fallback,
            })
        }

        #[unsafe(export_name = "weir.proxy_abi_version_0_2_1")]
        pub extern "C" fn abi_version() {}

        #[unsafe(export_name = "weir.proxy_on_memory_allocate")]
        pub extern "C" fn memory_allocate(size: usize) -> *mut u8 {
            $crate::allocate(size)
        }

        #[unsafe(export_name = "weir.proxy_on_vm_start")]
        pub extern "C" fn on_vm_start(_: u32, _: usize) -> u32 {
            1
        }

        #[unsafe(export_name = "weir.proxy_on_context_create")]
        pub extern "C" fn on_context_create(context: u32, parent: u32) {
            with_vm((), |vm| vm.on_context_create(context, parent));
        }

        #[unsafe(export_name = "weir.proxy_on_configure")]
        pub extern "C" fn on_configure(root: u32, size: usize) -> u32 {
            with_vm(0, |vm| u32::from(vm.on_configure(root, size)))
        }

        #[unsafe(export_name = "weir.proxy_on_tick")]
        pub extern "C" fn on_tick(root: u32) {
            with_vm((), |vm| vm.on_tick(root));
        }

        #[unsafe(export_name = "weir.proxy_on_request_headers")]
        pub extern "C" fn on_request_headers(context: u32, _: u32, _: u32) -> u32 {
            with_vm($crate::abi::CONTINUE, |vm| vm.on_request_headers(context))
        }

        #[unsafe(export_name = "weir.proxy_on_response_headers")]
        pub extern "C" fn on_response_headers(context: u32, _: u32, _: u32) -> u32 {
            with_vm($crate::abi::CONTINUE, |vm| vm.on_response_headers(context))
        }

        #[unsafe(export_name = "weir.proxy_on_log")]
        pub extern "C" fn on_log(context: u32) {
            with_vm((), |vm| vm.on_log(context));
        }
    };
}
