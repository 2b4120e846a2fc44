//! What a thread is told to be and tells again, and of which little has an effect here.

/// Settings of a thread that its children inherit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The nice value, from -20 to 19 (setpriority(2)). Every task gets its turn whatever it is.
    pub nice: i32,
    /// The scheduling policy, one of the `SCHED_` constants (sched(7)).
    pub policy: u32,
    /// Whether children start with nice 0 at the least (SCHED_RESET_ON_FORK).
    pub reset_on_fork: bool,
    /// The I/O priority: class and level (ioprio_set(2)); 0 where none was set.
    pub io_priority: u16,
    /// How late timers may be, in ns (prctl PR_SET_TIMERSLACK). They are not on purpose.
    pub timer_slack_ns: u64,
    /// What PR_SET_TIMERSLACK with 0 goes back to, in ns.
    pub default_timer_slack_ns: u64,
    /// The persona (personality(2)).
    pub personality: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            nice: 0,
            policy: 0,
            reset_on_fork: false,
            io_priority: 0,
            timer_slack_ns: 50_000,
            default_timer_slack_ns: 50_000,
            personality: 0,
        }
    }
}

impl Settings {
    /// ADDR_NO_RANDOMIZE of personality(2): programs lie where they would without randomness.
    pub const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;

    /// Returns the settings that a child starts with.
    pub fn inherit(self) -> Settings {
        let mut child = Settings { default_timer_slack_ns: self.timer_slack_ns, ..self };
        if self.reset_on_fork {
            (child.nice, child.reset_on_fork) = (self.nice.max(0), false);
        }
        child
    }

    /// Says whether what the thread executes lies at addresses that are not random.
    pub fn has_fixed_addresses(self) -> bool {
        self.personality & Settings::ADDR_NO_RANDOMIZE != 0
    }
}
