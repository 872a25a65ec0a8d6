//! stub
pub struct Baggage<'a>(Vec<&'a [u8]>);
impl<'a> Baggage<'a> {
  pub fn parse(_: impl Iterator<Item = &'a [u8]>) -> Baggage<'a> { Baggage(Vec::new()) }
  pub fn retain(&mut self, _: impl Fn(&[u8]) -> bool) {}
  pub fn limit(&mut self, _: usize, _: usize) {}
  pub fn set(&mut self, _: &str, _: &[u8]) {}
  pub fn is_changed(&self) -> bool { false }
  pub fn write(&self) -> String { String::new() }
}
