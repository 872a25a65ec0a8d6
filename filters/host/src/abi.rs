//! proxy-wasm ABI 0.2.1, as thin as it gets: bytes in and out, and every status a value. The SDK's
//! own calls panic on non-UTF-8 text, on a header map that is gone and on statuses they do not know.

use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, Status};
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::ports::{Cas, GrpcCall, HttpCall, Nanos, SetError};
use weir_engine::core::reply::LocalReply;

use crate::memory::adopt;

/// What a header callback returns.
pub const CONTINUE: u32 = 0;
pub const PAUSE: u32 = 1;

const OK: u32 = Status::Ok as u32;

/// `StreamType::HttpRequest`, whose headers are held.
const REQUEST: u32 = 0;

/// No answer that anybody here asks for is as long; of a longer one, the start is none.
const MOST_OF_A_MESSAGE: usize = 64 * 1024;

/// Declares the host's calls. Outside of Envoy there is no host, and each of them fails: that is
/// what native builds and their tests see.
macro_rules! host_calls {
    ($module:literal $(fn $name:ident($($argument:ident: $kind:ty),*) -> u32;)*) => {
        #[cfg(target_arch = "wasm32")]
        #[link(wasm_import_module = $module)]
        unsafe extern "C" {
            $(fn $name($($argument: $kind),*) -> u32;)*
        }
        $(
            #[cfg(not(target_arch = "wasm32"))]
            #[allow(clippy::too_many_arguments)] // The ABI's.
            unsafe fn $name($($argument: $kind),*) -> u32 {
                $(let _ = $argument;)*
                Status::InternalFailure as u32
            }
        )*
    };
}

host_calls! { "env"
    fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(kind: u32, start: usize, most: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(map: u32, name: *const u8, name_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_add_header_map_value(map: u32, name: *const u8, name_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, size: usize) -> u32;
    fn proxy_get_shared_data(key: *const u8, key_size: usize, data: *mut *mut u8, size: *mut usize, cas: *mut u32) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, value: *const u8, size: usize, cas: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_continue_stream(kind: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_send_local_response(status: u32, details: *const u8, details_size: usize, body: *const u8, body_size: usize, headers: *const u8, headers_size: usize, grpc_status: i32) -> u32;
    fn proxy_http_call(cluster: *const u8, cluster_size: usize, headers: *const u8, headers_size: usize, body: *const u8, body_size: usize, trailers: *const u8, trailers_size: usize, timeout: u32, token: *mut u32) -> u32;
    fn proxy_grpc_call(target: *const u8, target_size: usize, service: *const u8, service_size: usize, method: *const u8, method_size: usize, metadata: *const u8, metadata_size: usize, message: *const u8, message_size: usize, timeout: u32, token: *mut u32) -> u32;
    fn proxy_call_foreign_function(name: *const u8, name_size: usize, argument: *const u8, size: usize, data: *mut *mut u8, data_size: *mut usize) -> u32;
}

host_calls! { "wasi_snapshot_preview1"
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    fn random_get(data: *mut u8, size: usize) -> u32;
}

/// Runs a call that places an answer.
fn placed(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Option<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    let status = call(&raw mut data, &raw mut size);
    if status != OK {
        return None;
    }
    // SAFETY: the host got the memory from `allocate` with this size and handed it over.
    Some(unsafe { adopt(data, size) })
}

pub fn log(level: LogLevel, text: &str) {
    // SAFETY: the host reads the text during the call.
    let _ = unsafe { proxy_log(level as u32, text.as_ptr(), text.len()) };
}

/// Of the root context in hand.
pub fn set_tick_period(milliseconds: u32) {
    // SAFETY: no memory is involved.
    let _ = unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
}

/// Calls of the host's mean this context from here on, until the callback ends. False where it is gone.
pub fn act_for(context: u32) -> bool {
    // SAFETY: no memory is involved.
    OK == unsafe { proxy_set_effective_context(context) }
}

/// A paused request goes on.
pub fn continue_request() {
    // SAFETY: no memory is involved.
    let _ = unsafe { proxy_continue_stream(REQUEST) };
}

/// The message of a unary gRPC call, in the callback that tells of it.
pub fn grpc_message(size: usize) -> Vec<u8> {
    let (kind, size) = (BufferType::GrpcReceiveBuffer as u32, size.min(MOST_OF_A_MESSAGE));
    if size == 0 {
        return Vec::new();
    }
    // SAFETY: see `placed`.
    let message =
        placed(|data, length| unsafe { proxy_get_buffer_bytes(kind, 0, size, data, length) });
    message.unwrap_or_default()
}

pub fn plugin_configuration(size: usize) -> Option<Vec<u8>> {
    if size == 0 {
        return Some(Vec::new());
    }
    let kind = BufferType::PluginConfiguration as u32;
    // SAFETY: see `placed`.
    placed(|data, length| unsafe { proxy_get_buffer_bytes(kind, 0, size, data, length) })
}

/// The whole map, read once; empty when it is gone.
pub fn header_map(map: MapType) -> HeaderMap {
    // SAFETY: see `placed`.
    let raw = placed(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) });
    HeaderMap::from_wire(raw.unwrap_or_default())
}

pub fn set_header(map: MapType, name: &str, value: &str) -> bool {
    let (name, value) = (name.as_bytes(), value.as_bytes());
    // SAFETY: the host reads both during the call.
    OK == unsafe {
        proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    }
}

pub fn add_header(map: MapType, name: &str, value: &str) -> bool {
    let (name, value) = (name.as_bytes(), value.as_bytes());
    // SAFETY: the host reads both during the call.
    OK == unsafe {
        proxy_add_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    }
}

/// All lines of that name.
pub fn remove_header(map: MapType, name: &str) -> bool {
    // SAFETY: the host reads the name during the call.
    OK == unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) }
}

pub fn property(path: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: see `placed`; the host reads the path during the call.
    placed(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

pub fn set_property(path: &str, value: &[u8]) -> bool {
    // SAFETY: the host reads both during the call.
    OK == unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) }
}

pub fn shared_data(key: &[u8]) -> Option<(Vec<u8>, u32)> {
    let mut cas = 0;
    // SAFETY: see `placed`; the host reads the key and writes the version during the call.
    let value = placed(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
    })?;
    Some((value, cas))
}

pub fn set_shared_data(key: &[u8], value: &[u8], cas: Cas) -> Result<(), SetError> {
    // SAFETY: the host reads both during the call.
    let status =
        unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) };
    match status {
        OK => Ok(()),
        status if status == Status::CasMismatch as u32 => Err(SetError::Mismatch),
        _ => Err(SetError::Failed),
    }
}

pub fn define_metric(kind: MetricType, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the host reads the name and writes the id during the call.
    let status =
        unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) };
    (status == OK).then_some(id)
}

pub fn increment_metric(id: u32, by: i64) {
    // SAFETY: no memory is involved.
    let _ = unsafe { proxy_increment_metric(id, by) };
}

pub fn record_metric(id: u32, value: u64) {
    // SAFETY: no memory is involved.
    let _ = unsafe { proxy_record_metric(id, value) };
}

pub fn send_local_reply(reply: &LocalReply) -> bool {
    let headers = pairs(&reply.headers);
    let grpc_status = reply.grpc_status.unwrap_or(-1);
    // SAFETY: the host reads all of it during the call.
    OK == unsafe {
        proxy_send_local_response(
            reply.status.into(),
            reply.details.as_ptr(),
            reply.details.len(),
            reply.body.as_ptr(),
            reply.body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    }
}

/// A unary call from the context in hand, which should be a root's: a stream's calls end with it.
pub fn grpc_call(call: &GrpcCall<'_>) -> Option<u32> {
    // envoy.config.core.v3.GrpcService: envoy_grpc = 1, and in it cluster_name = 1.
    let mut inner = vec![0x0a];
    prost_length(call.cluster.len(), &mut inner);
    inner.extend_from_slice(call.cluster.as_bytes());
    let mut target = vec![0x0a];
    prost_length(inner.len(), &mut target);
    target.extend_from_slice(&inner);
    let metadata = pairs(call.metadata);
    let mut token = 0;
    // SAFETY: the host reads all of it, and writes the token, during the call.
    let status = unsafe {
        proxy_grpc_call(
            target.as_ptr(),
            target.len(),
            call.service.as_ptr(),
            call.service.len(),
            call.method.as_ptr(),
            call.method.len(),
            metadata.as_ptr(),
            metadata.len(),
            call.message.as_ptr(),
            call.message.len(),
            milliseconds(call.timeout),
            &raw mut token,
        )
    };
    (status == OK).then_some(token)
}

/// A POST from the context in hand, which has to be a root's.
pub fn http_call(call: &HttpCall<'_>) -> Option<u32> {
    let own = [(":method", "POST"), (":path", call.path), (":authority", call.cluster)];
    let own = own.map(|(name, value)| (name.to_string(), value.to_string()));
    let headers = pairs(&[&own[..], call.headers].concat());
    let trailers = pairs(&[]);
    let mut token = 0;
    // SAFETY: the host reads all of it, and writes the token, during the call.
    let status = unsafe {
        proxy_http_call(
            call.cluster.as_ptr(),
            call.cluster.len(),
            headers.as_ptr(),
            headers.len(),
            call.body.as_ptr(),
            call.body.len(),
            trailers.as_ptr(),
            trailers.len(),
            milliseconds(call.timeout),
            &raw mut token,
        )
    };
    (status == OK).then_some(token)
}

/// Whether the answer to an HTTP call in hand is a good one. A call that failed has no headers.
pub fn is_call_ok() -> bool {
    let headers = header_map(MapType::HttpCallResponseHeaders);
    headers.get(b":status").is_some_and(|status| status.starts_with(b"2"))
}

fn milliseconds(time: Nanos) -> u32 {
    u32::try_from(time / 1_000_000).unwrap_or(u32::MAX).max(1)
}

/// Makes a property live as long as the downstream request, over internal redirects. To be called
/// in the root context; a property that is declared already stays so.
pub fn declare_request_property(name: &str) {
    // DeclarePropertyArguments of Envoy's wasm extension: name = 1, type = 3 (0: bytes), span = 5
    // (1: the downstream request).
    let mut argument = vec![0x0a];
    prost_length(name.len(), &mut argument);
    argument.extend_from_slice(name.as_bytes());
    argument.extend_from_slice(&[0x28, 1]);
    let function = "declare_property";
    // SAFETY: see `placed`; the host reads name and argument during the call.
    let _ = placed(|data, size| unsafe {
        proxy_call_foreign_function(
            function.as_ptr(),
            function.len(),
            argument.as_ptr(),
            argument.len(),
            data,
            size,
        )
    });
}

fn prost_length(length: usize, out: &mut Vec<u8>) {
    let mut rest = length;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push((rest & 0x7f) as u8);
}

/// Nanoseconds of the monotonic clock.
pub fn monotonic() -> u64 {
    let mut time = 0;
    // SAFETY: the host writes the time during the call. Clock 1 is the monotonic one.
    let _ = unsafe { clock_time_get(1, 0, &raw mut time) };
    time
}

/// Nanoseconds since 1970.
pub fn wall() -> u64 {
    let mut time = 0;
    // SAFETY: the host writes the time during the call. Clock 0 is the wall clock.
    let _ = unsafe { clock_time_get(0, 0, &raw mut time) };
    time
}

pub fn fill_random(bytes: &mut [u8]) {
    // SAFETY: the host writes within the slice during the call.
    let _ = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
}

/// Headers as proxy-wasm serializes them.
fn pairs(headers: &[(String, String)]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(256);
    #[allow(clippy::cast_possible_truncation)] // Sizes of 32 bits in a 32-bit memory.
    let mut size = |size: usize| wire.extend_from_slice(&(size as u32).to_le_bytes());
    size(headers.len());
    for (name, value) in headers {
        size(name.len());
        size(value.len());
    }
    for part in headers.iter().flat_map(|(name, value)| [name, value]) {
        wire.extend_from_slice(part.as_bytes());
        wire.push(0);
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_what_a_header_map_reads() {
        let headers = [("retry-after".to_string(), "1".to_string()), ("x".into(), String::new())];
        let map = HeaderMap::from_wire(pairs(&headers));
        let lines: Vec<_> = map.iter().collect();
        assert_eq!(lines, [(&b"retry-after"[..], &b"1"[..]), (b"x", b"")]);
    }

    /// Every call fails here, as it may in Envoy; none may bring the module down.
    #[test]
    fn failing_calls_are_answers() {
        assert!(header_map(MapType::HttpRequestHeaders).is_empty());
        assert_eq!(property(b"source\0address"), None);
        assert_eq!(shared_data(b"k"), None);
        assert_eq!(set_shared_data(b"k", b"v", 0), Err(SetError::Failed));
        assert_eq!(define_metric(MetricType::Counter, "m"), None);
        assert!(!set_header(MapType::HttpRequestHeaders, "x", "y"));
        assert!(!add_header(MapType::HttpRequestHeaders, "x", "y"));
        assert!(!remove_header(MapType::HttpRequestHeaders, "x"));
        let (cluster, timeout) = ("c", 1);
        let (headers, path): (&[_], _) = (&[], "/");
        assert_eq!(http_call(&HttpCall { cluster, path, headers, body: b"", timeout }), None);
        let (service, method, metadata, message) = ("s", "m", headers, &b""[..]);
        let call = GrpcCall { cluster, service, method, metadata, message, timeout };
        assert_eq!(grpc_call(&call), None);
        let reply = LocalReply {
            status: 429,
            details: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
            grpc_status: None,
        };
        assert!(!send_local_reply(&reply));
        assert_eq!(plugin_configuration(5), None);
        declare_request_property("weir.charged");
        assert!(!act_for(1));
        assert!(grpc_message(5).is_empty());
        continue_request();
        log(LogLevel::Warn, "text");
    }
}
