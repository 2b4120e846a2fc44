//! When the agents of a repetition are asked for.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::random::Random;

/// How many lives each place of a closed loop has.
const CLOSED_LIVES: usize = 3;

/// When agents are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// All N at the same moment.
    Burst,
    /// N, one after the other at random moments: so many per second on average. Times count from the planned moment,
    /// so an agent that had to wait for the harness has waited (no coordinated omission).
    Poisson(f64),
    /// N at a time: whenever one has ended another begins, until each place has had three lives.
    Closed,
}

impl Arrival {
    /// How many lives one of N agents has.
    pub(crate) fn lives_each(self) -> usize {
        match self {
            Self::Burst | Self::Poisson(_) => 1,
            Self::Closed => CLOSED_LIVES,
        }
    }

    /// When each of `agents` is asked for, after the start of the repetition.
    pub(crate) fn moments(self, agents: usize, seed: u64) -> Vec<Duration> {
        match self {
            Self::Burst | Self::Closed => vec![Duration::ZERO; agents],
            Self::Poisson(rate) => {
                let mut random = Random::new(seed);
                let mut at = 0.0;
                let next = || {
                    at += random.exponential(1.0 / rate);
                    Duration::from_secs_f64(at)
                };
                std::iter::repeat_with(next).take(agents).collect()
            }
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Burst => f.write_str("burst"),
            Self::Poisson(rate) => write!(f, "poisson:{rate}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl FromStr for Arrival {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "burst" => Ok(Self::Burst),
            None if text == "closed" => Ok(Self::Closed),
            Some(("poisson", rate)) => {
                let rate: f64 = rate.parse().with_context(|| format!("{rate:?} is not a number"))?;
                ensure!((0.01..=10_000.0).contains(&rate), "a rate is from 0.01 to 10000 agents per second");
                Ok(Self::Poisson(rate))
            }
            _ => bail!("{text:?} is none of burst, closed, poisson:RATE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_read_and_written_alike() {
        for text in ["burst", "closed", "poisson:2.5"] {
            assert_eq!(text.parse::<Arrival>().unwrap().to_string(), text);
        }
        for text in ["", "poisson", "poisson:x", "poisson:0", "poisson:nan", "burst:1"] {
            assert!(text.parse::<Arrival>().is_err(), "{text}");
        }
    }

    #[test]
    fn random_arrivals_come_at_their_rate_and_again_with_the_same_seed() {
        let moments = Arrival::Poisson(100.0).moments(2000, 1);
        assert!(moments.is_sorted());
        let seconds = moments.last().unwrap().as_secs_f64();
        assert!((17.0..23.0).contains(&seconds), "{seconds}");
        assert_eq!(moments, Arrival::Poisson(100.0).moments(2000, 1));
        assert_ne!(moments, Arrival::Poisson(100.0).moments(2000, 2));
        assert_eq!(Arrival::Burst.moments(2, 1), [Duration::ZERO; 2]);
    }
}
