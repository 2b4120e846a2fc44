//! What README.md tells of the tests.

use std::path::Path;

use libtest_mimic::Failed;

/// Whether it tells this number of attacks.
pub fn tells_attacks(count: usize) -> Result<(), Failed> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root").join("README.md");
    let text = std::fs::read_to_string(readme).map_err(|error| error.to_string())?;
    let told = format!("{count} attacks");
    if text.contains(&told) { Ok(()) } else { Err(format!("it does not say \"{told}\"").into()) }
}
