//! The memory of processes against a model of it ([`model`]), in random sequences of calls.

mod areas;
mod model;
