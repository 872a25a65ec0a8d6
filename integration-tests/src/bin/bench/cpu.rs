//! CPU time of a process, and the core it runs on.

use std::process::Command;

/// Nanoseconds that all threads of a process have run.
pub fn time(pid: u32) -> u64 {
    let folder = format!("/proc/{pid}/task");
    let threads = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let ran = |thread: std::fs::DirEntry| {
        // Time on the processor, time waiting for it, number of slices.
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let sum: u64 = threads.flatten().filter_map(ran).sum();
    assert!(sum > 0, "{folder}/*/schedstat has no times: the kernel lacks CONFIG_SCHED_INFO");
    sum
}

/// Keeps all threads of a process on some cores.
pub fn pin(pid: u32, cores: &[u32]) {
    let cores: Vec<String> = cores.iter().map(u32::to_string).collect();
    let mut taskset = Command::new("taskset");
    taskset.args(["--all-tasks", "--cpu-list", "--pid", &cores.join(","), &pid.to_string()]);
    let output = taskset
        .output()
        .unwrap_or_else(|e| panic!("cannot start taskset, of the package util-linux: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "taskset failed: {said}");
}
