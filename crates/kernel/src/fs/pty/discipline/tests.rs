//! What the discipline does with keys, settings and output.

use lg_abi::Termios;

use super::*;

fn typed(discipline: &mut Discipline, keys: &[u8]) -> Vec<Key> {
    keys.iter().filter_map(|key| discipline.input(*key)).collect()
}

fn shown(discipline: &mut Discipline) -> String {
    let mut buf = vec![0; 10_000];
    let count = discipline.take_output(&mut buf);
    String::from_utf8_lossy(&buf[..count]).into_owned()
}

fn line(discipline: &mut Discipline) -> Option<String> {
    let mut buf = [0; 5000];
    let count = discipline.read(&mut buf)?;
    Some(String::from_utf8_lossy(&buf[..count]).into_owned())
}

fn raw() -> Discipline {
    let mut discipline = Discipline::default();
    let mut settings = *discipline.settings();
    settings.c_lflag = 0;
    settings.c_iflag = 0;
    settings.c_oflag = 0;
    discipline.set_settings(settings);
    discipline
}

#[test]
fn a_line_can_be_read_once_it_is_finished() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"ab");
    assert!(!tty.is_readable() && line(&mut tty).is_none());
    typed(&mut tty, b"c\rnext");
    assert!(tty.is_readable());
    assert_eq!(line(&mut tty).as_deref(), Some("abc\n"));
    assert!(!tty.is_readable());
    assert_eq!(shown(&mut tty), "abc\r\nnext");
}

#[test]
fn a_read_takes_no_more_than_one_line_and_leaves_what_does_not_fit() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"hello\nworld\n");
    let mut buf = [0; 3];
    assert_eq!(tty.read(&mut buf), Some(3));
    assert_eq!(&buf, b"hel");
    assert_eq!(line(&mut tty).as_deref(), Some("lo\n"));
    assert_eq!(line(&mut tty).as_deref(), Some("world\n"));
}

#[test]
fn the_end_of_file_key_ends_a_line_without_a_character() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"ab\x04\x04");
    assert_eq!(line(&mut tty).as_deref(), Some("ab"));
    assert_eq!(line(&mut tty).as_deref(), Some(""));
    assert_eq!(line(&mut tty), None);
}

#[test]
fn editing_keys_change_the_line_and_what_is_shown() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"abx\x7fc one two\x17\n");
    assert_eq!(line(&mut tty).as_deref(), Some("abc one \n"));
    assert!(shown(&mut tty).starts_with("abx\x08 \x08c one two\x08 \x08"));
    typed(&mut tty, b"gone\x15kept\n");
    assert_eq!(line(&mut tty).as_deref(), Some("kept\n"));
    typed(&mut tty, b"\x7f\x17\x15a\n");
    assert_eq!(line(&mut tty).as_deref(), Some("a\n"));
}

#[test]
fn erasing_a_tab_or_a_control_character_wipes_all_that_it_took() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"a\t\x7f");
    assert_eq!(shown(&mut tty), format!("a\t{}", "\x08".repeat(7)));
    typed(&mut tty, b"\x16\x01\x7f");
    assert_eq!(shown(&mut tty), "^\x08^A\x08 \x08\x08 \x08");
}

#[test]
fn keys_of_signals_come_out_and_throw_input_away() {
    let mut tty = Discipline::default();
    assert_eq!(typed(&mut tty, b"lost\x03"), [Key::Interrupt]);
    assert_eq!(shown(&mut tty), "^C");
    assert_eq!(typed(&mut tty, b"\x1c\x1a"), [Key::Quit, Key::Suspend]);
    typed(&mut tty, b"kept\n");
    assert_eq!(line(&mut tty).as_deref(), Some("kept\n"));
}

#[test]
fn the_literal_key_takes_the_next_one_as_it_is() {
    let mut tty = Discipline::default();
    assert_eq!(typed(&mut tty, b"\x16\x03\x16\x7f\n"), []);
    assert_eq!(line(&mut tty).as_deref(), Some("\x03\x7f\n"));
}

#[test]
fn raw_mode_changes_nothing() {
    let mut tty = raw();
    assert_eq!(typed(&mut tty, b"\x03\r\n\x04"), []);
    assert_eq!(line(&mut tty).as_deref(), Some("\x03\r\n\x04"));
    assert_eq!(tty.output(b"a\nb"), 3);
    assert_eq!(shown(&mut tty), "a\nb");
}

#[test]
fn what_was_typed_survives_a_change_of_mode() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"one\ntwo");
    let canonical = *tty.settings();
    tty.set_settings(*raw().settings());
    assert_eq!(tty.readable_len(), 7);
    tty.set_settings(canonical);
    assert_eq!(line(&mut tty).as_deref(), Some("one\ntwo"));
}

#[test]
fn output_is_held_back_by_its_key_and_bounded() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"\x13");
    assert_eq!(tty.output(b"x"), 0);
    typed(&mut tty, b"\x11");
    let taken = tty.output(&[b'x'; 10_000]);
    assert!(taken < OUTPUT_BYTES && !tty.has_output_room());
    shown(&mut tty);
    assert!(tty.has_output_room());
}

#[test]
fn a_line_without_an_end_is_cut_and_its_end_is_still_heard() {
    let mut tty = Discipline::default();
    for _ in 0..3 * INPUT_BYTES {
        assert!(tty.input_room() > 0);
        tty.input(b'x');
    }
    tty.input(b'\n');
    assert_eq!(line(&mut tty).unwrap().len(), INPUT_BYTES);
    assert!(shown(&mut tty).len() <= ECHO_BYTES);
}

#[test]
fn raw_input_waits_when_it_is_full() {
    let mut tty = raw();
    let mut count = 0;
    while tty.input_room() > 0 {
        tty.input(b'x');
        count += 1;
    }
    assert_eq!(count, INPUT_BYTES - 1);
}

proptest::proptest! {
    #[test]
    fn no_input_and_no_settings_make_it_grow_or_fail(
        steps in proptest::collection::vec(
            (proptest::prelude::any::<(u32, u32, u32, [u8; 19])>(), proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)),
            0..12,
        )
    ) {
        let mut tty = Discipline::default();
        for ((c_iflag, c_oflag, c_lflag, c_cc), bytes) in steps {
            tty.set_settings(Termios { c_iflag, c_oflag, c_lflag, c_cc, ..Termios::default() });
            for byte in &bytes {
                if tty.input_room() > 0 {
                    tty.input(*byte);
                }
            }
            tty.output(&bytes);
            proptest::prop_assert!(tty.input_len() <= INPUT_BYTES);
            proptest::prop_assert!(tty.output_bytes() <= ECHO_BYTES + TAB);
            tty.read(&mut [0; 7]);
        }
    }
}

#[test]
fn erased_characters_are_shown_between_a_backslash_and_a_slash() {
    let mut tty = Discipline::default();
    let settings = *tty.settings();
    tty.set_settings(Termios { c_lflag: settings.c_lflag | linux::ECHOPRT, ..settings });
    typed(&mut tty, b"abc\x7f\x7fx\n");
    assert_eq!(shown(&mut tty), "abc\\cb/x\r\n");
    assert_eq!(line(&mut tty).as_deref(), Some("ax\n"));
}

#[test]
fn a_character_of_several_bytes_is_erased_as_one() {
    let mut tty = Discipline::default();
    let settings = *tty.settings();
    tty.set_settings(Termios { c_iflag: settings.c_iflag | linux::IUTF8, ..settings });
    typed(&mut tty, "a\u{e4}\u{20ac}\x7f\n".as_bytes());
    assert_eq!(line(&mut tty).as_deref(), Some("a\u{e4}\n"));
    assert_eq!(shown(&mut tty), "a\u{e4}\u{20ac}\x08 \x08\r\n");
}

#[test]
fn what_is_typed_while_output_is_held_back_is_shown_later() {
    let mut tty = Discipline::default();
    typed(&mut tty, b"\x13abc");
    assert_eq!(shown(&mut tty), "");
    typed(&mut tty, b"\x11");
    assert_eq!(shown(&mut tty), "abc");
}

#[test]
fn a_key_does_not_let_go_on_what_a_program_holds_back() {
    let mut tty = Discipline::default();
    tty.stop_by_program();
    typed(&mut tty, b"\x11");
    assert_eq!(tty.output(b"x"), 0);
    tty.start_by_program();
    assert_eq!(tty.output(b"x"), 1);
    typed(&mut tty, b"\x13");
    tty.start_by_program();
    assert_eq!(tty.output(b"x"), 0);
}

#[test]
fn external_processing_takes_all_keys_as_they_are() {
    let mut tty = Discipline::default();
    let settings = *tty.settings();
    tty.set_settings(Termios { c_lflag: (settings.c_lflag | linux::EXTPROC) & !linux::ICANON, ..settings });
    assert_eq!(typed(&mut tty, b"\x03\r\x7f"), []);
    assert_eq!(line(&mut tty).as_deref(), Some("\x03\r\x7f"));
    assert_eq!(shown(&mut tty), "");
}
