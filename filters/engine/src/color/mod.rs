//! Traffic coloring: decided once, carried along, routed by, guarded.
