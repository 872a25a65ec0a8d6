//! What a request costs: a constant, what its header says, or what the response says afterwards.

use std::cell::Cell;
use std::rc::Rc;

use weir_protos::FieldError;
use weir_protos::v1::{Cost as Source, cost::Apply};

use super::bucket::Bill;
use super::slots::MAX_TOKENS;
use crate::core::headers::{HeaderMap, header_name};

#[derive(Debug)]
pub struct Cost {
    pub constant: u64,
    request_header: Option<Box<[u8]>>,
    response: Option<Rc<ResponseCost>>,
    odd: Rc<Cell<u64>>,
}

/// The part that a stream takes along until its response.
#[derive(Debug, PartialEq)]
pub struct ResponseCost {
    header: Box<[u8]>,
    pub max_debt: Option<u64>,
    odd: Rc<Cell<u64>>,
}

/// What a header says of a cost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Nothing,
    Cost(u64),
    /// No number, or several.
    Odd,
}

impl Cost {
    /// `max_tokens` is the bucket's size.
    #[cold]
    pub fn compile(
        source: Option<&Source>,
        max_tokens: u64,
        path: &str,
    ) -> Result<Cost, FieldError> {
        let fallback = Source::default();
        let source = source.unwrap_or(&fallback);
        let path = format!("{path}.cost");
        let constant = source.constant.unwrap_or(1);
        if !(1..=MAX_TOKENS).contains(&constant) {
            let path = format!("{path}.constant");
            return Err(FieldError::value(path, constant, "must be from 1 to 1000000000"));
        }
        if constant > max_tokens {
            let remedy = format!("must be at most max_tokens, {max_tokens}: nothing would pass");
            return Err(FieldError::value(format!("{path}.constant"), constant, remedy));
        }
        let header = |name: &str, field: &str| match name {
            "" => Ok(None),
            name => header_name(name).map(|name| Some(name.into_bytes().into())).ok_or_else(|| {
                let remedy = "must be a header name, such as x-cost";
                FieldError::value(format!("{path}.{field}"), format_args!("{name:?}"), remedy)
            }),
        };
        let request_header = header(&source.request_header, "request_header")?;
        let response_header: Option<Box<[u8]>> =
            header(&source.response_header, "response_header")?;
        let wrong_phase = match (source.apply(), &response_header) {
            (Apply::OnResponse, None) => Some(("ON_RESPONSE", "goes with `response_header` alone")),
            (Apply::OnRequest, Some(_)) => {
                Some(("ON_REQUEST", "does not go with `response_header`, which comes later"))
            }
            _ => None,
        };
        if let Some((given, remedy)) = wrong_phase {
            return Err(FieldError::value(format!("{path}.apply"), given, remedy));
        }
        if let Some(debt) = source.max_debt {
            let path = format!("{path}.max_debt");
            if response_header.is_none() {
                let remedy = "goes with `response_header` alone; remove it";
                return Err(FieldError::value(path, debt, remedy));
            }
            if debt > MAX_TOKENS {
                return Err(FieldError::value(path, debt, "must be from 0 to 1000000000"));
            }
        }
        let (odd, max_debt) = (Rc::<Cell<u64>>::default(), source.max_debt);
        let response = response_header
            .map(|header| Rc::new(ResponseCost { header, max_debt, odd: Rc::clone(&odd) }));
        Ok(Cost { constant, request_header, response, odd })
    }

    pub fn of_request(&self, headers: &HeaderMap) -> u64 {
        let Some(name) = &self.request_header else { return self.constant };
        match said(headers, name) {
            // Free requests are for an allow list: anybody could write a nought.
            Said::Cost(0) | Said::Odd => {
                count(&self.odd);
                self.constant
            }
            Said::Cost(cost) => cost,
            Said::Nothing => self.constant,
        }
    }

    pub fn of_response(&self) -> Option<&Rc<ResponseCost>> {
        self.response.as_ref()
    }

    /// Headers that were no cost, since the last time.
    pub fn take_odd(&self) -> u64 {
        self.odd.take()
    }

    pub fn reads_headers(&self) -> bool {
        self.request_header.is_some() || self.response.is_some()
    }
}

impl ResponseCost {
    /// What the response says of the bill's cost; `None` where what was paid is the cost.
    pub fn of(&self, bill: &Bill, response: &HeaderMap) -> Option<u64> {
        match said(response, &self.header) {
            Said::Cost(cost) => (cost != bill.paid).then_some(cost),
            Said::Odd => {
                count(&self.odd);
                None
            }
            Said::Nothing => None,
        }
    }
}

fn count(odd: &Cell<u64>) {
    odd.set(odd.get().saturating_add(1));
}

/// Digits alone are a cost; one past the largest counts as the largest.
fn said(headers: &HeaderMap, name: &[u8]) -> Said {
    let mut lines = headers.all(name);
    let Some(value) = lines.next() else { return Said::Nothing };
    if lines.next().is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Said::Odd;
    }
    let digits = value.iter().map(|digit| u64::from(digit.wrapping_sub(b'0')));
    let number =
        digits.fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(digit));
    Said::Cost(number.min(MAX_TOKENS))
}

#[cfg(test)]
#[path = "cost_tests.rs"]
mod tests;
