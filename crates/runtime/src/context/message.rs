//! The host's side of what it and a driver say to each other: one JSON object on one line, either way.
//!
//! [`DriverRequest`] is written. What is read goes through a [`LineBuffer`], which makes lines of bytes, and
//! [`DriverMessage::decode`], which makes a message of a line.
//!
//! Whatever comes from a driver is a guest's word: a cell can write anything to the driver's descriptor. A line has
//! a limit, and what is made of it takes no more memory than the line did, give or take: a JSON representation stays
//! text until somebody asks for it, and the number of representations has a limit too.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// The longest line that is taken from a driver, in bytes without its newline. The driver keeps to half of that.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 20;
/// The most representations of one object. The driver keeps to half of that.
const MAX_MIMES: usize = 64;
/// What a buffer may keep for the next line, in bytes.
const KEPT_BYTES: usize = 64 << 10;

const PICTURES: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a driver is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriverRequest<'a> {
    /// Evaluate a cell. Its answers carry the same id.
    Cell { id: u64, source: &'a str },
    /// This VM has just been forked: draw fresh randomness. Not answered.
    Fork,
}

impl DriverRequest<'_> {
    /// The request as a line, with its newline.
    pub(crate) fn encode(self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Cell<'a> {
            id: u64,
            cell: &'a str,
        }
        match self {
            Self::Cell { id, source } => {
                let mut line = serde_json::to_vec(&Cell { id, cell: source })
                    .expect("a number and a string are always JSON");
                line.push(b'\n');
                line
            }
            Self::Fork => b"{\"fork\":true}\n".to_vec(),
        }
    }
}

/// What a driver says.
///
/// A cell's answers are any number of [`Display`](Self::Display) and then one [`Result`](Self::Result) or
/// [`Error`](Self::Error) with its id. A thread that outlives its cell may display later, under the id of the latest cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DriverMessage {
    /// The first message: requests are read from now on.
    Ready {
        /// The version of the interpreter, as in `3.11.2`.
        python: String,
    },
    /// A cell showed an object.
    Display { id: u64, data: Representation },
    /// The end of a cell. There is no representation if its last statement has no value, or None.
    Result { id: u64, data: Option<Representation> },
    /// The end of a cell by an exception; without an id, the answer to a request that the driver does not know.
    Error { id: Option<u64>, error: CellError },
}

/// Why a line of a driver is not a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// Not JSON, or not of the right shape.
    #[error("the driver wrote a line that is no message; a cell may have written to its descriptor 4")]
    Shape(#[source] serde_json::Error),
    /// A message is ready, display, result or error, and only one of these.
    #[error("the driver wrote a message that says {0} things, and not one")]
    NotOneThing(usize),
    /// A display or result belongs to a cell.
    #[error("the driver wrote a message that belongs to no cell")]
    NoId,
}

/// All that a line can have.
#[derive(Deserialize)]
struct Line {
    id: Option<u64>,
    ready: Option<bool>,
    python: Option<String>,
    display: Option<Representation>,
    /// `null` says something here, unlike a line without it.
    #[serde(default, deserialize_with = "present")]
    result: Option<Option<Representation>>,
    error: Option<CellError>,
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl DriverMessage {
    /// Decodes a line, with or without its newline. Members that are not known are skipped.
    pub(crate) fn decode(line: &[u8]) -> Result<Self, MessageError> {
        let line: Line = serde_json::from_slice(line).map_err(MessageError::Shape)?;
        let said =
            [line.ready == Some(true), line.display.is_some(), line.result.is_some(), line.error.is_some()];
        let said = said.into_iter().filter(|said| *said).count();
        if said != 1 {
            return Err(MessageError::NotOneThing(said));
        }
        if let Some(error) = line.error {
            return Ok(Self::Error { id: line.id, error });
        }
        if line.ready == Some(true) {
            return Ok(Self::Ready { python: line.python.unwrap_or_default() });
        }
        let id = line.id.ok_or(MessageError::NoId)?;
        Ok(match line.display {
            Some(data) => Self::Display { id, data },
            None => Self::Result { id, data: line.result.flatten() },
        })
    }
}

/// An object as a cell shows it: one or several forms of it, by MIME type.
///
/// It comes from code in a sandbox. Its HTML and SVG may contain scripts, and its pictures may be no pictures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Representation {
    /// Text as it is, pictures in base64, and the JSON types as the source of a JSON value.
    data: BTreeMap<String, String>,
}

impl Representation {
    /// `text/plain`: what `repr` makes of the object.
    pub fn text(&self) -> Option<&str> {
        self.get("text/plain")
    }

    /// `text/html`.
    pub fn html(&self) -> Option<&str> {
        self.get("text/html")
    }

    /// `image/svg+xml`.
    pub fn svg(&self) -> Option<&str> {
        self.get("image/svg+xml")
    }

    /// `text/markdown`.
    pub fn markdown(&self) -> Option<&str> {
        self.get("text/markdown")
    }

    /// `text/latex`.
    pub fn latex(&self) -> Option<&str> {
        self.get("text/latex")
    }

    /// `image/png`, decoded; none if it is not base64. What the bytes are is not looked at.
    pub fn png(&self) -> Option<Vec<u8>> {
        self.bytes("image/png")
    }

    /// `image/jpeg`, decoded; none if it is not base64. What the bytes are is not looked at.
    pub fn jpeg(&self) -> Option<Vec<u8>> {
        self.bytes("image/jpeg")
    }

    /// `application/json`. None also if the value is nested deeper than [`serde_json`] goes, 128 levels, or has a
    /// number that is out of the range of an `f64`; its source is in [`get`](Self::get) then.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_str(self.get("application/json")?).ok()
    }

    /// The form of one MIME type: text as it is, pictures in base64, and `application/json` (and `+json`) as JSON source.
    pub fn get(&self, mime: &str) -> Option<&str> {
        self.data.get(mime).map(String::as_str)
    }

    /// The MIME types there are, in alphabetical order.
    pub fn mimes(&self) -> impl Iterator<Item = &str> {
        self.data.keys().map(String::as_str)
    }

    fn bytes(&self, mime: &str) -> Option<Vec<u8>> {
        let text = self.get(mime)?;
        if text.contains(|c: char| c.is_ascii_whitespace()) {
            // Some encoders break lines.
            let text: String = text.split_ascii_whitespace().collect();
            return PICTURES.decode(text).ok();
        }
        PICTURES.decode(text).ok()
    }
}

fn is_json(mime: &str) -> bool {
    mime == "application/json" || mime.ends_with("+json")
}

impl<'de> Deserialize<'de> for Representation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RepresentationVisitor)
    }
}

struct RepresentationVisitor;

impl<'de> Visitor<'de> for RepresentationVisitor {
    type Value = Representation;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of MIME types and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Representation, A::Error> {
        let mut data = BTreeMap::new();
        while let Some(mime) = map.next_key::<String>()? {
            let value = if is_json(&mime) {
                map.next_value::<&RawValue>()?.get().to_owned()
            } else {
                map.next_value::<String>()?
            };
            data.insert(mime, value);
            if data.len() > MAX_MIMES {
                return Err(A::Error::custom(format_args!("more than {MAX_MIMES} MIME types")));
            }
        }
        Ok(Representation { data })
    }
}

/// The exception that ended a cell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{name}{}{value}", if value.is_empty() { "" } else { ": " })]
#[non_exhaustive]
pub struct CellError {
    /// The name of its class, as in `ZeroDivisionError`.
    pub name: String,
    /// What `str` makes of it.
    pub value: String,
    /// The traceback as Python prints it, in several lines, with those of chained exceptions. Cells are named `<cell ID>`.
    pub traceback: String,
}

/// A line of a driver is longer than [`MAX_LINE_BYTES`]. What follows cannot be understood any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the driver wrote a line of more than {MAX_LINE_BYTES} bytes")]
pub(crate) struct LineTooLong;

/// Makes lines of the bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// Up to where there is no newline after `start`.
    searched: usize,
    /// The length of the last line, which has no newline yet.
    open_len: usize,
}

impl LineBuffer {
    /// Takes more bytes of the stream. Take all lines out before the next call, so that no more than a line is ever kept.
    ///
    /// # Errors
    ///
    /// If a line becomes too long: now, and at every later call.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        if self.open_len > MAX_LINE_BYTES {
            return Err(LineTooLong);
        }
        let mut segments = bytes.split(|byte| *byte == b'\n').map(<[u8]>::len);
        self.open_len += segments.next().unwrap_or(0);
        for len in segments {
            if self.open_len > MAX_LINE_BYTES {
                break;
            }
            self.open_len = len;
        }
        if self.open_len > MAX_LINE_BYTES {
            self.bytes = Vec::new();
            (self.start, self.searched) = (0, 0);
            return Err(LineTooLong);
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
            if self.bytes.len() < KEPT_BYTES {
                self.bytes.shrink_to(KEPT_BYTES);
            }
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole line, without its newline.
    pub(crate) fn next_line(&mut self) -> Option<&[u8]> {
        let Some(len) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let line = self.start..self.searched + len;
        self.start = line.end + 1;
        self.searched = self.start;
        Some(&self.bytes[line])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn decode(line: &str) -> Result<DriverMessage, String> {
        DriverMessage::decode(line.as_bytes()).map_err(|error| error.to_string())
    }

    fn representation(value: serde_json::Value) -> Representation {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    fn lines(buffer: &mut LineBuffer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| buffer.next_line().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn each_kind_of_message_is_known() {
        let plain = representation(json!({"text/plain": "42"}));
        let error = CellError { name: "E".into(), value: "v".into(), traceback: "t\n".into() };
        for (line, message) in [
            (r#"{"ready":true,"python":"3.11.2"}"#, DriverMessage::Ready { python: "3.11.2".into() }),
            (
                r#"{"id":1,"display":{"text/plain":"42"}}"#,
                DriverMessage::Display { id: 1, data: plain.clone() },
            ),
            (r#"{"id":2,"result":{"text/plain":"42"}}"#, DriverMessage::Result { id: 2, data: Some(plain) }),
            (
                r#"{"id":18446744073709551615,"result":null}"#,
                DriverMessage::Result { id: u64::MAX, data: None },
            ),
            (
                r#"{"id":3,"error":{"name":"E","value":"v","traceback":"t\n"}}"#,
                DriverMessage::Error { id: Some(3), error: error.clone() },
            ),
            (
                r#"{"error":{"name":"E","value":"v","traceback":"t\n","more":[]}}"#,
                DriverMessage::Error { id: None, error },
            ),
        ] {
            assert_eq!(decode(line), Ok(message), "{line}");
        }
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for (line, expected) in [
            ("", "no message"),
            ("42", "no message"),
            ("[]", "no message"),
            ("{", "no message"),
            (r#"{"id":-1,"result":null}"#, "no message"),
            (r#"{"id":1,"result":{"text/plain":7}}"#, "no message"),
            (r#"{"id":1,"display":[]}"#, "no message"),
            (r#"{"id":1,"error":{"name":"E"}}"#, "no message"),
            (r#"{"id":1,"id":1,"result":null}"#, "no message"),
            ("{}", "0 things"),
            (r#"{"ready":false}"#, "0 things"),
            (r#"{"id":1,"display":null}"#, "0 things"),
            (r#"{"ready":true,"id":1,"result":null}"#, "2 things"),
            (r#"{"result":null}"#, "no cell"),
            (r#"{"display":{}}"#, "no cell"),
        ] {
            let error = decode(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn too_many_mime_types_are_an_error() {
        let message = |count: usize| {
            let data: Vec<String> = (0..count).map(|i| format!(r#""text/x{i}":"""#)).collect();
            decode(&format!(r#"{{"id":1,"display":{{{}}}}}"#, data.join(",")))
        };
        assert!(message(MAX_MIMES).is_ok());
        assert!(message(MAX_MIMES + 1).is_err());
    }

    #[test]
    fn a_representation_gives_each_form() {
        let shown = representation(json!({
            "text/plain": "p", "text/html": "<b>", "image/svg+xml": "<svg/>", "text/markdown": "*m*",
            "text/latex": "$l$", "image/png": "iVBO\nRw==", "image/jpeg": "/9g", "application/json": {"a": [1, null]},
            "application/x+json": "s",
        }));
        assert_eq!(shown.text(), Some("p"));
        assert_eq!(shown.html(), Some("<b>"));
        assert_eq!(shown.svg(), Some("<svg/>"));
        assert_eq!(shown.markdown(), Some("*m*"));
        assert_eq!(shown.latex(), Some("$l$"));
        assert_eq!(shown.png(), Some(b"\x89PNG".to_vec()));
        assert_eq!(shown.jpeg(), Some(b"\xff\xd8".to_vec()));
        assert_eq!(shown.json(), Some(json!({"a": [1, null]})));
        assert_eq!(shown.get("application/json"), Some(r#"{"a":[1,null]}"#));
        assert_eq!(shown.get("application/x+json"), Some(r#""s""#));
        assert_eq!(shown.mimes().count(), 9);
        let nothing = Representation::default();
        assert_eq!((nothing.text(), nothing.png(), nothing.json()), (None, None, None));
    }

    #[test]
    fn data_that_is_not_what_it_says_is_none() {
        let shown = representation(json!({"image/png": "!", "image/jpeg": "a"}));
        assert_eq!((shown.png(), shown.jpeg()), (None, None));
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let huge = "9".repeat(1000);
        for json in [deep.as_str(), &huge, r#""\ud800""#] {
            let line = format!(r#"{{"id":1,"display":{{"application/json":{json}}}}}"#);
            let Ok(DriverMessage::Display { data, .. }) = decode(&line) else { panic!("{line}") };
            assert_eq!((data.json(), data.get("application/json")), (None, Some(json)));
        }
    }

    #[test]
    fn an_error_reads_as_python_prints_it() {
        let error =
            |value: &str| CellError { name: "E".into(), value: value.into(), traceback: String::new() };
        assert_eq!(error("v").to_string(), "E: v");
        assert_eq!(error("").to_string(), "E");
    }

    #[test]
    fn a_request_is_one_line() {
        let line = DriverRequest::Cell { id: 7, source: "print('a')\n\u{2028}\"" }.encode();
        assert_eq!(line, "{\"id\":7,\"cell\":\"print('a')\\n\u{2028}\\\"\"}\n".as_bytes());
        assert_eq!(DriverRequest::Fork.encode(), b"{\"fork\":true}\n");
    }

    #[test]
    fn a_line_at_the_limit_passes_and_a_longer_one_never_ends() {
        let mut buffer = LineBuffer::default();
        let half = vec![b'a'; MAX_LINE_BYTES / 2];
        buffer.push(&half).unwrap();
        buffer.push(&half).unwrap();
        assert_eq!(buffer.next_line(), None);
        buffer.push(b"\nb\n").unwrap();
        assert_eq!(buffer.next_line().map(<[u8]>::len), Some(MAX_LINE_BYTES));
        assert_eq!(buffer.next_line(), Some(&b"b"[..]));
        buffer.push(&half).unwrap();
        assert!(buffer.bytes.capacity() <= MAX_LINE_BYTES);
        buffer.push(&half).unwrap();
        assert_eq!(buffer.push(b"a\nb\n"), Err(LineTooLong));
        assert_eq!(buffer.next_line(), None);
        assert_eq!(buffer.push(b"\n"), Err(LineTooLong));
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_arrive(
            text in "[ab\n]{0,200}",
            sizes in proptest::collection::vec(1_usize..20, 1..20),
            drains in proptest::collection::vec(any::<bool>(), 1..20),
        ) {
            let mut expected: Vec<&str> = text.split('\n').collect();
            expected.pop();
            let mut buffer = LineBuffer::default();
            let mut found = Vec::new();
            let mut rest = text.as_bytes();
            let mut steps = sizes.iter().cycle().zip(drains.iter().cycle());
            while !rest.is_empty() {
                let (size, drain) = steps.next().unwrap();
                let (now, later) = rest.split_at(rest.len().min(*size));
                buffer.push(now).unwrap();
                if *drain {
                    found.extend(lines(&mut buffer));
                }
                rest = later;
            }
            found.extend(lines(&mut buffer));
            prop_assert_eq!(found, expected.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut buffer = LineBuffer::default();
            buffer.push(&bytes).unwrap();
            while let Some(line) = buffer.next_line() {
                let _ = DriverMessage::decode(line);
            }
            let _ = DriverMessage::decode(&bytes);
        }

        #[test]
        fn a_message_with_any_data_gives_what_it_can(
            mime in "(image/png|application/json|text/plain|[a-z/+]{0,12})",
            data in r#"([\[\]{}",:0-9a-z\\ ]{0,40}|"[A-Za-z0-9+/=\\u]{0,40}")"#,
            kind in "(display|result|error|ready)",
        ) {
            let line = format!(r#"{{"id":1,"{kind}":{{"{mime}":{data}}}}}"#);
            if let Ok(DriverMessage::Display { data, .. } | DriverMessage::Result { data: Some(data), .. }) =
                DriverMessage::decode(line.as_bytes())
            {
                let _ = (data.png(), data.jpeg(), data.json(), data.text(), data.get(&mime));
            }
        }

        #[test]
        fn a_request_says_what_it_was_given(id in any::<u64>(), source in any::<String>()) {
            let line = DriverRequest::Cell { id, source: &source }.encode();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(value, json!({"id": id, "cell": source}));
        }
    }
}
