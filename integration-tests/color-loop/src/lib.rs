//! Decisions of `weir_traffic_color.wasm` in a loop, timed where they run: in Envoy's V8. One decision is
//! the map of 20 headers parsed from the host's bytes, the policy matched, the key hashed and the effects
//! built. The benchmark reads the time from Envoy's log.

use weir_engine::color::{Painter, Worker};
use weir_engine::core::effects::Effects;
use weir_engine::core::headers::HeaderMap;
use weir_engine::core::policy::Common;
use weir_engine::core::ports::Clock;
use weir_host::{Filter, HostPorts};
use weir_protos::v1::Policy;
use weir_protos::{FieldError, Section};

/// Before this V8 runs what its quick compiler made.
const WARM_UP: u32 = 20_000;
const DECISIONS: u32 = 200_000;

struct Loop {
    painter: Painter,
    is_done: bool,
}

weir_host::module!(Loop);

impl Loop {
    fn run(&self, count: u32, ports: &mut HostPorts) -> usize {
        let mut worker = Worker::default();
        let wire = wire();
        let mut written = 0_usize;
        for _ in 0..count {
            let headers = HeaderMap::from_wire(wire.clone());
            let decision = self.painter.on_request(&mut worker, &headers, ports);
            written = written.wrapping_add(decision.effects.headers.len());
        }
        written
    }
}

/// A request as the host hands it over.
fn wire() -> Vec<u8> {
    let mut pairs: Vec<(String, String)> = [
        (":method", "GET"),
        (":path", "/orders/7?page=2"),
        (":authority", "shop.example"),
        (":scheme", "http"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
        ("accept", "application/json, text/plain, */*"),
        ("x-user", "4711"),
        ("x-request-id", "7f3c1c0e-4f43-9d6c-8a51-1c0d2f0c7e55"),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .into();
    let more = (pairs.len()..20).map(|n| (format!("x-header-{n}"), format!("value of header {n}")));
    pairs.extend(more);
    HeaderMap::from_pairs(&pairs).into_wire()
}

impl Filter for Loop {
    const SECTION: Section = Section::TrafficColor;
    const NAME: &'static str = "color_loop";
    type Worker = ();
    type Stream = ();

    fn compile(policy: &Policy, plugin: &str, _: u64) -> Result<Self, FieldError> {
        Painter::compile(policy, plugin).map(|painter| Loop { painter, is_done: false })
    }

    fn prepare(&mut self, (): &mut (), _: &mut HostPorts) {}

    fn common(&self) -> &Common {
        self.painter.common()
    }

    fn mark(&self) -> Option<&str> {
        None
    }

    fn on_request(
        &mut self,
        (): &mut (),
        _: &mut HeaderMap,
        _: &mut HostPorts,
    ) -> (Effects, Option<()>) {
        (Effects::default(), None)
    }

    fn reads_response((): &()) -> bool {
        false
    }

    fn on_response((): &mut (), (): &mut (), _: &mut HeaderMap, _: &mut HostPorts) -> Effects {
        Effects::default()
    }

    fn tick(&mut self, ports: &mut HostPorts) {
        if std::mem::replace(&mut self.is_done, true) {
            return;
        }
        self.run(WARM_UP, ports);
        let start = ports.now();
        let written = self.run(DECISIONS, ports);
        let took = ports.now().saturating_sub(start);
        log::error!(target: Self::NAME, "{DECISIONS} decisions took {took} ns, {written} edits");
    }

    fn tick_worker((): &mut (), _: &mut HostPorts) {}
}
