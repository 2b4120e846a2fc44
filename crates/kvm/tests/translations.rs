//! What the guest sees of its memory is what the tables say now, whatever was cached before.

mod common;

use common::*;
use lg_kvm::KvmConfig;
use lg_platform::{Access, Frame, Mapping, Platform, Prot, SpaceId, Trap, UserAddr, UserRange};

const READ: Prot = Prot::READ;
const WRITE: Prot = Prot::READ.union(Prot::WRITE);

guest_code!(load_then_store: "mov rax, [rdi]", "syscall", "nop", "nop", "nop", "mov [rdi], rsi", "syscall");
const LOAD: u64 = CODE.0;
const STORE: u64 = CODE.0 + 8;

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Value(u64),
    Fault { present: bool },
}
use Outcome::*;

fn access(guest: &mut Guest, at: u64, kind: Access, addr: UserAddr, value: u64) -> Outcome {
    (guest.thread.regs.rip, guest.thread.regs.rdi, guest.thread.regs.rsi) = (at, addr.0, value);
    match guest.run() {
        Trap::Syscall => Value(guest.thread.regs.rax),
        Trap::PageFault { addr: got, access, present } if got == addr && access == kind => Fault { present },
        trap => panic!("{trap:?}"),
    }
}

fn load(guest: &mut Guest, addr: UserAddr) -> Outcome {
    access(guest, LOAD, Access::Read, addr, 0)
}

fn store(guest: &mut Guest, addr: UserAddr, value: u64) -> Outcome {
    guest.thread.regs.rax = value;
    access(guest, STORE, Access::Write, addr, value)
}

const PAGE: UserAddr = UserAddr(0x5555_5000_0000);

#[test]
fn an_unmapped_page_is_gone_at_once() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    for round in 0..50 {
        guest.write_u64(FREE, 0, round);
        guest.map(PAGE, FREE, WRITE);
        assert_eq!(load(&mut guest, PAGE), Value(round));
        assert_eq!(store(&mut guest, PAGE, !round), Value(!round));
        assert_eq!(guest.read_u64(FREE, 0), !round);
        guest.unmap(PAGE);
        assert_eq!(load(&mut guest, PAGE), Fault { present: false });
        assert_eq!(store(&mut guest, PAGE, 0), Fault { present: false });
    }
}

#[test]
fn a_page_made_read_only_refuses_the_next_store_dirty_or_clean() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    for dirty in [true, false] {
        for _ in 0..20 {
            guest.map(PAGE, FREE, WRITE);
            assert!(matches!(load(&mut guest, PAGE), Value(_)));
            if dirty {
                assert_eq!(store(&mut guest, PAGE, 7), Value(7));
            }
            guest.protect(PAGE, READ);
            assert_eq!(store(&mut guest, PAGE, 9), Fault { present: true }, "dirty: {dirty}");
            assert!(matches!(load(&mut guest, PAGE), Value(_)));
            guest.protect(PAGE, Prot::empty());
            assert_eq!(load(&mut guest, PAGE), Fault { present: true });
            guest.unmap(PAGE);
        }
    }
}

#[test]
fn a_page_made_writable_takes_the_next_store_without_a_fault() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    for round in 0..20 {
        guest.map(PAGE, FREE, READ);
        assert!(matches!(load(&mut guest, PAGE), Value(_)));
        guest.protect(PAGE, WRITE);
        assert_eq!(store(&mut guest, PAGE, round), Value(round));
        assert_eq!(guest.read_u64(FREE, 0), round);
        guest.unmap(PAGE);
    }
}

#[test]
fn a_page_made_non_executable_refuses_the_next_fetch() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    guest.frames.write(Frame(FREE), 0, load_then_store());
    for _ in 0..10 {
        guest.map(PAGE, FREE, Prot::READ | Prot::EXEC);
        (guest.thread.regs.rip, guest.thread.regs.rdi) = (PAGE.0, DATA.0);
        guest.expect_syscall();
        guest.protect(PAGE, READ);
        guest.thread.regs.rip = PAGE.0;
        assert_eq!(guest.run(), Trap::PageFault { addr: PAGE, access: Access::Exec, present: true });
        guest.protect(PAGE, Prot::EXEC);
        guest.thread.regs.rip = PAGE.0;
        guest.expect_syscall();
    }
}

#[test]
fn a_replaced_frame_is_the_one_that_is_read_and_written() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    for round in 0..60u64 {
        let frame = FREE + (round % 3) as u32;
        guest.write_u64(frame, 0, round);
        guest.map(PAGE, frame, WRITE);
        assert_eq!(load(&mut guest, PAGE), Value(round));
        assert_eq!(store(&mut guest, PAGE, round << 32), Value(round << 32));
        assert_eq!(guest.read_u64(frame, 0), round << 32);
    }
}

#[test]
fn copy_on_write_between_two_spaces_keeps_them_apart() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    let parent = guest.space;
    for round in 0..20u64 {
        guest.space = parent;
        guest.map(PAGE, FREE, WRITE);
        assert_eq!(store(&mut guest, PAGE, round), Value(round));
        // Fork: both map the frame read-only.
        let child = guest.new_space(load_then_store());
        guest.protect(PAGE, READ);
        guest.platform.map(child, PAGE, Mapping::clean(Frame(FREE), READ)).unwrap();
        guest.space = child;
        assert_eq!(load(&mut guest, PAGE), Value(round));
        assert_eq!(store(&mut guest, PAGE, 77), Fault { present: true });
        guest.frames.copy(Frame(FREE), Frame(FREE + 1));
        guest.map(PAGE, FREE + 1, WRITE);
        assert_eq!(store(&mut guest, PAGE, 77), Value(77));
        guest.space = parent;
        assert_eq!(load(&mut guest, PAGE), Value(round));
        assert_eq!(store(&mut guest, PAGE, 88), Fault { present: true });
        guest.protect(PAGE, WRITE);
        assert_eq!(store(&mut guest, PAGE, 88), Value(88));
        guest.space = child;
        assert_eq!(load(&mut guest, PAGE), Value(77));
        guest.space = parent;
        guest.platform.destroy_space(child);
        assert_eq!(load(&mut guest, PAGE), Value(88));
    }
}

#[test]
fn a_change_to_a_space_that_is_not_running_holds_when_it_runs_next() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    let first = guest.space;
    let second = guest.new_space(load_then_store());
    for round in 0..20u64 {
        for space in [first, second] {
            guest.space = space;
            guest.map(PAGE, FREE, WRITE);
            assert_eq!(store(&mut guest, PAGE, round), Value(round));
        }
        guest.space = first;
        guest.unmap(PAGE);
        guest.space = second;
        assert_eq!(load(&mut guest, PAGE), Value(round), "the other space keeps its mapping");
        guest.space = first;
        assert_eq!(load(&mut guest, PAGE), Fault { present: false });
    }
}

#[test]
fn thousands_of_short_lived_spaces_never_see_each_others_memory() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    guest.platform.destroy_space(guest.space);
    let mut alive: Vec<(SpaceId, u64)> = Vec::new();
    for round in 0..3000u64 {
        let space = guest.new_space(load_then_store());
        guest.space = space;
        let frame = FREE + (round % 7) as u32;
        // The address differs too, so that tables of one space become upper tables of another.
        let addr = UserAddr(0x1000_0000_0000 + ((round % 13) << 30) + ((round % 5) << 21));
        guest.write_u64(frame, 0, round);
        guest.map(addr, frame, WRITE);
        assert_eq!(load(&mut guest, addr), Value(round));
        assert_eq!(store(&mut guest, addr, !round), Value(!round));
        assert_eq!(guest.read_u64(frame, 0), !round);
        for other in [0x1000_0000_0000, 0x1000_4000_0000, PAGE.0].map(UserAddr) {
            if other != addr {
                assert_eq!(load(&mut guest, other), Fault { present: false }, "round {round}");
            }
        }
        alive.push((space, addr.0));
        if alive.len() > 20 {
            let (oldest, _) = alive.remove(0);
            guest.platform.destroy_space(oldest);
        }
        // An older space that is still there.
        if let Some((space, addr)) = alive.get(3) {
            guest.space = *space;
            assert!(matches!(load(&mut guest, UserAddr(*addr)), Value(_)));
        }
    }
}

#[test]
fn tables_that_have_become_empty_are_used_again_while_their_space_lives() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    // One page in each of more 2 MiB regions than the table zone has frames.
    for round in 0..10_000u64 {
        let addr = UserAddr(0x1000_0000_0000 + (round << 21));
        guest.write_u64(FREE, 0, round);
        guest.map(addr, FREE, WRITE);
        if round % 16 == 0 {
            assert_eq!(load(&mut guest, addr), Value(round));
            assert_eq!(store(&mut guest, addr, 1), Value(1));
        }
        guest.unmap(addr);
    }
    assert!(matches!(load(&mut guest, DATA), Value(_)));
}

#[test]
fn a_space_that_fills_the_table_zone_is_told_and_the_rest_goes_on() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    let hungry = guest.platform.create_space().unwrap();
    let refused = (0..1 << 20).find_map(|number: u64| {
        let addr = UserAddr(0x1000_0000_0000 + (number << 21));
        guest.platform.map(hungry, addr, Mapping::clean(Frame(FREE), READ)).err()
    });
    assert!(matches!(refused, Some(lg_platform::PlatformError::OutOfTables)));
    assert!(guest.platform.create_space().is_err());
    assert!(matches!(load(&mut guest, DATA), Value(_)));
    guest.platform.destroy_space(hungry);
    guest.map(PAGE, FREE, READ);
    assert!(matches!(load(&mut guest, PAGE), Value(_)));
}

/// Takes away so many pages whose frames are `apart`, in a guest of 8 MiB.
fn take_scattered_pages_away(pages: usize, apart: u32) {
    let Some(mut guest) = guest_with(KvmConfig::new(8 << 20), load_then_store()) else { return };
    for index in 0..pages {
        let frame = FREE + 1 + index as u32 * apart;
        guest.write_u64(frame, 0, index as u64);
        guest.map(page_at(PAGE, index), frame, WRITE);
        assert_eq!(store(&mut guest, page_at(PAGE, index), index as u64), Value(index as u64));
    }
    let mut removed = 0;
    guest.platform.unmap(guest.space, page_range(PAGE, pages), &mut |addr, mapping| {
        assert_eq!(addr, page_at(PAGE, removed));
        assert!(mapping.dirty);
        removed += 1;
    });
    assert_eq!(removed, pages);
    for index in 0..pages {
        assert_eq!(load(&mut guest, page_at(PAGE, index)), Fault { present: false });
    }
    assert!(matches!(load(&mut guest, DATA), Value(_)));
}

#[test]
fn scattered_pages_can_be_taken_away_at_once() {
    take_scattered_pages_away(200, 8);
}

#[test]
fn so_many_scattered_pages_that_all_memory_is_invalidated_can_be_taken_away_at_once() {
    take_scattered_pages_away(280, 7);
}

#[test]
fn a_mapping_is_dirty_only_after_a_store_through_it() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    let dirty = |guest: &Guest| guest.platform.lookup(guest.space, PAGE).unwrap().dirty;
    for _ in 0..10 {
        guest.map(PAGE, FREE, WRITE);
        assert!(!dirty(&guest));
        load(&mut guest, PAGE);
        assert!(!dirty(&guest));
        store(&mut guest, PAGE, 1);
        assert!(dirty(&guest));
        guest.protect(PAGE, READ);
        assert!(dirty(&guest));
    }
}

#[test]
fn what_was_mapped_beside_a_page_that_was_touched_can_be_taken_away() {
    const PAGES: usize = 16;
    let Some(mut guest) = guest(load_then_store()) else { return };
    for round in 0..40u64 {
        let dirty = round % 2 == 0;
        for index in 0..PAGES {
            let frame = FREE + index as u32;
            guest.write_u64(frame, 0, round);
            let mapping = Mapping { dirty, ..Mapping::clean(Frame(frame), WRITE) };
            guest.platform.map(guest.space, page_at(PAGE, index), mapping).unwrap();
        }
        let touched = page_at(PAGE, round as usize % PAGES);
        assert_eq!(store(&mut guest, touched, !round), Value(!round));
        let dirty_pages = (0..PAGES)
            .filter(|index| guest.platform.lookup(guest.space, page_at(PAGE, *index)).unwrap().dirty)
            .count();
        assert_eq!(dirty_pages, if dirty { PAGES } else { 1 });
        match round % 3 {
            0 => guest.platform.unmap(guest.space, page_range(PAGE, PAGES), &mut |_, _| {}),
            1 => guest.platform.protect(guest.space, page_range(PAGE, PAGES), &mut |_, _| READ),
            _ => (0..PAGES).for_each(|index| {
                let frame = FREE + (PAGES + index) as u32;
                guest.write_u64(frame, 0, 1000 + round);
                guest.map(page_at(PAGE, index), frame, WRITE);
            }),
        }
        for index in 0..PAGES {
            let page = page_at(PAGE, index);
            match round % 3 {
                0 => assert_eq!(load(&mut guest, page), Fault { present: false }),
                1 => assert_eq!(store(&mut guest, page, 1), Fault { present: true }),
                _ => assert_eq!(load(&mut guest, page), Value(1000 + round)),
            }
        }
    }
}

#[test]
fn a_walk_over_all_of_user_space_finds_just_what_is_mapped() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    let all = UserRange::new(UserAddr(0), lg_platform::USER_END);
    let last = UserAddr(lg_platform::USER_END.0 - 4096);
    guest.map(UserAddr(0), FREE, Prot::empty());
    guest.map(last, FREE, Prot::EXEC);
    let mut found = Vec::new();
    guest.platform.visit(guest.space, all, &mut |addr, mapping| found.push((addr, mapping.prot)));
    assert_eq!(found.first(), Some(&(UserAddr(0), Prot::empty())));
    assert_eq!(found.last(), Some(&(last, Prot::EXEC)));
    assert_eq!(found.len(), 5);
    let start = now_ns();
    let mut count = 0;
    guest.platform.unmap(guest.space, all, &mut |_, _| count += 1);
    assert_eq!(count, 5);
    assert!(now_ns() - start < 100_000_000, "empty tables are skipped");
}

#[test]
fn a_discarded_frame_reads_as_zero_in_the_guest() {
    let Some(mut guest) = guest(load_then_store()) else { return };
    guest.map(PAGE, FREE, WRITE);
    assert_eq!(store(&mut guest, PAGE, 5), Value(5));
    guest.frames.discard(FREE..FREE + 1);
    assert_eq!(load(&mut guest, PAGE), Value(0));
    assert_eq!(store(&mut guest, PAGE, 6), Value(6));
    assert_eq!(guest.read_u64(FREE, 0), 6);
}
