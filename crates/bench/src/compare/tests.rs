use super::*;
use crate::random::Random;

fn run(samples: impl Fn(usize, usize) -> f64) -> Run {
    let groups = (0..8).map(|group| (0..20).map(|n| samples(group, n)).collect()).collect();
    let key = Key { agents: Some(5), metric: "spawn".to_owned() };
    Run { schema: "s".to_owned(), series: [(key, groups)].into(), ..Run::default() }
}

/// Samples with a long tail, as times have.
fn noise(seed: u64, factor: f64) -> Run {
    let random = std::cell::RefCell::new(Random::new(seed));
    run(|_, _| factor * (10.0 + random.borrow_mut().exponential(2.0)))
}

fn verdict(first: Run, second: Run) -> Verdict {
    let sides = Sides::Results([PathBuf::new(), PathBuf::new()]);
    let config = CompareConfig { sides, alpha: 0.05, threshold: 0.02 };
    config.compare(["a".to_owned(), "b".to_owned()], [first, second], false).unwrap().comparisons[0].verdict
}

#[test]
fn chance_is_seldom_called_a_difference() {
    let seen = (0..100)
        .filter(|seed| verdict(noise(2 * seed, 1.0), noise(2 * seed + 1, 1.0)) != Verdict::NoDifferenceSeen);
    let seen = seen.count();
    assert!(seen <= 10, "{seen} of 100");
}

#[test]
fn a_fifth_more_is_slower_and_a_fifth_less_faster() {
    for seed in 0..20 {
        assert_eq!(verdict(noise(seed, 1.0), noise(seed + 1000, 1.2)), Verdict::Slower);
        assert_eq!(verdict(noise(seed, 1.2), noise(seed + 1000, 1.0)), Verdict::Faster);
    }
}

#[test]
fn a_difference_that_is_sure_and_tiny_does_not_count() {
    let flat = |ms: f64| run(move |group, n| ms + (group * 20 + n) as f64 * 1e-6);
    assert_eq!(verdict(flat(10.0), flat(10.1)), Verdict::NoDifferenceSeen);
    assert_eq!(verdict(flat(10.0), flat(10.5)), Verdict::Slower);
}

#[test]
fn few_samples_say_nothing() {
    let few = |ms: f64| {
        let mut run = run(|_, _| ms);
        run.series.values_mut().for_each(|groups| *groups = vec![vec![ms; 3]]);
        run
    };
    assert_eq!(verdict(few(1.0), few(2.0)), Verdict::TooFewSamples);
}

#[test]
fn what_is_not_the_same_is_named_and_only_the_fair_is_compared() {
    let with = |scenario: &str, agents| {
        let mut run = run(|_, _| 1.0);
        run.circumstances.insert("scenario", scenario.to_owned());
        let (key, groups) = run.series.pop_first().unwrap();
        run.series.insert(Key { metric: "execute".to_owned(), ..key.clone() }, groups.clone());
        run.series.insert(Key { agents: Some(agents), ..key.clone() }, groups.clone());
        run.series.insert(key, groups);
        run
    };
    let sides = Sides::Results([PathBuf::new(), PathBuf::new()]);
    let config = CompareConfig { sides, alpha: 0.05, threshold: 0.02 };
    let names = || ["a".to_owned(), "b".to_owned()];
    let found = config.compare(names(), [with("cpu", 10), with("think", 25)], false).unwrap();
    let metrics: Vec<&str> = found.comparisons.iter().map(|c| c.metric.as_str()).collect();
    assert_eq!(metrics, ["spawn"]);
    let warnings = found.warnings.join("\n");
    assert!(warnings.contains("scenario differs: cpu and think"), "{warnings}");
    assert!(
        warnings.contains("only what means the same") && warnings.contains("10, 25 agents"),
        "{warnings}"
    );
    assert!(found.tables().contains("no difference seen"));
    let same = config.compare(names(), [with("cpu", 5), with("cpu", 5)], false).unwrap();
    assert_eq!((same.comparisons.len(), same.warnings.len()), (2, 0));
    let other = Run { schema: "t".to_owned(), ..run(|_, _| 1.0) };
    assert!(
        config
            .compare(names(), [run(|_, _| 1.0), other], false)
            .unwrap_err()
            .to_string()
            .contains("not of one kind")
    );
}
