//! Text from outside in lines of our own: [`printable`], [`printable_json`].
//!
//! Names and messages may come from a guest, or from whoever made a file on the host. What a terminal takes for a
//! command (ECMA-48, "Control functions") must not reach it as part of a message of ours.

use std::borrow::Cow;

/// The text with its control characters (C0, DEL and C1, line ends among them) written as in a string of Rust's: `\n`,
/// `\u{1b}`.
///
/// ```
/// assert_eq!(lg_control::printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| character.is_control(),
        |character, into| into.extend(character.escape_default()),
    )
}

/// A JSON text with the control characters escaped that JSON lets stand (RFC 8259, section 7): DEL and C1. Its line ends
/// stay.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    let is_left_raw =
        |character: char| character.is_control() && !character.is_ascii() || character == '\x7f';
    escaped(text, is_left_raw, |character, into| into.push_str(&format!("\\u{:04x}", u32::from(character))))
}

fn escaped(text: &str, is_escaped: fn(char) -> bool, escape: fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_escaped(character) {
            escape(character, &mut safe);
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_is_left_and_all_else_stays() {
        assert!(matches!(printable("größe: 4 KiB, “fine”"), Cow::Borrowed("größe: 4 KiB, “fine”")));
        for number in (0..0x20).chain(0x7f..0xa0) {
            let character = char::from_u32(number).unwrap();
            let safe = printable(&format!("a{character}b")).into_owned();
            assert!(safe.starts_with("a\\") && safe.ends_with('b') && safe.len() > 3, "{safe:?}");
            assert!(!safe.contains(char::is_control), "{safe:?}");
        }
    }

    #[test]
    fn json_stays_what_it_says() {
        let value = serde_json::json!({ "a\u{7f}": "b\u{9b}31m\u{1b}\n" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        assert!(text.contains('\u{9b}'));
        let safe = printable_json(&text);
        assert!(!safe.contains(|character: char| character.is_control() && character != '\n'), "{safe:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }
}
