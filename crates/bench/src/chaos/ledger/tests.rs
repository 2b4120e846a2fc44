//! Lives and faults that are told to the accounts, by hand.

use super::super::schedule::plan;
use super::*;

const KILLED: VmmId = VmmId { pid: 7, started: 70 };
const OTHER: VmmId = VmmId { pid: 8, started: 80 };

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Accounts of two agents; event 0 is of this kind.
fn ledger(fault: FaultKind) -> Ledger {
    Ledger::new(2, &plan(1, 3, &[fault]))
}

fn over(result: Result<Done, Ending>) -> LifeEnd {
    LifeEnd { read_back: 5, result }
}

fn well() -> LifeEnd {
    over(Ok(Done::Reported))
}

fn killed() -> LifeEnd {
    over(Err(Ending::VmmKilled("signal 9".to_owned())))
}

fn not_forked() -> LifeEnd {
    over(Err(Ending::NotForked("the original is over".to_owned())))
}

#[test]
fn a_life_that_is_hit_may_end_with_the_right_error_only() {
    let cases = [
        (killed(), 1, 0),
        (over(Ok(Done::Silent)), 0, 0),
        (over(Err(Ending::Wrong("6*7 is 41".to_owned()))), 0, 1),
        (over(Err(Ending::Lost("no /tmp/a".to_owned()))), 0, 1),
        (over(Err(Ending::Hung("reading".to_owned()))), 0, 1),
        (over(Err(Ending::Failed("odd".to_owned()))), 0, 1),
        (not_forked(), 1, 0),
    ];
    for (end, ended, failures) in cases {
        let mut ledger = ledger(FaultKind::KillVmm);
        ledger.begin(0, at(0));
        ledger.claimed(0, KILLED);
        ledger.strike(0, KILLED, at(10));
        assert!(!ledger.is_recovered() && ledger.was_killed(KILLED) && !ledger.was_killed(OTHER));
        ledger.end(0, at(12), end.clone());
        ledger.begin(0, at(13));
        ledger.end(0, at(30), well());
        assert!(ledger.is_recovered());
        let closed = ledger.close();
        assert_eq!((closed.counts.hit_ended, closed.failures.len()), (ended, failures), "{end:?}");
        assert_eq!((closed.counts.hit, closed.counts.not_hit_completed), (1, 1), "{end:?}");
        let event = &closed.events[0];
        assert_eq!((event.affected, event.ended, event.struck.as_deref()), (1, ended, Some("agent 0")));
        let recovered = if matches!(end.result, Ok(Done::Silent)) { 2.0 } else { 20.0 };
        assert_eq!(event.recover_ms, [recovered], "{end:?}");
    }
}

#[test]
fn an_error_that_no_fault_explains_is_a_failure() {
    for end in [killed(), not_forked(), over(Ok(Done::Silent))] {
        let mut ledger = ledger(FaultKind::KillVmm);
        ledger.begin(0, at(20));
        ledger.claimed(0, OTHER);
        // Another vmm, and before the life began.
        ledger.strike(0, KILLED, at(10));
        ledger.end(0, at(30), end.clone());
        let closed = ledger.close();
        assert_eq!((closed.failures.len(), closed.counts.not_hit), (1, 1), "{end:?}");
        assert_eq!((closed.counts.not_hit_completed, closed.counts.hit), (0, 0), "{end:?}");
    }
}

#[test]
fn a_stop_explains_no_end() {
    let mut ledger = ledger(FaultKind::StopVmm);
    for end in [well(), killed()] {
        ledger.begin(0, at(0));
        ledger.claimed(0, KILLED);
        ledger.strike(0, KILLED, at(10));
        ledger.end(0, at(12), end);
    }
    assert!(!ledger.was_killed(KILLED));
    let closed = ledger.close();
    assert_eq!((closed.counts.hit_survived, closed.counts.hit_ended, closed.failures.len()), (1, 0, 1));
}

#[test]
fn one_that_is_struck_while_it_is_ready_hits_whoever_claims_it() {
    let mut ledger = ledger(FaultKind::KillVmm);
    ledger.strike(0, KILLED, at(10));
    assert!(ledger.is_recovered());
    ledger.begin(1, at(20));
    ledger.claimed(1, KILLED);
    ledger.end(1, at(25), killed());
    let closed = ledger.close();
    assert_eq!((closed.events[0].affected, closed.events[0].ended, closed.failures.len()), (1, 1, 0));
    assert_eq!(closed.events[0].struck.as_deref(), Some("spare"));
}

#[test]
fn a_fork_in_the_making_that_is_killed_explains_one_claim() {
    let mut ledger = ledger(FaultKind::KillVmm);
    for agent in [0, 1] {
        ledger.begin(agent, at(5));
    }
    ledger.strike(0, KILLED, at(10));
    for agent in [0, 1] {
        ledger.end(agent, at(20), not_forked());
    }
    let closed = ledger.close();
    assert_eq!((closed.counts.hit_ended, closed.failures.len()), (1, 1));
}

#[test]
fn a_killed_template_explains_claims_until_it_is_replaced() {
    let mut ledger = ledger(FaultKind::KillTemplate);
    let claim = |ledger: &mut Ledger, began, ended| {
        ledger.begin(0, at(began));
        ledger.end(0, at(ended), not_forked());
    };
    claim(&mut ledger, 0, 9);
    ledger.inject(0, at(10));
    claim(&mut ledger, 9, 11);
    claim(&mut ledger, 12, 13);
    ledger.replaced(0, at(100));
    claim(&mut ledger, 99, 101);
    claim(&mut ledger, 101, 102);
    let closed = ledger.close();
    assert_eq!((closed.events[0].affected, closed.counts.hit_ended), (3, 3));
    // Before it was killed, and after it was replaced.
    assert_eq!((closed.counts.not_hit, closed.failures.len()), (2, 2));
    assert_eq!(closed.events[0].errors["the original is over"], 3);
}

#[test]
fn a_fault_of_the_whole_host_touches_all_and_hits_none() {
    let mut ledger = ledger(FaultKind::BusyHost);
    ledger.begin(0, at(0));
    ledger.touch_all(0, at(10));
    ledger.begin(1, at(11));
    ledger.end(0, at(50), well());
    ledger.end(1, at(60), over(Err(Ending::Failed("odd".to_owned()))));
    let closed = ledger.close();
    assert_eq!((closed.events[0].affected, closed.events[0].survived), (1, 1));
    assert_eq!(closed.events[0].recover_ms, [40.0]);
    assert_eq!((closed.counts.not_hit, closed.counts.not_hit_completed), (2, 1));
    assert_eq!((closed.life_ms, closed.failures.len()), (vec![50.0], 1));
}

#[test]
fn what_is_read_back_counts_for_the_faults_since_the_beginning_of_the_life() {
    let mut ledger = ledger(FaultKind::BusyHost);
    ledger.touch_all(0, at(10));
    ledger.begin(0, at(20));
    ledger.touch_all(1, at(30));
    ledger.end(0, at(40), well());
    ledger.begin(0, at(41));
    ledger.touch_all(2, at(50));
    ledger.end(0, at(60), over(Err(Ending::Lost("no /tmp/a".to_owned()))));
    let closed = ledger.close();
    let of = |event: usize| (closed.events[event].read_back, closed.events[event].lost);
    assert_eq!([of(0), of(1), of(2)], [(0, 0), (5, 0), (5, 1)]);
    assert_eq!((closed.counts.read_back, closed.counts.lost), (10, 1));
}
