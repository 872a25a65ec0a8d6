//! stub
use super::call::Open;
use super::context::{SpanContext, SpanId};
use super::propagation::Found;
use super::worker::Worker;
use crate::core::policy::Common;
use crate::core::ports::{Attributes, Clock, Ports};
use crate::core::request::Request;
use weir_protos::FieldError;
#[derive(Debug)]
pub struct SpanRules;
#[derive(Debug)]
pub struct Hop;
impl SpanRules {
    pub fn compile(
        _: &weir_protos::v1::Spans,
        _: &Common,
        _: &str,
    ) -> Result<SpanRules, FieldError> {
        Ok(SpanRules)
    }
    pub(super) fn begin<'r>(
        &'r self,
        _: &mut Request<'r>,
        _: Option<SpanId>,
        _: &Found<'_>,
        _: Option<Open>,
        _: &mut impl Ports,
    ) -> Hop {
        Hop
    }
}
impl Hop {
    pub fn end(
        self,
        _: &SpanContext,
        _: bool,
        _: Option<u16>,
        _: &mut Worker,
        _: &mut (impl Attributes + Clock),
    ) {
    }
}
