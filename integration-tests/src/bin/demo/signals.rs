//! Ctrl-C and SIGTERM end the demo between two scenes, so that Envoy and its files go with it.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static STOPPED: AtomicBool = AtomicBool::new(false);

pub fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// Listens from now on.
pub fn listen() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime for signals");
        runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
            let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                STOPPED.store(true, Ordering::Relaxed);
            }
        });
    });
}
