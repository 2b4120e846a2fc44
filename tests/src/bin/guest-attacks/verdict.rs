//! What the programs of attacks have in common: how an attack ended, and what they are told.

use std::process::ExitCode;

/// How an attack was refused, or what it got.
pub type Verdict = Result<String, String>;

/// Says how an attack ended, for the test to read.
pub fn tell(verdict: Verdict) -> ExitCode {
    match verdict {
        Ok(how) => {
            println!("refused: {how}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("GOT THROUGH: {what}");
            ExitCode::FAILURE
        }
    }
}

/// The answer to a question about a variable of the environment.
pub fn told(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not told"))
}
