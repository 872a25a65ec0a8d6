//! Ctrl-C and SIGTERM: Envoy and its files go with the demo.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// What the demo ends with when it is stopped: by custom 128 + SIGINT while it is not done.
static EXIT_CODE: AtomicI32 = AtomicI32::new(130);

/// From now on a stop is the planned end.
pub fn stop_means(code: i32) {
    EXIT_CODE.store(code, Ordering::Relaxed);
}

/// From now on a stop ends this Envoy, removes its directory and exits.
pub fn listen(envoy: u32, directory: PathBuf) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime for signals");
        runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
            let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        // The shell's own `kill`: not every system has the program. A terminal's Ctrl-C has reached
        // Envoy already, and then this finds nobody.
        let kill = format!("kill -KILL {envoy} 2>/dev/null");
        let _ = Command::new("sh").args(["-c", &kill]).status();
        std::thread::sleep(Duration::from_millis(50));
        let _ = std::fs::remove_dir_all(directory);
        println!("\nstopped");
        std::process::exit(EXIT_CODE.load(Ordering::Relaxed));
    });
}
