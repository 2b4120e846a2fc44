//! `#!` scripts.

use lg_abi::Errno;

/// How much of a file is looked at for `#!` (Linux's BINPRM_BUF_SIZE).
pub const HEAD_LEN: usize = 256;

/// The interpreter line of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// The interpreter's path.
    pub interpreter: Vec<u8>,
    /// All that follows it, as one argument (execve(2)).
    pub argument: Option<Vec<u8>>,
}

/// Returns the interpreter line of a file that starts with `head`, or `None` where it is no script.
///
/// Errors: ENOEXEC for a line without an interpreter, or with one that `head` cuts off.
pub fn parse_script(head: &[u8]) -> Result<Option<Script>, Errno> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    let end = rest.iter().position(|byte| *byte == b'\n');
    let line = trim_blanks(&rest[..end.unwrap_or(rest.len())]);
    let split = line.iter().position(|byte| matches!(byte, b' ' | b'\t' | 0));
    let cut_off = end.is_none() && head.len() >= HEAD_LEN;
    if line.is_empty() || (split.is_none() && cut_off) {
        return Err(Errno::ENOEXEC);
    }
    let (interpreter, argument) = match split {
        None => (line, &line[..0]),
        Some(at) => (&line[..at], trim_blanks(&line[at..])),
    };
    let argument = argument.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(Script {
        interpreter: interpreter.to_vec(),
        argument: (!argument.is_empty()).then(|| argument.to_vec()),
    }))
}

/// Takes spaces and tabs off both ends; a carriage return is part of the name, as on Linux.
fn trim_blanks(mut line: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_line_has_an_interpreter_and_at_most_one_argument() {
        let cases: &[(&[u8], Result<Option<(&[u8], Option<&[u8]>)>, Errno>)] = &[
            (b"\x7fELF", Ok(None)),
            (b"#!/bin/sh\n", Ok(Some((b"/bin/sh", None)))),
            (b"#! /usr/bin/env  -S a b \nrest", Ok(Some((b"/usr/bin/env", Some(b"-S a b"))))),
            (b"#!/bin/sh", Ok(Some((b"/bin/sh", None)))),
            (b"#!/bin/sh\r\n", Ok(Some((b"/bin/sh\r", None)))),
            (b"#!\n", Err(Errno::ENOEXEC)),
            (b"#!   \n", Err(Errno::ENOEXEC)),
            (&[b"#!/".as_slice(), &[b'x'; 300]].concat()[..HEAD_LEN], Err(Errno::ENOEXEC)),
        ];
        for (head, expected) in cases {
            let found = parse_script(head).map(|script| script.map(|s| (s.interpreter, s.argument)));
            let expected = (*expected).map(|script| script.map(|(i, a)| (i.to_vec(), a.map(<[u8]>::to_vec))));
            assert_eq!(found, expected, "{}", head.escape_ascii());
        }
    }
}
