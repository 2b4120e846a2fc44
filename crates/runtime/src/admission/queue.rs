//! Who waits, and whose turn it is: [`FairQueue`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// On whose behalf a sandbox is asked for. Tenants take turns when sandboxes are short; within one, the first to ask is the
/// first to get. Whoever names no tenant shares the default one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant(Arc<str>);

impl Default for Tenant {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl From<&str> for Tenant {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

/// First in, first out within a tenant; round robin between tenants. Everything is logarithmic in the number of those
/// who wait, leaving out of turn too.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    lines: HashMap<Tenant, Line<T>>,
    /// The tenants who have somebody waiting, in the order of their turns.
    turns: BTreeMap<u64, Tenant>,
    next_number: u64,
    len: usize,
}

#[derive(Debug)]
struct Line<T> {
    turn: u64,
    /// Never empty. By their tickets, which only grow.
    waiting: BTreeMap<u64, T>,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Ticket {
    tenant: Tenant,
    number: u64,
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        Self { lines: HashMap::new(), turns: BTreeMap::new(), next_number: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, tenant: Tenant, item: T) -> Ticket {
        let number = self.next_number;
        // One number for the turn of a new line, one for the place in it.
        self.next_number += 2;
        let line = self.lines.entry(tenant.clone()).or_insert_with(|| {
            self.turns.insert(number, tenant.clone());
            Line { turn: number, waiting: BTreeMap::new() }
        });
        line.waiting.insert(number + 1, item);
        self.len += 1;
        Ticket { tenant, number: number + 1 }
    }

    /// Who is next.
    pub(super) fn peek(&self) -> Option<&T> {
        let (_, tenant) = self.turns.first_key_value()?;
        self.lines.get(tenant)?.waiting.first_key_value().map(|(_, item)| item)
    }

    /// Takes out who is next; then it is the next tenant's turn.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (_, tenant) = self.turns.pop_first()?;
        let line = self.lines.get_mut(&tenant)?;
        let (_, item) = line.waiting.pop_first()?;
        self.len -= 1;
        if line.waiting.is_empty() {
            self.lines.remove(&tenant);
        } else {
            line.turn = self.next_number;
            self.next_number += 1;
            self.turns.insert(line.turn, tenant);
        }
        Some(item)
    }

    /// Takes out whoever holds `ticket`, unless it was their turn already.
    pub(super) fn remove(&mut self, ticket: &Ticket) -> Option<T> {
        let line = self.lines.get_mut(&ticket.tenant)?;
        let item = line.waiting.remove(&ticket.number)?;
        self.len -= 1;
        if line.waiting.is_empty() {
            self.turns.remove(&line.turn);
            self.lines.remove(&ticket.tenant);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push<'a>(queue: &mut FairQueue<&'a str>, items: &[&'a str]) -> Vec<Ticket> {
        items.iter().map(|item| queue.push(Tenant::from(&item[..1]), item)).collect()
    }

    fn pop_all(queue: &mut FairQueue<&str>) -> String {
        let mut popped = Vec::new();
        while let Some(item) = queue.peek().copied() {
            assert_eq!(queue.pop(), Some(item));
            popped.push(item);
        }
        assert!(queue.is_empty() && queue.lines.is_empty() && queue.turns.is_empty());
        popped.join(" ")
    }

    #[test]
    fn tenants_take_turns_and_each_is_served_in_order() {
        let mut queue = FairQueue::new();
        push(&mut queue, &["a1", "a2", "a3", "b1", "c1", "b2"]);
        assert_eq!(queue.len(), 6);
        assert_eq!(pop_all(&mut queue), "a1 b1 c1 a2 b2 a3");
    }

    #[test]
    fn who_comes_back_is_behind_those_who_wait() {
        let mut queue = FairQueue::new();
        push(&mut queue, &["a1", "b1", "b2"]);
        assert_eq!(queue.pop(), Some("a1"));
        push(&mut queue, &["a2", "c1"]);
        assert_eq!(pop_all(&mut queue), "b1 a2 c1 b2");
    }

    #[test]
    fn who_leaves_is_gone_and_takes_nobody_along() {
        let mut queue = FairQueue::new();
        let tickets = push(&mut queue, &["a1", "a2", "b1", "c1", "c2"]);
        assert_eq!(queue.remove(&tickets[0]), Some("a1"));
        assert_eq!(queue.remove(&tickets[0]), None);
        assert_eq!(queue.remove(&tickets[2]), Some("b1"));
        assert_eq!(queue.pop(), Some("a2"));
        assert_eq!(queue.remove(&tickets[1]), None);
        assert_eq!(pop_all(&mut queue), "c1 c2");
    }
}
