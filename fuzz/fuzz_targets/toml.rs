//! What users write: files of templates, and values of options.

#![no_main]

use lg_runtime::{TemplateSpec, units};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = TemplateSpec::parse(text);
    let _ = units::parse_size(text);
    let _ = units::parse_duration(text);
    let _ = units::parse_user(text);
});
