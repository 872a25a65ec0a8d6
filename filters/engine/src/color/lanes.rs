//! The section `lanes`: which colors have instances of a service.

use weir_protos::FieldError;
use weir_protos::v1::lanes::LaneMode;
use weir_protos::v1::{Lanes as Source, direction};

use super::carry::{CarryRules, Color};
use crate::core::index::Index;
use crate::core::matcher::Matcher;
use crate::core::policy::Common;
use crate::core::ports::Attributes;
use crate::core::request::Request;

const MAX_LANES: usize = 1000;
const MAX_UNINDEXED: usize = 64;

pub struct LaneRules {
    is_strict: bool,
    fallback: Color,
    lanes: Vec<(Matcher, Vec<Color>)>,
    index: Index,
}

/// What a color meets on this hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Instances of its own, as far as is known.
    Own,
    Fallback(Color),
    /// None, and no other will do.
    Closed,
}

impl LaneRules {
    #[cold]
    pub fn compile(
        source: &Source,
        colors: &[String],
        carry: &CarryRules,
        common: &Common,
        path: &str,
    ) -> Result<LaneRules, FieldError> {
        let is_strict = source.mode() == LaneMode::Strict;
        if source.lanes.len() > MAX_LANES {
            let path = format!("{path}.lanes");
            return Err(FieldError::value(path, source.lanes.len(), "lanes: must be at most 1000"));
        }
        if !is_strict && !carry.prefers_member() {
            let remedy = "PERMISSIVE writes the fallback into the header and keeps the color in baggage, \
                          which has to win at the hops to come: give `carry.in: [HEADER, BAGGAGE]` \
                          without `winner: HEADER`, or mode STRICT";
            return Err(FieldError::at(format!("{path}.mode"), remedy));
        }
        let fallback = match source.fallback.as_str() {
            "" => 0,
            name => color(name, colors, &format!("{path}.fallback"))?,
        };
        if is_strict && !source.fallback.is_empty() {
            let remedy = "goes with mode PERMISSIVE; remove it";
            return Err(FieldError::at(format!("{path}.fallback"), remedy));
        }
        let defaults = common.match_defaults(direction::Value::Any).plain();
        let lanes = source.lanes.iter().enumerate().map(|(place, lane)| {
            let path = format!("{path}.lanes[{place}]");
            if lane.r#match.is_none() {
                let remedy = "is missing; say which service this is, e.g. by authority";
                return Err(FieldError::at(format!("{path}.match"), remedy));
            }
            if lane.colors.is_empty() {
                let remedy = "is missing; say which colors have instances of it";
                return Err(FieldError::at(format!("{path}.colors"), remedy));
            }
            let own = lane.colors.iter().enumerate();
            let own = own.map(|(n, name)| color(name, colors, &format!("{path}.colors[{n}]")));
            let matcher =
                Matcher::compile(lane.r#match.as_ref(), &format!("{path}.match"), &defaults)?;
            Ok((matcher, own.collect::<Result<Vec<_>, _>>()?))
        });
        let lanes = lanes.collect::<Result<Vec<_>, _>>()?;
        let index = Index::build(lanes.iter().map(|(matcher, _)| matcher));
        if let Some(lane) = index.unindexed().get(MAX_UNINDEXED) {
            let remedy = "is one of more than 64 lanes without an exact or prefix condition on path, \
                          authority or a header; give it one";
            return Err(FieldError::at(format!("{path}.lanes[{lane}]"), remedy));
        }
        Ok(LaneRules { is_strict, fallback, lanes, index })
    }

    pub fn of<'r>(
        &'r self,
        color: Color,
        request: &mut Request<'r>,
        found: &mut Vec<u32>,
        attributes: &mut impl Attributes,
    ) -> Lane {
        self.index.candidates(request, found);
        let mut lanes = found.iter().filter_map(|place| self.lanes.get(*place as usize));
        match lanes.find(|(matcher, _)| matcher.matches(request, attributes)) {
            Some((_, colors)) if !colors.contains(&color) => {
                if self.is_strict {
                    Lane::Closed
                } else {
                    Lane::Fallback(self.fallback)
                }
            }
            _ => Lane::Own,
        }
    }
}

/// The place of a color that the policy names.
#[cold]
pub fn color(name: &str, colors: &[String], path: &str) -> Result<Color, FieldError> {
    colors.iter().position(|color| color == name).ok_or_else(|| {
        let remedy = format!("must be one of `colors`: {}", colors.join(", "));
        FieldError::value(path, format_args!("{name:?}"), remedy)
    })
}
