//! This hop's span, and its way to a collector: gathered by the worker, sent in batches by the tick.

mod exporter;
mod otlp;
mod semantics;
mod settings;
mod span;

pub use exporter::Exporter;
pub use semantics::{Call, Grpc};
pub use settings::ExportSettings;
pub use span::{Kind, Name, Span, Value};

#[cfg(test)]
mod exporter_tests;
#[cfg(test)]
mod settings_tests;
