//! Whether the engine speaks.

use super::settings::Settings;
use crate::core::ports::{BLIND, Cas, Nanos, SharedStore};

/// After a call that failed nobody asks for so long, then for twice as long each time.
const FIRST_SILENCE: Nanos = 50_000_000;
const LONGEST_SILENCE: Nanos = 1_000_000_000;

/// Whether the engine speaks, as the workers of a process know it together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// It did not, and the request in hand finds out whether it does again.
    Probe,
    Silent,
}

/// What stands in shared data while it does not speak.
#[derive(Clone, Copy)]
struct Silence {
    failures: u32,
    until: Nanos,
}

impl Line {
    pub fn look(settings: &Settings, now: Nanos, store: &mut dyn SharedStore) -> Line {
        let Some((silence, cas)) = Silence::read(settings, store) else { return Line::Open };
        if silence.failures == 0 {
            return Line::Open;
        }
        let rest = silence.until.saturating_sub(now);
        if rest > 0 && rest <= LONGEST_SILENCE.max(settings.patience()) {
            return Line::Silent;
        }
        let until = now.saturating_add(settings.patience());
        let probe = Silence { until, ..silence };
        match probe.write(settings, cas, store) {
            true => Line::Probe,
            false => Line::Silent,
        }
    }

    /// It has answered.
    pub fn back(settings: &Settings, store: &mut dyn SharedStore) {
        if let Some((silence, cas)) = Silence::read(settings, store)
            && silence.failures > 0
        {
            Silence { failures: 0, until: 0 }.write(settings, cas, store);
        }
    }

    /// Calls that were under way together fail once.
    pub fn fail(settings: &Settings, is_probe: bool, now: Nanos, store: &mut dyn SharedStore) {
        let found = Silence::read(settings, store);
        let (silence, cas) = found.unwrap_or((Silence { failures: 0, until: 0 }, BLIND));
        if now < silence.until && !is_probe {
            return;
        }
        let pause = FIRST_SILENCE << silence.failures.min(10);
        let until = now.saturating_add(pause.min(LONGEST_SILENCE));
        let failures = silence.failures.saturating_add(1);
        Silence { failures, until }.write(settings, cas, store);
    }
}

impl Silence {
    fn read(settings: &Settings, store: &mut dyn SharedStore) -> Option<(Silence, Cas)> {
        let (bytes, cas) = store.get(&settings.place)?;
        let (failures, until) = bytes.split_first_chunk()?;
        let failures = u32::from_le_bytes(*failures);
        Some((Silence { failures, until: u64::from_le_bytes(until.try_into().ok()?) }, cas))
    }

    fn write(self, settings: &Settings, cas: Cas, store: &mut dyn SharedStore) -> bool {
        let bytes = [&self.failures.to_le_bytes()[..], &self.until.to_le_bytes()].concat();
        store.set(&settings.place, &bytes, cas).is_ok()
    }
}
