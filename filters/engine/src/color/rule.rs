//! One rule: which requests it means, and what color they get.

use std::cell::{Cell, RefCell};

use weir_protos::FieldError;
use weir_protos::v1::color_rule::{Hash, OnMissingKey};
use weir_protos::v1::{ColorRule, KeyPart, direction, mode};

use super::auto::Auto;
use super::carry::Color;
use super::guard::Guard;
use super::hash;
use super::lanes::color;
use super::schedule::Schedule;
use super::share::Shares;
use crate::core::key::{MAX_PARTS, value_source};
use crate::core::matcher::Matcher;
use crate::core::policy::{Common, effective_mode};
use crate::core::ports::{Attributes, Nanos};
use crate::core::request::Request;
use crate::core::rules::rule_id;
use crate::core::source::Source;

pub struct Rule {
    pub id: String,
    pub mode: mode::Value,
    pub matcher: Matcher,
    pub gives: Gives,
    pub auto: Option<RefCell<Auto>>,
    pub guard: Option<RefCell<Guard>>,
    pub keeps_trusted: bool,
    schedule: Option<Schedule>,
    /// Requests by the color that they got, at the places of [`Rule::colors`].
    pub counts: Vec<(Color, Cell<u64>)>,
    /// What the gauge of the first share says, where it was written.
    pub written_share: Cell<Option<u16>>,
}

pub enum Gives {
    Color(Color),
    Shares { shares: Shares, full: u16, key: Vec<Source>, hash: Hash, sticks: bool },
}

/// What a rule says to a request that it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Color(Color),
    /// Outside the shares, or not at this time.
    Nothing,
    /// The key is missing, and is to be a random one.
    NeedsKey,
}

impl Rule {
    /// `None` for a rule that is off.
    #[cold]
    pub fn compile(
        source: &ColorRule,
        colors: &[String],
        common: &Common,
        section: mode::Value,
        path: &str,
    ) -> Result<Option<Rule>, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        rule_id(&source.id, &at("id"))?;
        let gives = Gives::compile(source, colors, common, path)?;
        let full = match &gives {
            Gives::Color(_) => 10_000,
            Gives::Shares { full, .. } => *full,
        };
        let needs_shares = |field: &str, is_there: bool| {
            if is_there && matches!(gives, Gives::Color(_)) {
                let remedy = "moves a share; give `shares` in place of `color`";
                return Err(FieldError::at(at(field), remedy));
            }
            Ok(())
        };
        let moves = source.schedule.as_ref().filter(|s| s.ramp.is_some() || !s.steps.is_empty());
        needs_shares("schedule", moves.is_some())?;
        needs_shares("auto", source.auto.is_some())?;
        if source.auto.is_some() && moves.is_some() {
            let remedy =
                "moves the share by the rate; it does not go with `schedule.ramp` or `steps`";
            return Err(FieldError::at(at("auto"), remedy));
        }
        let prefix = format!("{}/tf/{}", common.identity.state_prefix, source.id);
        let defaults = common.match_defaults(direction::Value::Any).plain();
        let mut given: Vec<Color> = match &gives {
            Gives::Color(color) => vec![*color],
            Gives::Shares { shares, .. } => shares.colors().collect(),
        };
        given.dedup();
        let rule = Rule {
            mode: effective_mode(&[common.mode, section, source.mode()]),
            matcher: Matcher::compile(source.r#match.as_ref(), &at("match"), &defaults)?,
            schedule: match &source.schedule {
                Some(schedule) => Some(Schedule::compile(schedule, full, &at("schedule"))?),
                None => None,
            },
            auto: match &source.auto {
                Some(auto) => {
                    Some(RefCell::new(Auto::compile(auto, &format!("{prefix}/auto"), &at("auto"))?))
                }
                None => None,
            },
            guard: match &source.guard {
                Some(guard) => {
                    let guard = Guard::compile(guard, &format!("{prefix}/guard"), &at("guard"))?;
                    Some(RefCell::new(guard))
                }
                None => None,
            },
            keeps_trusted: source.guard.as_ref().is_some_and(|guard| guard.keep_trusted),
            counts: given.into_iter().map(|color| (color, Cell::new(0))).collect(),
            written_share: Cell::new(None),
            gives,
            id: source.id.clone(),
        };
        Ok((rule.mode != mode::Value::Off).then_some(rule))
    }

    /// Whether the first share changes by itself.
    pub fn moves(&self) -> bool {
        self.auto.is_some() || self.schedule.is_some()
    }

    pub fn enforces(&self) -> bool {
        self.mode == mode::Value::Enforce
    }

    /// Whether clients without a key get a random one in a cookie.
    pub fn sticks(&self) -> bool {
        matches!(self.gives, Gives::Shares { sticks: true, .. })
    }

    /// The color that the rule is about: the one that its guard watches.
    pub fn first(&self) -> Color {
        match &self.gives {
            Gives::Color(color) => *color,
            Gives::Shares { shares, .. } => shares.colors().next().unwrap_or(0),
        }
    }

    pub fn is_tripped(&self) -> bool {
        let guard = self.guard.as_ref().and_then(|guard| guard.try_borrow().ok());
        guard.is_some_and(|guard| guard.is_tripped())
    }

    /// Basis points of the first share now; `None` where the rule does not hold.
    pub fn first_weight(&self, wall: impl FnOnce() -> Nanos) -> Option<u16> {
        let full = match &self.gives {
            Gives::Color(_) => 10_000,
            Gives::Shares { full, .. } => *full,
        };
        let scheduled = match &self.schedule {
            Some(schedule) => schedule.first_weight(wall())?,
            None => full,
        };
        let auto = self.auto.as_ref().and_then(|auto| auto.try_borrow().ok());
        Some(auto.map_or(scheduled, |auto| auto.weight().min(scheduled)))
    }

    /// What a request that matches gets. `sticky` is the key of its cookie.
    pub fn answer<'r>(
        &'r self,
        request: &mut Request<'r>,
        weight: u16,
        sticky: Option<&[u8]>,
        attributes: &mut impl Attributes,
    ) -> Answer {
        let (shares, sticks) = match &self.gives {
            Gives::Color(color) => return Answer::Color(*color),
            Gives::Shares { shares, sticks, .. } => (shares, *sticks),
        };
        match self.bucket(request, sticky, attributes) {
            Some(bucket) => shares.pick(bucket, weight).map_or(Answer::Nothing, Answer::Color),
            None if sticks => Answer::NeedsKey,
            None => Answer::Nothing,
        }
    }

    /// The bucket of the request's key; `None` without shares or without a key.
    pub fn bucket<'r>(
        &'r self,
        request: &mut Request<'r>,
        sticky: Option<&[u8]>,
        attributes: &mut impl Attributes,
    ) -> Option<u16> {
        let Gives::Shares { key, hash, sticks, .. } = &self.gives else { return None };
        let mut bytes: Vec<u8> = Vec::new();
        let mut is_missing = false;
        for (place, source) in key.iter().enumerate() {
            if place > 0 {
                bytes.push(0);
            }
            match source.read(request, attributes) {
                Some(value) => bytes.extend_from_slice(&value),
                None => is_missing = true,
            }
        }
        if is_missing {
            bytes = sticky.filter(|_| *sticks)?.to_vec();
        }
        Some(match hash {
            Hash::Fnv1a32Mod100 => hash::bucket_mod100(&bytes),
            Hash::Fnv1a32Fmix | Hash::Unspecified => hash::bucket(&self.id, &bytes),
        })
    }

    pub fn count(&self, color: Color) {
        if let Some((_, count)) = self.counts.iter().find(|(counted, _)| *counted == color) {
            count.set(count.get().saturating_add(1));
        }
    }
}

impl Gives {
    #[cold]
    fn compile(
        source: &ColorRule,
        colors: &[String],
        common: &Common,
        path: &str,
    ) -> Result<Gives, FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        if source.shares.is_empty() {
            if source.color.is_empty() {
                return Err(FieldError::at(path, "must have one of: color, shares"));
            }
            let alone = [
                ("key", source.key.is_empty()),
                ("hash", source.hash() == Hash::Unspecified),
                ("on_missing_key", source.on_missing_key() == OnMissingKey::Unspecified),
            ];
            if let Some((field, _)) = alone.iter().find(|(_, is_absent)| !is_absent) {
                return Err(FieldError::at(at(field), "goes with `shares` alone; remove it"));
            }
            return Ok(Gives::Color(color(&source.color, colors, &at("color"))?));
        }
        if !source.color.is_empty() {
            return Err(FieldError::at(at("color"), "excludes `shares`; keep one of the two"));
        }
        if source.key.is_empty() {
            let remedy =
                "is missing; say what a share is made of, e.g. a header with the user's id";
            return Err(FieldError::at(at("key"), remedy));
        }
        let hash = source.hash();
        let shares = Shares::compile(&source.shares, hash, colors, &at("shares"))?;
        let first = source.shares.first().map_or(0, |share| share.weight);
        Ok(Gives::Shares {
            shares,
            full: u16::try_from(first).unwrap_or(10_000),
            key: key(&source.key, &common.color_header, &at("key"))?,
            hash,
            sticks: source.on_missing_key() == OnMissingKey::StickyCookie,
        })
    }
}

/// The sources whose values are hashed, with a NUL between them.
#[cold]
fn key(parts: &[KeyPart], color_header: &[u8], path: &str) -> Result<Vec<Source>, FieldError> {
    if parts.len() > MAX_PARTS {
        return Err(FieldError::value(path, parts.len(), "parts: must have at most 16"));
    }
    let each = parts.iter().enumerate();
    each.map(|(place, part)| value_source(part, color_header, &format!("{path}[{place}]")))
        .collect()
}
