//! stand-in
use crate::core::ports::{Nanos, SharedStore};
use weir_protos::FieldError;
pub struct Auto;
impl Auto {
    pub fn compile(_: &weir_protos::v1::Auto, _: &str, _: &str) -> Result<Auto, FieldError> {
        Ok(Auto)
    }
    pub fn prepare(&mut self, _: Nanos, _: &mut impl SharedStore) {}
    pub fn count(&mut self) {}
    pub fn tick(&mut self, _: Nanos, _: &mut impl SharedStore) {}
    pub fn weight(&self) -> u16 {
        0
    }
}
