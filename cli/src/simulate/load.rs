//! A load that nobody sent: requests at an even rate, from so many clients.

use weir_engine::core::ports::Nanos;

use super::log::Record;

const S: f64 = 1_000_000_000.0;

pub struct Load {
    pub method: String,
    pub path: String,
    /// `{client}` in a value is the number of the client.
    pub headers: Vec<(String, String)>,
    pub rate: f64,
    pub seconds: f64,
    pub clients: u64,
    pub error_percent: f64,
}

impl Load {
    pub fn count(&self) -> u64 {
        // A load of more than 2^53 requests nobody waits for.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let count = (self.rate * self.seconds).ceil() as u64;
        count
    }

    /// The n-th request, after `first`.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn request(&self, n: u64, first: Nanos) -> Record<'_> {
        let after = (n as f64 / self.rate * S) as u64;
        let client = mix(n) % self.clients.max(1);
        let fails = ((mix(n ^ 0xe77) >> 11) as f64 / (1_u64 << 53) as f64) * 100.0;
        let number = client.to_string();
        let fill = |text: &str| text.replace("{client}", &number);
        Record {
            start: first.saturating_add(after),
            method: self.method.as_str().into(),
            path: fill(&self.path).into(),
            headers: self
                .headers
                .iter()
                .filter(|(name, _)| name != "host")
                .map(|(name, value)| (name.as_str().into(), fill(value).into()))
                .collect(),
            authority: self
                .headers
                .iter()
                .find(|(name, _)| name == "host")
                .map(|(_, value)| fill(value).into())
                .unwrap_or_default(),
            took: 10_000_000,
            status: if fails < self.error_percent { 503 } else { 200 },
            is_upstreams: true,
            ..Record::default()
        }
    }
}

/// `SplitMix64`: the same load in every run.
fn mix(n: u64) -> u64 {
    let mut mixed = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
