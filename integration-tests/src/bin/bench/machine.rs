//! The machine: which two cores are used, and whether others use them too.

use std::fmt;
use std::time::Duration;

/// More than this share of the processors in others' hands, and times mean little.
const BUSY: f64 = 0.1;

pub struct Machine {
    /// For Envoy's worker.
    pub worker: u32,
    /// For the clients.
    pub clients: u32,
    pub cores: usize,
    pub model: String,
    pub load_average: String,
    /// The share of all processors that was in use before the benchmark began.
    pub busy: f64,
}

impl Machine {
    /// Looks for half a second. Panics on fewer than two cores.
    pub fn look() -> Self {
        let cores = allowed_cores();
        let [worker, clients, ..] = cores[..] else {
            panic!("this needs two cores, one for Envoy's worker and one for the clients");
        };
        Self {
            worker,
            clients,
            cores: cores.len(),
            model: model(),
            load_average: read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned(),
            busy: busy_share(),
        }
    }

    pub fn name(&self) -> String {
        format!("{}, {} cores", self.model, self.cores)
    }

    pub fn is_busy(&self) -> bool {
        is_busy(self.busy)
    }
}

pub fn is_busy(share: f64) -> bool {
    share > BUSY
}

/// The share of all processors that is in use, over half a second.
pub fn busy_share() -> f64 {
    let before = processor_time();
    std::thread::sleep(Duration::from_millis(500));
    let after = processor_time();
    let (busy, all) = (after.0 - before.0, after.1 - before.1);
    busy as f64 / all.max(1) as f64
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} cores; Envoy's worker on core {}, h2load on core {}; load average {}",
            self.model, self.cores, self.worker, self.clients, self.load_average
        )?;
        if self.is_busy() {
            let percent = self.busy * 100.0;
            writeln!(
                f,
                "OTHERS USE THIS MACHINE ({percent:.0} % of it): the times will be noisy."
            )?;
        }
        Ok(())
    }
}

/// The cores that this process may run on.
fn allowed_cores() -> Vec<u32> {
    let status = read("/proc/self/status");
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or("");
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Ticks of all processors: in use, and all.
fn processor_time() -> (u64, u64) {
    let stat = read("/proc/stat");
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is within user.
    let all: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}

fn model() -> String {
    let info = read("/proc/cpuinfo");
    let line = info.lines().find(|l| l.starts_with("model name"));
    let name = line.and_then(|l| l.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
