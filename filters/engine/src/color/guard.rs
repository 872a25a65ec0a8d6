//! stand-in
use crate::core::ports::{Nanos, SharedStore};
use weir_protos::FieldError;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Color,
    Base,
}
pub struct Tripped;
pub struct Guard;
impl Guard {
    pub fn compile(_: &weir_protos::v1::Guard, _: &str, _: &str) -> Result<Guard, FieldError> {
        Ok(Guard)
    }
    pub fn prepare(&mut self, _: Nanos, _: &mut impl SharedStore) {}
    pub fn record(&mut self, _: Group, _: bool, _: Nanos) {}
    pub fn tick(&mut self, _: Nanos, _: &mut impl SharedStore) -> Option<Tripped> {
        None
    }
    pub fn is_tripped(&self) -> bool {
        false
    }
}
