use super::*;

const INTERPRETER: &str = SHIPPED[0].1;

#[test]
fn every_shipped_scenario_is_one_and_says_what_it_is() {
    for (name, _) in SHIPPED {
        let scenario = Scenario::find(name).unwrap();
        assert_eq!(scenario.name, name);
        assert!(scenario.operations() >= 10 && scenario.about.ends_with('.'), "{name}");
    }
}

#[test]
fn agents_with_other_seeds_have_other_answers() {
    for name in ["interpreter", "files", "tools"] {
        let scenario = Scenario::find(name).unwrap();
        let (a, b) = (scenario.steps(1, "/tmp").unwrap(), scenario.steps(2, "/tmp").unwrap());
        let different = a.iter().zip(&b).filter(|(a, b)| a.expected != b.expected).count();
        assert!(different >= 5, "{name}: only {different} answers differ");
    }
}

#[test]
fn operations_are_cut_short_and_repeated() {
    let scenario = Scenario::find("interpreter").unwrap().with_operations(12).unwrap();
    let steps = scenario.steps(1, "/tmp").unwrap();
    assert_eq!(steps.len(), 12);
    assert_eq!((&steps[10].name, &steps[10].action), (&steps[0].name, &steps[0].action));
    assert_eq!(scenario.clone().with_operations(3).unwrap().operations(), 3);
    assert!(scenario.clone().with_operations(0).is_err() && scenario.with_operations(1_000_000).is_err());
}

#[test]
fn all_agents_think_equally_long_at_other_moments() {
    let mut scenario = Scenario::find("interpreter").unwrap();
    scenario.think = Duration::from_millis(100);
    let (a, b) = (scenario.thinking(1), scenario.thinking(2));
    assert_ne!(a, b);
    for waits in [a, b] {
        let total: Duration = waits.iter().sum();
        assert!(total.abs_diff(Duration::from_secs(1)) < Duration::from_micros(1), "{total:?}");
        assert!(waits.iter().all(|wait| (30..320).contains(&wait.as_millis())), "{waits:?}");
    }
}

#[test]
fn a_broken_scenario_is_refused_with_what_is_wrong() {
    let error = |text: &str| format!("{:#}", Scenario::parse(text).unwrap_err());
    let changed = |from, to| error(&INTERPRETER.replace(from, to));
    assert!(error("").contains("missing field"), "{}", error(""));
    assert!(changed("{{lines}}", "{{rows}}").contains("no such parameter: {{rows}}"));
    let text = changed("check = \"primes\"", "check = \"prime\"");
    assert!(text.contains("no such check: prime; did you mean primes?"), "{text}");
    let text = changed("[parameters]", "[parameter]");
    assert!(text.contains("no such key: parameter; did you mean parameters?"), "{text}");
    let text = changed("check = \"primes\"", "chek = \"primes\"");
    assert!(text.contains("operation 7: no such key: chek; did you mean check?"), "{text}");
    let text = changed("shell = ", "measure = \"x\"\nshell = ");
    assert!(text.contains("only a cell can measure"), "{text}");
}

#[test]
fn an_unknown_scenario_is_refused_with_the_nearest() {
    let error = Scenario::find("interpeter").unwrap_err().to_string();
    assert!(error.contains("did you mean interpreter?"), "{error}");
    let error = format!("{:#}", Scenario::find("/nowhere/x.toml").unwrap_err());
    assert!(error.contains("cannot read the scenario /nowhere/x.toml"), "{error}");
}
