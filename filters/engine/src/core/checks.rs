//! Checks of values that the sections of a policy share.

use std::ops::RangeInclusive;

use weir_protos::FieldError;
use weir_protos::reexport::Duration;

use super::ports::Nanos;
