//! The control protocol: frames that a compromised peer sends, in both directions.

#![no_main]

use lg_control::{Call, Event, MAX_PAYLOAD_BYTES};
use libfuzzer_sys::fuzz_target;

/// Before each payload.
const HEADER_BYTES: usize = 12;

fuzz_target!(|bytes: &[u8]| {
    // What is taken for a message is the same message when it is sent on.
    if let Ok(call) = lg_control::decode::<Call>(bytes) {
        let again = lg_control::encode(&call).expect("what came in a frame fits into one");
        let (_, payload) = again.split_at(HEADER_BYTES);
        assert_eq!(lg_control::decode::<Call>(payload).expect("our own encoding"), call);
        assert!(payload.len() <= MAX_PAYLOAD_BYTES);
    }
    if let Ok(event) = lg_control::decode::<Event>(bytes) {
        let again = lg_control::encode(&event).expect("what came in a frame fits into one");
        let (_, payload) = again.split_at(HEADER_BYTES);
        assert_eq!(lg_control::decode::<Event>(payload).expect("our own encoding"), event);
    }
});
