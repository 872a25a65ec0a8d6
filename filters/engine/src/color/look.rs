//! The rules as a request finds them, for people who ask why. Nothing is decided and nothing counted.

use weir_protos::v1::mode;

use super::Painter;
use crate::color::rule::Gives;
use crate::core::headers::HeaderMap;
use crate::core::ports::Ports;
use crate::core::request::Request;

/// One rule and one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub id: String,
    pub mode: mode::Value,
    /// Whether the rule means the request.
    pub matches: bool,
    /// Basis points of the first share now; `None` where the rule does not hold at this time.
    pub first_weight: Option<u16>,
    /// Whether its guard has turned it off.
    pub is_tripped: bool,
    /// The rule has shares, and this is where the request's key is among 10 000 buckets.
    pub bucket: Option<u16>,
    /// Its shares, whole; none where it gives one color to all.
    pub shares: Vec<Share>,
    /// The color that it gives to all.
    pub color: Option<String>,
    /// A request without a key gets a random one in a cookie.
    pub sticks: bool,
}

/// Buckets from `start`, so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub color: String,
    pub start: u16,
    pub weight: u16,
}

impl Painter {
    /// All rules that are not off, in order.
    pub fn look(&self, headers: &HeaderMap, ports: &mut impl Ports) -> Vec<Look> {
        let each = self.rules.iter().map(|rule| {
            let mut request = Request::new(headers);
            let matches = rule.matcher.matches(&mut request, ports);
            let sticky = self.shared.cookie.read(headers);
            let bucket = rule.bucket(&mut request, sticky, ports);
            let (color, shares) = match &rule.gives {
                Gives::Color(color) => (Some(self.name(*color).to_string()), Vec::new()),
                Gives::Shares { shares, .. } => {
                    let share = |(color, start, weight)| {
                        let color = self.name(color).to_string();
                        Share { color, start, weight }
                    };
                    (None, shares.ranges().into_iter().map(share).collect())
                }
            };
            Look {
                id: rule.id.clone(),
                mode: rule.mode,
                matches,
                first_weight: rule.first_weight(|| ports.wall()),
                is_tripped: rule.is_tripped(),
                bucket,
                shares,
                color,
                sticks: rule.sticks(),
            }
        });
        each.collect()
    }

    /// Makes the guard of a rule behave as if it had tripped, until the next tick. False where the rule
    /// has none.
    pub fn trip(&self, rule: &str) -> bool {
        let rule = self.rules.iter().find(|known| known.id == rule);
        let guard = rule.and_then(|rule| rule.guard.as_ref()?.try_borrow().ok());
        guard.map(|guard| guard.trip()).is_some()
    }

    /// Whether the color of a request counts that it brings along.
    pub fn trusts(&self, headers: &HeaderMap, ports: &mut impl Ports) -> bool {
        let mut request = Request::new(headers);
        !self.common.is_edge || self.trusted.iter().any(|from| from.matches(&mut request, ports))
    }
}
